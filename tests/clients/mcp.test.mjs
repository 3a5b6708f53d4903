// Claude Code with Brunix as a tool. Its model is scripted: it calls the tool once, and repeats what the tool returned.

import assert from "node:assert/strict";
import { createServer } from "node:http";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { KEY_FACT, QUESTION, SCRIPTED_URL, URL as GATEWAY, script } from "./questions.mjs";
import { MODULES, PLATFORM, assertOutput, needs, sandbox } from "./sandbox.mjs";

const BIN = join(MODULES, `@anthropic-ai/claude-code-${PLATFORM}`);
const TOOL = "mcp__brunix__ask";
const options = needs(BIN);
const sh = sandbox({ strict: true });

let model;
let question;
before(async () => {
  model = createServer(async (request, response) => {
    let body = "";
    for await (const chunk of request) body += chunk;
    const asked = request.method === "POST" ? JSON.parse(body) : {};
    response.setHeader("Content-Type", asked.stream ? "text/event-stream" : "application/json");
    response.end(asked.stream ? stream(asked) : "{}");
  });
  await new Promise((resolve) => model.listen(0, "127.0.0.1", resolve));
});
after(() => model.close());

// Returns the model's next message as Anthropic's events.
function stream({ messages, tools = [] }) {
  const results = [messages.at(-1).content].flat().filter(({ type }) => type === "tool_result");
  const calls = tools.some(({ name }) => name === TOOL) && results.length === 0;
  const [block, delta, stop_reason] = calls
    ? [{ type: "tool_use", id: "toolu_1", name: TOOL, input: {} }, { type: "input_json_delta", partial_json: JSON.stringify({ question }) }, "tool_use"]
    : [{ type: "text", text: "" }, { type: "text_delta", text: `The tool returned ${JSON.stringify(results)}` }, "end_turn"];
  const usage = { input_tokens: 1, output_tokens: 1 };
  const message = { id: "msg_1", type: "message", role: "assistant", model: "scripted", content: [], stop_reason: null, stop_sequence: null, usage };
  return [
    { type: "message_start", message },
    { type: "content_block_start", index: 0, content_block: block },
    { type: "content_block_delta", index: 0, delta },
    { type: "content_block_stop", index: 0 },
    { type: "message_delta", delta: { stop_reason, stop_sequence: null }, usage },
    { type: "message_stop" },
  ].map((event) => `event: ${event.type}\ndata: ${JSON.stringify(event)}\n\n`).join("");
}

async function claude(name, url, asked) {
  question = asked;
  const commands = `
    claude mcp add --transport http brunix ${url}/mcp
    claude -p "Ask Brunix." --allowedTools ${TOOL}`;
  const env = {
    ANTHROPIC_BASE_URL: `http://127.0.0.1:${model.address().port}`, ANTHROPIC_AUTH_TOKEN: "unused",
    ANTHROPIC_MODEL: "scripted", ANTHROPIC_DEFAULT_HAIKU_MODEL: "scripted",
    CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC: "1", CLAUDE_CODE_MAX_RETRIES: "0", ENABLE_TOOL_SEARCH: "false",
  };
  return sh(name, BIN, commands, { env });
}

test("claude-code: asks Brunix as a tool", options, async () => {
  const answered = await claude("tool", GATEWAY, QUESTION);
  assertOutput(answered, KEY_FACT);
  assert.match(answered.output, /session_id/);
});

test("claude-code: receives in words why the tool failed", options, async () => {
  assertOutput(await claude("failing-tool", SCRIPTED_URL, script({ status: "INTERNAL" })), /is_error.*engine|engine.*is_error/s);
});
