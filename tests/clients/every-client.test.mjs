// What every client of the table in providers.mjs can rely on.

import assert from "node:assert/strict";
import { test } from "node:test";
import { PROVIDERS } from "./providers.mjs";
import {
  FAILS_IN_THE_MIDDLE, FOLLOW_UP, HEARTBEAT_URL, KEY_FACT, MANY, NUMBERS, PAUSES, QUESTION, SCRIPTED_URL, URL,
  assertCancelled, collect, conversation, hanging, tag,
} from "./questions.mjs";

for (const [name, provider] of Object.entries(PROVIDERS)) {
  const { ask, whole, streamed, cuts, refusals } = provider;

  async function answer(url, messages, { stream, ...parameters }) {
    const asked = await ask(url, messages, { stream, ...parameters });
    return stream ? streamed(await collect(asked)) : whole(asked);
  }

  test(`${name}: an answer has its text, finish reason and usage`, async () => {
    const { text, finish, outputTokens } = whole(await ask(URL, conversation(QUESTION)));
    assert.match(text, KEY_FACT);
    assert.equal(finish, provider.finish);
    assert.ok(outputTokens > MANY);
  });

  test(`${name}: a streamed answer arrives in several pieces, with its finish reason and usage`, async () => {
    const pieces = await collect(await ask(URL, conversation(QUESTION), { stream: true }));
    const { text, finish, outputTokens } = streamed(pieces);
    assert.match(text, KEY_FACT);
    assert.ok(provider.textPieces(pieces) > MANY);
    assert.equal(finish, provider.finish);
    assert.ok(outputTokens > MANY);
  });

  for (const stream of [true, false]) {
    const how = stream ? "streamed" : "whole";

    for (const [parameters, text, finish] of cuts) {
      test(`${name}: cut by ${JSON.stringify(parameters)}, ${how}`, async () => {
        const cut = await answer(SCRIPTED_URL, NUMBERS, { stream, ...parameters });
        assert.deepEqual([cut.text, cut.finish], [text, finish]);
      });
    }

    for (const [reason, url, { messages = conversation(QUESTION), ...parameters }, error] of refusals) {
      test(`${name}: ${reason} is an error, ${how}`, async () => {
        await assert.rejects(answer(url, messages, { stream, ...parameters }), error);
      });
    }

    test(`${name}: a follow-up is answered in the context of its conversation, ${how}`, async () => {
      const question = `${QUESTION} ${tag()}`;
      const { text } = await answer(URL, conversation(question), { stream });
      assert.match((await answer(URL, conversation(question, text, FOLLOW_UP), { stream })).text, KEY_FACT);
      assert.doesNotMatch((await answer(URL, conversation(FOLLOW_UP), { stream })).text, KEY_FACT);
    });
  }

  test(`${name}: closing a stream cancels the engine's call`, async () => {
    const word = tag();
    const stream = await ask(SCRIPTED_URL, hanging(word), { stream: true });
    const pieces = [];
    const reading = (async () => {
      for await (const piece of stream) {
        pieces.push(piece);
        if (pieces.length === provider.piecesBeforeText + 1) provider.cancel(stream);
      }
    })();
    await reading.catch((error) => assert.equal(error.name, "AbortError"));
    assert.match(streamed(pieces).text, /tag-/);
    await assertCancelled(word);
  });

  if (provider.error) {
    test(`${name}: a failure in the middle is an error after the text so far`, async () => {
      const pieces = [];
      const stream = await ask(SCRIPTED_URL, FAILS_IN_THE_MIDDLE, { stream: true });
      await assert.rejects(collect(stream, pieces), provider.error);
      const { text, finish } = streamed(pieces);
      assert.deepEqual([text, finish ?? null], ["one two ", null]);
    });
  }

  test(`${name}: heartbeats while the engine is silent do not change a stream`, async () => {
    assert.equal((await answer(HEARTBEAT_URL, PAUSES, { stream: true })).text, "one two");
  });
}
