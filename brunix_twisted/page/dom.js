// Creates elements without parsing HTML, so text stays text.

// Creates an element with attributes and children. `on…` attributes are listeners; null and false are left out.
export function element(name, attributes = {}, ...children) {
  const created = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) created.addEventListener(key.slice(2), value);
    else created.setAttribute(key, value === true ? "" : String(value));
  }
  created.append(...children.filter((child) => child !== null && child !== undefined));
  return created;
}
