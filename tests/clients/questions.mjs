// The questions that all clients ask, and helpers for their answers.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { randomUUID } from "node:crypto";
import { appendFileSync, readFileSync } from "node:fs";

export const URL = process.env.BRUNIX_URL;
export const SCRIPTED_URL = process.env.SCRIPTED_URL;
export const HEARTBEAT_URL = process.env.HEARTBEAT_URL;
export const FULL_URL = process.env.FULL_URL;
export const DOWN_URL = process.env.DOWN_URL;

export const QUESTION = "Which variable sets the number of worker threads?";
export const KEY_FACT = /PROXY_THREAD_WORKERS/;
// The answer contains the key fact only if the engine knows the question before it.
export const FOLLOW_UP = "And what is its default?";
// An answer with more pieces than this was streamed.
export const MANY = 3;

// The messages of a conversation: user, assistant, and so on.
export const conversation = (...texts) =>
  texts.map((content, number) => ({ role: number % 2 ? "assistant" : "user", content }));

// The question that makes the scripted engine perform these steps.
export const script = (...steps) => JSON.stringify(steps);

export const NUMBERS = conversation(script("one ", "two ", "three ", "four"));
// The engine is silent for longer than the heartbeat interval of HEARTBEAT_URL.
export const PAUSES = conversation(script({ sleep: 0.4 }, "one ", { sleep: 0.4 }, "two"));
export const BUSY = conversation(script({ status: "RESOURCE_EXHAUSTED" }));
export const FAILS_IN_THE_MIDDLE = conversation(script("one ", "two ", { status: "INTERNAL" }));
// An answer that starts with a word and never ends.
export const hanging = (word) => conversation(script(word, "two ", "three ", { hang: true }));

// A unique word. As a step of a script it is part of the answer.
export const tag = () => `tag-${randomUUID()} `;

// Asserts that the engine's call with this tag was cancelled and not repeated.
export async function assertCancelled(word) {
  const seen = await (await fetch(`${process.env.ENGINE_URL}/${word.trim()}`)).json();
  assert.deepEqual(seen, { calls: 1, ended: true, finished: false });
}

// Reads a stream; `into` receives the pieces that arrive before it fails.
export async function collect(stream, into = []) {
  for await (const piece of stream) into.push(piece);
  return into;
}

const CLIENTS = JSON.parse(readFileSync(process.env.CLIENTS_JSON, "utf8")).clients;

// Returns a client's documented text in a language, for a gateway at this URL.
export function documented(client, language, url = URL, model = "brunix") {
  const { snippets } = CLIENTS.find(({ id }) => id === client);
  const { code } = snippets.find((snippet) => snippet.language === language);
  // The runner checks that the tests have used all texts.
  appendFileSync(process.env.DOCUMENTED, `${client} ${language}\n`);
  return code.replaceAll("@URL@", url).replaceAll("@MODEL@", model);
}

// Runs a command; returns its exit status and its output.
export async function run(command, words, options) {
  const child = spawn(command, words, { stdio: ["ignore", "pipe", "pipe"], timeout: 120_000, ...options });
  let output = "";
  child.stdout.on("data", (data) => (output += data));
  child.stderr.on("data", (data) => (output += data));
  const status = await new Promise((resolve) => child.on("close", resolve));
  return { status, output };
}
