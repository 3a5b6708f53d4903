// Codex, OpenAI's assistant for the command line, which asks by Responses.

import assert from "node:assert/strict";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { DOWN_URL, FOLLOW_UP, KEY_FACT, SCRIPTED_URL, URL as GATEWAY, documented, ran, script, wall } from "./asked.mjs";

const PLATFORM = `${process.platform}-${process.arch}`;
// The programs themselves, which the package codex only chooses among.
const VENDOR = fileURLToPath(new URL(`node_modules/@openai/codex-${PLATFORM}/vendor`, import.meta.url));
const options = { skip: !existsSync(VENDOR) && `there is none for ${PLATFORM}` };

// Its settings lie around those that are documented: without them it asks chatgpt.com and github.com too.
const BEFORE = "check_for_update_on_startup = false\n";
const ONCE = "request_max_retries = 0\nstream_max_retries = 0\n";
const AFTER = "\n[analytics]\nenabled = false\n\n[features]\nplugins = false\n";

let folder;
let beyond;
before(async () => {
  folder = mkdtempSync(join(tmpdir(), "codex-"));
  beyond = await wall();
});
after(() => {
  beyond.close();
  rmSync(folder, { recursive: true, force: true, maxRetries: 5 });
});

// Runs commands in a repository and a home of their own.
async function sh(name, commands, { url = GATEWAY, model, settings = "" } = {}) {
  const home = join(folder, name);
  const bin = join(VENDOR, readdirSync(VENDOR)[0], "bin");
  mkdirSync(join(home, ".codex"), { recursive: true });
  writeFileSync(
    join(home, ".codex", "config.toml"),
    BEFORE + documented("codex", "toml", url, model) + settings + AFTER,
  );
  const env = { ...process.env, ...beyond.env, HOME: home, PATH: `${bin}${delimiter}${process.env.PATH}` };
  // It works in a repository only, unless it is told otherwise.
  const { status, printed } = await ran("sh", ["-ec", `git init -q .\n${commands}`], { cwd: home, env });
  assert.deepEqual(beyond.asked, [], "it asked beyond this machine");
  return { status, printed };
}

test("codex: as documented, and a follow-up in its context", options, async () => {
  const answered = await sh("documented", documented("codex", "sh"));
  assert.equal(answered.status, 0, answered.printed);
  assert.match(answered.printed, KEY_FACT);
  const followed = await sh("documented", `codex exec resume --last "${FOLLOW_UP}"`);
  assert.equal(followed.status, 0, followed.printed);
  assert.match(followed.printed, KEY_FACT);
  assert.doesNotMatch((await sh("alone", `codex exec "${FOLLOW_UP}"`)).printed, KEY_FACT);
});

test("codex: the engine is asked what its user asked, and nothing else", options, async () => {
  const { printed } = await sh("words", 'codex exec "one two three" 2>/dev/null', { url: SCRIPTED_URL });
  assert.equal(printed.trim(), "one two three");
});

for (const [name, changes, question, told] of [
  ["an unknown model", { model: "gpt-7" }, "Hi", /The model 'gpt-7' does not exist/],
  ["engine down", { url: DOWN_URL, settings: ONCE }, "Hi", /503.*The engine cannot be reached/],
  ["a failure in the middle", { url: SCRIPTED_URL, settings: ONCE }, script("one ", "two ", { status: "INTERNAL" }),
    /The engine failed to answer/],
]) {
  test(`codex: ${name} is an error`, options, async () => {
    const { status, printed } = await sh(name.replaceAll(" ", "-"), `codex exec '${question}'`, changes);
    assert.notEqual(status, 0);
    assert.match(printed, told);
  });
}
