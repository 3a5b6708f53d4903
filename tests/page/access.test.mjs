// Whether everyone can use the page: by keyboard, by ear, on a small screen, in every colour. Each test's name says what
// a user would have if it failed.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import {
  BRUNIX_URL, DOWN_URL, NARROW, QUESTION, SCRIPTED_URL,
  answerIs, answered, ask, browsing, ended, go, opened, saw, script, signal, stateIs, tag, textOf,
} from "./browser.mjs";

browsing();

const AXE = readFileSync(new URL("node_modules/axe-core/axe.min.js", import.meta.url), "utf8");

const RICH = [
  "## What it is\n\nA [link](https://elsewhere.example/) and `code` and a list:\n\n1. one\n2. two\n\n",
  "> quoted\n\n```sh\necho a long line that does not fit on a phone without being scrolled to its end, as code does\n```\n\n",
  "| variable | default | what it does |\n|---|--:|---|\n| `PROXY_A_LONG_NAME_OF_A_VARIABLE` | 20 | something |\n\n",
  "A_very_long_word_without_any_space_in_it_as_paths_and_names_of_variables_often_are_in_documentation\n\n",
  "— `settings.md`, Settings › The gateway, line 24",
];

// Brings the page into a state, by what its user would do.
const STATES = {
  empty: async (t, options) => opened(t, BRUNIX_URL, options),
  answered: async (t, options) => {
    const page = await opened(t, SCRIPTED_URL, options);
    await answered(page, script(...RICH));
    return page;
  },
  answering: async (t, options) => {
    const page = await opened(t, SCRIPTED_URL, options);
    await ask(page, script("Some text.", { hang: true }));
    await answerIs(page, "Some text.");
    return page;
  },
  waiting: async (t, options) => {
    const page = await opened(t, SCRIPTED_URL, options);
    await ask(page, script({ hang: true }));
    await page.waitForSelector(".waiting");
    return page;
  },
  incomplete: async (t, options) => {
    const page = await opened(t, SCRIPTED_URL, options);
    await ask(page, script(...RICH, { status: "INTERNAL" }));
    await ended(page);
    return page;
  },
  "engine down": async (t, options) => {
    const page = await opened(t, DOWN_URL, { ...options, wait: false });
    await stateIs(page, "unavailable");
    await ask(page, "hello");
    await ended(page);
    return page;
  },
  connect: async (t, options) => {
    const page = await opened(t, BRUNIX_URL, { ...options, path: "/#connect" });
    await page.waitForSelector(".client pre");
    return page;
  },
};

async function violations(page) {
  await page.evaluate(AXE);
  const { violations } = await page.evaluate(() =>
    window.axe.run(document, { resultTypes: ["violations"], rules: { "target-size": { enabled: true } } }),
  );
  return violations.map(({ id, help, nodes }) => `${id}: ${help}: ${nodes.map(({ html }) => html).join(" ")}`);
}

// Whatever does not fit is scrolled in a place of its own, and the page never sideways.
const sideways = (page) =>
  page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);

// What is too small to be hit: WCAG 2.2, 2.5.8. Links in a line of text are exempt.
const tooSmall = (page) =>
  page.$$eval("a, button, select, textarea", (controls) =>
    controls
      .filter((control) => control.checkVisibility() && !control.matches(".skip, p > a:not(.mark a), li > a"))
      .map((control) => [control.outerHTML, control.getBoundingClientRect()])
      .filter(([, { width, height }]) => width < 24 || height < 24)
      .map(([html]) => html),
  );

for (const [state, brought] of Object.entries(STATES)) {
  for (const theme of ["light", "dark"]) {
    for (const [width, viewport] of [["wide", undefined], ["narrow", NARROW]]) {
      test(`who cannot see or hit well would be lost: ${state}, ${theme}, ${width}`, async (t) => {
        const page = await brought(t, { viewport, media: { "prefers-color-scheme": theme, "prefers-reduced-motion": "reduce" } });
        assert.deepEqual(await violations(page), []);
        assert.equal(await sideways(page), 0);
        assert.deepEqual(await tooSmall(page), []);
      });
    }
  }
}

test("who has colours of his own would not see the controls", async (t) => {
  const page = await STATES.answered(t, { media: { "forced-colors": "active" } });
  assert.deepEqual(await violations(page), []);
  // The page's own colours are gone, and what tells the current view is more than a colour.
  assert.notEqual(await page.$eval("nav [aria-current]", (link) => getComputedStyle(link).outlineStyle), "none");
});

test("every client's text would push a phone's page sideways", async (t) => {
  const page = await opened(t, BRUNIX_URL, { viewport: NARROW, path: "/#connect" });
  await page.waitForSelector(".client pre");
  for (const id of await page.$$eval("#client option", (options) => options.map(({ value }) => value))) {
    await page.select("#client", id);
    assert.equal(await sideways(page), 0, id);
    assert.deepEqual(await tooSmall(page), [], id);
  }
});

// What has the focus: its words, and whether it can be seen that it has it.
const focused = (page) =>
  page.evaluate(() => {
    const { activeElement: element } = document;
    const { outlineStyle, outlineWidth } = getComputedStyle(element);
    return {
      name: element.id || element.className || element.textContent.trim() || element.localName,
      isSeen: outlineStyle !== "none" && parseFloat(outlineWidth) >= 2,
      isInSight: (({ top, bottom }) => bottom > 0 && top < innerHeight)(element.getBoundingClientRect()),
      isBody: element === document.body,
    };
  });

