// What every client is asked, and how its answers are gathered.

import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";

export const URL = process.env.BRUNIX_URL;
export const SCRIPTED_URL = process.env.SCRIPTED_URL;
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

// What docs/clients.md tells a client, for a gateway at another URL.
export function documented(client, language, url = URL) {
  const text = readFileSync(new globalThis.URL("../../docs/clients.md", import.meta.url), "utf8");
  const section = text.split(/^## /m).find((part) => part.startsWith(`${client}\n`));
  assert.ok(section, `docs/clients.md says nothing about ${client}`);
  const block = section.match(new RegExp(`^\`\`\`${language}\\n(.*?)^\`\`\`$`, "ms"));
  assert.ok(block, `docs/clients.md has no ${language} for ${client}`);
  return block[1].replaceAll("http://127.0.0.1:8000", url);
}
