// The page as its user meets it. Each test's name says what a user would have if it failed.

import assert from "node:assert/strict";
import { test } from "node:test";
import {
  BRUNIX_URL, DOWN_URL, KEY_FACT, QUESTION, SCRIPTED_URL,
  answerIs, answered, ask, browsing, emulate, ended, freePort, gateway, go, opened, proxy, ready, saw, script, signal, stateIs, tag,
  textOf, textsOf,
} from "./browser.mjs";

browsing();

// What the page shows in the place that is read aloud, from now on.
const heard = (page) =>
  page.evaluate(() => {
    window.heard = [];
    new MutationObserver(() => {
      const text = document.getElementById("announcements").textContent;
      if (text) window.heard.push(text);
    }).observe(document.getElementById("announcements"), { childList: true, characterData: true, subtree: true });
  });

const clipboard = async (page) => {
  await page.browserContext().setPermission(new URL(page.url()).origin, {
    permission: { name: "clipboard-read" },
    state: "granted",
  });
  return page.evaluate(() => navigator.clipboard.readText());
};

const pressCopy = async (page, selector) => {
  await page.click(selector);
  await page.waitForFunction((wanted) => document.querySelector(wanted).textContent.startsWith("Copied"), {}, selector);
};

const focused = (page) => page.evaluate(() => document.activeElement.id);

// Is it up?

test("a user could not tell that all is well, or with which gateway", async (t) => {
  const page = await opened(t, BRUNIX_URL);
  assert.equal(await textOf(page, "#headline"), "Ready");
  assert.deepEqual(await textsOf(page, "#status dd"), ["running", "healthy", "brunix", "0.1.0"]);
  assert.equal(await page.$eval("#advice", (advice) => advice.hidden), true);
});

test("a user whose engine is down would not be told, nor what to do", async (t) => {
  const page = await opened(t, DOWN_URL, { wait: false });
  await stateIs(page, "unavailable");
  assert.equal(await textOf(page, "#headline"), "The engine is unavailable");
  assert.match(await textOf(page, "#advice"), /The engine is unreachable.*BRUNIX_GRPC_TARGET/);
  assert.deepEqual(await textsOf(page, "#status dd"), ["running", "unavailable", "brunix", "0.1.0"]);
  await ask(page, "hello");
  await ended(page);
  const said = await textOf(page, ".failure");
  assert.match(said, /The engine is unreachable\..*status 503 · engine_unavailable · request [0-9a-f]{32}/);
});

test("a page that is open would not notice that the gateway is gone, or that it is back", async (t) => {
  const port = await freePort();
  const first = await gateway(t, { port });
  const page = await opened(t, first.url);
  // Its user looks at it again: that is a reason to look, without the wait between two looks.
  const look = () => page.evaluate(() => window.dispatchEvent(new Event("online")));
  await first.stop();
  await look();
  await stateIs(page, "unreachable");
  assert.equal(await textOf(page, "#headline"), "The gateway is unreachable");
  await ask(page, "anybody?");
  await ended(page);
  assert.match(await textOf(page, ".failure"), /The gateway is unreachable\./);
  await gateway(t, { port, PROXY_MODEL_ID: "another" });
  // Nobody presses anything.
  await ready(page);
  assert.equal(await textOf(page, "#status-model"), "another");
  assert.match(await answered(page, "and now?", 2), /and now\?/);
});

test("each look at the gateway would be read aloud", async (t) => {
  const page = await opened(t, SCRIPTED_URL);
  await page.evaluate(() => {
    window.changes = 0;
    new MutationObserver((changes) => (window.changes += changes.length)).observe(
      document.getElementById("status-message"),
      { childList: true, characterData: true, subtree: true, attributes: true },
    );
  });
  for (let look = 0; look < 3; look++) {
    const looked = page.waitForResponse((response) => response.url().endsWith("/health"));
    // A look whose answer is still being read stands for the one that is asked for meanwhile: ask until there is another.
    const asking = setInterval(() => page.evaluate(() => window.dispatchEvent(new Event("online"))).catch(() => {}), 50);
    await looked.finally(() => clearInterval(asking));
  }
  await answered(page, "hello");
  assert.equal(await page.evaluate(() => window.changes), 0);
});

