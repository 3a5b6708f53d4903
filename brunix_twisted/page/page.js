// The page: its parts, put together.

import { say } from "./aloud.js";
import { ask } from "./ask.js";
import { Connect } from "./connect.js";
import { goOnIn, session } from "./session.js";
import { Watch } from "./status.js";
import { Turn } from "./turn.js";

const $ = (id) => document.getElementById(id);

// Whether it is up.

const connect = new Connect($("connect"), (id) => history.replaceState(null, "", `#connect/${id}`));

const watch = new Watch((standing) => {
  const section = $("status");
  section.dataset.state = standing.state;
  for (const [id, text] of [
    ["headline", standing.headline],
    ["advice", standing.advice],
    ["status-gateway", standing.gateway],
    ["status-engine", standing.engine],
    ["status-model", standing.model],
    ["status-version", standing.version],
  ]) {
    // Only what has changed: each change of the first two is read aloud.
    if ($(id).textContent !== text) $(id).textContent = text;
  }
  $("advice").toggleAttribute("hidden", !standing.advice);
  connect.model = watch.model;
});

document.addEventListener("visibilitychange", () => (document.hidden ? watch.sleep() : watch.wake()));
window.addEventListener("online", () => watch.look());
watch.look();

// The two views. The address names the one that is shown, so that the browser's own buttons go back and forth.

function show(view, { moved }) {
  for (const name of ["ask", "connect"]) {
    $(`view-${name}`).hidden = name !== view;
    const link = document.querySelector(`nav [data-view="${name}"]`);
    if (name === view) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (!moved) return;
  window.scrollTo(0, 0);
  (view === "ask" ? $("question") : $("connect-title")).focus({ preventScroll: true });
}

function follow({ moved }) {
  const [view, client] = location.hash.slice(1).split("/");
  if (view === "connect") {
    show(view, { moved });
    connect.open(client);
  } else if (view === "ask" || view === "") {
    show("ask", { moved });
  }
  // Anything else is a place within the view: a source, or the content itself.
}

window.addEventListener("hashchange", () => follow({ moved: true }));
follow({ moved: false });

// The conversation.

const question = $("question");
let asking = null;
let turns = 0;

const isNearTheEnd = () => document.documentElement.scrollHeight - window.innerHeight - window.scrollY < 160;
const toTheEnd = () => window.scrollTo(0, document.documentElement.scrollHeight);

function showSession() {
  $("session").hidden = !session();
  $("session-id").textContent = session();
}

function working(isWorking) {
  const focused = document.activeElement;
  $("send").hidden = isWorking;
  $("stop").hidden = !isWorking;
  // The button that had the focus is gone.
  if (focused === $("send") || focused === $("stop")) question.focus({ preventScroll: true });
}

async function begin(words) {
  const asked = words.trim();
  if (!asked || asking) return;
  const controller = new AbortController();
  asking = controller;
  const turn = new Turn(++turns, asked, () => begin(asked));
  $("view-ask").removeAttribute("data-empty");
  $("turns").append(turn.element);
  let follows = true;
  turn.shown = () => {
    if (follows) toTheEnd();
  };
  // Who scrolls up wants to read there.
  const scrolled = () => {
    follows = isNearTheEnd();
  };
  window.addEventListener("scroll", scrolled, { passive: true });
  working(true);
  toTheEnd();
  say("Asked. The answer is read when it is complete; Escape stops it.");
  try {
    if (!watch.model) await watch.look();
    const told = await ask({
      question: asked,
      model: watch.model || "brunix",
      session: session(),
      signal: controller.signal,
      onSession: (id) => {
        goOnIn(id);
        showSession();
      },
      onText: (piece) => turn.add(piece),
    });
    turn.done(told);
    say(turn.text ? `Answer: ${turn.answer.textContent}` : "The engine had nothing to say.");
  } catch (fault) {
    if (controller.signal.aborted) {
      turn.stopped();
      // Not where a new conversation has stopped it.
      if (asking === controller) say("Stopped.");
    } else {
      say(turn.failed(fault));
      // The status is to say the same at once.
      watch.look();
    }
  } finally {
    if (follows) toTheEnd();
    window.removeEventListener("scroll", scrolled);
    if (asking === controller) {
      asking = null;
      working(false);
    }
  }
}

// The field grows with the question; most browsers do it by themselves.
function fit() {
  if (!CSS.supports("field-sizing", "content")) question.rows = Math.min(8, question.value.split("\n").length);
}

question.addEventListener("input", fit);

function submit() {
  if (asking || !question.value.trim()) {
    question.focus();
    return;
  }
  const words = question.value;
  question.value = "";
  fit();
  question.focus({ preventScroll: true });
  begin(words);
}

$("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  submit();
});

question.addEventListener("keydown", (event) => {
  // While a word is being composed Enter chooses it; Safari says so only by the old number.
  if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.keyCode === 229) return;
  event.preventDefault();
  submit();
});

$("view-ask").addEventListener("keydown", (event) => {
  if (event.key === "Escape" && !event.isComposing) asking?.abort();
});

$("stop").addEventListener("click", () => asking?.abort());

$("suggestions").addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  question.focus({ preventScroll: true });
  begin(button.textContent);
});

$("renew").addEventListener("click", () => {
  asking?.abort();
  asking = null;
  working(false);
  goOnIn("");
  showSession();
  $("resumed").hidden = true;
  $("turns").replaceChildren();
  $("view-ask").setAttribute("data-empty", "");
  window.scrollTo(0, 0);
  question.focus({ preventScroll: true });
  say("A new conversation.");
});

showSession();
$("resumed").hidden = !session();
