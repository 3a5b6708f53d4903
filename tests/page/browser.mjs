// A real browser, and what every test of the page wants of it.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer, request } from "node:http";
import { createServer as createPort } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before } from "node:test";
import { randomUUID } from "node:crypto";
import puppeteer from "puppeteer-core";

export const { BRUNIX_URL, SCRIPTED_URL, DOWN_URL, ENGINE_URL } = process.env;

export const QUESTION = "Which variable sets the number of worker threads?";
export const KEY_FACT = /PROXY_THREAD_WORKERS/;

// The question that makes the scripted engine do this.
export const script = (...steps) => JSON.stringify(steps);
// A word that no other call holds.
export const tag = () => `tag-${randomUUID()} `;
// A name for the scripted engine to wait for, and what lets it go on.
export const signal = () => randomUUID();
export const go = (name) => fetch(`${ENGINE_URL}/go/${name}`);
// What the scripted engine saw of the call with this tag, once that has ended.
export const saw = async (word) => (await fetch(`${ENGINE_URL}/${word.trim()}`)).json();

let browser;
let folder;

// Starts the browser for the tests of a file.
export function browsing() {
  before(async () => {
    folder = mkdtempSync(join(tmpdir(), "page-"));
    browser = await puppeteer.launch({
      executablePath: process.env.CHROMIUM,
      userDataDir: folder,
      args: [
        "--no-sandbox", // root has none
        "--disable-gpu",
        // Names that are no addresses make an insecure context, as another machine's page has it.
        `--host-resolver-rules=MAP brunix.internal:80 ${new URL(BRUNIX_URL).host}, MAP *.internal 127.0.0.1, MAP *.example 127.0.0.1`,
      ],
    });
  });
  after(async () => {
    await browser?.close();
    rmSync(folder, { recursive: true, force: true, maxRetries: 5 });
  });
}

const WIDE = { width: 1280, height: 860 };
export const NARROW = { width: 320, height: 640, isMobile: true, hasTouch: true };

// Opens the page in a profile of its own, and holds at the test's end that nothing went wrong that no test looks for.
export async function opened(t, url, { viewport = WIDE, media = {}, path = "/", scale = 1, wait = true } = {}) {
  const profile = await browser.createBrowserContext();
  const page = await profile.newPage();
  page.setDefaultTimeout(20_000);
  const troubles = [];
  page.on("console", (message) => {
    // That a server is away or refuses is what some tests are about; the browser tells of it all the same.
    if (["error", "warn"].includes(message.type()) && !message.text().startsWith("Failed to load resource")) {
      troubles.push(`console: ${message.text()}`);
    }
  });
  page.on("pageerror", (error) => troubles.push(`page: ${error.message}`));
  page.on("request", (asked) => {
    if (!asked.url().startsWith(new URL(url).origin)) troubles.push(`asked elsewhere: ${asked.url()}`);
  });
  page.on("response", (answer) => {
    if (answer.status() === 404) troubles.push(`not there: ${answer.url()}`);
  });
  page.on("dialog", (dialog) => {
    troubles.push(`dialog: ${dialog.message()}`);
    dialog.dismiss();
  });
  await page.evaluateOnNewDocument(() => {
    document.addEventListener("securitypolicyviolation", (event) => {
      console.error(`policy: ${event.violatedDirective} ${event.blockedURI} ${event.sample}`);
    });
  });
  t.after(async () => {
    await profile.close();
    assert.deepEqual(troubles, []);
  });
  await page.setViewport({ ...viewport, deviceScaleFactor: scale });
  await emulate(page, media);
  await page.goto(url + path);
  if (wait) await ready(page);
  return page;
}

// Sets media features, those too that the driver does not know of.
export async function emulate(page, media) {
  const session = await page.createCDPSession();
  await session.send("Emulation.setEmulatedMedia", {
    features: Object.entries(media).map(([name, value]) => ({ name, value })),
  });
}

export const ready = (page) => page.waitForSelector('#status[data-state="ok"]');
export const stateIs = (page, state) => page.waitForSelector(`#status[data-state="${state}"]`);

export const textOf = (page, selector) => page.$eval(selector, (element) => element.textContent);
export const textsOf = (page, selector) => page.$$eval(selector, (elements) => elements.map((each) => each.textContent));

// Writes a question and asks it, by the keyboard.
export async function ask(page, words) {
  await page.focus("#question");
  // As one who pastes it: a key for each letter would take long.
  await page.evaluate((text) => document.execCommand("insertText", false, text), words);
  await page.keyboard.press("Enter");
}

// Waits until so many questions have come to their end, well or not.
export async function ended(page, count = 1) {
  await page.waitForFunction(
    (wanted) => document.querySelectorAll(".turn").length === wanted && document.getElementById("stop").hidden,
    {},
    count,
  );
}

export async function answered(page, words, count = 1) {
  await ask(page, words);
  await ended(page, count);
  return textOf(page, ".turn:last-child .prose");
}

// Waits until the last answer is these words.
export const answerIs = (page, text) =>
  page.waitForFunction(
    (wanted) => document.querySelector(".turn:last-child .prose")?.textContent.trim() === wanted,
    {},
    text,
  );

export async function freePort() {
  const server = createPort();
  await new Promise((listens) => server.listen(0, "127.0.0.1", listens));
  const { port } = server.address();
  await new Promise((closed) => server.close(closed));
  return port;
}

// A gateway of the test's own, which it may stop: { url, stop() }.
export async function gateway(t, { port, target = process.env.ENGINE_TARGET, ...settings }) {
  const server = spawn(process.env.TWISTD, ["--nodaemon", "--pidfile=", "--logfile=-", "brunix"], {
    cwd: folder,
    env: {
      ...process.env,
      BRUNIX_URL: undefined,
      PROXY_LISTEN: `tcp:${port}:interface=127.0.0.1`,
      BRUNIX_GRPC_TARGET: target,
      ...settings,
    },
    stdio: "ignore",
  });
  const left = new Promise((resolve) => server.on("exit", resolve));
  const stop = async (signal = "SIGKILL") => {
    server.kill(signal);
    await left;
  };
  t.after(() => stop());
  const url = `http://127.0.0.1:${port}`;
  const isThere = () => fetch(`${url}/health/live`).then((response) => response.ok, () => false);
  while (!(await isThere())) {
    assert.equal(server.exitCode, null, "the gateway did not start");
  }
  return { url, stop };
}

// A proxy before a gateway, with a path of its own: { url, pretend(host) }. `host` is what it tells the gateway instead of
// the Host it was called by, and `name` what the browser calls it.
export async function proxy(t, target, { prefix = "", host, name = "127.0.0.1" } = {}) {
  const server = createServer((incoming, outgoing) => {
    if (!incoming.url.startsWith(`${prefix}/`)) {
      outgoing.writeHead(404).end("nothing here");
      return;
    }
    const { hostname, port } = new URL(target);
    const passed = request(
      {
        hostname,
        port,
        method: incoming.method,
        path: incoming.url.slice(prefix.length),
        headers: { ...incoming.headers, ...(host && { host }) },
      },
      (answer) => {
        outgoing.writeHead(answer.statusCode, answer.headers);
        answer.pipe(outgoing);
      },
    );
    passed.on("error", () => outgoing.writeHead(502).end("<h1>Bad Gateway</h1>"));
    outgoing.on("close", () => passed.destroy());
    incoming.pipe(passed);
  });
  await new Promise((listens) => server.listen(0, "127.0.0.1", listens));
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  return { url: `http://${name}:${server.address().port}`, pretend: (other) => (host = other) };
}
