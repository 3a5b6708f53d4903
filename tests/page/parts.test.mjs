// The page's parts that need no browser. Each test's name says what a user would have if it failed.

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { ask, Failure } from "../../brunix_twisted/page/ask.js";
import { filled, groups, values } from "../../brunix_twisted/page/connect.js";
import { citation, listed, mayBecomeCitation } from "../../brunix_twisted/page/sources.js";
import { events } from "../../brunix_twisted/page/sse.js";
import { StatusMonitor } from "../../brunix_twisted/page/status.js";
import { describeFailure, describeStatus, describeTiming } from "../../brunix_twisted/page/messages.js";

const PAGE = new URL("../../brunix_twisted/page/", import.meta.url);

const bytes = (...pieces) =>
  new ReadableStream({
    start(controller) {
      for (const piece of pieces) controller.enqueue(typeof piece === "string" ? new TextEncoder().encode(piece) : piece);
      controller.close();
    },
  });
const gathered = async (stream) => {
  const found = [];
  for await (const data of events(stream)) found.push(data);
  return found;
};

test("the library that reads Markdown would be another than its release", () => {
  const name = "markdown-it.esm.min.mjs";
  const shipped = readFileSync(new URL(`vendor/${name}`, PAGE));
  const released = readFileSync(new URL(`node_modules/markdown-it/dist/browser/${name}`, import.meta.url));
  assert.ok(shipped.equals(released));
  const { version } = JSON.parse(readFileSync(new URL("node_modules/markdown-it/package.json", import.meta.url)));
  const told = readFileSync(new URL("vendor/README.md", PAGE), "utf8");
  assert.ok(told.includes(`| release | ${version} |`));
  assert.ok(told.includes(createHash("sha256").update(released).digest("hex")));
  const licences = readFileSync(new URL("vendor/LICENSES.txt", PAGE), "utf8");
  for (const file of ["markdown-it/LICENSE", "entities/LICENSE", "linkify-it/LICENSE", "mdurl/LICENSE"]) {
    assert.ok(licences.includes(readFileSync(new URL(`node_modules/${file}`, import.meta.url), "utf8").trim()), file);
  }
});

for (const [name, pieces, expected] of [
  ["whole events", ["data: a\n\ndata: b\n\n"], ["a", "b"]],
  ["an event in pieces", ["da", "ta: a", "b\n", "\n"], ["ab"]],
  ["CR LF", ["data: a\r\n\r\ndata: b\r\n\r\n"], ["a", "b"]],
  ["CR LF cut in two", ["data: a\r", "\n\r", "\ndata: b\r\n\r\n"], ["a", "b"]],
  ["CR alone", ["data: a\r\rdata: b\r\r\n"], ["a", "b"]],
  ["several lines", ["data: a\ndata: b\n\n"], ["a\nb"]],
  ["no space", ["data:a\n\n"], ["a"]],
  ["a heartbeat", [": keep-alive\n\ndata: a\n\n: keep-alive\n\n"], ["a"]],
  ["other fields", ["event: x\nid: 1\ndata: a\n\n"], ["a"]],
  ["a letter cut in two", [new Uint8Array([100, 97, 116, 97, 58, 0xc3]), new Uint8Array([0xa9, 10, 10])], ["é"]],
  ["a byte order mark", ["\ufeffdata: a\n\n"], ["a"]],
  ["an event without its end", ["data: a\n\ndata: b\n"], ["a"]],
  ["nothing", [], []],
]) {
  test(`a stream would be read wrong: ${name}`, async () => {
    assert.deepEqual(await gathered(bytes(...pieces)), expected);
  });
}

