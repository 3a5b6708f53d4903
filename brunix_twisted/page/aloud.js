// What is read aloud by a screen reader without being asked for.

// Long enough to be taken up; then it goes, for who reads through the page would meet everything twice.
const HELD_MS = 5_000;

let timer;

export function say(text) {
  const place = document.getElementById("aloud");
  place.textContent = text;
  clearTimeout(timer);
  timer = setTimeout(() => {
    place.textContent = "";
  }, HELD_MS);
}
