// A place to run command-line assistants: each in its own home folder, cut off from other machines.

import assert from "node:assert/strict";
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { delimiter, dirname, join } from "node:path";
import { after, before } from "node:test";
import { fileURLToPath } from "node:url";
import { run } from "./questions.mjs";

export const MODULES = fileURLToPath(new URL("node_modules", import.meta.url));
export const PLATFORM = `${process.platform}-${process.arch}`;

// Some programs need a newer Node than these tests.
const NEWER_NODE = join(MODULES, `node-${PLATFORM}/bin/node`);
export const NODE = existsSync(NEWER_NODE) ? NEWER_NODE : process.execPath;
export const needsNewerNode = {
  skip: NODE === process.execPath && parseInt(process.versions.node) < 22 && "needs Node 22",
};

// Skips a test if a program is not available for this platform.
export const needs = (bin) => ({ skip: !(bin && existsSync(bin)) && `not available for ${PLATFORM}` });

// A proxy that closes every connection, and the first line of each request it received.
async function wall() {
  const requests = [];
  const server = createServer((socket) => {
    socket.on("error", () => {});
    socket.once("data", (data) => {
      requests.push(data.toString().split("\r\n")[0]);
      socket.destroy();
    });
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return { requests, url: `http://127.0.0.1:${server.address().port}`, close: () => server.close() };
}

// Returns a function that runs shell commands with the programs of a folder. `strict` asserts that they request nothing
// from other machines; without it, such requests only fail.
export function sandbox({ strict = false } = {}) {
  let folder;
  let proxy;
  before(async () => {
    folder = mkdtempSync(join(tmpdir(), "command-line-"));
    proxy = await wall();
  });
  after(() => {
    proxy.close();
    rmSync(folder, { recursive: true, force: true, maxRetries: 5 });
  });
  return async (name, bin, commands, { env = {}, files = {} } = {}) => {
    const home = join(folder, name);
    mkdirSync(home, { recursive: true });
    for (const [file, text] of Object.entries(files)) {
      mkdirSync(dirname(join(home, file)), { recursive: true });
      writeFileSync(join(home, file), text);
    }
    const proxies = { HTTPS_PROXY: proxy.url, NO_PROXY: "127.0.0.1,localhost" };
    if (strict) {
      Object.assign(proxies, { HTTP_PROXY: proxy.url, ALL_PROXY: proxy.url });
      for (const [variable, value] of Object.entries(proxies)) proxies[variable.toLowerCase()] = value;
    }
    const PATH = `${bin}${delimiter}${process.env.PATH}`;
    const ended = await run("sh", ["-ec", commands], {
      cwd: home, env: { ...process.env, ...proxies, HOME: home, PATH, ...env },
    });
    if (strict) assert.deepEqual(proxy.requests, [], "it requested something from another machine");
    return ended;
  };
}

// Asserts that a command succeeded with this output.
export function assertOutput({ status, output }, expected) {
  assert.equal(status, 0, output);
  assert.match(output, expected);
}

// Asserts that a command failed with this output.
export function assertFailure({ status, output }, expected) {
  assert.notEqual(status, 0, output);
  assert.match(output, expected);
}
