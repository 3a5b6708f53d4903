// Ollama's own package: what only it offers.

import assert from "node:assert/strict";
import { test } from "node:test";
import { ollama } from "./providers.mjs";
import { KEY_FACT, QUESTION, URL, collect } from "./questions.mjs";

const client = ollama(URL);

test("ollama: the model is listed, shown as running and described", async () => {
  assert.deepEqual((await client.list()).models.map((model) => model.name), ["brunix:latest"]);
  assert.deepEqual((await client.ps()).models.map((model) => model.name), ["brunix:latest"]);
  assert.deepEqual((await client.show({ model: "brunix" })).capabilities, ["completion"]);
});

test("ollama: a prompt is completed", async () => {
  assert.match((await client.generate({ model: "brunix", prompt: QUESTION })).response, KEY_FACT);
  const parts = await collect(await client.generate({ model: "brunix", prompt: QUESTION, stream: true }));
  assert.match(parts.map((part) => part.response).join(""), KEY_FACT);
});