// Asking.

test("a user would see nothing before the whole answer is there", async (t) => {
  const page = await opened(t, SCRIPTED_URL);
  const [one, two] = [signal(), signal()];
  await heard(page);
  await ask(page, script("first ", { wait: one }, "second ", { wait: two }, "third"));
  await answerIs(page, "first");
  assert.equal(await page.$eval("#stop", (stop) => stop.hidden), false);
  await go(one);
  await answerIs(page, "first second");
  await go(two);
  await answerIs(page, "first second third");
  await ended(page);
  // The rate is left out where the answer came too quickly to tell, as it may here: parts.test.mjs has both forms.
  assert.match(await textOf(page, ".timing"), /^First token after \d.* · 5 tokens( · [\d.,]+ tokens\/s)?$/);
  // Read aloud once, and not word by word.
  assert.deepEqual(
    (await page.evaluate(() => window.heard)).filter((text) => text.includes("first")),
    ["Answer: first second third"],
  );
});

test("an answer of the shipped engine would not come word by word", async (t) => {
  const page = await opened(t, BRUNIX_URL);
  await page.evaluate(() => {
    window.steps = new Set();
    new MutationObserver(() => {
      if (!document.getElementById("stop").hidden) window.steps.add(document.querySelector(".prose").textContent.length);
    }).observe(document.getElementById("turns"), { childList: true, characterData: true, subtree: true });
  });
  assert.match(await answered(page, QUESTION), KEY_FACT);
  assert.ok((await page.evaluate(() => window.steps.size)) > 5);
});

test("a user could not stop an answer, or the engine would go on with it", async (t) => {
  const page = await opened(t, SCRIPTED_URL);
  const word = tag();
  await ask(page, script(word, { hang: true }));
  await answerIs(page, word.trim());
  await page.click("#stop");
  await ended(page);
  assert.deepEqual(await saw(word), { calls: 1, ended: true, finished: false });
  assert.equal((await textOf(page, ".prose")).trim(), word.trim());
  assert.match(await textOf(page, ".after .notice"), /^Stopped\./);
  assert.equal(await page.$eval("#send", (send) => send.hidden), false);
  assert.equal(await focused(page), "question");
});

test("Escape would not stop an answer whose first words are awaited", async (t) => {
  const page = await opened(t, SCRIPTED_URL);
  const word = signal();
  await ask(page, script({ wait: word }, "too late"));
  await page.waitForSelector(".waiting");
  // The engine has the question.
  await page.waitForFunction(() => document.getElementById("stop").hidden === false);
  await page.keyboard.press("Escape");
  await ended(page);
  await go(word);
  assert.match(await textOf(page, ".after .notice"), /^Stopped\./);
  assert.equal(await page.$(".waiting"), null);
});

test("a follow-up would lose the conversation, or a new conversation would keep it", async (t) => {
  const page = await opened(t, BRUNIX_URL);
  assert.equal(await page.$eval("#session", (session) => session.hidden), true);
  await answered(page, QUESTION);
  const first = await textOf(page, "#session-id");
  assert.match(first, /^[0-9a-f]{32}$/);
  assert.match(await answered(page, "And what is its default?", 2), KEY_FACT);
  assert.equal(await textOf(page, "#session-id"), first);
  // It outlives a reload, which what was said does not.
  await page.reload();
  await ready(page);
  assert.equal(await textOf(page, "#session-id"), first);
  assert.equal(await page.$eval("#resumed", (notice) => notice.checkVisibility()), true);
  assert.match(await answered(page, "And what is its default?"), KEY_FACT);
  await page.click("#renew");
  assert.equal(await page.$eval("#session", (session) => session.hidden), true);
  assert.deepEqual(await textsOf(page, ".turn"), []);
  assert.equal(await page.$eval(".welcome", (welcome) => welcome.checkVisibility()), true);
  assert.equal(await focused(page), "question");
  await answered(page, "And what is its default?");
  assert.notEqual(await textOf(page, "#session-id"), first);
});

