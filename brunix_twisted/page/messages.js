// The page's messages about the status and about errors: each names the problem and what to do.

// Describes the gateway's status.
//
// health  { status, body } of GET health, with body null if it is not the gateway's JSON; or null for no response
// model   the model's id, or "" if it is not known yet
export function describeStatus(health, model) {
  const shownModel = model || "–";
  if (health === null) {
    return {
      state: "unreachable",
      headline: "The gateway is unreachable",
      advice:
        "It was stopped, or the network connection was lost. Start it again, or check the network; " +
        "this page retries automatically.",
      gateway: "unreachable",
      engine: "unknown",
      model: shownModel,
      version: "–",
    };
  }
  const { status, body } = health;
  if (body === null) {
    return {
      state: "proxy",
      headline: `A proxy responded instead of the gateway, with status ${status}`,
      advice:
        status === 401 || status === 403 || (status >= 200 && status < 400)
          ? "You may need to sign in: reload this page."
          : "The proxy cannot reach the gateway. Check that the gateway is running, and the address that the proxy uses.",
      gateway: "unknown",
      engine: "unknown",
      model: shownModel,
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
      engine: "healthy",
      model: shownModel,
      version,
    };
  }
  if (body.status === "draining") {
    return {
      state: "draining",
      headline: "The gateway is stopping",
      advice: "Running answers are completed; new questions are rejected. Ask again after the restart.",
      gateway: "stopping",
      engine: "not checked",
      model: shownModel,
      version,
    };
  }
  if (body.status === "unavailable") {
    return {
      state: "unavailable",
      headline: "The engine is unavailable",
      advice:
        `The gateway is running, but its engine is not available${body.reason ? ` (“${body.reason}”)` : ""}. ` +
        "Start the engine, or set BRUNIX_GRPC_TARGET to its address; this page retries automatically.",
      gateway: "running",
      engine: "unavailable",
      model: shownModel,
      version,
    };
  }
  // An error, for example for the Host header.
  const message = body.error?.message ?? body.error ?? "";
  return {
    state: "rejected",
    headline: `The gateway rejected this page’s request, with status ${status}`,
    advice: String(message),
    gateway: "rejects requests",
    engine: "unknown",
    model: shownModel,
    version,
  };
}

// What to do, by the error's code. The gateway's message names the problem.
const ADVICE = {
  engine_unavailable: "Ask again when the status above shows that the engine is healthy.",
  overloaded: "Ask again in a moment.",
  rate_limit_exceeded: "Ask again in a moment.",
  engine_timeout: "Ask again, or ask for less. PROXY_ENGINE_TIMEOUT_S and PROXY_FIRST_TOKEN_TIMEOUT_S set the gateway’s timeouts.",
  engine_error: "Ask again. If it fails again, look for the request id in the gateway’s log.",
  engine_auth: "Correct the gateway’s credentials: its BRUNIX_GRPC_TLS_… settings.",
  internal_error: "Look for the request id in the gateway’s log.",
  request_too_large: "Shorten the question, or raise PROXY_MAX_BODY_BYTES.",
  model_not_found: "The gateway’s model has been renamed: reload this page.",
  origin_not_allowed:
    "If a proxy is in front of the gateway, make it forward the Host header. Otherwise add this page’s address to PROXY_CORS_ORIGINS.",
  host_not_allowed: "Add the host in this page’s address to PROXY_ALLOWED_HOSTS.",
};

// Describes a question that failed: { title, advice, details }.
export function describeFailure(failure) {
  const details = [
    failure.status >= 400 && `status ${failure.status}`,
    failure.code,
    failure.requestId && `request ${failure.requestId}`,
  ].filter(Boolean);
  if (failure.kind === "network") {
    return {
      title: "The gateway is unreachable.",
      advice: "It was stopped, or the network connection was lost. The status above shows when it is back.",
      details,
    };
  }
  const advice = ADVICE[failure.code] ?? "";
  if (failure.kind === "incomplete") {
    return {
      title: failure.reason
        ? `The answer is incomplete: ${sentence(failure.reason)}`
        : "The answer is incomplete: the connection to the gateway was lost.",
      advice: `Only its beginning was received. ${advice || "Ask again."}`,
      details,
    };
  }
  if (!failure.reason) {
    return {
      title: `A proxy between this page and the gateway responded with status ${failure.status}.`,
      advice:
        failure.status < 500
          ? "You may need to sign in: reload this page."
          : "The proxy could not reach the gateway, or timed out.",
      details,
    };
  }
  return { title: sentence(failure.reason), advice: advice || "Change the question, or ask again.", details };
}

const sentence = (text) => (/[.!?…]$/.test(text) ? text : `${text}.`);

// The rate of an answer that took less time would be noise.
const MIN_RATED_MS = 50;

// Describes an answer's timing: "First token after 410 ms", "83 tokens", "120 tokens/s".
export function describeTiming({ firstMs, streamMs, tokens }) {
  const parts = [];
  if (firstMs !== null) parts.push(`First token after ${seconds(firstMs)}`);
  if (tokens !== null) parts.push(tokens === 1 ? "1 token" : `${tokens.toLocaleString("en")} tokens`);
  if (tokens && streamMs >= MIN_RATED_MS) parts.push(`${rate((tokens * 1000) / streamMs)} tokens/s`);
  return parts;
}

const seconds = (ms) => (ms < 995 ? `${Math.max(1, Math.round(ms))} ms` : `${(ms / 1000).toFixed(ms < 9950 ? 1 : 0)} s`);
const rate = (value) =>
  value < 10 ? value.toFixed(1) : Number(value.toPrecision(value < 1000 ? 3 : 2)).toLocaleString("en", { maximumFractionDigits: 0 });
