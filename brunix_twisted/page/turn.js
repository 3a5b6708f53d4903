// One question and its answer on the page.

import { copyButton } from "./copy.js";
import { element } from "./dom.js";
import { inline, Prose } from "./markdown.js";
import { describeFailure, describeTiming } from "./messages.js";
import { listed } from "./sources.js";

export class Turn {
  #text = "";
  #due = null;
  #notBefore = 0;

  // number   counted from 1
  // again()  asks the question again
  constructor(number, question, again) {
    this.again = again;
    this.waiting = element("p", { class: "waiting" }, "Waiting for the answer");
    this.answer = element("div", { class: "prose" });
    this.after = element("div", { class: "after" });
    this.prose = new Prose(this.answer, (source) => `source-${number}-${source}`);
    this.anchor = this.prose.anchor;
    this.element = element(
      "article",
      { class: "turn", "aria-labelledby": `turn-${number}` },
      element("h2", { class: "visually-hidden", id: `turn-${number}` }, `Question ${number}`),
      element("p", { class: "question" }, question),
      element("h3", { class: "visually-hidden" }, "Answer"),
      this.waiting,
      this.answer,
      this.after,
    );
  }

  get text() {
    return this.#text;
  }

  // Adds a part of the answer. It is shown in the next frame, with everything added until then.
  add(delta) {
    this.#text += delta;
    this.#due ??= requestAnimationFrame((now) => {
      this.#due = null;
      if (now < this.#notBefore) {
        this.add("");
        return;
      }
      this.#show(false);
      // Parsing a very long answer takes long, so leave the browser time for everything else.
      this.#notBefore = now + 3 * (performance.now() - now);
    });
  }

  #show(complete) {
    if (this.#text) this.waiting.remove();
    this.prose.show(this.#text, { complete });
    this.shown?.();
  }

  // Shows that the answer is complete.
  done(result) {
    this.#end(result.annotations);
    if (!this.#text) this.after.append(element("p", { class: "notice" }, "The engine returned an empty answer."));
    if (result.finish === "length") this.after.append(element("p", { class: "notice" }, "The answer was truncated at its maximum length."));
    this.#showFooter(describeTiming(result));
  }

  // Shows that the user has stopped the answer.
  stopped() {
    this.#end();
    this.after.append(
      element("p", { class: "notice" }, "Stopped. The engine does not remember this question."),
    );
    this.#showFooter([]);
  }

  failed(failure) {
    this.#end();
    const { title, advice, details } = describeFailure(failure);
    this.after.append(
      element(
        "div",
        { class: "failure" },
        element("p", { class: "title" }, title),
        element("p", {}, advice),
        details.length ? element("p", { class: "details" }, details.join(" · ")) : null,
        element("button", { type: "button", class: "quiet", onclick: this.again }, "Ask again"),
      ),
    );
    this.#showFooter([]);
    return `${title} ${advice}`;
  }

  #end(annotations = []) {
    cancelAnimationFrame(this.#due);
    this.waiting.remove();
    this.#show(true);
    this.#showSources(annotations);
  }

  #showFooter(parts) {
    if (!this.#text) return;
    this.after.append(
      element(
        "div",
        { class: "footer" },
        element("p", { class: "timing" }, parts.join(" · ")),
        copyButton("the answer", () => this.#text),
      ),
    );
  }

  #showSources(annotations) {
    const sources = listed(this.prose.sources, annotations);
    if (!sources.length) return;
    const list = element("ol");
    sources.forEach(({ file, headings, lines, href }, index) => {
      const where = element("span", { class: "where" });
      if (headings) where.append(inline(headings), ", ");
      where.append(lines);
      const name = element("code", {}, file);
      const linked = href ? element("a", { href, rel: "noopener noreferrer", target: "_blank" }, name) : name;
      list.append(element("li", { id: this.anchor(index + 1) }, linked, " ", where));
    });
    this.after.append(element("section", { class: "sources" }, element("h3", {}, "Sources"), list));
  }
}
