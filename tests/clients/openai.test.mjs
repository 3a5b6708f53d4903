// OpenAI's own package: what only it offers.

import assert from "node:assert/strict";
import { test } from "node:test";
import OpenAI from "openai";
import { openai } from "./providers.mjs";
import { FOLLOW_UP, KEY_FACT, QUESTION, URL, collect, conversation, tag } from "./questions.mjs";

const { chat, completions, models, responses } = openai(URL);

test("openai: the model can be listed and retrieved", async () => {
  assert.deepEqual((await collect(models.list())).map((model) => model.id), ["brunix"]);
  assert.equal((await models.retrieve("brunix")).id, "brunix");
});

test("openai: the stream helper returns the text", async () => {
  const runner = chat.completions.stream({ model: "brunix", messages: conversation(QUESTION) });
  assert.match(await runner.finalContent(), KEY_FACT);
});

test("openai: a prompt is completed", async () => {
  const chunks = await collect(await completions.create({ model: "brunix", prompt: QUESTION, stream: true }));
  assert.match(chunks.map((chunk) => chunk.choices[0].text).join(""), KEY_FACT);
});

const create = (input, options) => responses.create({ model: "brunix", input, ...options });

// Returns the response, and the session that it belongs to.
async function ask(input, { stream = false, ...options }) {
  const { data, response } = await create(input, { stream, ...options }).withResponse();
  const whole = stream ? (await collect(data)).at(-1).response : data;
  return { id: whole.id, text: whole.output[0].content[0].text, whole, session: response.headers.get("x-session-id") };
}

test("responses: the input can be a text", async () => {
  assert.match((await create(QUESTION)).output_text, KEY_FACT);
});

test("responses: the stream helper returns the response", async () => {
  const response = await responses.stream({ model: "brunix", input: QUESTION }).finalResponse();
  assert.match(response.output_text, KEY_FACT);
});

test("responses: parameters and tools without effect are named in a header", async () => {
  const tools = [{ type: "function", name: "f", parameters: { type: "object" }, strict: false }];
  const { data, response } = await create(QUESTION, { temperature: 0.5, tools }).withResponse();
  assert.equal(response.headers.get("x-brunix-ignored"), "temperature, tools");
  assert.match(data.output_text, KEY_FACT);
});

for (const stream of [true, false]) {
  for (const store of [true, false]) {
    const how = `${stream ? "streamed" : "whole"}, ${store ? "stored" : "not stored"}`;
    test(`responses: a response to a previous response is in its session and context, ${how}`, async () => {
      // Unique, because a session can be taken over by another client that presents the same conversation.
      let { id, text, session } = await ask(`${QUESTION} ${tag()}`, { stream, store });
      assert.match(text, KEY_FACT);
      for (let turn = 0; turn < 2; turn += 1) {
        const followed = await ask(FOLLOW_UP, { stream, store, previous_response_id: id });
        assert.match(followed.text, KEY_FACT);
        assert.equal(followed.session, session);
        ({ id } = followed);
      }
      assert.doesNotMatch((await ask(FOLLOW_UP, { stream, store })).text, KEY_FACT);
    });
  }

  test(`responses: earlier output can be sent as input, ${stream ? "streamed" : "whole"}`, async () => {
    const messages = conversation(`${QUESTION} ${tag()}`);
    const { whole, session } = await ask(messages, { stream, store: false });
    const followed = await ask([...messages, ...whole.output, ...conversation(FOLLOW_UP)], { stream, store: false });
    assert.match(followed.text, KEY_FACT);
    assert.equal(followed.session, session);
  });
}

test("responses: a response can be retrieved and deleted, unless it was not stored", async () => {
  const response = await create(QUESTION, { metadata: { ticket: "4711" } });
  const retrieved = await responses.retrieve(response.id);
  assert.deepEqual([retrieved.output_text, retrieved.metadata], [response.output_text, { ticket: "4711" }]);
  await responses.delete(response.id);
  await assert.rejects(responses.retrieve(response.id), OpenAI.NotFoundError);
  await assert.rejects(responses.delete(response.id), OpenAI.NotFoundError);
  const { id } = await create(QUESTION, { store: false });
  await assert.rejects(responses.retrieve(id), OpenAI.NotFoundError);
});