for (const [paragraph, expected] of [
  ["— `settings.md`, Settings › The gateway, line 24", ["settings.md", "Settings › The gateway", "line 24"]],
  ["— `a/b c.md`, Who, what, and why, lines 3–4, 9", ["a/b c.md", "Who, what, and why", "lines 3–4, 9"]],
  ["— `notes.txt`, line 1", ["notes.txt", "", "line 1"]],
  ["— `x.md`, The `stop` order › `twistd`, lines 1–2", ["x.md", "The `stop` order › `twistd`", "lines 1–2"]],
  ["— `a.pdf`, Holidays, pages 3–4", ["a.pdf", "Holidays", "pages 3–4"]],
  ["— `a.docx`, paragraph 7", ["a.docx", "", "paragraph 7"]],
  ["[12] — `a.md`, A, line 1", ["a.md", "A", "line 1"]],
  ["[1] `a.md`, A, line 1", null],
  ["— `settings.md`, Settings", null],
  ["— settings.md, Settings, line 24", null],
  ["As — `settings.md`, Settings, line 24", null],
  ["— `settings.md`, Settings, line 24, as said", null],
  ["— `settings.md`, Settings, line 24\nand more", null],
  ["- `settings.md`, Settings, line 24", null],
]) {
  test(`text would be taken for a source, or a source for text: ${paragraph}`, () => {
    const found = citation(paragraph);
    assert.deepEqual(found && [found.file, found.headings, found.lines], expected);
  });
}

test("a source would be seen as text while it comes", () => {
  for (const begun of ["[", "[1", "[1]", "[1] ", "[1] —", "[1] — `a", "—", "— ", "— `", "— `settings.md`, Sett", "— `settings.md`, Settings, line 2"]) {
    assert.ok(mayBecomeCitation(begun), begun);
  }
  for (const other of ["[1] a", "[x", "[1] — a", "— that is to say", "a — `b`", "–", "— `a`\nb"]) assert.ok(!mayBecomeCitation(other), other);
});

const reported = (title, url) => ({ type: "url_citation", url_citation: { title, url, start_index: 0, end_index: 1 } });

test("a source links to the address that the engine reports for it", () => {
  const cited = [
    { file: "a.md", headings: "The `stop` order", lines: "line 1" },
    { file: "b.md", headings: "", lines: "line 2" },
    { file: "c.md", headings: "", lines: "line 3" },
  ];
  const links = [
    reported("b.md, line 2", "b.md"),
    reported("a.md, The stop order, line 1", "https://docs.example/a.md#the-stop-order"),
    reported("c.md, line 3", "javascript:alert(1)"),
  ];
  assert.deepEqual(listed(cited, links).map((each) => each.href), ["https://docs.example/a.md#the-stop-order", "", ""]);
  assert.deepEqual(listed(cited).map((each) => [each.file, each.href]), [["a.md", ""], ["b.md", ""], ["c.md", ""]]);
});

test("sources that the text does not cite are listed by their title", () => {
  assert.deepEqual(listed([], [reported("Guide", "https://docs.example/guide"), {}]), [
    { file: "Guide", headings: "", lines: "", href: "https://docs.example/guide" },
    { file: "", headings: "", lines: "", href: "" },
  ]);
  assert.deepEqual(listed([], undefined), []);
});

test("the annotations of an answer are kept with it", async () => {
  const one = reported("Guide", "https://docs.example/guide");
  const stream = bytes(chunk({ content: "a" }), chunk({ annotations: [one] }), chunk({}, "stop"), USAGE, "data: [DONE]\n\n");
  const { told } = await asked(new Response(stream, { headers: STREAM }));
  assert.deepEqual(told.annotations, [one]);
});

const chunk = (delta, finish_reason = null) => `data: ${JSON.stringify({ choices: [{ delta, finish_reason }] })}\n\n`;
const USAGE = `data: ${JSON.stringify({ choices: [], usage: { completion_tokens: 12 } })}\n\n`;
const STREAM = { "Content-Type": "text/event-stream; charset=utf-8", "X-Request-Id": "r1", "X-Session-Id": "s1" };

// Asks of a server that answers with this.
async function asked(response, options = {}) {
  const heard = { text: "", session: "", sent: null };
  const clock = [0, 100, 100, 250, 400, 550];
  const told = await ask({
    question: "why?",
    model: "m",
    session: "",
    onText: (piece) => (heard.text += piece),
    onSession: (id) => (heard.session = id),
    clock: () => clock.shift(),
    fetch: async (path, request) => {
      heard.sent = { path, ...request, body: JSON.parse(request.body) };
      if (response instanceof Error) throw response;
      return response;
    },
    ...options,
  }).catch((fault) => fault);
  return { told, heard };
}

