// Claude Code, Anthropic's command-line assistant. It is not free software: it is installed only for these tests, and is
// not part of anything that is distributed.

import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";
import { DOWN_URL, FOLLOW_UP, KEY_FACT, QUESTION, SCRIPTED_URL, URL as GATEWAY, documented, script } from "./questions.mjs";
import { MODULES, PLATFORM, assertFailure, assertOutput, needs, sandbox } from "./sandbox.mjs";

// The program itself; the package claude-code only selects it.
const BIN = join(MODULES, `@anthropic-ai/claude-code-${PLATFORM}`);
const options = needs(BIN);

const sh = sandbox({ strict: true });
// The documented commands with other words in place of the question.
const claude = (name, words, { url = GATEWAY, model = "brunix", env } = {}) =>
  sh(name, BIN, documented("claude-code", "sh", url, model).replace(`claude -p "${QUESTION}"`, `claude -p ${words}`), { env });

test("claude-code: the documented commands and a follow-up in context", options, async () => {
  assertOutput(await claude("documented", `"${QUESTION}"`), KEY_FACT);
  assertOutput(await claude("documented", `--continue "${FOLLOW_UP}"`), KEY_FACT);
  assert.doesNotMatch((await claude("alone", `"${FOLLOW_UP}"`)).output, KEY_FACT);
});

test("claude-code: the engine receives only the user's question", options, async () => {
  const { output } = await claude("words", '"one two three" 2>/dev/null', { url: SCRIPTED_URL });
  assert.equal(output.trim(), "one two three");
});

test("claude-code: a streamed answer as JSON", options, async () => {
  const words = `--output-format stream-json --include-partial-messages --verbose "${QUESTION}" 2>/dev/null`;
  const events = (await claude("json", words)).output.trim().split("\n").map((line) => JSON.parse(line));
  const texts = events.filter(({ event }) => event?.type === "content_block_delta").map(({ event }) => event.delta.text);
  const { is_error, result, usage } = events.find(({ type }) => type === "result");
  assert.deepEqual([is_error, result], [false, texts.join("")]);
  assert.match(result, KEY_FACT);
  assert.ok(usage.output_tokens > 0);
});

const FAILING = script("one ", "two ", { status: "INTERNAL" });
for (const [name, words, changes, expected] of [
  ["an unknown model", '"Hi"', { model: "claude-7" }, /claude-7.*may not exist/],
  ["an unreachable engine", '"Hi"', { url: DOWN_URL }, /503 The engine is unreachable/],
  ["a failure in the middle", `'${FAILING}'`, { url: SCRIPTED_URL }, /The engine failed to answer/],
]) {
  test(`claude-code: ${name} is an error`, options, async () => {
    // Without it, Claude Code retries for minutes.
    const env = { CLAUDE_CODE_MAX_RETRIES: "0" };
    assertFailure(await claude(name.replaceAll(" ", "-"), words, { ...changes, env }), expected);
  });
}
