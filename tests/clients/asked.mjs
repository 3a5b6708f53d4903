// What every client is asked, and how its answers are gathered.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { randomUUID } from "node:crypto";
import { appendFileSync, readFileSync } from "node:fs";
import { createServer } from "node:net";

export const URL = process.env.BRUNIX_URL;
export const SCRIPTED_URL = process.env.SCRIPTED_URL;
export const FULL_URL = process.env.FULL_URL;
export const DOWN_URL = process.env.DOWN_URL;

export const QUESTION = "Which variable sets the number of worker threads?";
export const KEY_FACT = /PROXY_THREAD_WORKERS/;
// Answered with the key fact only by an engine that knows what the question before it was.
export const FOLLOW_UP = "And what is its default?";
// An answer in more pieces than this was streamed.
export const MANY = 3;

// A conversation: the user's turn, the assistant's, and so on.
export const asking = (...texts) =>
  texts.map((content, number) => ({ role: number % 2 ? "assistant" : "user", content }));

// The question that makes the scripted engine do this.
export const script = (...steps) => JSON.stringify(steps);

// A word that no other call holds; as a step it is a part of the answer.
export const tag = () => `tag-${randomUUID()} `;

// The engine's side of the call with this tag: it ended, unfinished, and was not repeated.
export async function brokenOff(word) {
  const told = await (await fetch(`${process.env.ENGINE_URL}/${word.trim()}`)).json();
  assert.deepEqual(told, { calls: 1, ended: true, finished: false });
}

// Gathers a stream, or its beginning; what came before it failed is in `into`.
export async function pieces(stream, into = [], atMost = Infinity) {
  for await (const piece of stream) {
    into.push(piece);
    if (into.length === atMost) break;
  }
  return into;
}

const CLIENTS = JSON.parse(readFileSync(process.env.CLIENTS_JSON, "utf8")).clients;

// The text in this language that a client is documented to be told, for a gateway at this URL.
export function documented(client, language, url = URL, model = "brunix") {
  const { snippets } = CLIENTS.find(({ id }) => id === client);
  const { code } = snippets.find((snippet) => snippet.language === language);
  // The runner looks whether every text was asked for.
  appendFileSync(process.env.DOCUMENTED, `${client} ${language}\n`);
  return code.replaceAll("@URL@", url).replaceAll("@MODEL@", model);
}

// What a program needs in its environment to meet a wall when it asks anything beyond this machine, and whom it asked.
export async function wall() {
  const asked = [];
  const server = createServer((socket) => {
    socket.on("error", () => {});
    socket.once("data", (data) => {
      asked.push(data.toString().split("\r\n")[0]);
      socket.destroy();
    });
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const proxy = `http://127.0.0.1:${server.address().port}`;
  const env = { HTTP_PROXY: proxy, HTTPS_PROXY: proxy, ALL_PROXY: proxy, NO_PROXY: "127.0.0.1,localhost" };
  for (const [name, value] of Object.entries(env)) env[name.toLowerCase()] = value;
  return { asked, env, close: () => server.close() };
}

// How a command ended, and what it printed.
export async function ran(command, words, options) {
  const child = spawn(command, words, { stdio: ["ignore", "pipe", "pipe"], timeout: 60_000, ...options });
  let printed = "";
  child.stdout.on("data", (data) => (printed += data));
  child.stderr.on("data", (data) => (printed += data));
  const status = await new Promise((resolve) => child.on("close", resolve));
  return { status, printed };
}
