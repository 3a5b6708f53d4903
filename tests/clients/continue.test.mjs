// Continue's command line, which reads the same configuration as its extensions for editors.

import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { FOLLOW_UP, KEY_FACT, QUESTION, URL as GATEWAY, documented, ran } from "./asked.mjs";

const CN = fileURLToPath(new URL("node_modules/.bin/cn", import.meta.url));

let folder;
before(() => {
  folder = mkdtempSync(join(tmpdir(), "continue-"));
});
after(() => rmSync(folder, { recursive: true }));

// Asks one question.
function cn(config, ...words) {
  writeFileSync(join(folder, "config.yaml"), config);
  return ran(CN, ["--print", "--config", "config.yaml", ...words], {
    cwd: folder,
    env: { ...process.env, CONTINUE_GLOBAL_DIR: join(folder, "global") },
  });
}

for (const [provider, config] of [
  ["openai", documented("continue", "yaml")],
  ["ollama", documented("continue-ollama", "yaml")],
]) {
  test(`continue, ${provider}: an answer, and a follow-up in its context`, async () => {
    const answered = await cn(config, QUESTION);
    assert.equal(answered.status, 0, answered.printed);
    assert.match(answered.printed, KEY_FACT);
    const followed = await cn(config, "--resume", FOLLOW_UP);
    assert.match(followed.printed, KEY_FACT);
  });
}

test("continue: an unknown model is an error", async () => {
  const failed = await cn(documented("continue", "yaml", GATEWAY, "gpt-7"), QUESTION);
  assert.notEqual(failed.status, 0);
  assert.match(failed.printed, /The model 'gpt-7' does not exist/);
});
