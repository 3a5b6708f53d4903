// What is said of how things stand and of what failed: each time what it is, and what to do.

// How the gateway fares: what the two polls found, put into words.
//
// health  { status, body } of GET health: body is null where it was no JSON of the gateway's; or null: no answer
// model   the model's id, or "" while it is not known
export function standing(health, model) {
  const named = model || "–";
  if (health === null) {
    return {
      state: "unreachable",
      headline: "The gateway does not answer",
      advice:
        "It was stopped, or the network to it is interrupted. Start it again or look at the network; " +
        "this page goes on looking by itself.",
      gateway: "no answer",
      engine: "not known",
      model: named,
      version: "–",
    };
  }
  const { status, body } = health;
  if (body === null) {
    return {
      state: "between",
      headline: `Something before the gateway answers in its place, with status ${status}`,
      advice:
        status === 401 || status === 403 || (status >= 200 && status < 400)
          ? "It may want you to sign in: reload this page."
          : "A proxy on the way does not reach the gateway. Look whether the gateway runs, and where the proxy looks for it.",
      gateway: "not reached",
      engine: "not known",
      model: named,
      version: "–",
    };
  }
  const version = body.version ?? "–";
  if (body.status === "ok") {
    return {
      state: "ok",
      headline: "Ready",
      advice: "",
      gateway: "running",
      engine: "answers",
      model: named,
      version,
    };
  }
  if (body.status === "draining") {
    return {
      state: "draining",
      headline: "The gateway is stopping",
      advice: "Answers under way still end; new questions are refused. Ask again once it has been started anew.",
      gateway: "stopping",
      engine: "not asked",
      model: named,
      version,
    };
  }
  if (body.status === "unavailable") {
    return {
      state: "unavailable",
      headline: "The engine does not answer",
      advice:
        `The gateway runs, but not what it asks${body.reason ? ` (it says: “${body.reason}”)` : ""}. Start the engine, ` +
        "or let BRUNIX_GRPC_TARGET name where it listens; this page goes on looking by itself.",
      gateway: "running",
      engine: "does not answer",
      model: named,
      version,
    };
  }
  // Refused: by what it is called, say.
  const told = body.error?.message ?? body.error ?? "";
  return {
    state: "refused",
    headline: `The gateway refuses this page, with status ${status}`,
    advice: String(told),
    gateway: "refuses",
    engine: "not known",
    model: named,
    version,
  };
}

// By the error's code: what to do. What it is, the gateway's own message says.
const ADVICE = {
  engine_unavailable: "Ask again once the status above says that the engine answers.",
  overloaded: "Ask again in a moment.",
  rate_limit_exceeded: "The engine has too much to do. Ask again in a moment.",
  engine_timeout: "Ask again, or for less. The gateway’s PROXY_ENGINE_TIMEOUT_S and PROXY_FIRST_TOKEN_TIMEOUT_S say how long it waits.",
  engine_error: "Ask again. If it stays so, the gateway’s log says under the request’s id what the engine said.",
  engine_auth: "The gateway’s own credentials have to be put right: its BRUNIX_GRPC_TLS_… settings.",
  internal_error: "The gateway’s log says why, under the request’s id.",
  request_too_large: "Ask with a shorter text, or raise PROXY_MAX_BODY_BYTES.",
  model_not_found: "The gateway’s model has another name now: reload this page.",
  origin_not_allowed:
    "If a proxy stands before the gateway, let it hand on the Host it was called by. Or add this page’s address to PROXY_CORS_ORIGINS.",
  host_not_allowed: "Add the name in this page’s address to PROXY_ALLOWED_HOSTS.",
};

// What is said of a question that failed: { title, advice, details }.
export function failed(failure) {
  const details = [
    failure.status >= 400 && `status ${failure.status}`,
    failure.code,
    failure.requestId && `request ${failure.requestId}`,
  ].filter(Boolean);
  if (failure.kind === "network") {
    return {
      title: "The gateway did not answer.",
      advice: "It was stopped, or the network to it is interrupted. The status above says when it is back.",
      details,
    };
  }
  const advice = ADVICE[failure.code] ?? "";
  if (failure.kind === "broken") {
    return {
      title: failure.told
        ? `The answer broke off: ${sentence(failure.told)}`
        : "The answer broke off: the connection to the gateway was lost.",
      advice: `What stands here is not complete. ${advice || "Ask again."}`,
      details,
    };
  }
  if (!failure.told) {
    return {
      title: `Something between this page and the gateway answered, with status ${failure.status}.`,
      advice:
        failure.status < 500
          ? "It may want you to sign in: reload this page."
          : "A proxy on the way does not reach the gateway, or did not wait for it.",
      details,
    };
  }
  return { title: sentence(failure.told), advice: advice || "Change the question, or ask again.", details };
}

const sentence = (text) => (/[.!?…]$/.test(text) ? text : `${text}.`);

// Of an answer that came in less there is no pace, only noise.
const PACED_MS = 50;

// What an answer took: "First words after 410 ms", "83 tokens", "120 tokens/s".
export function measured({ firstMs, streamMs, tokens }) {
  const words = [];
  if (firstMs !== null) words.push(`First words after ${seconds(firstMs)}`);
  if (tokens !== null) words.push(tokens === 1 ? "1 token" : `${tokens.toLocaleString("en")} tokens`);
  if (tokens && streamMs >= PACED_MS) words.push(`${pace((tokens * 1000) / streamMs)} tokens/s`);
  return words;
}

const seconds = (ms) => (ms < 995 ? `${Math.max(1, Math.round(ms))} ms` : `${(ms / 1000).toFixed(ms < 9950 ? 1 : 0)} s`);
const pace = (rate) =>
  rate < 10 ? rate.toFixed(1) : Number(rate.toPrecision(rate < 1000 ? 3 : 2)).toLocaleString("en", { maximumFractionDigits: 0 });