test("another tab would ask in this one's conversation", async (t) => {
  const page = await opened(t, SCRIPTED_URL);
  await answered(page, "hello");
  const other = await page.browserContext().newPage();
  await other.goto(`${SCRIPTED_URL}/`);
  assert.equal(await other.$eval("#session", (session) => session.hidden), true);
});

test("a new conversation would be disturbed by the answer before it", async (t) => {
  const page = await opened(t, SCRIPTED_URL);
  const word = tag();
  await ask(page, script(word, { hang: true }));
  await answerIs(page, word.trim());
  await page.click("#renew");
  assert.deepEqual(await saw(word), { calls: 1, ended: true, finished: false });
  assert.equal((await answered(page, "hello")).trim(), "hello");
});

test("a user would not see where a quotation comes from", async (t) => {
  const page = await opened(t, BRUNIX_URL);
  assert.match(await answered(page, QUESTION), KEY_FACT);
  const [source] = await textsOf(page, ".sources li");
  assert.match(source, /^settings\.md Settings › The gateway, line \d+$/);
  assert.doesNotMatch(await textOf(page, ".prose"), /—/);
  await page.click(".mark a");
  assert.equal(await page.$eval(".sources li", (line) => line.matches(":target")), true);
  // That was no way out of the conversation.
  assert.equal(await page.$eval("#view-ask", (view) => view.hidden), false);
});

test("several sources would be mixed up, or other text lost", async (t) => {
  const page = await opened(t, SCRIPTED_URL);
  const answer = [
    "One.\n\n", "— `a.md`, A, ", "line 1\n\n", "Two\n— `a.md`, A, line 1\n\n", "— `b.md`, B › `c`, lines 3–4, 7\n\n",
    "Three.\n\n— `a.md`, A, line 1\n\n", "— that is all",
  ];
  await answered(page, script(...answer));
  assert.deepEqual(await textsOf(page, ".sources li"), ["a.md A, line 1", "b.md B › c, lines 3–4, 7"]);
  assert.deepEqual(await textsOf(page, ".prose > *"), [
    "One.", "Source 1", "Two\n— a.md, A, line 1", "Source 2", "Three.", "Source 1", "— that is all",
  ]);
  // Whoever copies gets what the engine wrote.
  await pressCopy(page, ".footer .copy");
  assert.equal(await clipboard(page), answer.join(""));
});

test("the questions to begin with would have no answer", async (t) => {
  const page = await opened(t, BRUNIX_URL);
  await page.waitForSelector("#suggestions button");
  const suggestions = await textsOf(page, "#suggestions button");
  assert.ok(suggestions.length >= 2);
  for (const [number, words] of suggestions.entries()) {
    if (number) await page.click("#renew");
    await (await page.$$("#suggestions button"))[number].click();
    await ended(page);
    assert.equal(await textOf(page, ".turn .question"), words);
    assert.ok(await page.$(".sources li"), words);
  }
});

test("questions would be offered that the engine's documents do not answer", async (t) => {
  // The scripted engine reports none.
  const page = await opened(t, SCRIPTED_URL);
  await page.waitForNetworkIdle({ idleTime: 200 });
  assert.equal(await page.$eval("#suggestions", (list) => list.hidden), true);
});

test("a Japanese user's Enter would send half a word", async (t) => {
  const page = await opened(t, SCRIPTED_URL);
  const pressed = await page.evaluate(() => {
    const question = document.getElementById("question");
    question.value = "にほん";
    const press = (more) => question.dispatchEvent(new KeyboardEvent("keydown", { key: "Enter", bubbles: true, cancelable: true, ...more }));
    // An event whose default is prevented comes back as false.
    return [press({ isComposing: true }), press({ keyCode: 229 }), press({ shiftKey: true })];
  });
  assert.deepEqual(pressed, [true, true, true]);
  assert.deepEqual(await textsOf(page, ".turn"), []);
  await page.focus("#question");
  await page.keyboard.press("Enter");
  await ended(page);
});

