// The table of clients: how each is asked, and what it makes of an answer. every-client.test.mjs tests all of them.
//
//   ask(url, messages, {stream, …})  returns what the package returns: an answer, or a stream if `stream` is true
//   whole(answer), streamed(pieces)  describe it: {text, finish, outputTokens}
//   textPieces(pieces)               counts the pieces of a stream that may contain text
//   cancel(stream)                   closes a stream before its end
//   finish                           the finish reason of a complete answer
//   cuts                             limits on an answer, and the text and finish reason that result
//   refusals                         requests that fail, and the error that results
//   error                            the error of a failure in the middle of a stream, if the package reports one
//   piecesBeforeText                 how many pieces of a stream precede the text

import assert from "node:assert/strict";
import { createAnthropic } from "@ai-sdk/anthropic";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import Anthropic, { ServiceUnavailableError } from "@anthropic-ai/sdk";
import { APICallError, generateText, streamText } from "ai";
import { Ollama } from "ollama";
import { createOllama } from "ollama-ai-provider-v2";
import OpenAI from "openai";
import { BUSY, DOWN_URL, SCRIPTED_URL, URL } from "./questions.mjs";

// The AI SDK would warn that it does not know the model.
globalThis.AI_SDK_LOG_WARNINGS = false;

export const openai = (url) => new OpenAI({ baseURL: `${url}/v1`, apiKey: "unused", maxRetries: 0 });
export const anthropic = (url) => new Anthropic({ baseURL: url, apiKey: "unused", maxRetries: 0 });
export const ollama = (url) => new Ollama({ host: url });

const defaults = {
  finish: "stop",
  piecesBeforeText: 1,
  textPieces: (pieces) => pieces.length,
  cancel: (stream) => stream.controller.abort(),
};

const UNKNOWN_MODEL = ["unknown model", URL, { model: "gpt-7" }];
const NO_MESSAGES = ["no messages", URL, { messages: [] }];
const DOWN = ["engine down", DOWN_URL, {}];
const ENGINE_BUSY = ["engine busy", SCRIPTED_URL, { messages: BUSY }];

const chat = {
  ...defaults,
  ask: (url, messages, { stream = false, ...parameters } = {}) =>
    openai(url).chat.completions.create({
      model: "brunix", messages, stream, ...(stream && { stream_options: { include_usage: true } }), ...parameters,
    }),
  whole: ({ choices: [{ message, finish_reason }], usage }) => (
    { text: message.content, finish: finish_reason, outputTokens: usage.completion_tokens }
  ),
  streamed(pieces) {
    const choices = pieces.flatMap(({ choices }) => choices);
    return {
      text: choices.map(({ delta }) => delta.content ?? "").join(""),
      finish: choices.at(-1).finish_reason,
      outputTokens: pieces.at(-1).usage?.completion_tokens,
    };
  },
  cuts: [
    [{ stop: "three" }, "one two ", "stop"],
    [{ max_tokens: 1 }, "one ", "length"],
  ],
  refusals: [
    [...UNKNOWN_MODEL, OpenAI.NotFoundError],
    [...NO_MESSAGES, OpenAI.BadRequestError],
    [...DOWN, OpenAI.InternalServerError],
    [...ENGINE_BUSY, OpenAI.RateLimitError],
  ],
  error: OpenAI.APIError,
};

const deltas = (events) => events.filter(({ type }) => type === "response.output_text.delta");
const responses = {
  ...defaults,
  finish: "completed",
  piecesBeforeText: 4,
  ask: (url, input, { messages = input, ...parameters } = {}) =>
    openai(url).responses.create({ model: "brunix", input: messages, ...parameters }),
  whole: ({ output: [{ content: [{ text }] }], status, incomplete_details, usage }) => (
    { text, finish: incomplete_details?.reason ?? status, outputTokens: usage.output_tokens }
  ),
  streamed(events) {
    const text = deltas(events).map(({ delta }) => delta).join("");
    assert.deepEqual(events.map((event) => event.sequence_number), [...events.keys()]);
    const { type, response } = events.at(-1);
    if (!["response.completed", "response.incomplete"].includes(type)) return { text, finish: null };
    assert.equal(type, `response.${response.status}`);
    assert.equal(response.output[0].content[0].text, text);
    return responses.whole(response);
  },
  textPieces: (events) => deltas(events).length,
  // Responses have no stop texts.
  cuts: [[{ max_output_tokens: 2 }, "one two ", "max_output_tokens"]],
  refusals: [
    [...UNKNOWN_MODEL, OpenAI.NotFoundError],
    ["unknown answer", URL, { previous_response_id: "resp_0" }, OpenAI.NotFoundError],
    ["no input", URL, { messages: [] }, OpenAI.BadRequestError],
    [...DOWN, OpenAI.InternalServerError],
    [...ENGINE_BUSY, OpenAI.RateLimitError],
  ],
  error: OpenAI.APIError,
};

