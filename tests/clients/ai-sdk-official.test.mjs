// Vercel's AI SDK, by its own providers for OpenAI's Responses and for Anthropic.

import assert from "node:assert/strict";
import { test } from "node:test";
import { createAnthropic } from "@ai-sdk/anthropic";
import { createOpenAI } from "@ai-sdk/openai";
import { APICallError, generateText, streamText } from "ai";
import {
  DOWN_URL, FOLLOW_UP, KEY_FACT, MANY, QUESTION, SCRIPTED_URL, URL, asking, brokenOff, pieces, script, tag,
} from "./asked.mjs";

// It would warn that it does not know the model.
globalThis.AI_SDK_LOG_WARNINGS = false;

const openai = (url) => createOpenAI({ name: "brunix", baseURL: `${url}/v1`, apiKey: "unused" });
const PROVIDERS = {
  // What the SDK sends of earlier answers are references to them, unless it is told not to store.
  responses: { make: openai },
  "responses, not stored": { make: openai, options: { providerOptions: { openai: { store: false } } } },
  anthropic: {
    make: (url) => createAnthropic({ baseURL: `${url}/v1`, apiKey: "unused" }),
    // Responses have no stop texts.
    stop: { stopSequences: ["three"] },
  },
};

for (const [provider, { make, options: always, stop }] of Object.entries(PROVIDERS)) {
  const ask = (url, messages, options) => (
    { model: make(url)("brunix"), messages, maxRetries: 0, ...always, ...options }
  );
  // Without this it writes to the console what the tests look for themselves.
  const quiet = { onError() {} };

  test(`ai-sdk, ${provider}: a whole answer, with its usage`, async () => {
    const { text, usage, finishReason } = await generateText(ask(URL, asking(QUESTION)));
    assert.match(text, KEY_FACT);
    assert.equal(finishReason, "stop");
    assert.ok(usage.outputTokens > MANY);
  });

  test(`ai-sdk, ${provider}: a streamed answer, with its usage`, async () => {
    const answer = streamText(ask(URL, asking(QUESTION)));
    const texts = await pieces(answer.textStream);
    assert.match(texts.join(""), KEY_FACT);
    assert.ok(texts.length > MANY);
    assert.equal(await answer.finishReason, "stop");
    assert.ok((await answer.usage).outputTokens > MANY);
  });

  for (const [cut, options, text] of [["stop", stop, "one two "], ["length", { maxOutputTokens: 1 }, "one "]]) {
    if (!options) continue;
    test(`ai-sdk, ${provider}: cut by ${cut}`, async () => {
      const messages = asking(script("one ", "two ", "three ", "four"));
      const answer = await generateText(ask(SCRIPTED_URL, messages, options));
      assert.deepEqual([answer.text, answer.finishReason], [text, cut]);
      const streamed = streamText(ask(SCRIPTED_URL, messages, options));
      assert.deepEqual([await streamed.text, await streamed.finishReason], [text, cut]);
    });
  }

  for (const [name, url, model, status] of [
    ["unknown model", URL, "gpt-7", 404],
    ["engine down", DOWN_URL, "brunix", 503],
  ]) {
    test(`ai-sdk, ${provider}: ${name}`, async () => {
      const options = ask(url, asking(QUESTION), { model: make(url)(model) });
      const expected = (error) => {
        assert.ok(APICallError.isInstance(error), String(error));
        assert.equal(error.statusCode, status);
        return true;
      };
      await assert.rejects(generateText(options), expected);
      const errors = [];
      const parts = await pieces(streamText({ ...options, onError: ({ error }) => errors.push(error) }).textStream);
      assert.deepEqual(parts, []);
      assert.ok(expected(errors[0]));
    });
  }

  test(`ai-sdk, ${provider}: broken off by the user`, async () => {
    const word = tag();
    const controller = new AbortController();
    const messages = asking(script(word, "two ", "three ", { hang: true }));
    const { textStream } = streamText(ask(SCRIPTED_URL, messages, { abortSignal: controller.signal, ...quiet }));
    for await (const text of textStream) {
      assert.match(text, /tag-/);
      break;
    }
    controller.abort();
    await brokenOff(word);
  });

  test(`ai-sdk, ${provider}: a failure in the middle`, async () => {
    const messages = asking(script("one ", "two ", { status: "INTERNAL" }));
    const parts = await pieces(streamText(ask(SCRIPTED_URL, messages, quiet)).fullStream);
    const text = parts.filter((part) => part.type === "text-delta").map((part) => part.text).join("");
    assert.equal(text, "one two ");
    assert.ok(parts.some((part) => part.type === "error"));
    assert.notEqual(parts.at(-1).finishReason, "stop");
  });

  test(`ai-sdk, ${provider}: an engine that is silent for a while`, async () => {
    const messages = asking(script({ sleep: 1 }, "one ", { sleep: 1 }, "two"));
    assert.equal(await streamText(ask(SCRIPTED_URL, messages)).text, "one two");
  });

  for (const [how, answered] of [
    ["streamed", (options) => streamText(options).response],
    ["whole", async (options) => (await generateText(options)).response],
  ]) {
    test(`ai-sdk, ${provider}: a conversation keeps its context, ${how}`, async () => {
      let said = asking(`${QUESTION} ${tag()}`);
      const sessions = new Set();
      for (let turn = 0; turn < 3; turn += 1) {
        const { messages, headers } = await answered(ask(URL, said));
        assert.match(JSON.stringify(messages), KEY_FACT);
        sessions.add(headers["x-session-id"]);
        said = [...said, ...messages, ...asking(FOLLOW_UP)];
      }
      assert.equal(sessions.size, 1);
      assert.doesNotMatch(JSON.stringify(await answered(ask(URL, asking(FOLLOW_UP)))), KEY_FACT);
    });
  }
}
