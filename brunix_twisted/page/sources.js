// The embedded engine ends each quotation with a paragraph that cites its source:
//
//   — `settings.md`, Settings › The gateway, line 24
//
// A source of an answer that a language model has written begins with its number, "[1] — …". Those numbers count up from
// 1, as the page counts. Only a paragraph that matches completely is a citation.

const CITATION = /^(?:\[\d+\] )?— `([^`\n]+)`(?:, ([^\n]+))?, ((?:line|page|paragraph)s? \d+(?:–\d+)?(?:, \d+(?:–\d+)?)*)$/;
const BEGINNING = /^(?:\[\d*\]? ?|(?:\[\d+\] )?—(?: (?:`[^\n]*)?)?)$/;

// Returns { file, headings, lines } of a paragraph's Markdown; null if it is not a citation.
export function citation(paragraph) {
  const found = CITATION.exec(paragraph.trim());
  return found && { file: found[1], headings: found[2] ?? "", lines: found[3] };
}

// Whether an incomplete paragraph may become a citation.
export const mayBecomeCitation = (paragraph) => BEGINNING.test(paragraph);
