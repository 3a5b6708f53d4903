// Other command-line assistants: the documented commands print the engine's answer.

import { existsSync } from "node:fs";
import { dirname, join } from "node:path";
import { test } from "node:test";
import { FOLLOW_UP, KEY_FACT, QUESTION, URL as GATEWAY, documented } from "./questions.mjs";
import { MODULES, NODE, PLATFORM, assertFailure, assertOutput, needs, needsNewerNode, sandbox } from "./sandbox.mjs";

const SCRIPTS = join(MODULES, ".bin");
// The programs themselves; the packages cline and opencode-ai only select them.
const CLINE = join(MODULES, `@cline/cli-${PLATFORM}/bin`);
const OPENCODE = [`opencode-${PLATFORM}-baseline`, `opencode-${PLATFORM}`]
  .map((name) => join(MODULES, name, "bin"))
  .find((bin) => existsSync(bin));

const sh = sandbox();

test("copilot-cli: the documented commands", async () => {
  assertOutput(await sh("copilot", SCRIPTS, documented("copilot-cli", "sh")), KEY_FACT);
});

test("copilot-cli: an unknown model is an error", async () => {
  assertFailure(await sh("copilot", SCRIPTS, documented("copilot-cli", "sh", GATEWAY, "gpt-7")), /gpt-7/);
});

test("cline-cli: the documented commands", needs(CLINE), async () => {
  const env = { CLINE_NO_AUTO_UPDATE: "1", CLINE_SESSION_BACKEND_MODE: "local" };
  assertOutput(await sh("cline-home", CLINE, documented("cline-cli", "sh"), { env }), KEY_FACT);
});

test("opencode: the documented configuration", needs(OPENCODE), async () => {
  const env = {
    OPENCODE_DISABLE_AUTOUPDATE: "1",
    OPENCODE_DISABLE_DEFAULT_PLUGINS: "1",
    OPENCODE_DISABLE_LSP_DOWNLOAD: "1",
    OPENCODE_DISABLE_MODELS_FETCH: "1",
  };
  const files = { "opencode.json": documented("opencode", "json") };
  assertOutput(await sh("opencode", OPENCODE, `opencode run "${QUESTION}"`, { env, files }), KEY_FACT);
});

const qwen = (name, url, model) =>
  sh(name, SCRIPTS, `PATH="${dirname(NODE)}:$PATH"\n${documented("qwen-code", "sh", url, model)}`, {
    files: { ".qwen/settings.json": documented("qwen-code", "json", url, model) },
  });

test("qwen-code: the documented configuration", needsNewerNode, async () => {
  assertOutput(await qwen("qwen", GATEWAY), KEY_FACT);
});

test("qwen-code: an unknown model is an error", needsNewerNode, async () => {
  assertFailure(await qwen("qwen-unknown", GATEWAY, "gpt-7"), /gpt-7/);
});

// Continue's command line reads the same configuration as its extensions for editors.
const cn = (name, words, config) =>
  sh(name, SCRIPTS, `CONTINUE_GLOBAL_DIR="$PWD/global" cn --print --config config.yaml ${words}`, {
    files: { "config.yaml": config },
  });

for (const client of ["continue", "continue-ollama"]) {
  test(`${client}: the documented configuration and a follow-up in context`, async () => {
    const config = documented(client, "yaml");
    assertOutput(await cn(client, `"${QUESTION}"`, config), KEY_FACT);
    assertOutput(await cn(client, `--resume "${FOLLOW_UP}"`, config), KEY_FACT);
  });
}

test("continue: an unknown model is an error", async () => {
  const config = documented("continue", "yaml", GATEWAY, "gpt-7");
  assertFailure(await cn("unknown", `"${QUESTION}"`, config), /The model 'gpt-7' does not exist/);
});
