// One question and its answer, by the gateway's own OpenAI endpoint. Knows nothing of the page.

import { events } from "./sse.js";

// A question that was not answered, or not to its end. words.js says it to the user.
export class Failure extends Error {
  // kind: "network"  nothing was answered
  //       "refused"  answered with an error's status
  //       "broken"   an error, or the connection's end, in the middle of the answer
  constructor(kind, { status = 0, code = "", message = "", requestId = "", retryAfter = "" } = {}) {
    super(message || kind);
    Object.assign(this, { kind, status, code, told: message, requestId, retryAfter });
  }
}

// Asks, and returns once the answer is complete.
//
// question, model  what is asked, and of whom
// session          the engine session to go on in, or ""
// signal           aborting it closes the request, and with it the engine's call
// onSession(id)    called once it is known where the question is asked
// onText(piece)    called with each piece of the answer
// clock()          milliseconds
//
// Returns { finish, requestId, firstMs, streamMs, tokens }, where a figure that nobody told is null. Throws a Failure,
// or the AbortError of the signal.
export async function ask({
  question, model, session, signal, onSession, onText, fetch = globalThis.fetch, clock = () => performance.now(),
}) {
  const asked = clock();
  let response;
  try {
    response = await fetch("v1/chat/completions", {
      method: "POST",
      headers: { "Content-Type": "application/json", ...(session && { "X-Session-Id": session }) },
      // The session holds what was said before, so the question alone is enough.
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
  if (!response.ok) throw await refusal(response, requestId);
  if (!/^text\/event-stream\b/.test(response.headers.get("Content-Type") ?? "")) {
    // A page to sign in on, for example: whoever sent it, it was not the gateway.
    throw new Failure("refused", { status: response.status, requestId });
  }
  const id = response.headers.get("X-Session-Id");
  if (id) onSession?.(id);

  const told = { finish: null, requestId, firstMs: null, streamMs: null, tokens: null };
  let first = null;
  try {
    for await (const data of events(response.body)) {
      // The last event, but not the end: to leave here would look like somebody who does not wait for the answer.
      if (data === "[DONE]") continue;
      const chunk = JSON.parse(data);
      if (chunk.error) {
        const { message = "", code = "" } = chunk.error;
        throw new Failure("broken", { status: response.status, code: code ?? "", message, requestId });
      }
      if (chunk.usage) told.tokens = chunk.usage.completion_tokens;
      const choice = chunk.choices?.[0];
      if (choice?.finish_reason) told.finish = choice.finish_reason;
      const piece = choice?.delta?.content;
      if (!piece) continue;
      first ??= clock();
      told.streamMs = clock() - first;
      onText(piece);
    }
  } catch (fault) {
    if (fault instanceof Failure || signal?.aborted) throw fault;
    throw new Failure("broken", { requestId });
  }
  // An answer that only stopped is no complete one.
  if (told.finish === null) throw new Failure("broken", { requestId });
  if (first !== null) told.firstMs = first - asked;
  return told;
}

async function refusal(response, requestId) {
  const about = { status: response.status, requestId, retryAfter: response.headers.get("Retry-After") ?? "" };
  try {
    const { error } = await response.json();
    return new Failure("refused", { ...about, code: error.code ?? "", message: error.message });
  } catch {
    return new Failure("refused", about); // it was not the gateway that answered
  }
}
