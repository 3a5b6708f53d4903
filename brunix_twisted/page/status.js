// Polls the gateway's health.

import { describeStatus } from "./messages.js";

// The interval while the gateway is healthy. After a failure it is RETRY_MS, and doubles up to INTERVAL_MS.
const INTERVAL_MS = 20_000;
const RETRY_MS = 1_000;
const TIMEOUT_MS = 6_000;

async function json(path, fetch) {
  const response = await fetch(path, {
    cache: "no-store",
    headers: { Accept: "application/json" },
    signal: AbortSignal.timeout(TIMEOUT_MS),
  });
  let body = null;
  try {
    body = await response.json();
  } catch (fault) {
    if (!(fault instanceof SyntaxError)) throw fault;
  }
  return { status: response.status, body: body !== null && typeof body === "object" ? body : null };
}

export class StatusMonitor {
  // report(status)  called after each request; see messages.js
  // clock           { setTimeout, clearTimeout }
  constructor(report, { fetch = globalThis.fetch.bind(globalThis), clock = globalThis } = {}) {
    this.model = "";
    this.state = "checking";
    Object.assign(this, { report, fetch, clock, timer: null, wait: RETRY_MS, checking: null, asleep: false });
  }

  // Checks the status now, unless a check is running.
  check() {
    this.clock.clearTimeout(this.timer);
    this.checking ??= this.#check().finally(() => {
      this.checking = null;
      if (!this.asleep) this.timer = this.clock.setTimeout(() => this.check(), this.wait);
    });
    return this.checking;
  }

  // Stops polling while the page is hidden.
  sleep() {
    this.asleep = true;
    this.clock.clearTimeout(this.timer);
  }

  wake() {
    this.asleep = false;
    this.check();
  }

  async #check() {
    let health = null;
    try {
      health = await json("health", this.fetch);
      // The model can change only by a restart, which shows as a failure in between.
      if (health.body?.status && (!this.model || this.state !== "ok")) await this.#loadModel();
    } catch {
      // no response: handled below
    }
    const found = describeStatus(health, this.model);
    const healthy = found.state === "ok";
    this.wait = healthy ? INTERVAL_MS : this.state === "ok" || this.state === "checking" ? RETRY_MS : Math.min(2 * this.wait, INTERVAL_MS);
    this.state = found.state;
    this.report(found);
  }

  async #loadModel() {
    const { body } = await json("v1/models", this.fetch);
    this.model = body?.data?.[0]?.id ?? this.model;
  }
}