test("Shift and Enter would send the question, or an empty one be sent", async (t) => {
  const page = await opened(t, SCRIPTED_URL);
  await page.focus("#question");
  await page.keyboard.press("Enter");
  await page.keyboard.type("one");
  await page.keyboard.down("Shift");
  await page.keyboard.press("Enter");
  await page.keyboard.up("Shift");
  await page.keyboard.type("two");
  assert.equal(await page.$eval("#question", (question) => question.value), "one\ntwo");
  assert.deepEqual(await textsOf(page, ".turn"), []);
  await page.click("#send");
  await ended(page);
  assert.equal(await textOf(page, ".turn .question"), "one\ntwo");
  assert.equal(await page.$eval("#question", (question) => question.value), "");
});

// What fails.

test("an answer that broke off would be lost, or pass for a whole one", async (t) => {
  const page = await opened(t, SCRIPTED_URL);
  await ask(page, script("half of ", "it ", { status: "INTERNAL" }));
  await ended(page);
  assert.equal((await textOf(page, ".prose")).trim(), "half of it");
  const said = await textOf(page, ".failure");
  assert.match(said, /^The answer is incomplete: .*Only its beginning was received\./);
  assert.match(said, /engine_error · request [0-9a-f]{32}/);
  assert.doesNotMatch(said, /secret/);
});

test("a gateway that dies in the middle of an answer would look like the answer's end", async (t) => {
  const port = await freePort();
  const { url, stop } = await gateway(t, { port });
  const page = await opened(t, url);
  await ask(page, script("half of it", { hang: true }));
  await answerIs(page, "half of it");
  await stop();
  await ended(page);
  assert.match(await textOf(page, ".failure"), /^The answer is incomplete: the connection to the gateway was lost\./);
  assert.equal((await textOf(page, ".prose")).trim(), "half of it");
  await stateIs(page, "unreachable");
});

test("a user would have to write a question again that failed", async (t) => {
  const page = await opened(t, SCRIPTED_URL);
  await ask(page, script({ first: { status: "INTERNAL" } }, `well ${tag()}`));
  await ended(page);
  await page.click(".failure button");
  await ended(page, 2);
  assert.match(await textOf(page, ".turn:last-child .prose"), /^well/);
});

test("an engine that says nothing would leave a hole", async (t) => {
  const page = await opened(t, SCRIPTED_URL);
  await answered(page, script({ final: "" }));
  assert.match(await textOf(page, ".after"), /The engine returned an empty answer\./);
});

// What an answer may look like.

