// OpenAI's own package for Node.

import assert from "node:assert/strict";
import { test } from "node:test";
import OpenAI from "openai";
import {
  DOWN_URL, FOLLOW_UP, KEY_FACT, MANY, QUESTION, SCRIPTED_URL, URL, asking, brokenOff, pieces, script, tag,
} from "./asked.mjs";

const client = (url, options) => new OpenAI({ baseURL: `${url}/v1`, apiKey: "unused", maxRetries: 0, ...options });
const create = (url, messages, options) =>
  client(url).chat.completions.create({ model: "brunix", messages, ...options });
const textOf = (chunks) => chunks.map((chunk) => chunk.choices[0]?.delta.content ?? "").join("");

test("openai: the model is listed", async () => {
  assert.deepEqual((await pieces(client(URL).models.list())).map((model) => model.id), ["brunix"]);
  assert.equal((await client(URL).models.retrieve("brunix")).id, "brunix");
});

test("openai: a whole answer, with its usage", async () => {
  const completion = await create(URL, asking(QUESTION));
  assert.match(completion.choices[0].message.content, KEY_FACT);
  assert.equal(completion.choices[0].finish_reason, "stop");
  assert.ok(completion.usage.completion_tokens > MANY);
});

test("openai: a streamed answer, with its usage at the end", async () => {
  const chunks = await pieces(
    await create(URL, asking(QUESTION), { stream: true, stream_options: { include_usage: true } }),
  );
  assert.match(textOf(chunks), KEY_FACT);
  assert.ok(chunks.length > MANY);
  assert.equal(chunks.at(-2).choices[0].finish_reason, "stop");
  assert.ok(chunks.at(-1).usage.completion_tokens > MANY);
});

test("openai: the package's own gathering of a stream", async () => {
  const runner = client(URL).chat.completions.stream({ model: "brunix", messages: asking(QUESTION) });
  assert.match(await runner.finalContent(), KEY_FACT);
});

test("openai: a prompt", async () => {
  const chunks = await pieces(
    await client(URL).completions.create({ model: "brunix", prompt: QUESTION, stream: true }),
  );
  assert.match(chunks.map((chunk) => chunk.choices[0].text).join(""), KEY_FACT);
});

for (const [parameters, text, reason] of [
  [{ stop: "three" }, "one two ", "stop"],
  [{ max_tokens: 1 }, "one ", "length"],
]) {
  test(`openai: cut by ${JSON.stringify(parameters)}`, async () => {
    const messages = asking(script("one ", "two ", "three ", "four"));
    const whole = await create(SCRIPTED_URL, messages, parameters);
    assert.deepEqual([whole.choices[0].message.content, whole.choices[0].finish_reason], [text, reason]);
    const chunks = await pieces(await create(SCRIPTED_URL, messages, { ...parameters, stream: true }));
    assert.deepEqual([textOf(chunks), chunks.at(-1).choices[0].finish_reason], [text, reason]);
  });
}

for (const [name, url, parameters, error] of [
  ["unknown model", URL, { model: "gpt-7" }, OpenAI.NotFoundError],
  ["no messages", URL, { messages: [] }, OpenAI.BadRequestError],
  ["engine down", DOWN_URL, {}, OpenAI.InternalServerError],
  ["engine busy", SCRIPTED_URL, { messages: asking(script({ status: "RESOURCE_EXHAUSTED" })) }, OpenAI.RateLimitError],
]) {
  for (const stream of [true, false]) {
    test(`openai: ${name}, ${stream ? "streamed" : "whole"}`, async () => {
      await assert.rejects(create(url, asking(QUESTION), { stream, ...parameters }), error);
    });
  }
}

test("openai: broken off by the user", async () => {
  const word = tag();
  const stream = await create(SCRIPTED_URL, asking(script(word, "two ", "three ", { hang: true })), { stream: true });
  assert.match(textOf(await pieces(stream, [], 2)), /tag-/);
  stream.controller.abort();
  await brokenOff(word);
});

test("openai: a failure in the middle", async () => {
  const chunks = [];
  const stream = await create(SCRIPTED_URL, asking(script("one ", "two ", { status: "INTERNAL" })), { stream: true });
  await assert.rejects(pieces(stream, chunks), OpenAI.APIError);
  assert.equal(textOf(chunks), "one two ");
});

test("openai: an engine that is silent for a while", async () => {
  const messages = asking(script({ sleep: 1 }, "one ", { sleep: 1 }, "two"));
  assert.equal(textOf(await pieces(await create(SCRIPTED_URL, messages, { stream: true }))), "one two");
});

test("openai: a conversation keeps its context", async () => {
  const question = `${QUESTION} ${tag()}`;
  const answer = (await create(URL, asking(question))).choices[0].message.content;
  const followed = await create(URL, asking(question, answer, FOLLOW_UP));
  assert.match(followed.choices[0].message.content, KEY_FACT);
});
