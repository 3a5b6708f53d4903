// The Connect view: configurations of clients, with this gateway's address and model.

import { copyButton } from "./copy.js";
import { element } from "./dom.js";
import { code, prose } from "./markdown.js";

const APIS = {
  openai: "OpenAI’s API",
  ollama: "Ollama’s API",
  responses: "OpenAI’s Responses API",
  anthropic: "Anthropic’s API",
  mcp: "a tool over MCP",
};

// The same rule as in the gateway's connect package: only characters that need no escaping in any of the languages.
const FIT_URL = /^https?:\/\/([A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?(\/[A-Za-z0-9_.~%-]+)*$/;
const FIT_MODEL = /^[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,127}$/;

// Returns the placeholders' values for a page at this address. Throws if a value would need escaping in a configuration.
export function values(href, model) {
  const url = new URL(".", href);
  const root = (url.origin + url.pathname).replace(/\/+$/, "");
  if (!FIT_URL.test(root)) throw new RangeError(`The address ${root} cannot be used in a configuration.`);
  if (!FIT_MODEL.test(model)) throw new RangeError(`The model name ${model} cannot be used in a configuration.`);
  return { URL: root, HOST: url.host, MODEL: model };
}

// In one pass, so that the values are not searched for placeholders.
export const filled = (text, given) => text.replace(/@(URL|HOST|MODEL)@/g, (_, name) => given[name]);

// Groups the clients, in their order.
export function groups(clients) {
  const found = new Map();
  for (const client of clients) {
    if (!found.has(client.group)) found.set(client.group, []);
    found.get(client.group).push(client);
  }
  return found;
}

export class Connect {
  #clients = null;
  #loading = null;
  #model = "";
  #chosen = "";

  // into      the element to fill
  // chose(id)  called when the user chooses a client
  constructor(into, chose) {
    Object.assign(this, { into, chose });
    this.basics = element("dl", { class: "basics" });
    this.select = element("select", { id: "client", onchange: () => this.#choose() });
    this.shown = element("div", { class: "client" });
  }

  // The model's name, when it is known or has changed.
  set model(name) {
    if (name === this.#model) return;
    this.#model = name;
    if (this.#clients) this.#show();
  }

  // Shows this client, or the first one.
  async open(id = "") {
    this.#chosen = id || this.#chosen;
    if (this.#clients) {
      this.#show();
      return;
    }
    this.#loading ??= this.#load().finally(() => {
      this.#loading = null;
    });
    await this.#loading;
  }

  async #load() {
    this.into.replaceChildren(element("p", { class: "waiting" }, "Loading the clients"));
    try {
      const response = await fetch("page/clients.json");
      if (!response.ok) throw new Error(`status ${response.status}`);
      this.#clients = (await response.json()).clients;
    } catch {
      this.into.replaceChildren(
        element(
          "div",
          { class: "failure", role: "alert" },
          element("p", { class: "title" }, "The list of clients could not be loaded."),
          element("p", {}, "The status above shows whether the gateway is reachable."),
          element("button", { type: "button", class: "quiet", onclick: () => this.open() }, "Try again"),
        ),
      );
      return;
    }
    for (const [group, clients] of groups(this.#clients)) {
      const options = clients.map(({ id, name }) => element("option", { value: id }, name));
      this.select.append(element("optgroup", { label: group }, ...options));
    }
    this.into.replaceChildren(
      this.basics,
      element("div", { class: "picker" }, element("label", { for: "client" }, "Client"), this.select),
      this.shown,
    );
    this.#show();
  }

  #choose() {
    this.#chosen = this.select.value;
    this.#show();
    this.chose(this.#chosen);
  }

  #show() {
    const client = this.#clients.find(({ id }) => id === this.#chosen) ?? this.#clients[0];
    this.select.value = client.id;
    let given;
    try {
      given = values(location.href, this.#model || "brunix");
    } catch (fault) {
      this.basics.replaceChildren();
      this.shown.replaceChildren(
        element(
          "div",
          { class: "failure" },
          element("p", { class: "title" }, fault.message),
          element("p", {}, "Open this page at an address without special characters."),
        ),
      );
      return;
    }
    const unknown = this.#model ? null : element("p", { class: "notice" }, "The model’s name is not known yet; “brunix” is a placeholder.");
    this.basics.replaceChildren(
      fact("Base URL for OpenAI clients", `${given.URL}/v1`),
      fact("Base URL for Ollama and Anthropic clients", given.URL),
      fact("Model", given.MODEL),
    );
    this.shown.replaceChildren(...[unknown, ...described(client, given)].filter(Boolean));
  }
}

const fact = (name, value) =>
  element(
    "div",
    {},
    element("dt", {}, name),
    element("dd", {}, element("code", {}, value), copyButton(name, () => value)),
  );

function described(client, given) {
  const parts = [
    element("h2", {}, client.name),
    element(
      "p",
      { class: "about" },
      [APIS[client.api] ?? client.api, client.tested && `tested with ${client.tested}`].filter(Boolean).join(" · "),
    ),
  ];
  for (const snippet of client.snippets) {
    if (snippet.note) parts.push(element("div", { class: "prose" }, prose(filled(snippet.note, given))));
    parts.push(code(filled(snippet.code, given), snippet.file ? filled(snippet.file, given) : snippet.language));
  }
  if (client.note) parts.push(element("div", { class: "prose" }, prose(filled(client.note, given))));
  return parts;
}
