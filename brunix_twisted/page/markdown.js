// Renders an answer's Markdown as elements, without HTML: the parser's tokens become elements of a few kinds, and
// everything else becomes text. So an answer cannot run scripts, load resources or imitate the page.

import { copyButton } from "./copy.js";
import { element } from "./dom.js";
import { citation, mayBecomeCitation } from "./sources.js";
import MarkdownIt from "./vendor/markdown-it.esm.min.mjs";

const parser = new MarkdownIt({ html: false, linkify: false, typographer: false });

const KINDS = new Set([
  "p", "h1", "h2", "h3", "h4", "h5", "h6", "ul", "ol", "li", "blockquote", "hr", "br", "em", "strong", "s", "code",
  "table", "thead", "tbody", "tr", "th", "td",
]);
const SCHEMES = new Set(["http:", "https:", "mailto:"]);

// The page's headings use the first three levels.
const FIRST_HEADING = 4;

// Shows a growing answer. Blocks that do not change keep their elements, so that a selection in them is kept.
export class Prose {
  #shown = [];

  // into       the element to fill
  // anchor(n)  the id of the n-th source in the list of sources
  constructor(into, anchor) {
    Object.assign(this, { into, anchor, sources: [] });
  }

  show(markdown, { complete }) {
    const tokens = parser.parse(markdown, {});
    const lines = markdown.split(/\r\n?|\n/);
    const levels = tokens.filter((token) => token.type === "heading_open").map((token) => Number(token.tag[1]));
    const lift = levels.length ? FIRST_HEADING - Math.min(...levels) : 0;
    const sources = [];
    const wanted = [];
    const found = blocks(tokens);
    found.forEach((block, index) => {
      const written = lines.slice(...block[0].map).join("\n");
      const isLast = index === found.length - 1 && !complete;
      if (block[0].type === "paragraph_open") {
        if (isLast && mayBecomeCitation(written)) return;
        const cited = isLast ? null : citation(written);
        if (cited) {
          const number = numbered(sources, cited);
          wanted.push({ key: `source ${number}`, make: () => this.#mark(number) });
          return;
        }
      }
      wanted.push({ key: `${lift} ${written}`, make: () => built(block, lift) });
    });
    this.#show(wanted);
    this.sources = sources;
  }

  #show(wanted) {
    wanted.forEach(({ key, make }, index) => {
      const shown = this.#shown[index];
      if (shown?.key === key) return;
      const made = make();
      if (shown) shown.made.replaceWith(made);
      else this.into.append(made);
      this.#shown[index] = { key, made };
    });
    for (const { made } of this.#shown.splice(wanted.length)) made.remove();
  }

  #mark(number) {
    return element(
      "p",
      { class: "mark" },
      element("a", { href: `#${this.anchor(number)}` }, element("span", { class: "visually-hidden" }, "Source "), String(number)),
    );
  }
}

// Renders the Markdown of a client's note.
export function prose(markdown) {
  const into = document.createDocumentFragment();
  for (const block of blocks(parser.parse(markdown, {}))) into.append(built(block, 0));
  return into;
}

// Renders inline Markdown.
export const inline = (markdown) => filled(document.createDocumentFragment(), parser.parseInline(markdown, {}), 0);

function numbered(sources, cited) {
  const same = ({ file, headings, lines }) =>
    file === cited.file && headings === cited.headings && lines === cited.lines;
  const index = sources.findIndex(same);
  return index < 0 ? sources.push(cited) : index + 1;
}

// Groups the tokens by top-level block.
function blocks(tokens) {
  const found = [];
  let depth = 0;
  for (const token of tokens) {
    if (depth === 0) found.push([]);
    found.at(-1).push(token);
    depth += token.nesting;
  }
  return found;
}

const built = (tokens, lift) => filled(document.createDocumentFragment(), tokens, lift).firstChild;

function filled(into, tokens, lift) {
  const open = [into];
  for (const token of tokens) {
    if (token.hidden) continue; // the paragraphs of a tight list
    if (token.type === "inline") {
      filled(open.at(-1), token.children, lift);
    } else if (token.nesting < 0) {
      open.pop();
    } else {
      const [outer, inner] = token.nesting > 0 ? opened(token, lift) : [leaf(token)];
      open.at(-1).append(outer);
      if (token.nesting > 0) open.push(inner);
    }
  }
  return into;
}

// Returns the element of an opening token, and the element for its content.
function opened(token, lift) {
  if (token.type === "link_open") {
    const href = safe(token.attrGet("href"));
    // A link that cannot be followed, such as one to a page of the documents, becomes its text.
    const made = href ? element("a", { href, rel: "noopener noreferrer", target: "_blank" }) : element("span");
    return [made, made];
  }
  if (token.type === "heading_open") {
    const made = element(`h${Math.min(6, Number(token.tag[1]) + lift)}`);
    return [made, made];
  }
  const made = element(KINDS.has(token.tag) ? token.tag : "span");
  if (token.tag === "ol" && token.attrGet("start")) made.setAttribute("start", token.attrGet("start"));
  // The parser aligns with a style attribute, which the page's policy forbids.
  const aligned = /^text-align:(right|center)$/.exec(token.attrGet("style") ?? "");
  if (aligned) made.className = aligned[1];
  if (token.tag === "table") {
    return [element("div", { class: "scrolled", role: "region", "aria-label": "Table", tabindex: 0 }, made), made];
  }
  return [made, made];
}

function leaf(token) {
  switch (token.type) {
    case "fence":
    case "code_block":
      return code(token.content, token.info?.trim().split(/\s+/)[0] ?? "");
    case "code_inline":
      return element("code", {}, token.content);
    case "softbreak":
      return document.createTextNode("\n");
    case "hardbreak":
      return element("br");
    case "hr":
      return element("hr");
    case "image":
      return image(token);
    default:
      return document.createTextNode(token.content);
  }
}

// Loading an image would reveal the reader to any server that the answer names, so an image becomes a link.
function image(token) {
  const href = safe(token.attrGet("src"));
  const label = `Image: ${token.content || "no description"}`;
  return href
    ? element("a", { href, rel: "noopener noreferrer", target: "_blank" }, label)
    : element("span", {}, label);
}

function safe(href) {
  try {
    return SCHEMES.has(new URL(href).protocol) ? href : "";
  } catch {
    return "";
  }
}

// A code block with its language or file name, and a copy button.
export function code(text, name) {
  return element(
    "figure",
    { class: "code" },
    element("figcaption", {}, element("span", {}, name || "code"), copyButton("the code", () => text)),
    element("pre", { tabindex: 0, role: "region", "aria-label": name ? `Code, ${name}` : "Code" }, element("code", {}, text)),
  );
}
