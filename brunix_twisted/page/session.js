// The engine session that this tab asks in. It outlives a reload of the page, and ends with the tab.

const KEY = "brunix-session";

// Where storage is turned off, it lasts as long as the page.
let held = "";

export function session() {
  try {
    return sessionStorage.getItem(KEY) ?? "";
  } catch {
    return held;
  }
}

// Go on in this session; "" begins a new one with the next question.
export function goOnIn(id) {
  held = id;
  try {
    if (id) sessionStorage.setItem(KEY, id);
    else sessionStorage.removeItem(KEY);
  } catch {
    // as above
  }
}
