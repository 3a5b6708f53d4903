// Vercel's AI SDK, by its provider for OpenAI-compatible servers and by one for Ollama.

import assert from "node:assert/strict";
import { test } from "node:test";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { APICallError, generateText, streamText } from "ai";
import { createOllama } from "ollama-ai-provider-v2";
import {
  DOWN_URL, FOLLOW_UP, KEY_FACT, MANY, QUESTION, SCRIPTED_URL, URL, asking, brokenOff, pieces, script, tag,
} from "./asked.mjs";

const PROVIDERS = {
  "openai-compatible": {
    make: (url) => createOpenAICompatible({ name: "brunix", baseURL: `${url}/v1`, includeUsage: true }),
    stop: { stopSequences: ["three"] },
    length: { maxOutputTokens: 1 },
    // How it ends an answer that failed in the middle.
    ends: ["error", "finish"],
    reason: "error",
  },
  // This one passes on neither of the SDK's own two settings, and takes an error in a stream for a line to be skipped;
  // so it does with Ollama's. At least it does not say that the answer is complete.
  ollama: {
    make: (url) => createOllama({ baseURL: `${url}/api` }),
    stop: { providerOptions: { ollama: { options: { stop: ["three"] } } } },
    length: { providerOptions: { ollama: { options: { num_predict: 1 } } } },
    ends: ["finish"],
    reason: "other",
  },
};

for (const [provider, { make, stop, length, ends, reason }] of Object.entries(PROVIDERS)) {
  const ask = (url, messages, options) => ({ model: make(url)("brunix"), messages, maxRetries: 0, ...options });
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

  for (const [cut, options, text] of [["stop", stop, "one two "], ["length", length, "one "]]) {
    test(`ai-sdk, ${provider}: cut by ${cut}`, async () => {
      const messages = asking(script("one ", "two ", "three ", "four"));
      const answer = await generateText(ask(SCRIPTED_URL, messages, options));
      assert.deepEqual([answer.text, answer.finishReason], [text, cut]);
    });
  }

  for (const [name, url, model, status] of [
    ["unknown model", URL, "gpt-7", 404],
    ["engine down", DOWN_URL, "brunix", 503],
  ]) {
    test(`ai-sdk, ${provider}: ${name}`, async () => {
      const options = { model: make(url)(model), messages: asking(QUESTION), maxRetries: 0 };
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
    const { textStream } = streamText(
      ask(SCRIPTED_URL, messages, { abortSignal: controller.signal, ...quiet }),
    );
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
    assert.deepEqual(parts.map((part) => part.type).filter((type) => ["error", "finish"].includes(type)), ends);
    assert.equal(parts.at(-1).finishReason, reason);
  });

  test(`ai-sdk, ${provider}: an engine that is silent for a while`, async () => {
    const messages = asking(script({ sleep: 1 }, "one ", { sleep: 1 }, "two"));
    assert.equal((await pieces(streamText(ask(SCRIPTED_URL, messages)).textStream)).join(""), "one two");
  });

  test(`ai-sdk, ${provider}: a conversation keeps its context`, async () => {
    const question = `${QUESTION} ${tag()}`;
    const { text } = await generateText(ask(URL, asking(question)));
    assert.match((await generateText(ask(URL, asking(question, text, FOLLOW_UP)))).text, KEY_FACT);
  });
}
