// The theme, and the error message if a module cannot be loaded. A classic script: modules run too late for both.

"use strict";

// Set the theme before the page is drawn, because it would flash otherwise. Only a choice that differs from the system's
// theme is stored: users who choose the system's theme follow the system.
(() => {
  const KEY = "brunix-theme";
  const system = window.matchMedia("(prefers-color-scheme: dark)");
  const root = document.documentElement;

  function stored() {
    try {
      return localStorage.getItem(KEY);
    } catch {
      return null; // storage is turned off, so the choice lasts until the page is closed
    }
  }

  function store(theme) {
    try {
      if (theme) localStorage.setItem(KEY, theme);
      else localStorage.removeItem(KEY);
    } catch {
      // see above
    }
  }

  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
  const show = () => document.getElementById("theme")?.setAttribute("aria-pressed", String(isDark()));

  const theme = stored();
  if (theme === "dark" || theme === "light") root.dataset.theme = theme;

  document.addEventListener("DOMContentLoaded", () => {
    show();
    document.getElementById("theme").addEventListener("click", () => {
      const dark = !isDark();
      if (dark === system.matches) delete root.dataset.theme;
      else root.dataset.theme = dark ? "dark" : "light";
      store(root.dataset.theme);
      show();
    });
  });
  system.addEventListener("change", show);
})();

// If a module cannot be loaded, the page does not work, so show an error. Browsers send the page's origin with requests for
// modules, and the gateway rejects it unless it matches the Host header.
addEventListener(
  "error",
  (event) => {
    if (!(event.target instanceof HTMLScriptElement)) return;
    const showError = () => {
      document.getElementById("status").dataset.state = "rejected";
      document.getElementById("headline").textContent = "This page could not be loaded completely";
      const advice = document.getElementById("advice");
      advice.textContent =
        "Reload it. If that does not help, a proxy may not forward the Host header: correct the proxy, or add " +
        `${location.origin} to PROXY_CORS_ORIGINS.`;
      advice.hidden = false;
    };
    if (document.readyState === "loading") addEventListener("DOMContentLoaded", showError);
    else showError();
  },
  true,
);
