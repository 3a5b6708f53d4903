// Codex, OpenAI's command-line assistant, which uses Responses.

import assert from "node:assert/strict";
import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { DOWN_URL, FOLLOW_UP, KEY_FACT, SCRIPTED_URL, URL as GATEWAY, documented, script } from "./questions.mjs";
import { MODULES, PLATFORM, assertFailure, assertOutput, needs, sandbox } from "./sandbox.mjs";

// The program itself; the package codex only selects it.
const VENDOR = join(MODULES, `@openai/codex-${PLATFORM}/vendor`);
const BIN = existsSync(VENDOR) && join(VENDOR, readdirSync(VENDOR)[0], "bin");
const options = needs(BIN);

// Settings around the documented ones: without them it also contacts chatgpt.com and github.com.
const BEFORE = "check_for_update_on_startup = false\n";
const AFTER = "\n[analytics]\nenabled = false\n\n[features]\nplugins = false\n";
const ONCE = "request_max_retries = 0\nstream_max_retries = 0\n";

const sh = sandbox({ strict: true });
// It requires a repository.
const codex = (name, commands, { url = GATEWAY, model, settings = "" } = {}) =>
  sh(name, BIN, `git init -q .\n${commands}`, {
    files: { ".codex/config.toml": BEFORE + documented("codex", "toml", url, model) + settings + AFTER },
  });

test("codex: the documented commands and a follow-up in context", options, async () => {
  assertOutput(await codex("documented", documented("codex", "sh")), KEY_FACT);
  assertOutput(await codex("documented", `codex exec resume --last "${FOLLOW_UP}"`), KEY_FACT);
  assert.doesNotMatch((await codex("alone", `codex exec "${FOLLOW_UP}"`)).output, KEY_FACT);
});

test("codex: the engine receives only the user's question", options, async () => {
  const { output } = await codex("words", 'codex exec "one two three" 2>/dev/null', { url: SCRIPTED_URL });
  assert.equal(output.trim(), "one two three");
});

test("codex: it knows the model from the gateway's list", options, async () => {
  const { output } = await codex("model", 'codex exec "one two three" 2>&1', { url: SCRIPTED_URL });
  assert.doesNotMatch(output, /Model metadata .* not found/);
});

test("codex: with openai_base_url it continues over HTTP after its WebSocket is refused", options, async () => {
  const files = { ".codex/config.toml": `${BEFORE}model = "brunix"\nopenai_base_url = "${SCRIPTED_URL}/v1"\n${AFTER}` };
  const env = { OPENAI_API_KEY: "unused", CODEX_API_KEY: "unused" };
  const { output } = await sh("websocket", BIN, 'git init -q .\ncodex exec "one two three" 2>/dev/null', { env, files });
  assert.equal(output.trim(), "one two three");
});

for (const [name, changes, question, expected] of [
  ["an unknown model", { model: "gpt-7" }, "Hi", /The model 'gpt-7' does not exist/],
  ["engine down", { url: DOWN_URL, settings: ONCE }, "Hi", /503.*The engine is unreachable/],
  ["a failure in the middle", { url: SCRIPTED_URL, settings: ONCE }, script("one ", "two ", { status: "INTERNAL" }),
    /The engine failed to answer/],
]) {
  test(`codex: ${name} is an error`, options, async () => {
    assertFailure(await codex(name.replaceAll(" ", "-"), `codex exec '${question}'`, changes), expected);
  });
}