test("an answer could run, load or pretend something", async (t) => {
  const page = await opened(t, SCRIPTED_URL);
  const evil = [
    "<script>alert(1)</script>",
    '<img src=x onerror="alert(2)">',
    "<svg onload=alert(3)>",
    "<style>body{display:none}</style>",
    '<a href="javascript:alert(4)">html</a>',
    "[link](javascript:alert(5))",
    "[link](JaVaScRiPt:alert(6))",
    "[link](&#106;avascript:alert(7))",
    "[link](data:text/html,<script>alert(8)</script>)",
    "[link](vbscript:x)",
    "[link](file:///etc/passwd)",
    "[link](//elsewhere.example/x)",
    "[page](settings.md)",
    "<javascript:alert(9)>",
    "![picture](http://elsewhere.example/x.png)",
    "![picture](data:image/svg+xml,<svg onload=alert(10)>)",
    "![picture](javascript:alert(11))",
    '[good](https://elsewhere.example/ "a title")',
    "[ref]: javascript:alert(12)",
    "[ref]",
    "```html onload=alert(13)\n<script>alert(14)</script>\n```",
    "| a |\n|--:|\n| <img src=x onerror=alert(15)> |",
  ];
  await answered(page, script(...evil.map((each) => `${each}\n\n`)));
  const found = await page.$eval(".prose", (prose) => ({
    elements: [...new Set([...prose.querySelectorAll("*")].map((each) => each.localName))],
    links: [...prose.querySelectorAll("a")].map((link) => [link.textContent, link.getAttribute("href"), link.rel]),
    attributes: [...new Set([...prose.querySelectorAll("*")].flatMap((each) => each.getAttributeNames()))],
    text: prose.textContent,
  }));
  assert.deepEqual(found.links, [
    ["Image: picture", "http://elsewhere.example/x.png", "noopener noreferrer"],
    ["good", "https://elsewhere.example/", "noopener noreferrer"],
  ]);
  for (const name of ["script", "img", "svg", "style", "iframe"]) assert.ok(!found.elements.includes(name), name);
  assert.deepEqual(
    found.attributes.filter((name) => name.startsWith("on") || name === "style" || name === "src"),
    [],
  );
  assert.ok(found.text.includes("<script>alert(1)</script>"));
  assert.ok(found.text.includes("page"));
});

test("Markdown would be shown as it is written", async (t) => {
  const page = await opened(t, SCRIPTED_URL);
  const text = "# Big\n\nA *b* **c** `d` ~~e~~\n\n3. x\n4. y\n   - z\n\n> q\n\n```py\nprint(1)\n```\n\n| l | r |\n|---|--:|\n| 1 | 2 |\n\n---\n";
  await answered(page, script(...text.match(/.{1,7}/gs)));
  const shape = await page.$eval(".prose", (prose) => [...prose.children].map((each) => each.localName));
  assert.deepEqual(shape, ["h4", "p", "ol", "blockquote", "figure", "div", "hr"]);
  assert.equal(await page.$eval(".prose ol", (list) => list.start), 3);
  assert.equal(await textOf(page, ".prose pre"), "print(1)\n");
  assert.equal(await page.$eval(".prose td.right", (cell) => getComputedStyle(cell).textAlign), "end");
  assert.deepEqual(await textsOf(page, ".prose :is(em, strong, s, p > code)"), ["b", "c", "d", "e"]);
});

test("what a user has selected would be lost while the answer goes on", async (t) => {
  const page = await opened(t, SCRIPTED_URL);
  const word = signal();
  await ask(page, script("Keep this.\n\n", "More", { wait: word }, " and more."));
  await answerIs(page, "Keep this.More");
  await page.$eval(".prose p", (paragraph) => getSelection().selectAllChildren(paragraph));
  await go(word);
  await ended(page);
  assert.equal(await page.evaluate(() => getSelection().toString()), "Keep this.");
});

// Copying.

test("what is copied would not be what is shown", async (t) => {
  const page = await opened(t, SCRIPTED_URL);
  const written = "Do this:\n\n```sh\ncurl -s \"$URL\" | jq .\n# ümläut\n```\n\nThat is all.";
  await answered(page, script(written));
  await pressCopy(page, ".prose .copy");
  assert.equal(await clipboard(page), await textOf(page, ".prose pre"));
  await pressCopy(page, ".footer .copy");
  assert.equal(await clipboard(page), written);
});

test("a user at another machine would have buttons that do not copy", async (t) => {
  // Plain HTTP and a name: the browser gives such a page no clipboard.
  const { url } = await proxy(t, SCRIPTED_URL, { name: "gateway.internal" });
  const page = await opened(t, url);
  assert.equal(await page.evaluate(() => window.isSecureContext), false);
  const written = "copy  this\n\n    and that\n ";
  await answered(page, script(written));
  await page.focus(".footer .copy");
  await pressCopy(page, ".footer .copy");
  assert.equal(await page.evaluate(() => document.activeElement.className), "copy quiet");
  const secure = await page.browserContext().newPage();
  await secure.goto(`${SCRIPTED_URL}/`);
  assert.equal(await clipboard(secure), written);
});

