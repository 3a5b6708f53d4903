// Offers questions that the engine's documents answer. Most engines report none; then there is no list.

import { element } from "./dom.js";

const TIMEOUT_MS = 6_000;

// Loads the questions again each time the engine becomes healthy: it may have restarted with other documents.
export async function showSuggestions(list, fetch = globalThis.fetch.bind(globalThis)) {
  let questions = [];
  try {
    const response = await fetch("page/questions.json", { cache: "no-store", signal: AbortSignal.timeout(TIMEOUT_MS) });
    if (response.ok) ({ questions } = await response.json());
  } catch {
    // The status says what is wrong.
  }
  const shown = [...list.querySelectorAll("button")].map((button) => button.textContent);
  // The user may be about to press one of them.
  if (JSON.stringify(shown) === JSON.stringify(questions)) return;
  list.replaceChildren(...questions.map((text) => element("li", {}, element("button", { type: "button" }, text))));
  list.hidden = questions.length === 0;
}
