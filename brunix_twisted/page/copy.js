// Buttons that copy.

import { say } from "./aloud.js";
import { element } from "./dom.js";

// How long a button says what it has done.
const SAID_MS = 2_000;

// A button that copies what text() returns then; `what` says to those who hear the page what that is: "the answer".
export function copyButton(what, text) {
  const word = element("span", {}, "Copy");
  const button = element("button", { type: "button", class: "copy quiet" }, word, element("span", { class: "unseen" }, ` ${what}`));
  let timer;
  button.addEventListener("click", async () => {
    const copied = await copy(text());
    word.textContent = copied ? "Copied" : "Not copied";
    say(copied ? `Copied ${what}` : "It could not be copied. Select it, and copy it by hand.");
    clearTimeout(timer);
    timer = setTimeout(() => {
      word.textContent = "Copy";
    }, SAID_MS);
  });
  return button;
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // A page that came over plain HTTP from another machine has no clipboard.
    return copyBySelection(text);
  }
}

function copyBySelection(text) {
  const focused = document.activeElement;
  const field = element("textarea", { class: "unseen", readonly: true, "aria-hidden": "true", tabindex: -1 });
  field.value = text;
  document.body.append(field);
  field.select();
  const copied = document.execCommand("copy");
  field.remove();
  focused?.focus({ preventScroll: true });
  return copied;
}
