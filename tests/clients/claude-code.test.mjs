// Claude Code, Anthropic's assistant for the command line. It is not free software: it is installed for these tests
// alone, and goes into nothing that is handed on.

import assert from "node:assert/strict";
import { existsSync, mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import {
  DOWN_URL, FOLLOW_UP, KEY_FACT, QUESTION, SCRIPTED_URL, URL as GATEWAY, documented, ran, script, wall,
} from "./asked.mjs";

const PLATFORM = `${process.platform}-${process.arch}`;
// The program itself, which the package claude-code only chooses.
const BIN = fileURLToPath(new URL(`node_modules/@anthropic-ai/claude-code-${PLATFORM}`, import.meta.url));
const options = { skip: !existsSync(BIN) && `there is none for ${PLATFORM}` };

let folder;
let beyond;
before(async () => {
  folder = mkdtempSync(join(tmpdir(), "claude-code-"));
  beyond = await wall();
});
after(() => {
  beyond.close();
  rmSync(folder, { recursive: true, force: true, maxRetries: 5 });
});

// Runs commands in a folder and a home of their own.
async function sh(name, commands, environment = {}) {
  const home = join(folder, name);
  mkdirSync(home, { recursive: true });
  const path = `${BIN}${delimiter}${process.env.PATH}`;
  const env = { ...process.env, ...beyond.env, HOME: home, PATH: path, ...environment };
  const { status, printed } = await ran("sh", ["-ec", commands], { cwd: home, env });
  assert.deepEqual(beyond.asked, [], "it asked beyond this machine");
  return { status, printed };
}

// What is documented, but for the question.
const claude = (words, url = GATEWAY, model = "brunix") =>
  documented("claude-code", "sh", url, model).replace(`claude -p "${QUESTION}"`, `claude -p ${words}`);

test("claude-code: as documented, and a follow-up in its context", options, async () => {
  const answered = await sh("documented", documented("claude-code", "sh"));
  assert.equal(answered.status, 0, answered.printed);
  assert.match(answered.printed, KEY_FACT);
  const followed = await sh("documented", claude(`--continue "${FOLLOW_UP}"`));
  assert.equal(followed.status, 0, followed.printed);
  assert.match(followed.printed, KEY_FACT);
  assert.doesNotMatch((await sh("alone", claude(`"${FOLLOW_UP}"`))).printed, KEY_FACT);
});

test("claude-code: the engine is asked what its user asked, and nothing else", options, async () => {
  const { printed } = await sh("words", claude('"one two three" 2>/dev/null', SCRIPTED_URL));
  assert.equal(printed.trim(), "one two three");
});

test("claude-code: a streamed answer, as JSON", options, async () => {
  const words = `--output-format stream-json --include-partial-messages --verbose "${QUESTION}" 2>/dev/null`;
  const { printed } = await sh("json", claude(words));
  const told = printed.trim().split("\n").map((line) => JSON.parse(line));
  const texts = told.filter(({ event }) => event?.type === "content_block_delta").map(({ event }) => event.delta.text);
  const { is_error, result, usage } = told.find(({ type }) => type === "result");
  assert.deepEqual([is_error, result], [false, texts.join("")]);
  assert.match(result, KEY_FACT);
  assert.ok(usage.output_tokens > 0);
});

const FAILING = script("one ", "two ", { status: "INTERNAL" });
for (const [name, words, url, model, told] of [
  ["an unknown model", '"Hi"', GATEWAY, "claude-7", /claude-7.*may not exist/],
  ["engine down", '"Hi"', DOWN_URL, "brunix", /503 The engine cannot be reached/],
  ["a failure in the middle", `'${FAILING}'`, SCRIPTED_URL, "brunix", /The engine failed to answer/],
]) {
  test(`claude-code: ${name} is an error`, options, async () => {
    // It would try for minutes.
    const once = { CLAUDE_CODE_MAX_RETRIES: "0" };
    const { status, printed } = await sh(name.replaceAll(" ", "-"), claude(words, url, model), once);
    assert.notEqual(status, 0);
    assert.match(printed, told);
  });
}
