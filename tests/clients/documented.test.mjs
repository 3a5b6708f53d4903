// What docs/clients.md tells a program for Node to do.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { rmSync, writeFileSync } from "node:fs";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { KEY_FACT, documented } from "./asked.mjs";

for (const client of ["OpenAI for Node", "Ollama for Node", "Vercel's AI SDK"]) {
  test(`${client}, as documented`, () => {
    // It is where the packages are found.
    const program = fileURLToPath(new URL(`node_modules/documented-${process.pid}.mjs`, import.meta.url));
    writeFileSync(program, documented(client, "js"));
    try {
      const ran = spawnSync(process.execPath, [program], { encoding: "utf8", timeout: 60_000 });
      assert.equal(ran.status, 0, ran.stderr);
      assert.match(ran.stdout, KEY_FACT);
    } finally {
      rmSync(program);
    }
  });
}
