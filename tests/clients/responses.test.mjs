// OpenAI's own package, by the Responses API.

import assert from "node:assert/strict";
import { test } from "node:test";
import OpenAI from "openai";
import {
  DOWN_URL, FOLLOW_UP, KEY_FACT, MANY, QUESTION, SCRIPTED_URL, URL, asking, brokenOff, pieces, script, tag,
} from "./asked.mjs";

const client = (url, options) => new OpenAI({ baseURL: `${url}/v1`, apiKey: "unused", maxRetries: 0, ...options });
const create = (url, input, options) => client(url).responses.create({ model: "brunix", input, ...options });
const textOf = (events) =>
  events.filter(({ type }) => type === "response.output_text.delta").map(({ delta }) => delta).join("");

// Asks, and tells the whole response and the session it was asked in.
async function asked(input, { stream = false, ...options }) {
  const { data, response } = await create(URL, input, { stream, ...options }).withResponse();
  const whole = stream ? (await pieces(data)).at(-1).response : data;
  return { id: whole.id, text: whole.output[0].content[0].text, whole, session: response.headers.get("x-session-id") };
}

test("responses: a whole answer, with its usage", async () => {
  const response = await create(URL, QUESTION);
  assert.match(response.output_text, KEY_FACT);
  assert.equal(response.status, "completed");
  assert.ok(response.usage.output_tokens > MANY);
});

test("responses: a streamed answer, with its usage at the end", async () => {
  const events = await pieces(await create(URL, asking(QUESTION), { stream: true }));
  assert.match(textOf(events), KEY_FACT);
  assert.ok(events.filter(({ type }) => type === "response.output_text.delta").length > MANY);
  assert.deepEqual(events.map((event) => event.sequence_number), [...events.keys()]);
  const { type, response } = events.at(-1);
  assert.deepEqual([type, response.output[0].content[0].text], ["response.completed", textOf(events)]);
  assert.ok(response.usage.output_tokens > MANY);
});

test("responses: the package's own gathering of a stream", async () => {
  const response = await client(URL).responses.stream({ model: "brunix", input: QUESTION }).finalResponse();
  assert.match(response.output_text, KEY_FACT);
});

test("responses: cut by its length", async () => {
  const input = script("one ", "two ", "three");
  const whole = await create(SCRIPTED_URL, input, { max_output_tokens: 2 });
  assert.deepEqual([whole.output_text, whole.status], ["one two ", "incomplete"]);
  assert.equal(whole.incomplete_details.reason, "max_output_tokens");
  const events = await pieces(await create(SCRIPTED_URL, input, { max_output_tokens: 2, stream: true }));
  assert.deepEqual([textOf(events), events.at(-1).type], ["one two ", "response.incomplete"]);
});

test("responses: what has no effect is told", async () => {
  const tools = [{ type: "function", name: "f", parameters: { type: "object" }, strict: false }];
  const { data, response } = await create(URL, QUESTION, { temperature: 0.5, tools }).withResponse();
  assert.equal(response.headers.get("x-brunix-ignored"), "temperature, tools");
  assert.match(data.output_text, KEY_FACT);
});

for (const [name, url, parameters, error] of [
  ["unknown model", URL, { model: "gpt-7" }, OpenAI.NotFoundError],
  ["unknown answer", URL, { previous_response_id: "resp_0" }, OpenAI.NotFoundError],
  ["no input", URL, { input: [] }, OpenAI.BadRequestError],
  ["engine down", DOWN_URL, {}, OpenAI.InternalServerError],
  ["engine busy", SCRIPTED_URL, { input: script({ status: "RESOURCE_EXHAUSTED" }) }, OpenAI.RateLimitError],
]) {
  for (const stream of [true, false]) {
    test(`responses: ${name}, ${stream ? "streamed" : "whole"}`, async () => {
      await assert.rejects(create(url, QUESTION, { stream, ...parameters }), error);
    });
  }
}

test("responses: broken off by the user", async () => {
  const word = tag();
  const stream = await create(SCRIPTED_URL, script(word, "two ", "three ", { hang: true }), { stream: true });
  // Four events come before the text.
  assert.match(textOf(await pieces(stream, [], 5)), /tag-/);
  stream.controller.abort();
  await brokenOff(word);
});

test("responses: a failure in the middle", async () => {
  const events = [];
  const stream = await create(SCRIPTED_URL, script("one ", "two ", { status: "INTERNAL" }), { stream: true });
  await assert.rejects(pieces(stream, events), OpenAI.APIError);
  assert.equal(textOf(events), "one two ");
});

test("responses: an engine that is silent for a while", async () => {
  const input = script({ sleep: 1 }, "one ", { sleep: 1 }, "two");
  assert.equal(textOf(await pieces(await create(SCRIPTED_URL, input, { stream: true }))), "one two");
});

for (const stream of [true, false]) {
  for (const store of [true, false]) {
    const how = `${stream ? "streamed" : "whole"}, ${store ? "stored" : "not stored"}`;
    test(`responses: goes on from an answer's id, ${how}`, async () => {
      let { id, text, session } = await asked(QUESTION, { stream, store });
      assert.match(text, KEY_FACT);
      for (let turn = 0; turn < 2; turn += 1) {
        const followed = await asked(FOLLOW_UP, { stream, store, previous_response_id: id });
        assert.match(followed.text, KEY_FACT);
        assert.equal(followed.session, session);
        ({ id } = followed);
      }
      assert.doesNotMatch((await asked(FOLLOW_UP, { stream, store })).text, KEY_FACT);
    });
  }

  test(`responses: a conversation keeps its context, ${stream ? "streamed" : "whole"}`, async () => {
    const said = asking(`${QUESTION} ${tag()}`);
    const first = await asked(said, { stream, store: false });
    const followed = await asked([...said, ...first.whole.output, ...asking(FOLLOW_UP)], { stream, store: false });
    assert.match(followed.text, KEY_FACT);
    assert.equal(followed.session, first.session);
  });
}

test("responses: an answer again, and forgotten", async () => {
  const { responses } = client(URL);
  const response = await create(URL, QUESTION, { metadata: { ticket: "4711" } });
  const again = await responses.retrieve(response.id);
  assert.deepEqual([again.output_text, again.metadata], [response.output_text, { ticket: "4711" }]);
  await responses.delete(response.id);
  await assert.rejects(responses.retrieve(response.id), OpenAI.NotFoundError);
  await assert.rejects(responses.delete(response.id), OpenAI.NotFoundError);
  const { id } = await create(URL, QUESTION, { store: false });
  await assert.rejects(responses.retrieve(id), OpenAI.NotFoundError);
});
