// The engine session of this tab. It survives a reload of the page, and ends with the tab.

const KEY = "brunix-session";

// Used if storage is turned off. It lasts until the page is closed.
let fallback = "";

export function session() {
  try {
    return sessionStorage.getItem(KEY) ?? "";
  } catch {
    return fallback;
  }
}

// Sets the session to continue; with "" the next question starts a new one.
export function setSession(id) {
  fallback = id;
  try {
    if (id) sessionStorage.setItem(KEY, id);
    else sessionStorage.removeItem(KEY);
  } catch {
    // see above
  }
}
