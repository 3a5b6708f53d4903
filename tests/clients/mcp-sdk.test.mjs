// The official SDK of the Model Context Protocol for TypeScript: what agents built with it do, over HTTP and `brunix mcp`.

import assert from "node:assert/strict";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { Client, StreamableHTTPClientTransport } from "@modelcontextprotocol/client";
import { StdioClientTransport } from "@modelcontextprotocol/client/stdio";
import {
  DOWN_URL, HEARTBEAT_URL, KEY_FACT, QUESTION, SCRIPTED_URL, URL as GATEWAY, assertCancelled, script, tag,
} from "./questions.mjs";

const COMMAND = fileURLToPath(new URL("../../.venv/bin/brunix", import.meta.url));
const TRANSPORTS = {
  http: (url) => new StreamableHTTPClientTransport(new URL(`${url}/mcp`)),
  stdio: (url) => new StdioClientTransport({ command: COMMAND, args: ["mcp", "--url", url] }),
};
const MODES = { legacy: "legacy", auto: "auto", "2026-07-28": { pin: "2026-07-28" } };
const EACH = Object.keys(TRANSPORTS).flatMap((transport) => Object.keys(MODES).map((mode) => [transport, mode]));

async function connected(transport, mode, url, use) {
  const client = new Client({ name: "test", version: "1" }, { versionNegotiation: { mode: MODES[mode] } });
  await client.connect(TRANSPORTS[transport](url));
  try {
    return await use(client, (question, options, more) =>
      client.callTool({ name: "ask", arguments: { question, ...more } }, options));
  } finally {
    await client.close();
  }
}

for (const [transport, mode] of EACH) {
  const name = (words) => `mcp-sdk, ${transport}, ${mode}: ${words}`;

  test(name("finds the tool, validates its result, and continues the session"), () =>
    connected(transport, mode, GATEWAY, async (client, ask) => {
      const { tools } = await client.listTools();
      assert.deepEqual(tools.map((tool) => tool.name), ["ask"]);
      assert.match(client.getInstructions(), /Brunix/);
      assert.equal(client.getServerVersion().name, "brunix");
      const { content, structuredContent, isError } = await ask(QUESTION);
      assert.ok(!isError);
      assert.match(structuredContent.answer, KEY_FACT);
      const { session_id } = structuredContent;
      assert.deepEqual(content.map(({ text }) => text), [structuredContent.answer, `session_id: ${session_id}`]);
      assert.equal((await ask(QUESTION, {}, { session_id })).structuredContent.session_id, session_id);
    }));

  test(name("receives progress, and resets its time-out with it"), () =>
    connected(transport, mode, HEARTBEAT_URL, async (_, ask) => {
      const values = [];
      const options = { onprogress: ({ progress }) => values.push(progress), resetTimeoutOnProgress: true };
      const { structuredContent } = await ask(script({ sleep: 0.4 }, "one ", { sleep: 0.4 }, "two"), options);
      assert.equal(structuredContent.answer, "one two");
      assert.ok(values.length > 1);
      assert.deepEqual(values, values.map((_value, index) => index + 1));
    }));

  test(name("receives failures in words"), () =>
    connected(transport, mode, DOWN_URL, async (_, ask) => {
      const { isError, content } = await ask("x");
      assert.equal(isError, true);
      assert.match(content[0].text, /The engine is unreachable/);
    }));

  test(name("a wrong tool and a wrong argument are errors in words"), () =>
    connected(transport, mode, SCRIPTED_URL, async (client, ask) => {
      await assert.rejects(client.callTool({ name: "other", arguments: {} }), /The only tool is 'ask'/);
      const { isError, content } = await ask(3);
      assert.equal(isError, true);
      assert.match(content[0].text, /question/);
    }));

  test(name("cancelling a call cancels the engine call"), () =>
    connected(transport, mode, SCRIPTED_URL, async (_, ask) => {
      const word = tag();
      const cancel = new AbortController();
      const asked = ask(script(word, { hang: true }), { signal: cancel.signal, onprogress: () => cancel.abort() });
      await assert.rejects(asked);
      await assertCancelled(word);
    }));
}
