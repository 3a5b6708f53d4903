// Anthropic's own package.

import assert from "node:assert/strict";
import { test } from "node:test";
import Anthropic, { OverloadedError, ServiceUnavailableError } from "@anthropic-ai/sdk";
import {
  DOWN_URL, FOLLOW_UP, FULL_URL, KEY_FACT, MANY, QUESTION, SCRIPTED_URL, URL, asking, brokenOff, pieces, script, tag,
} from "./asked.mjs";

const client = (url) => new Anthropic({ baseURL: url, apiKey: "unused", maxRetries: 0 });
const request = (messages, options) => ({ model: "brunix", max_tokens: 1024, messages, ...options });
const create = (url, messages, options) => client(url).messages.create(request(messages, options));
const gathered = (url, messages, options) => client(url).messages.stream(request(messages, options)).finalMessage();
const textOf = (events) =>
  events.filter(({ type }) => type === "content_block_delta").map(({ delta }) => delta.text).join("");

test("anthropic: the model is listed", async () => {
  assert.deepEqual((await pieces(client(URL).models.list())).map((model) => model.id), ["brunix"]);
  assert.equal((await client(URL).models.retrieve("brunix")).id, "brunix");
  await assert.rejects(client(URL).models.retrieve("claude-7"), Anthropic.NotFoundError);
});

test("anthropic: a whole answer, with its usage and its request's id", async () => {
  const message = await create(URL, asking(QUESTION));
  assert.match(message.content[0].text, KEY_FACT);
  assert.equal(message.stop_reason, "end_turn");
  assert.ok(message.usage.output_tokens > MANY);
  assert.ok(message._request_id);
});

test("anthropic: a streamed answer, with its usage at the end", async () => {
  const events = await pieces(await create(URL, asking(QUESTION), { stream: true }));
  assert.match(textOf(events), KEY_FACT);
  assert.ok(events.length > MANY);
  assert.equal(events.at(-2).delta.stop_reason, "end_turn");
  assert.ok(events.at(-2).usage.output_tokens > MANY);
});

test("anthropic: the package's own gathering of a stream", async () => {
  const texts = [];
  const stream = client(URL).messages.stream(request(asking(QUESTION)));
  stream.on("text", (text) => texts.push(text));
  const message = await stream.finalMessage();
  assert.match(message.content[0].text, KEY_FACT);
  assert.equal(message.content[0].text, texts.join(""));
  assert.ok(texts.length > MANY);
  assert.ok(stream.request_id);
});

test("anthropic: tokens are counted", async () => {
  const system = "Be brief";
  const count = await client(URL).messages.countTokens({ model: "brunix", messages: asking(QUESTION), system });
  const message = await create(URL, asking(QUESTION), { system });
  assert.equal(count.input_tokens, message.usage.input_tokens);
});

for (const [parameters, text, reason, stop] of [
  [{ stop_sequences: ["three"] }, "one two ", "stop_sequence", "three"],
  [{ max_tokens: 1 }, "one ", "max_tokens", null],
]) {
  for (const [how, ask] of [["streamed", gathered], ["whole", create]]) {
    test(`anthropic: cut by ${JSON.stringify(parameters)}, ${how}`, async () => {
      const message = await ask(SCRIPTED_URL, asking(script("one ", "two ", "three ", "four")), parameters);
      assert.deepEqual([message.content[0].text, message.stop_reason, message.stop_sequence], [text, reason, stop]);
    });
  }
}

test("anthropic: what has no effect is told", async () => {
  const tools = [{ name: "f", description: "does it", input_schema: { type: "object" } }];
  const { data, response } = await client(URL).messages.create(request(asking(QUESTION), { tools })).withResponse();
  assert.equal(response.headers.get("x-brunix-ignored"), "tools");
  assert.deepEqual(data.content.map(({ type }) => type), ["text"]);
});

for (const [name, url, parameters, error] of [
  ["unknown model", URL, { model: "claude-7" }, Anthropic.NotFoundError],
  ["no messages", URL, { messages: [] }, Anthropic.BadRequestError],
  ["engine down", DOWN_URL, {}, ServiceUnavailableError],
  ["engine busy", SCRIPTED_URL, { messages: asking(script({ status: "RESOURCE_EXHAUSTED" })) },
    Anthropic.RateLimitError],
]) {
  for (const stream of [true, false]) {
    test(`anthropic: ${name}, ${stream ? "streamed" : "whole"}`, async () => {
      await assert.rejects(create(url, asking(QUESTION), { stream, ...parameters }), error);
    });
  }
}

test("anthropic: a gateway that has too much to do", async () => {
  const stream = await create(FULL_URL, asking(script("one ", { hang: true })), { stream: true });
  try {
    // A loop that is left would break the stream off.
    await stream[Symbol.asyncIterator]().next();
    await assert.rejects(create(FULL_URL, asking("Hi")), (error) => {
      assert.ok(error instanceof OverloadedError);
      assert.deepEqual([error.status, error.error.error.type], [529, "overloaded_error"]);
      return true;
    });
  } finally {
    stream.controller.abort();
  }
});

test("anthropic: broken off by the user", async () => {
  const word = tag();
  const messages = asking(script(word, "two ", "three ", { hang: true }));
  const stream = await create(SCRIPTED_URL, messages, { stream: true });
  // Two events come before the text; the package keeps the ping to itself.
  assert.match(textOf(await pieces(stream, [], 3)), /tag-/);
  stream.controller.abort();
  await brokenOff(word);
});

test("anthropic: a failure in the middle", async () => {
  const events = [];
  const messages = asking(script("one ", "two ", { status: "INTERNAL" }));
  await assert.rejects(pieces(await create(SCRIPTED_URL, messages, { stream: true }), events), Anthropic.APIError);
  assert.equal(textOf(events), "one two ");
  await assert.rejects(gathered(SCRIPTED_URL, messages), Anthropic.APIError);
});

test("anthropic: an engine that is silent for a while", async () => {
  const messages = asking(script({ sleep: 1 }, "one ", { sleep: 1 }, "two"));
  assert.equal((await gathered(SCRIPTED_URL, messages)).content[0].text, "one two");
});

for (const [how, ask] of [["streamed", gathered], ["whole", create]]) {
  test(`anthropic: a conversation keeps its context, ${how}`, async () => {
    let said = asking(`${QUESTION} ${tag()}`);
    for (let turn = 0; turn < 3; turn += 1) {
      const { content } = await ask(URL, said);
      assert.match(content[0].text, KEY_FACT);
      said = [...said, { role: "assistant", content }, ...asking(FOLLOW_UP)];
    }
    assert.doesNotMatch((await ask(URL, asking(FOLLOW_UP))).content[0].text, KEY_FACT);
  });
}
