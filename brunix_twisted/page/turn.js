// One question and its answer on the page.

import { copyButton } from "./copy.js";
import { element } from "./dom.js";
import { inline, Prose } from "./markdown.js";
import { failed, measured } from "./words.js";

export class Turn {
  #text = "";
  #due = null;
  #notBefore = 0;

  // number  counted from 1
  // again() is called when the question is to be asked once more
  constructor(number, question, again) {
    this.again = again;
    this.waiting = element("p", { class: "waiting" }, "Waiting for the first words");
    this.answer = element("div", { class: "prose" });
    this.after = element("div", { class: "after" });
    this.prose = new Prose(this.answer, (source) => `source-${number}-${source}`);
    this.anchor = this.prose.anchor;
    this.element = element(
      "article",
      { class: "turn", "aria-labelledby": `turn-${number}` },
      element("h2", { class: "unseen", id: `turn-${number}` }, `Question ${number}`),
      element("p", { class: "question" }, question),
      element("h3", { class: "unseen" }, "Answer"),
      this.waiting,
      this.answer,
      this.after,
    );
  }

  get text() {
    return this.#text;
  }

  // A piece of the answer. It is shown with the next frame, together with what else has come by then.
  add(piece) {
    this.#text += piece;
    this.#due ??= requestAnimationFrame((now) => {
      this.#due = null;
      if (now < this.#notBefore) {
        this.add("");
        return;
      }
      this.#show(false);
      // A very long answer takes long to be read anew: leave the browser time for everything else.
      this.#notBefore = now + 3 * (performance.now() - now);
    });
  }

  #show(complete) {
    if (this.#text) this.waiting.remove();
    this.prose.show(this.#text, { complete });
    this.shown?.();
  }

  // The answer is complete.
  done(told) {
    this.#end();
    if (!this.#text) this.after.append(element("p", { class: "notice" }, "The engine had nothing to say."));
    if (told.finish === "length") this.after.append(element("p", { class: "notice" }, "The answer was cut off for its length."));
    this.#conclude(measured(told));
  }

  // The user has stopped it.
  stopped() {
    this.#end();
    this.after.append(
      element("p", { class: "notice" }, "Stopped. The engine does not remember this question in what follows."),
    );
    this.#conclude([]);
  }

  failed(failure) {
    this.#end();
    const { title, advice, details } = failed(failure);
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
    this.#conclude([]);
    return `${title} ${advice}`;
  }

  #end() {
    cancelAnimationFrame(this.#due);
    this.waiting.remove();
    this.#show(true);
    this.#showSources();
  }

  #conclude(words) {
    if (!this.#text) return;
    this.after.append(
      element(
        "div",
        { class: "foot" },
        element("p", { class: "measured" }, words.join(" · ")),
        copyButton("the answer", () => this.#text),
      ),
    );
  }

  #showSources() {
    const { sources } = this.prose;
    if (!sources.length) return;
    const list = element("ol");
    sources.forEach(({ file, headings, lines }, index) => {
      const where = element("span", { class: "where" });
      if (headings) where.append(inline(headings), ", ");
      where.append(lines);
      list.append(element("li", { id: this.anchor(index + 1) }, element("code", {}, file), " ", where));
    });
    this.after.append(element("section", { class: "sources" }, element("h3", {}, "Sources"), list));
  }
}