test("an answer would be lost, or its figures", async () => {
  const stream = bytes(chunk({ role: "assistant", content: "" }), chunk({ content: "a" }), chunk({ content: "b" }), chunk({}, "stop"), USAGE, "data: [DONE]\n\n");
  const { told, heard } = await asked(new Response(stream, { headers: STREAM }), { session: "s0" });
  assert.deepEqual(told, { finish: "stop", requestId: "r1", firstMs: 100, streamMs: 150, tokens: 12, annotations: [] });
  assert.deepEqual([heard.text, heard.session, heard.sent.path], ["ab", "s1", "v1/chat/completions"]);
  assert.equal(heard.sent.headers["X-Session-Id"], "s0");
  assert.deepEqual(heard.sent.body, {
    model: "m",
    messages: [{ role: "user", content: "why?" }],
    stream: true,
    stream_options: { include_usage: true },
  });
});

test("a question of no session would name an empty one", async () => {
  const { heard } = await asked(new Response(bytes(), { headers: STREAM }));
  assert.ok(!("X-Session-Id" in heard.sent.headers));
});

const error = { message: "The engine is unreachable", type: "server_error", param: null, code: "engine_unavailable" };
for (const [name, response, kind, status, code, told] of [
  ["no network", new TypeError("Failed to fetch"), "network", 0, "", ""],
  ["the gateway's refusal", Response.json({ error }, { status: 503 }), "rejected", 503, error.code, error.message],
  ["a proxy's page", new Response("<h1>Bad Gateway</h1>", { status: 502 }), "rejected", 502, "", ""],
  ["a page to sign in", new Response("<form>", { headers: { "Content-Type": "text/html" } }), "rejected", 200, "", ""],
  ["an error in the stream", new Response(bytes(chunk({ content: "a" }), `data: ${JSON.stringify({ error })}\n\n`, "data: [DONE]\n\n"), { headers: STREAM }), "incomplete", 200, error.code, error.message],
  ["the stream's end too early", new Response(bytes(chunk({ content: "a" })), { headers: STREAM }), "incomplete", 0, "", ""],
  ["rubbish in the stream", new Response(bytes("data: {\n\n"), { headers: STREAM }), "incomplete", 0, "", ""],
]) {
  test(`a failure would be taken for another, or for an answer: ${name}`, async () => {
    const fault = (await asked(response)).told;
    assert.ok(fault instanceof Failure, String(fault));
    assert.deepEqual([fault.kind, fault.status, fault.code, fault.reason], [kind, status, code, told]);
    const said = describeFailure(fault);
    assert.ok(said.title.endsWith(".") && said.advice.endsWith("."), JSON.stringify(said));
    if (told) assert.ok(said.title.includes(told));
  });
}

for (const [health, state] of [
  [null, "unreachable"],
  [{ status: 200, body: { status: "ok", version: "1" } }, "ok"],
  [{ status: 503, body: { status: "unavailable", reason: "The engine is unreachable", version: "1" } }, "unavailable"],
  [{ status: 503, body: { status: "draining", version: "1" } }, "draining"],
  [{ status: 502, body: null }, "proxy"],
  [{ status: 401, body: null }, "proxy"],
  [{ status: 403, body: { error: { message: "Host not allowed. Add it to PROXY_ALLOWED_HOSTS." } } }, "rejected"],
]) {
  test(`the status would be wrong, or leave the user alone with it: ${state} ${health?.status ?? ""}`, () => {
    const said = describeStatus(health, "brunix");
    assert.equal(said.state, state);
    assert.ok(said.headline);
    assert.equal(said.advice === "", state === "ok");
    assert.ok([said.gateway, said.engine, said.model, said.version].every(Boolean));
  });
}

for (const [told, expected] of [
  [{ firstMs: 412.6, streamMs: 500, tokens: 60 }, ["First token after 413 ms", "60 tokens", "120 tokens/s"]],
  [{ firstMs: 1234, streamMs: 60_000, tokens: 1234 }, ["First token after 1.2 s", "1,234 tokens", "21 tokens/s"]],
  [{ firstMs: 0.2, streamMs: 3, tokens: 1 }, ["First token after 1 ms", "1 token"]],
  [{ firstMs: null, streamMs: null, tokens: null }, []],
]) {
  test(`the figures would be wrong: ${JSON.stringify(told)}`, () => assert.deepEqual(describeTiming(told), expected));
}