// Behind a proxy.

test("the page would not work below a proxy's path", async (t) => {
  const { url } = await proxy(t, SCRIPTED_URL, { prefix: "/brunix", name: "gateway.internal" });
  const page = await opened(t, url, { path: "/brunix/" });
  assert.equal((await answered(page, "hello")).trim(), "hello");
  await page.click('[data-view="connect"]');
  await page.waitForSelector(".client pre");
  assert.equal(await textOf(page, ".basics dd code"), `${url}/brunix/v1`);
  assert.ok((await textOf(page, ".client pre")).includes(`${url}/brunix/v1`));
});

test("a proxy that hides by what name it was called would leave the user without a word why", async (t) => {
  const { url } = await proxy(t, SCRIPTED_URL, { host: new URL(SCRIPTED_URL).host, name: "chat.example" });
  const page = await opened(t, url, { wait: false });
  await stateIs(page, "rejected");
  assert.equal(await textOf(page, "#headline"), "This page could not be loaded completely");
  assert.ok((await textOf(page, "#advice")).includes(`correct the proxy, or add ${url} to`));
});

test("a proxy that begins to hide it while the page is open would leave the user without a word why", async (t) => {
  const behind = await proxy(t, SCRIPTED_URL, { name: "chat.internal" });
  const page = await opened(t, behind.url);
  behind.pretend(new URL(SCRIPTED_URL).host);
  await ask(page, "hello");
  await ended(page);
  assert.match(await textOf(page, ".failure"), /forward the Host header.*PROXY_CORS_ORIGINS.*status 403 · origin_not_allowed/);
});

test("a proxy that has lost its gateway would be taken for the gateway", async (t) => {
  const port = await freePort();
  const { url: target, stop } = await gateway(t, { port });
  const { url } = await proxy(t, target);
  const page = await opened(t, url);
  await stop();
  await ask(page, "hello");
  await ended(page);
  assert.match(await textOf(page, ".failure"), /^A proxy between this page and the gateway responded with status 502\./);
  await stateIs(page, "proxy");
  assert.match(await textOf(page, "#headline"), /with status 502/);
});

// Connecting.

test("a client's configuration would be missing, or tell of another server", async (t) => {
  const page = await opened(t, SCRIPTED_URL, { path: "/#connect" });
  await page.waitForSelector(".client pre");
  const { host } = new URL(SCRIPTED_URL);
  assert.deepEqual(await textsOf(page, ".basics dd code"), [`${SCRIPTED_URL}/v1`, SCRIPTED_URL, "brunix"]);
  const { clients } = await (await fetch(`${SCRIPTED_URL}/page/clients.json`)).json();
  const options = await page.$$eval("#client option", (each) => each.map(({ value, textContent }) => [value, textContent]));
  assert.deepEqual(new Map(options), new Map(clients.map(({ id, name }) => [id, name])));
  assert.ok(options.length > 10);
  for (const [id, name] of options) {
    await page.select("#client", id);
    assert.equal(await textOf(page, ".client h2"), name);
    const shown = await page.$eval(".client", (client) => client.textContent);
    assert.ok(shown.includes(host), `${id} does not tell where`);
    assert.doesNotMatch(shown, /@(URL|HOST|MODEL)@/, id);
    assert.doesNotMatch(shown, /127\.0\.0\.1:8000/, id);
    const codes = await textsOf(page, ".client > .code pre");
    assert.equal(codes.length, clients.find((client) => client.id === id).snippets.length);
    assert.equal(new URL(page.url()).hash, `#connect/${id}`);
  }
  const last = await textOf(page, ".client > .code pre");
  await pressCopy(page, ".client > .code .copy");
  assert.equal(await clipboard(page), last);
  // The address can be sent to somebody.
  await page.reload();
  await page.waitForSelector(".client pre");
  assert.equal(await textOf(page, ".client > .code pre"), last);
});

