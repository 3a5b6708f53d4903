// What a client has to be told to ask here: the gateway's list of clients, with its own address and model put in.

import { copyButton } from "./copy.js";
import { element } from "./dom.js";
import { code, prose } from "./markdown.js";

const APIS = {
  openai: "OpenAI’s API",
  ollama: "Ollama’s API",
  responses: "OpenAI’s Responses API",
  anthropic: "Anthropic’s API",
};

// As the gateway's own command line has it: characters that mean themselves in each of the languages, and nothing else.
const FIT_URL = /^https?:\/\/([A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?(\/[A-Za-z0-9_.~%-]+)*$/;
const FIT_MODEL = /^[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,127}$/;

// What the placeholders stand for, for a page at this address. Throws where that could mean something else in a
// configuration.
export function values(href, model) {
  const url = new URL(".", href);
  const root = (url.origin + url.pathname).replace(/\/+$/, "");
  if (!FIT_URL.test(root)) throw new RangeError(`The address ${root} cannot be put into a configuration as it is.`);
  if (!FIT_MODEL.test(model)) throw new RangeError(`The model’s name ${model} cannot be put into a configuration as it is.`);
  return { URL: root, HOST: url.host, MODEL: model };
}

// In one go, so that what was put in is not searched again.
export const filled = (text, given) => text.replace(/@(URL|HOST|MODEL)@/g, (_, name) => given[name]);

// The clients by their group, in the order they come.
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
  // chose(id)  is called when the user has chosen a client
  constructor(into, chose) {
    Object.assign(this, { into, chose });
    this.basics = element("dl", { class: "basics" });
    this.select = element("select", { id: "client", onchange: () => this.#choose() });
    this.shown = element("div", { class: "client" });
  }

  // The model's name, once it is known, or another.
  set model(name) {
    if (name === this.#model) return;
    this.#model = name;
    if (this.#clients) this.#show();
  }

  // Shows the list with this client, or the first.
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
    this.into.replaceChildren(element("p", { class: "waiting" }, "Loading the list"));
    try {
      const response = await fetch("page/clients.json");
      if (!response.ok) throw new Error(`status ${response.status}`);
      this.#clients = (await response.json()).clients;
    } catch {
      this.into.replaceChildren(
        element(
          "div",
          { class: "failure", role: "alert" },
          element("p", { class: "title" }, "The list of clients did not come."),
          element("p", {}, "The status above says whether the gateway answers."),
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
      element("div", { class: "picker" }, element("label", { for: "client" }, "Program"), this.select),
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
          element("p", {}, "Reach this page by a plainer address, and copy from there."),
        ),
      );
      return;
    }
    const unknown = this.#model ? null : element("p", { class: "notice" }, "The gateway has not told its model’s name; brunix stands for it here.");
    this.basics.replaceChildren(
      fact("Address for OpenAI’s clients", `${given.URL}/v1`),
      fact("Address for Ollama’s and Anthropic’s clients", given.URL),
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
    element("dd", {}, element("code", {}, value), copyButton(name.toLowerCase(), () => value)),
  );

function described(client, given) {
  const parts = [
    element("h2", {}, client.name),
    element(
      "p",
      { class: "about" },
      [APIS[client.api] ?? client.api, client.tested && `tried with ${client.tested}`].filter(Boolean).join(" · "),
    ),
  ];
  for (const snippet of client.snippets) {
    if (snippet.note) parts.push(element("div", { class: "prose" }, prose(filled(snippet.note, given))));
    parts.push(code(filled(snippet.code, given), snippet.file ? filled(snippet.file, given) : snippet.language));
  }
  if (client.note) parts.push(element("div", { class: "prose" }, prose(filled(client.note, given))));
  return parts;
}