export const messagesRequest = (messages, parameters) => ({ model: "brunix", max_tokens: 1024, messages, ...parameters });
const messages = {
  ...defaults,
  finish: "end_turn",
  // The package does not return the ping.
  piecesBeforeText: 2,
  ask: (url, asked, parameters) => anthropic(url).messages.create(messagesRequest(asked, parameters)),
  whole: ({ content: [{ text }], stop_reason, stop_sequence, usage }) => (
    { text, finish: stop_sequence ?? stop_reason, outputTokens: usage.output_tokens }
  ),
  streamed(events) {
    const text = events.filter(({ type }) => type === "content_block_delta").map(({ delta }) => delta.text).join("");
    if (events.at(-1).type !== "message_stop") return { text, finish: null };
    const { delta, usage } = events.at(-2);
    return { text, finish: delta.stop_sequence ?? delta.stop_reason, outputTokens: usage.output_tokens };
  },
  cuts: [
    [{ stop_sequences: ["three"] }, "one two ", "three"],
    [{ max_tokens: 1 }, "one ", "max_tokens"],
  ],
  refusals: [
    [...UNKNOWN_MODEL, Anthropic.NotFoundError],
    [...NO_MESSAGES, Anthropic.BadRequestError],
    [...DOWN, ServiceUnavailableError],
    [...ENGINE_BUSY, Anthropic.RateLimitError],
  ],
  error: Anthropic.APIError,
};

const status = (code) => (error) => {
  assert.deepEqual([error.name, error.status_code], ["ResponseError", code]);
  return true;
};
const ollamaChat = {
  ...defaults,
  ask: (url, messages, parameters) => ollama(url).chat({ model: "brunix", messages, ...parameters }),
  whole: (part) => ollamaChat.streamed([part]),
  streamed(parts) {
    const { done, done_reason, eval_count } = parts.at(-1);
    const text = parts.map((part) => part.message.content).join("");
    return { text, finish: done ? done_reason : null, outputTokens: eval_count };
  },
  cancel: (stream) => stream.abort(),
  cuts: [
    [{ options: { stop: ["three"] } }, "one two ", "stop"],
    [{ options: { num_predict: 1 } }, "one ", "length"],
  ],
  refusals: [
    [...UNKNOWN_MODEL, status(404)],
    [...DOWN, status(503)],
    [...ENGINE_BUSY, status(429)],
  ],
  error: /The engine failed to answer/,
};

// The AI SDK reports errors as parts of the stream. Here they are raised, as in the other packages.
async function* parts({ fullStream }) {
  for await (const part of fullStream) {
    if (part.type === "error") throw part.error;
    yield part;
  }
}
const callError = (code) => (error) => {
  assert.ok(APICallError.isInstance(error), String(error));
  assert.equal(error.statusCode, code);
  return true;
};
const STOP = [{ stopSequences: ["three"] }, "one two ", "stop"];
const LENGTH = [{ maxOutputTokens: 1 }, "one ", "length"];

// `create` makes the provider for a gateway, `options` go with each request.
const aiSdk = (create, { cuts = [STOP, LENGTH], options } = {}) => {
  const provider = {
    ...defaults,
    // How the SDK is asked without the table.
    request: (url, messages, { model = "brunix", ...parameters } = {}) => (
      { model: create(url)(model), messages, maxRetries: 0, onError() {}, ...options, ...parameters }
    ),
    ask(url, messages, { stream = false, ...parameters } = {}) {
      const controller = new AbortController();
      const request = provider.request(url, messages, { abortSignal: controller.signal, ...parameters });
      if (!stream) return generateText(request);
      return Object.assign(parts(streamText(request)), { controller });
    },
    whole: ({ text, finishReason, usage }) => ({ text, finish: finishReason, outputTokens: usage.outputTokens }),
    streamed(pieces) {
      const text = pieces.filter(({ type }) => type === "text-delta").map((part) => part.text).join("");
      const end = pieces.find(({ type }) => type === "finish");
      return { text, finish: end?.finishReason ?? null, outputTokens: end?.totalUsage.outputTokens };
    },
    textPieces: (pieces) => pieces.filter(({ type }) => type === "text-delta").length,
    // "start", "start-step" and "text-start".
    piecesBeforeText: 3,
    cuts,
    refusals: [
      [...UNKNOWN_MODEL, callError(404)],
      [...DOWN, callError(503)],
    ],
  };
  return provider;
};

const viaResponses = (url) => createOpenAI({ name: "brunix", baseURL: `${url}/v1`, apiKey: "unused" });
export const AI_SDK = {
  "ai-sdk, openai-compatible": aiSdk(
    (url) => createOpenAICompatible({ name: "brunix", baseURL: `${url}/v1`, includeUsage: true }),
  ),
  // This provider does not pass on the SDK's own settings.
  "ai-sdk, ollama": aiSdk((url) => createOllama({ baseURL: `${url}/api` }), {
    cuts: [
      [{ providerOptions: { ollama: { options: { stop: ["three"] } } } }, "one two ", "stop"],
      [{ providerOptions: { ollama: { options: { num_predict: 1 } } } }, "one ", "length"],
    ],
  }),
  // Unless store is false, the SDK sends references to earlier answers.
  "ai-sdk, responses": aiSdk(viaResponses, { cuts: [LENGTH] }),
  "ai-sdk, responses, not stored": aiSdk(
    viaResponses, { cuts: [LENGTH], options: { providerOptions: { openai: { store: false } } } },
  ),
  "ai-sdk, anthropic": aiSdk((url) => createAnthropic({ baseURL: `${url}/v1`, apiKey: "unused" })),
};

export const PROVIDERS = { openai: chat, responses, anthropic: messages, ollama: ollamaChat, ...AI_SDK };