test("the model's name in a configuration would be another than the gateway's", async (t) => {
  const { url } = await gateway(t, { port: await freePort(), PROXY_MODEL_ID: "acme/docs:v2" });
  const page = await opened(t, url, { path: "/#connect/openai-python" });
  await page.waitForFunction(() => document.querySelector(".client pre")?.textContent.includes("acme/docs:v2"));
  assert.equal((await textsOf(page, ".basics dd code")).at(-1), "acme/docs:v2");
});

test("a list of clients that does not come would leave an empty page", async (t) => {
  const { url, stop } = await gateway(t, { port: await freePort() });
  const page = await opened(t, url);
  await stop();
  await page.click('[data-view="connect"]');
  await page.waitForSelector("#connect .failure");
  assert.match(await textOf(page, "#connect .failure"), /^The list of clients could not be loaded\./);
});

test("the browser's back button would leave the page instead of the view", async (t) => {
  const page = await opened(t, SCRIPTED_URL);
  await answered(page, "hello");
  await page.click('[data-view="connect"]');
  await page.waitForSelector(".client pre");
  assert.equal(await focused(page), "connect-title");
  assert.equal(await page.$eval("#view-ask", (view) => view.hidden), true);
  await page.goBack();
  assert.equal(await page.$eval("#view-connect", (view) => view.hidden), true);
  // The conversation is still there.
  assert.deepEqual(await textsOf(page, ".turn .question"), ["hello"]);
});

// How it looks.

const colours = (page) =>
  page.evaluate(() => [getComputedStyle(document.documentElement), getComputedStyle(document.body)].map((style) => style.color)
    .concat(getComputedStyle(document.documentElement).backgroundColor));

test("a user who wants it dark would be dazzled", async (t) => {
  const light = await opened(t, SCRIPTED_URL);
  const dark = await opened(t, SCRIPTED_URL, { media: { "prefers-color-scheme": "dark" } });
  const [byLight, byDark] = [await colours(light), await colours(dark)];
  assert.notDeepEqual(byLight, byDark);
  assert.equal(await dark.$eval("#theme", (theme) => theme.ariaPressed), "true");
  await light.click("#theme");
  assert.deepEqual(await colours(light), byDark);
  assert.equal(await light.$eval("#theme", (theme) => theme.ariaPressed), "true");
  // Remembered, and there before the first thing is drawn.
  await light.reload();
  assert.deepEqual(await colours(light), byDark);
  await ready(light);
  await light.click("#theme");
  assert.deepEqual(await colours(light), byLight);
  // What the system has is no choice to remember.
  assert.equal(await light.evaluate(() => localStorage.length), 0);
  await emulate(light, { "prefers-color-scheme": "dark" });
  assert.deepEqual(await colours(light), byDark);
  // The browser tells the page of it a moment later.
  await light.waitForFunction(() => document.getElementById("theme").ariaPressed === "true");
});

test("who cannot bear motion would see some", async (t) => {
  const page = await opened(t, SCRIPTED_URL, { media: { "prefers-reduced-motion": "reduce" } });
  const word = signal();
  await ask(page, script({ wait: word }, "done"));
  await page.waitForSelector(".waiting");
  assert.equal(await page.evaluate(() => document.getAnimations().length), 0);
  await go(word);
  await ended(page);
});

test("without storage the page would not work", async (t) => {
  const page = await opened(t, SCRIPTED_URL, { wait: false });
  await page.evaluateOnNewDocument(() => {
    for (const name of ["localStorage", "sessionStorage"]) {
      Object.defineProperty(window, name, {
        get() {
          throw new DOMException("denied", "SecurityError");
        },
      });
    }
  });
  await page.reload();
  await ready(page);
  await page.click("#theme");
  await answered(page, "hello");
  const session = await textOf(page, "#session-id");
  await answered(page, "again", 2);
  assert.ok(session);
  assert.equal(await textOf(page, "#session-id"), session);
});