// Presses Tab until the browser has gone through the page.
async function walked(page) {
  const names = [];
  for (;;) {
    await page.keyboard.press("Tab");
    const { name, isSeen, isInSight, isBody } = await focused(page);
    if (isBody) return names;
    assert.ok(isSeen, `${name} has the focus, and nobody sees it`);
    assert.ok(isInSight, `${name} has the focus where nobody sees it`);
    names.push(name);
    assert.ok(names.length < 50, `the focus does not leave: ${names}`);
  }
}

test("who has no mouse could not reach something, or not see where he is", async (t) => {
  const page = await opened(t, BRUNIX_URL);
  await page.waitForSelector("#suggestions button");
  const suggestions = await page.$$eval("#suggestions button", (buttons) => buttons.map((each) => each.textContent));
  assert.deepEqual(await walked(page), ["skip", "Ask", "Connect", "theme", ...suggestions, "question", "send"]);
});

test("who has no mouse could not read an answer's code and tables, or copy them", async (t) => {
  const page = await STATES.answered(t, {});
  await page.focus(".skip");
  assert.deepEqual(await walked(page), [
    "Ask", "Connect", "theme", "link", "copy quiet", (await textOf(page, ".prose pre")).trim(), "scrolled", "Source 1",
    "copy quiet", "question", "send", "renew",
  ]);
});

test("who has no mouse could not ask, stop or copy", async (t) => {
  const page = await opened(t, SCRIPTED_URL);
  await page.keyboard.press("Tab");
  await page.keyboard.press("Enter"); // the skip link
  assert.equal((await focused(page)).name, "main");
  await page.keyboard.press("Tab"); // the scripted engine reports no questions to offer
  assert.equal((await focused(page)).name, "question");
  const word = tag();
  await ask(page, script(word, { hang: true }));
  await answerIs(page, word.trim());
  await page.keyboard.press("Tab");
  assert.equal((await focused(page)).name, "stop");
  await page.keyboard.press("Enter");
  await ended(page);
  assert.deepEqual(await saw(word), { calls: 1, ended: true, finished: false });
  assert.equal((await focused(page)).name, "question");
  // Backwards to the answer's button.
  await page.keyboard.down("Shift");
  await page.keyboard.press("Tab");
  await page.keyboard.up("Shift");
  assert.equal((await focused(page)).name, "copy quiet");
  await page.keyboard.press("Space");
  await page.waitForFunction(() => document.activeElement.textContent.startsWith("Copied"));
});

test("who has no mouse could not choose a client", async (t) => {
  const page = await opened(t, BRUNIX_URL, { viewport: { width: 700, height: 900 } });
  await page.focus('[data-view="connect"]');
  await page.keyboard.press("Enter");
  await page.waitForSelector(".client pre");
  assert.equal((await focused(page)).name, "connect-title");
  await page.focus("#client");
  const first = await textOf(page, ".client h2");
  await page.keyboard.press("ArrowDown");
  await page.waitForFunction((was) => document.querySelector(".client h2").textContent !== was, {}, first);
  assert.equal((await focused(page)).name, "client");
  assert.deepEqual((await walked(page)).slice(0, 2), ["copy quiet", (await textOf(page, ".client pre")).trim()]);
});

test("who listens would not hear that an answer began, failed, or what it is", async (t) => {
  const page = await opened(t, SCRIPTED_URL);
  await page.evaluate(() => {
    window.heard = [];
    const place = document.getElementById("announcements");
    new MutationObserver(() => place.textContent && window.heard.push(place.textContent)).observe(place, { childList: true });
  });
  await answered(page, script("a ", "b ", "c\n\n— `x.md`, X, line 1"));
  await ask(page, script("half ", { status: "INTERNAL" }));
  await ended(page, 2);
  const heard = await page.evaluate(() => window.heard);
  assert.deepEqual(heard.map((text) => text.split(/[.:]/)[0]), ["Question sent", "Answer", "Question sent", "The answer is incomplete"]);
  assert.match(heard[1], /^Answer: a b c/);
});

test("who reads an answer from its beginning would be torn to its end", async (t) => {
  const page = await opened(t, SCRIPTED_URL, { viewport: { width: 800, height: 600 } });
  const word = signal();
  const lines = (count) => Array.from({ length: count }, (_, line) => `Line ${line}.\n\n`);
  await ask(page, script(...lines(60), { wait: word }, ...lines(60), "The end."));
  await page.waitForFunction(() => document.querySelectorAll(".prose p").length === 60);
  await page.evaluate(() => {
    window.scrolled = new Promise((resolve) => addEventListener("scroll", resolve, { once: true }));
    window.scrollTo(0, 100);
    return window.scrolled;
  });
  await go(word);
  await ended(page);
  assert.equal(await page.evaluate(() => window.scrollY), 100);
});

test("who follows a long answer would lose its end behind the composer", async (t) => {
  const page = await opened(t, SCRIPTED_URL, { viewport: { width: 800, height: 600 } });
  const word = signal();
  const isInSight = async (words) => {
    await page.waitForFunction((wanted) => document.querySelector(".prose")?.textContent.endsWith(wanted), {}, words);
    const [end, composer] = await page.evaluate(() => [
      document.querySelector(".prose p:last-child").getBoundingClientRect().bottom,
      document.getElementById("composer").getBoundingClientRect().top,
    ]);
    assert.ok(end > 0 && end <= composer, `${words}: ${end} ${composer}`);
  };
  await ask(page, script({ repeat: ["A line.\n\n", 80] }, "Half of it.\n\n", { wait: word }, "The end."));
  await isInSight("Half of it.");
  await go(word);
  await ended(page);
  await isInSight("The end.");
});
