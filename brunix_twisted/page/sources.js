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

// Returns the sources to list below an answer, as { file, headings, lines, href }. The text's citations come first, with
// the addresses that the engine reports for them; if there are no citations, everything that the engine reports.
export function listed(citations, annotations = []) {
  const reported = annotations.map((each) => each?.url_citation ?? {});
  if (!citations.length) {
    return reported.map(({ title, url }) => ({ file: title ?? "", headings: "", lines: "", href: web(url) }));
  }
  return citations.map((each) => {
    const title = [each.file, each.headings, each.lines].filter(Boolean).join(", ").replaceAll("`", "");
    return { ...each, href: web(reported.find((one) => one.title === title)?.url) };
  });
}

// An engine's addresses may be relative to its documents, which the page cannot open.
const web = (url) => (/^https?:\/\//.test(url ?? "") ? url : "");

// Whether an incomplete paragraph may become a citation.
export const mayBecomeCitation = (paragraph) => BEGINNING.test(paragraph);
