// Pictures of the page: for the documentation by `make screenshots`, otherwise for whoever looks into the folder.

import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { answered, browsing, opened } from "./browser.mjs";

browsing();

// The name by which the browser calls the gateway here, so that no picture shows the port of the day.
const URL = "http://brunix.internal";

const LARGEST_BYTES = 150_000;

async function taken(page, name) {
  await page.evaluate(() => document.activeElement.blur());
  const picture = await page.screenshot({ type: "png" });
  writeFileSync(join(process.env.SCREENSHOTS, `page-${name}.png`), picture);
  assert.ok(picture.length < LARGEST_BYTES, `${picture.length} bytes`);
}

test("the picture of the page would be missing or heavy: light", async (t) => {
  const page = await opened(t, URL, { viewport: { width: 1200, height: 656 } });
  await answered(page, "Which variable sets the number of worker threads?");
  await taken(page, "light");
});

test("the picture of the page would be missing or heavy: dark", async (t) => {
  const page = await opened(t, URL, {
    viewport: { width: 1200, height: 860 }, media: { "prefers-color-scheme": "dark" }, path: "/#connect/openai-python",
  });
  await page.waitForSelector(".client pre");
  await taken(page, "dark");
});

test("the picture of the page would be missing or heavy: phone", async (t) => {
  const page = await opened(t, URL, { viewport: { width: 390, height: 780, isMobile: true, hasTouch: true }, scale: 2 });
  await page.waitForSelector("#suggestions button");
  await taken(page, "phone");
});
