// The programs for Node in docs/clients.md.

import assert from "node:assert/strict";
import { rmSync, writeFileSync } from "node:fs";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { KEY_FACT, documented, run } from "./questions.mjs";

for (const client of [
  "openai-node", "ollama-js", "ai-sdk", "ai-sdk-ollama", "ai-sdk-responses", "ai-sdk-anthropic", "anthropic-node",
]) {
  test(`${client}: the documented program prints its answer`, async () => {
    // In this folder it finds the packages.
    const file = fileURLToPath(new URL(`node_modules/${client}-${process.pid}.mjs`, import.meta.url));
    writeFileSync(file, documented(client, "js"));
    try {
      const { status, output } = await run(process.execPath, [file]);
      assert.equal(status, 0, output);
      assert.match(output, KEY_FACT);
    } finally {
      rmSync(file);
    }
  });
}
