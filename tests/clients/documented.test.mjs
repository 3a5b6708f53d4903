// What docs/clients.md tells a program for Node to do.

import assert from "node:assert/strict";
import { rmSync, writeFileSync } from "node:fs";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { KEY_FACT, documented, ran } from "./asked.mjs";

const answers = (client, program) =>
  test(`${client}, as documented`, async () => {
    // It is where the packages are found.
    const file = fileURLToPath(new URL(`node_modules/${client}-${process.pid}.mjs`, import.meta.url));
    writeFileSync(file, program);
    try {
      const { status, printed } = await ran(process.execPath, [file]);
      assert.equal(status, 0, printed);
      assert.match(printed, KEY_FACT);
    } finally {
      rmSync(file);
    }
  });

answers("openai-node", documented("openai-node", "js"));
answers("ollama-js", documented("ollama-js", "js"));
answers("ai-sdk", documented("ai-sdk", "js"));
answers("ai-sdk-ollama", documented("ai-sdk-ollama", "js"));
answers("ai-sdk-responses", documented("ai-sdk-responses", "js"));
answers("ai-sdk-anthropic", documented("ai-sdk-anthropic", "js"));
answers("anthropic-node", documented("anthropic-node", "js"));
