// The embedded engine ends each quotation with a paragraph of its own that says where it stands:
//
//   — `settings.md`, Settings › The gateway, line 24
//
// A paragraph that is not just that, to its last character, is no such thing and stays what it is.

const CITATION = /^— `([^`\n]+)`(?:, ([^\n]+))?, (lines? \d+(?:–\d+)?(?:, \d+(?:–\d+)?)*)$/;
const BEGUN = /^—(?: (?:`[^\n]*)?)?$/;

// { file, headings, lines } of a paragraph's Markdown; null: it cites nothing.
export function citation(paragraph) {
  const found = CITATION.exec(paragraph.trim());
  return found && { file: found[1], headings: found[2] ?? "", lines: found[3] };
}

// Whether what has come of a paragraph may become a citation.
export const mayBecomeCitation = (paragraph) => BEGUN.test(paragraph);
