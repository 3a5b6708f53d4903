// Announcements for screen readers.

// Long enough to be read. Then the text is removed, so that users who read through the page do not meet it again.
const CLEAR_AFTER_MS = 5_000;

let timer;

export function announce(text) {
  const region = document.getElementById("announcements");
  region.textContent = text;
  clearTimeout(timer);
  timer = setTimeout(() => {
    region.textContent = "";
  }, CLEAR_AFTER_MS);
}
