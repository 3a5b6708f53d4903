// Ollama's own package for Node.

import assert from "node:assert/strict";
import { test } from "node:test";
import { Ollama } from "ollama";
import {
  DOWN_URL, FOLLOW_UP, KEY_FACT, MANY, QUESTION, SCRIPTED_URL, URL, asking, brokenOff, pieces, script, tag,
} from "./asked.mjs";

const client = (url) => new Ollama({ host: url });
const chat = (url, messages, options) => client(url).chat({ model: "brunix", messages, ...options });
const textOf = (parts) => parts.map((part) => part.message.content).join("");

test("ollama: the model is listed, and described", async () => {
  assert.deepEqual((await client(URL).list()).models.map((model) => model.name), ["brunix:latest"]);
  assert.deepEqual((await client(URL).ps()).models.map((model) => model.name), ["brunix:latest"]);
  assert.deepEqual((await client(URL).show({ model: "brunix" })).capabilities, ["completion"]);
});

test("ollama: a whole answer, with its counts", async () => {
  const answer = await chat(URL, asking(QUESTION));
  assert.match(answer.message.content, KEY_FACT);
  assert.equal(answer.done_reason, "stop");
  assert.ok(answer.eval_count > MANY);
});

test("ollama: a streamed answer, with its counts", async () => {
  const parts = await pieces(await chat(URL, asking(QUESTION), { stream: true }));
  assert.match(textOf(parts), KEY_FACT);
  assert.ok(parts.length > MANY);
  assert.ok(parts.at(-1).done);
  assert.ok(parts.at(-1).eval_count > MANY);
});

test("ollama: a prompt", async () => {
  assert.match((await client(URL).generate({ model: "brunix", prompt: QUESTION })).response, KEY_FACT);
  const parts = await pieces(await client(URL).generate({ model: "brunix", prompt: QUESTION, stream: true }));
  assert.match(parts.map((part) => part.response).join(""), KEY_FACT);
});

for (const [options, text, reason] of [
  [{ stop: ["three"] }, "one two ", "stop"],
  [{ num_predict: 1 }, "one ", "length"],
]) {
  test(`ollama: cut by ${JSON.stringify(options)}`, async () => {
    const messages = asking(script("one ", "two ", "three ", "four"));
    const answer = await chat(SCRIPTED_URL, messages, { options });
    assert.deepEqual([answer.message.content, answer.done_reason], [text, reason]);
  });
}

for (const [name, url, parameters, status] of [
  ["unknown model", URL, { model: "gpt-7" }, 404],
  ["engine down", DOWN_URL, {}, 503],
  ["engine busy", SCRIPTED_URL, { messages: asking(script({ status: "RESOURCE_EXHAUSTED" })) }, 429],
]) {
  for (const stream of [true, false]) {
    test(`ollama: ${name}, ${stream ? "streamed" : "whole"}`, async () => {
      await assert.rejects(chat(url, asking(QUESTION), { stream, ...parameters }), (error) => {
        assert.equal(error.name, "ResponseError");
        assert.equal(error.status_code, status);
        return true;
      });
    });
  }
}

test("ollama: broken off by the user", async () => {
  const word = tag();
  const stream = await chat(SCRIPTED_URL, asking(script(word, "two ", "three ", { hang: true })), { stream: true });
  // `break` in the middle of its stream is not enough for this package: it wants to be told.
  const parts = [];
  await assert.rejects(async () => {
    for await (const part of stream) {
      parts.push(part);
      if (parts.length === 2) stream.abort();
    }
  }, { name: "AbortError" });
  assert.match(textOf(parts), /tag-/);
  await brokenOff(word);
});

test("ollama: a failure in the middle", async () => {
  const parts = [];
  const stream = await chat(SCRIPTED_URL, asking(script("one ", "two ", { status: "INTERNAL" })), { stream: true });
  await assert.rejects(pieces(stream, parts), /The engine failed to answer/);
  assert.equal(textOf(parts), "one two ");
});

test("ollama: an engine that is silent for a while", async () => {
  const messages = asking(script({ sleep: 1 }, "one ", { sleep: 1 }, "two"));
  assert.equal(textOf(await pieces(await chat(SCRIPTED_URL, messages, { stream: true }))), "one two");
});

test("ollama: a conversation keeps its context", async () => {
  const question = `${QUESTION} ${tag()}`;
  const answer = (await chat(URL, asking(question))).message.content;
  assert.match((await chat(URL, asking(question, answer, FOLLOW_UP))).message.content, KEY_FACT);
});
