// Continue's command line, with the configuration from docs/clients.md.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { FOLLOW_UP, KEY_FACT, QUESTION, documented } from "./asked.mjs";

const CN = fileURLToPath(new URL("node_modules/.bin/cn", import.meta.url));

let folder;
before(() => {
  folder = mkdtempSync(join(tmpdir(), "continue-"));
});
after(() => rmSync(folder, { recursive: true }));

// Asks one question, and tells how the command ended and what it printed.
async function cn(config, ...words) {
  writeFileSync(join(folder, "config.yaml"), config);
  const child = spawn(CN, ["--print", "--config", "config.yaml", ...words], {
    cwd: folder,
    env: { ...process.env, CONTINUE_GLOBAL_DIR: join(folder, "global") },
    stdio: ["ignore", "pipe", "pipe"],
    timeout: 60_000,
  });
  let printed = "";
  child.stdout.on("data", (data) => (printed += data));
  child.stderr.on("data", (data) => (printed += data));
  const status = await new Promise((resolve) => child.on("close", resolve));
  return { status, printed };
}

for (const [provider, section] of [["openai", "Continue"], ["ollama", "Continue, as Ollama"]]) {
  test(`continue, ${provider}: an answer, and a follow-up in its context`, async () => {
    const answered = await cn(documented(section, "yaml"), QUESTION);
    assert.equal(answered.status, 0, answered.printed);
    assert.match(answered.printed, KEY_FACT);
    const followed = await cn(documented(section, "yaml"), "--resume", FOLLOW_UP);
    assert.match(followed.printed, KEY_FACT);
  });
}

test("continue: an unknown model is an error", async () => {
  const failed = await cn(documented("Continue", "yaml").replace("model: brunix", "model: gpt-7"), QUESTION);
  assert.notEqual(failed.status, 0);
  assert.match(failed.printed, /The model 'gpt-7' does not exist/);
});
