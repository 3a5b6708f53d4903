// Whether it is up: asks the gateway again and again, gently.

import { standing } from "./words.js";

// While all is well, and while it is not: the second grows to the first.
const CALM_MS = 20_000;
const SOON_MS = 1_000;
const PATIENCE_MS = 6_000;

async function json(path, fetch) {
  const response = await fetch(path, {
    cache: "no-store",
    headers: { Accept: "application/json" },
    signal: AbortSignal.timeout(PATIENCE_MS),
  });
  let body = null;
  try {
    body = await response.json();
  } catch (fault) {
    if (!(fault instanceof SyntaxError)) throw fault;
  }
  return { status: response.status, body: body !== null && typeof body === "object" ? body : null };
}

export class Watch {
  // tell(standing)  called after each look; see words.js
  // clock           what waits: { setTimeout, clearTimeout }
  constructor(tell, { fetch = globalThis.fetch.bind(globalThis), clock = globalThis } = {}) {
    this.model = "";
    this.state = "checking";
    Object.assign(this, { tell, fetch, clock, timer: null, wait: SOON_MS, looking: null, asleep: false });
  }

  // Looks now, unless it does so already.
  look() {
    this.clock.clearTimeout(this.timer);
    this.looking ??= this.#look().finally(() => {
      this.looking = null;
      if (!this.asleep) this.timer = this.clock.setTimeout(() => this.look(), this.wait);
    });
    return this.looking;
  }

  // Nobody sees the page: ask nothing until somebody does.
  sleep() {
    this.asleep = true;
    this.clock.clearTimeout(this.timer);
  }

  wake() {
    this.asleep = false;
    this.look();
  }

  async #look() {
    let health = null;
    try {
      health = await json("health", this.fetch);
      // The model has another name only after a restart, and a restart shows as a trouble that passed.
      if (health.body?.status && (!this.model || this.state !== "ok")) await this.#name();
    } catch {
      // no answer: said below
    }
    const found = standing(health, this.model);
    const well = found.state === "ok";
    this.wait = well ? CALM_MS : this.state === "ok" || this.state === "checking" ? SOON_MS : Math.min(2 * this.wait, CALM_MS);
    this.state = found.state;
    this.tell(found);
  }

  async #name() {
    const { body } = await json("v1/models", this.fetch);
    this.model = body?.data?.[0]?.id ?? this.model;
  }
}