for (const [href, root, host] of [
  ["http://127.0.0.1:8000/", "http://127.0.0.1:8000", "127.0.0.1:8000"],
  ["http://127.0.0.1:8000/#connect/llm", "http://127.0.0.1:8000", "127.0.0.1:8000"],
  ["https://host.example/", "https://host.example", "host.example"],
  ["https://host.example/brunix/?x=1#ask", "https://host.example/brunix", "host.example"],
  ["https://host.example/a/b/index.html", "https://host.example/a/b", "host.example"],
  ["http://[::1]:8000/", "http://[::1]:8000", "[::1]:8000"],
]) {
  test(`a client would be sent elsewhere: ${href}`, () => {
    assert.deepEqual(values(href, "brunix"), { URL: root, HOST: host, MODEL: "brunix" });
  });
}

for (const [href, model] of [
  ["http://h/a'b/", "brunix"],
  ['http://h/a"$(id)/', "brunix"],
  ["http://h/%24{x}/$x/", "brunix"],
  ["http://h/", 'a"b'],
  ["http://h/", "a\nb"],
  ["http://h/", ""],
]) {
  test(`a configuration could do more than configure: ${JSON.stringify([href, model])}`, () => {
    assert.throws(() => values(href, model), RangeError);
  });
}

test("what was put into a configuration would be searched again, or something else be replaced", () => {
  const given = { URL: "u", HOST: "h", MODEL: "@URL@" };
  assert.equal(filled("@URL@/v1 @HOST@ @MODEL@ @USER@ @url@", given), "u/v1 h @URL@ @USER@ @url@");
});

test("a client would stand in another group, or in none", () => {
  const found = groups([{ id: 1, group: "B" }, { id: 2, group: "A" }, { id: 3, group: "B" }]);
  assert.deepEqual([...found].map(([group, clients]) => [group, clients.map(({ id }) => id)]), [["B", [1, 3]], ["A", [2]]]);
});

// A watch whose time is the test's: `due` is what it waits for.
function watched(answers) {
  const asked = [];
  const states = [];
  const clock = {
    due: null,
    setTimeout: (action, ms) => (clock.due = { action, ms }),
    clearTimeout: () => (clock.due = null),
  };
  const fetch = async (path) => {
    asked.push(path);
    if (path === "v1/models") return Response.json({ data: [{ id: "m" }] });
    const answer = answers.length > 1 ? answers.shift() : answers[0];
    if (answer instanceof Error) throw answer;
    return Response.json({ status: answer, version: "1" }, { status: answer === "ok" ? 200 : 503 });
  };
  const watch = new StatusMonitor((status) => states.push(status.state), { fetch, clock });
  return { watch, asked, states, clock };
}

test("a page left open would keep the gateway busy, or notice late that it is back", async () => {
  const away = new TypeError("Failed to fetch");
  const { watch, asked, states, clock } = watched(["ok", "ok", away, away, away, away, away, away, away, "ok"]);
  const waits = [];
  watch.check();
  for (let look = 0; look < 10; look++) {
    await watch.checking;
    await null;
    waits.push(clock.due.ms);
    clock.due.action();
  }
  await watch.checking;
  assert.deepEqual(waits, [20_000, 20_000, 1_000, 2_000, 4_000, 8_000, 16_000, 20_000, 20_000, 20_000]);
  assert.deepEqual(states.slice(0, 3), ["ok", "ok", "unreachable"]);
  // The model is asked for once, and again when the gateway is back.
  assert.equal(asked.filter((path) => path === "v1/models").length, 2);
});

test("a page that nobody sees would go on asking", async () => {
  const { watch, asked, clock } = watched(["ok"]);
  await watch.check();
  watch.sleep();
  assert.equal(clock.due, null);
  const before = asked.length;
  watch.wake();
  await watch.checking;
  assert.ok(asked.length > before);
  const looking = watch.check();
  watch.sleep();
  await looking;
  assert.equal(clock.due, null);
});
