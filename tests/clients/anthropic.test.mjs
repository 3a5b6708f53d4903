// Anthropic's own package: what only it offers.

import assert from "node:assert/strict";
import { test } from "node:test";
import Anthropic, { OverloadedError } from "@anthropic-ai/sdk";
import { PROVIDERS, anthropic, messagesRequest } from "./providers.mjs";
import {
  FAILS_IN_THE_MIDDLE, FOLLOW_UP, FULL_URL, HEARTBEAT_URL, KEY_FACT, MANY, NUMBERS, PAUSES, QUESTION, SCRIPTED_URL, URL,
  collect, conversation, hanging, tag,
} from "./questions.mjs";

const { ask, whole, cuts } = PROVIDERS.anthropic;
const helper = (url, messages, parameters) => anthropic(url).messages.stream(messagesRequest(messages, parameters));
const helperMessage = (...request) => helper(...request).finalMessage();

test("anthropic: the model can be listed and retrieved", async () => {
  const { models } = anthropic(URL);
  assert.deepEqual((await collect(models.list())).map((model) => model.id), ["brunix"]);
  assert.equal((await models.retrieve("brunix")).id, "brunix");
  await assert.rejects(models.retrieve("claude-7"), Anthropic.NotFoundError);
});

test("anthropic: a message has the id of its request", async () => {
  assert.ok((await ask(URL, conversation(QUESTION)))._request_id);
});

test("anthropic: the stream helper returns the texts and the message", async () => {
  const texts = [];
  const stream = helper(URL, conversation(QUESTION));
  stream.on("text", (text) => texts.push(text));
  const message = await stream.finalMessage();
  assert.match(message.content[0].text, KEY_FACT);
  assert.equal(message.content[0].text, texts.join(""));
  assert.ok(texts.length > MANY);
  assert.ok(stream.request_id);
});

for (const [parameters, text, finish] of cuts) {
  test(`anthropic: the stream helper reports why an answer ended: ${JSON.stringify(parameters)}`, async () => {
    const cut = whole(await helperMessage(SCRIPTED_URL, NUMBERS, parameters));
    assert.deepEqual([cut.text, cut.finish], [text, finish]);
  });
}

test("anthropic: the stream helper reports a failure in the middle", async () => {
  await assert.rejects(helperMessage(SCRIPTED_URL, FAILS_IN_THE_MIDDLE), Anthropic.APIError);
});

test("anthropic: the stream helper ignores heartbeats", async () => {
  assert.equal(whole(await helperMessage(HEARTBEAT_URL, PAUSES)).text, "one two");
});

test("anthropic: the number of input tokens can be counted before the request", async () => {
  const system = "Be brief";
  const { messages } = anthropic(URL);
  const count = await messages.countTokens({ model: "brunix", messages: conversation(QUESTION), system });
  const message = await ask(URL, conversation(QUESTION), { system });
  assert.equal(count.input_tokens, message.usage.input_tokens);
});

test("anthropic: tools without effect are named in a header", async () => {
  const tools = [{ name: "f", description: "does it", input_schema: { type: "object" } }];
  const { data, response } = await ask(URL, conversation(QUESTION), { tools }).withResponse();
  assert.equal(response.headers.get("x-brunix-ignored"), "tools");
  assert.deepEqual(data.content.map(({ type }) => type), ["text"]);
});

test("anthropic: a gateway whose queue is full is reported as overloaded", async () => {
  const stream = await ask(FULL_URL, hanging("one "), { stream: true });
  try {
    // Leaving a for-await loop would cancel the stream.
    await stream[Symbol.asyncIterator]().next();
    await assert.rejects(ask(FULL_URL, conversation("Hi")), (error) => {
      assert.ok(error instanceof OverloadedError);
      assert.deepEqual([error.status, error.error.error.type], [529, "overloaded_error"]);
      return true;
    });
  } finally {
    stream.controller.abort();
  }
});

for (const [how, request] of [["streamed", helperMessage], ["whole", ask]]) {
  test(`anthropic: the content of earlier answers can be sent as the package returned it, ${how}`, async () => {
    let messages = conversation(`${QUESTION} ${tag()}`);
    for (let turn = 0; turn < 3; turn += 1) {
      const { content } = await request(URL, messages);
      assert.match(content[0].text, KEY_FACT);
      messages = [...messages, { role: "assistant", content }, ...conversation(FOLLOW_UP)];
    }
  });
}
