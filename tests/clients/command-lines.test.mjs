// Assistants for the command line that act by tool calls: asked once, they print the engine's answer.

import assert from "node:assert/strict";
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { KEY_FACT, QUESTION, URL as GATEWAY, documented, ran } from "./asked.mjs";

const MODULES = fileURLToPath(new URL("node_modules", import.meta.url));
const PLATFORM = `${process.platform}-${process.arch}`;
// The programs themselves, which the packages cline and opencode-ai only choose among.
const CLINE = join(MODULES, `@cline/cli-${PLATFORM}/bin`);
const OPENCODE = [`opencode-${PLATFORM}-baseline`, `opencode-${PLATFORM}`]
  .map((name) => join(MODULES, name, "bin"))
  .find((bin) => existsSync(bin));

// What would still ask another address, although it is told not to, finds a closed port.
const WALL = { HTTPS_PROXY: "http://127.0.0.1:9", NO_PROXY: "127.0.0.1,localhost" };

let folder;
before(() => {
  folder = mkdtempSync(join(tmpdir(), "command-lines-"));
});
after(() => rmSync(folder, { recursive: true, force: true, maxRetries: 5 }));

// Runs commands in a folder and a home of their own.
function sh(name, commands, bin, environment = {}) {
  const home = join(folder, name);
  mkdirSync(home, { recursive: true });
  const env = { ...process.env, ...WALL, HOME: home, PATH: `${bin}${delimiter}${process.env.PATH}`, ...environment };
  return ran("sh", ["-ec", commands], { cwd: home, env, timeout: 120_000 });
}

function answered({ status, printed }) {
  assert.equal(status, 0, printed);
  assert.match(printed, KEY_FACT);
}

const COPILOT = join(MODULES, ".bin");
test("copilot-cli, as documented", async () => {
  answered(await sh("copilot", documented("copilot-cli", "sh"), COPILOT));
});

test("copilot-cli: an unknown model is an error", async () => {
  const { status, printed } = await sh("copilot", documented("copilot-cli", "sh", GATEWAY, "gpt-7"), COPILOT);
  assert.notEqual(status, 0);
  assert.match(printed, /gpt-7/);
});

const ALONE = { CLINE_NO_AUTO_UPDATE: "1", CLINE_SESSION_BACKEND_MODE: "local" };
test("cline-cli, as documented", { skip: !existsSync(CLINE) && `there is none for ${PLATFORM}` }, async () => {
  answered(await sh("cline", documented("cline-cli", "sh"), CLINE, ALONE));
});

const QUIET = {
  OPENCODE_DISABLE_AUTOUPDATE: "1",
  OPENCODE_DISABLE_DEFAULT_PLUGINS: "1",
  OPENCODE_DISABLE_LSP_DOWNLOAD: "1",
  OPENCODE_DISABLE_MODELS_FETCH: "1",
};
test("opencode, as documented", { skip: !OPENCODE && `there is none for ${PLATFORM}` }, async () => {
  mkdirSync(join(folder, "opencode"));
  writeFileSync(join(folder, "opencode", "opencode.json"), documented("opencode", "json"));
  answered(await sh("opencode", `opencode run "${QUESTION}"`, OPENCODE, QUIET));
});
