// Copy buttons.

import { announce } from "./announce.js";
import { element } from "./dom.js";

// How long a button shows its result.
const RESET_AFTER_MS = 2_000;

// A button that copies the result of text(). `what` names it for screen readers, such as "the answer".
export function copyButton(what, text) {
  const label = element("span", {}, "Copy");
  const button = element("button", { type: "button", class: "copy quiet" }, label, element("span", { class: "visually-hidden" }, ` ${what}`));
  let timer;
  button.addEventListener("click", async () => {
    const copied = await copy(text());
    label.textContent = copied ? "Copied" : "Copy failed";
    announce(copied ? `Copied ${what}` : "Copying failed. Select the text and copy it manually.");
    clearTimeout(timer);
    timer = setTimeout(() => {
      label.textContent = "Copy";
    }, RESET_AFTER_MS);
  });
  return button;
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // A page loaded over plain HTTP from another machine has no clipboard API.
    return copyBySelection(text);
  }
}

function copyBySelection(text) {
  const focused = document.activeElement;
  const field = element("textarea", { class: "visually-hidden", readonly: true, "aria-hidden": "true", tabindex: -1 });
  field.value = text;
  document.body.append(field);
  field.select();
  const copied = document.execCommand("copy");
  field.remove();
  focused?.focus({ preventScroll: true });
  return copied;
}
