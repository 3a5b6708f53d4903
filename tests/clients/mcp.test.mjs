// Agents with Brunix as a tool, each with its documented configuration. Their model is scripted: it calls the tool, and
// repeats what the tool returned.

import { existsSync, readdirSync } from "node:fs";
import { dirname, join } from "node:path";
import { after, before, test } from "node:test";
import { FOLLOW_UP, QUESTION, SCRIPTED_URL, URL as GATEWAY, documented, script } from "./questions.mjs";
import { MODULES, NODE, PLATFORM, assertOutput, needs, needsNewerNode, sandbox } from "./sandbox.mjs";
import { scriptedModel } from "./scripted-model.mjs";

const SCRIPTS = join(MODULES, ".bin");
const CODEX = join(MODULES, `@openai/codex-${PLATFORM}/vendor`);
const SAYS = '"Ask Brunix."';

let model;
before(async () => (model = await scriptedModel()));
after(() => model.close());

// Each agent: the folder of its program, and its commands, files and variables. A program is strict if it requests
// nothing from other machines.
const AGENTS = {
  "claude-code": {
    bin: join(MODULES, `@anthropic-ai/claude-code-${PLATFORM}`),
    strict: true,
    setup: (url) => ({
      commands: `${documented("claude-code-mcp", "sh", url)}claude -p ${SAYS} --allowedTools mcp__brunix__ask`,
      env: {
        ANTHROPIC_BASE_URL: model.url, ANTHROPIC_AUTH_TOKEN: "unused", ANTHROPIC_MODEL: "scripted",
        ANTHROPIC_DEFAULT_HAIKU_MODEL: "scripted", CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC: "1",
        CLAUDE_CODE_MAX_RETRIES: "0", ENABLE_TOOL_SEARCH: "false",
      },
    }),
  },
  codex: {
    bin: existsSync(CODEX) && join(CODEX, readdirSync(CODEX)[0], "bin"),
    strict: true,
    setup: (url) => ({
      // A tool is called without asking only outside of its own sandbox.
      commands: `git init -q .\ncodex exec --dangerously-bypass-approvals-and-sandbox ${SAYS}`,
      files: {
        ".codex/config.toml": `
check_for_update_on_startup = false
model = "scripted"
model_provider = "scripted"
[model_providers.scripted]
name = "Scripted"
base_url = "${model.url}/v1"
experimental_bearer_token = "unused"
wire_api = "responses"
${documented("codex-mcp", "toml", url)}
[analytics]
enabled = false
[features]
plugins = false
`,
      },
    }),
  },
  "copilot-cli": {
    bin: SCRIPTS,
    setup: (url) => ({
      commands: `${documented("copilot-cli-mcp", "sh", url)}copilot -p ${SAYS} --allow-tool=brunix`,
      env: { COPILOT_PROVIDER_BASE_URL: `${model.url}/v1`, COPILOT_MODEL: "scripted", COPILOT_OFFLINE: "true" },
    }),
  },
  cline: {
    bin: join(MODULES, `@cline/cli-${PLATFORM}/bin`),
    setup: (url) => ({
      commands: `
        cline auth --provider openai-compatible --apikey unused --modelid scripted --baseurl "${model.url}/v1"
        cline ${SAYS}`,
      env: { CLINE_NO_AUTO_UPDATE: "1", CLINE_SESSION_BACKEND_MODE: "local" },
      files: { ".cline/data/settings/cline_mcp_settings.json": documented("cline-mcp", "json", url) },
    }),
  },
  opencode: {
    bin: [`opencode-${PLATFORM}-baseline`, `opencode-${PLATFORM}`].map((name) => join(MODULES, name, "bin")).find(existsSync),
    setup: (url) => {
      const scripted = {
        npm: "@ai-sdk/openai-compatible", options: { baseURL: `${model.url}/v1` }, models: { scripted: { name: "Scripted" } },
      };
      const config = { ...JSON.parse(documented("opencode-mcp", "json", url)), model: "scripted/scripted", provider: { scripted } };
      return {
        commands: `opencode run ${SAYS}`,
        env: {
          OPENCODE_DISABLE_AUTOUPDATE: "1", OPENCODE_DISABLE_DEFAULT_PLUGINS: "1", OPENCODE_DISABLE_LSP_DOWNLOAD: "1",
          OPENCODE_DISABLE_MODELS_FETCH: "1",
        },
        files: { "opencode.json": JSON.stringify(config) },
      };
    },
  },
  "qwen-code": {
    bin: SCRIPTS,
    options: needsNewerNode,
    setup: (url) => ({
      commands: `
        PATH="${dirname(NODE)}:$PATH"
        ${documented("qwen-code-mcp", "sh", url)}
        qwen --auth-type openai -p ${SAYS} --allowed-tools mcp__brunix__ask`,
      env: { OPENAI_API_KEY: "unused", OPENAI_BASE_URL: `${model.url}/v1`, OPENAI_MODEL: "scripted" },
    }),
  },
  continue: {
    bin: SCRIPTS,
    setup: (url) => ({
      commands: `CONTINUE_GLOBAL_DIR="$PWD/global" cn --print --config config.yaml --allow ask ${SAYS}`,
      files: {
        "config.yaml": `
name: Scripted
version: 1.0.0
schema: v1
models:
  - name: Scripted
    provider: openai
    model: scripted
    apiBase: ${model.url}/v1
    apiKey: unused
    roles: [chat]
    capabilities: [tool_use]
${documented("continue-mcp", "yaml", url)}`,
      },
    }),
  },
};

const lenient = sandbox();
const strictly = sandbox({ strict: true });

for (const [agent, { bin, strict, options = needs(bin), setup }] of Object.entries(AGENTS)) {
  const asks = async (name, url, ...questions) => {
    model.questions = questions;
    const { commands, ...place } = setup(url);
    return (strict ? strictly : lenient)(`${agent}-${name}`, bin, commands, place);
  };

  test(`${agent}: asks Brunix as a tool, and continues the session`, options, async () => {
    assertOutput(await asks("tool", GATEWAY, QUESTION, FOLLOW_UP), /The tool returned.*PROXY_THREAD_WORKERS/s);
  });

  test(`${agent}: receives in words why the tool failed`, options, async () => {
    assertOutput(await asks("failing-tool", SCRIPTED_URL, script({ status: "INTERNAL" })), /The tool returned.*The engine failed/s);
  });
}
