// The conformance tests of the Model Context Protocol, and the command line of its Inspector.

import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { DOWN_URL, KEY_FACT, QUESTION, URL as GATEWAY } from "./questions.mjs";
import { MODULES, NODE, assertFailure, assertOutput, needsNewerNode, sandbox } from "./sandbox.mjs";

const CONFORMANCE = join(MODULES, "@modelcontextprotocol/conformance/dist/index.js");
const INSPECTOR = join(MODULES, "@modelcontextprotocol/inspector/clients/launcher/build/index.js");
const BRUNIX = fileURLToPath(new URL("../../.venv/bin/brunix", import.meta.url));
const BASELINE = fileURLToPath(new URL("mcp-conformance.yml", import.meta.url));
const sh = sandbox();

test("mcp-conformance: all scenarios pass that apply to one tool without a protocol session", needsNewerNode, async () => {
  const words = `server --url ${GATEWAY}/mcp --suite all --expected-failures '${BASELINE}' -o results`;
  const ended = await sh("conformance", MODULES, `'${NODE}' '${CONFORMANCE}' ${words}`);
  assertOutput(ended, /baseline check passed/i);
  for (const [scenario, checks] of [["server-initialize", 1], ["ping", 1], ["tools-list", 1], ["dns-rebinding-protection", 2]]) {
    assert.match(ended.output, new RegExp(`✓ ${scenario}: ${checks} passed, 0 failed`));
  }
});

const inspect = (name, server, era, words) =>
  sh(name, MODULES, `'${NODE}' '${INSPECTOR}' --cli ${server} --protocol-era ${era} ${words}`);
const CALL = `--method tools/call --tool-name ask --tool-args-json '${JSON.stringify({ question: QUESTION })}'`;

for (const era of ["legacy", "modern"]) {
  test(`mcp-inspector: ${era}, the schemas are portable and the tool answers`, needsNewerNode, async () => {
    const server = `${GATEWAY}/mcp`;
    const { status, output } = await inspect(`${era}-list`, server, era, "--method tools/list --strict --format json 2>&1");
    assert.equal(status, 0, output);
    assert.doesNotMatch(output, /warning|error-severity/i);
    assertOutput(await inspect(`${era}-call`, server, era, CALL), KEY_FACT);
  });

  test(`mcp-inspector: ${era}, a failure in words`, needsNewerNode, async () => {
    assertFailure(await inspect(`${era}-down`, `${DOWN_URL}/mcp`, era, CALL), /The engine is unreachable.*"isError": true/s);
  });
}

test("mcp-inspector: brunix mcp as a command", needsNewerNode, async () => {
  assertOutput(await inspect("command", `'${BRUNIX}' mcp --url ${GATEWAY}`, "modern", CALL), KEY_FACT);
});
