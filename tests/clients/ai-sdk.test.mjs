// Vercel's AI SDK: what only it does.

import assert from "node:assert/strict";
import { test } from "node:test";
import { generateText, streamText } from "ai";
import { AI_SDK } from "./providers.mjs";
import { FAILS_IN_THE_MIDDLE, FOLLOW_UP, KEY_FACT, QUESTION, SCRIPTED_URL, URL, collect, conversation, tag } from "./questions.mjs";

// The last parts of a stream that fails in the middle, and its finish reason.
const FAILURES = {
  "ai-sdk, openai-compatible": [["error", "finish"], "error"],
  // This provider skips errors in a stream, also Ollama's own, but does not report the answer as complete.
  "ai-sdk, ollama": [["finish"], "other"],
  "ai-sdk, responses": [["error", "finish"], "error"],
  "ai-sdk, responses, not stored": [["error", "finish"], "error"],
  "ai-sdk, anthropic": [["error", "finish"], "error"],
};

for (const [name, { request }] of Object.entries(AI_SDK)) {
  test(`${name}: a failure in the middle is not reported as a complete answer`, async () => {
    const parts = await collect(streamText(request(SCRIPTED_URL, FAILS_IN_THE_MIDDLE)).fullStream);
    const text = parts.filter(({ type }) => type === "text-delta").map((part) => part.text).join("");
    assert.equal(text, "one two ");
    const end = parts.filter(({ type }) => ["error", "finish"].includes(type));
    assert.deepEqual([end.map(({ type }) => type), parts.at(-1).finishReason], FAILURES[name]);
  });
}

for (const [name, { request }] of Object.entries(AI_SDK)) {
  // The other packages do not return headers.
  if (!/responses|anthropic/.test(name)) continue;
  for (const [how, response] of [
    ["streamed", (options) => streamText(options).response],
    ["whole", async (options) => (await generateText(options)).response],
  ]) {
    test(`${name}: the SDK's own messages keep the conversation in its session, ${how}`, async () => {
      let messages = conversation(`${QUESTION} ${tag()}`);
      const sessions = new Set();
      for (let turn = 0; turn < 3; turn += 1) {
        const { messages: answered, headers } = await response(request(URL, messages));
        assert.match(JSON.stringify(answered), KEY_FACT);
        sessions.add(headers["x-session-id"]);
        messages = [...messages, ...answered, ...conversation(FOLLOW_UP)];
      }
      assert.equal(sessions.size, 1);
    });
  }
}
