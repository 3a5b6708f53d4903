// What cannot wait for the modules: they run only once the page is there, and not all of them may come.

"use strict";

// Light or dark, before anything is drawn: it would flash otherwise. What is remembered is a choice against the
// system's; who chooses what the system has goes on with the system.
(() => {
  const KEY = "brunix-theme";
  const system = window.matchMedia("(prefers-color-scheme: dark)");
  const root = document.documentElement;

  function remembered() {
    try {
      return localStorage.getItem(KEY);
    } catch {
      return null; // storage is turned off: the choice holds until the page is left
    }
  }

  function remember(theme) {
    try {
      if (theme) localStorage.setItem(KEY, theme);
      else localStorage.removeItem(KEY);
    } catch {
      // as above
    }
  }

  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
  const show = () => document.getElementById("theme")?.setAttribute("aria-pressed", String(isDark()));

  const theme = remembered();
  if (theme === "dark" || theme === "light") root.dataset.theme = theme;

  document.addEventListener("DOMContentLoaded", () => {
    show();
    document.getElementById("theme").addEventListener("click", () => {
      const dark = !isDark();
      if (dark === system.matches) delete root.dataset.theme;
      else root.dataset.theme = dark ? "dark" : "light";
      remember(root.dataset.theme);
      show();
    });
  });
  system.addEventListener("change", show);
})();

// A module that does not come leaves a page that does nothing, so it says so. Browsers name the page's origin when they
// ask for a module, and the gateway knows its own page by that being the Host it was called by.
addEventListener(
  "error",
  (event) => {
    if (!(event.target instanceof HTMLScriptElement)) return;
    const tell = () => {
      document.getElementById("status").dataset.state = "refused";
      document.getElementById("headline").textContent = "This page did not come whole";
      const advice = document.getElementById("advice");
      advice.textContent =
        "Reload it. If that does not help, a proxy may hide by what name it was called: let it hand on the Host, or add " +
        `${location.origin} to the gateway’s PROXY_CORS_ORIGINS.`;
      advice.hidden = false;
    };
    if (document.readyState === "loading") addEventListener("DOMContentLoaded", tell);
    else tell();
  },
  true,
);
