// Sends one question to the gateway's OpenAI endpoint and reads the answer. Independent of the page's elements.

import { events } from "./sse.js";

// A question without an answer, or without a complete one. messages.js describes it.
export class Failure extends Error {
  // kind: "network"     no response
  //       "rejected"    a response with an error status
  //       "incomplete"  an error or the end of the connection during the answer
  constructor(kind, { status = 0, code = "", message = "", requestId = "", retryAfter = "" } = {}) {
    super(message || kind);
    Object.assign(this, { kind, status, code, reason: message, requestId, retryAfter });
  }
}

// Asks a question, and returns when the answer is complete.
//
// session        the engine session to continue, or ""
// signal         aborting it closes the request, and cancels the engine call
// onSession(id)  called when the answer's session is known
// onText(delta)  called with each part of the answer
// clock()        the time in milliseconds
//
// Returns { finish, requestId, firstMs, streamMs, tokens, annotations }, with null for unknown values. Throws a Failure, or the
// signal's AbortError.
export async function ask({
  question, model, session, signal, onSession, onText, fetch = globalThis.fetch, clock = () => performance.now(),
}) {
  const sentMs = clock();
  let response;
  try {
    response = await fetch("v1/chat/completions", {
      method: "POST",
      headers: { "Content-Type": "application/json", ...(session && { "X-Session-Id": session }) },
      // The session contains the earlier turns, so the question alone is enough.
      body: JSON.stringify({
        model,
        messages: [{ role: "user", content: question }],
        stream: true,
        stream_options: { include_usage: true },
      }),
      signal,
    });
  } catch (fault) {
    if (signal?.aborted) throw fault;
    throw new Failure("network", { message: "" });
  }
  const requestId = response.headers.get("X-Request-Id") ?? "";
  if (!response.ok) throw await rejection(response, requestId);
  if (!/^text\/event-stream\b/.test(response.headers.get("Content-Type") ?? "")) {
    // Not from the gateway: a login page, for example.
    throw new Failure("rejected", { status: response.status, requestId });
  }
  const id = response.headers.get("X-Session-Id");
  if (id) onSession?.(id);

  const result = { finish: null, requestId, firstMs: null, streamMs: null, tokens: null, annotations: [] };
  let first = null;
  try {
    for await (const data of events(response.body)) {
      // Read on to the end of the stream: leaving here would count as a client that disconnected.
      if (data === "[DONE]") continue;
      const chunk = JSON.parse(data);
      if (chunk.error) {
        const { message = "", code = "" } = chunk.error;
        throw new Failure("incomplete", { status: response.status, code: code ?? "", message, requestId });
      }
      if (chunk.usage) result.tokens = chunk.usage.completion_tokens;
      const choice = chunk.choices?.[0];
      if (choice?.finish_reason) result.finish = choice.finish_reason;
      result.annotations.push(...(choice?.delta?.annotations ?? []));
      const delta = choice?.delta?.content;
      if (!delta) continue;
      first ??= clock();
      result.streamMs = clock() - first;
      onText(delta);
    }
  } catch (fault) {
    if (fault instanceof Failure || signal?.aborted) throw fault;
    throw new Failure("incomplete", { requestId });
  }
  // Without a finish_reason, the answer is not complete.
  if (result.finish === null) throw new Failure("incomplete", { requestId });
  if (first !== null) result.firstMs = first - sentMs;
  return result;
}

async function rejection(response, requestId) {
  const about = { status: response.status, requestId, retryAfter: response.headers.get("Retry-After") ?? "" };
  try {
    const { error } = await response.json();
    return new Failure("rejected", { ...about, code: error.code ?? "", message: error.message });
  } catch {
    return new Failure("rejected", about); // not the gateway's response
  }
}
