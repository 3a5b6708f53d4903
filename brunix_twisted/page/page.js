// Connects the parts of the page.

import { announce } from "./announce.js";
import { ask } from "./ask.js";
import { Connect } from "./connect.js";
import { session, setSession } from "./session.js";
import { StatusMonitor } from "./status.js";
import { showSuggestions } from "./suggestions.js";
import { Turn } from "./turn.js";

const $ = (id) => document.getElementById(id);

// The status.

const connect = new Connect($("connect"), (id) => history.replaceState(null, "", `#connect/${id}`));

const monitor = new StatusMonitor((status) => {
  const section = $("status");
  if (status.state === "ok" && section.dataset.state !== "ok") showSuggestions($("suggestions"));
  section.dataset.state = status.state;
  for (const [id, text] of [
    ["headline", status.headline],
    ["advice", status.advice],
    ["status-gateway", status.gateway],
    ["status-engine", status.engine],
    ["status-model", status.model],
    ["status-version", status.version],
  ]) {
    // Only changed texts: screen readers announce each change of the first two.
    if ($(id).textContent !== text) $(id).textContent = text;
  }
  $("advice").toggleAttribute("hidden", !status.advice);
  connect.model = monitor.model;
});

document.addEventListener("visibilitychange", () => (document.hidden ? monitor.sleep() : monitor.wake()));
window.addEventListener("online", () => monitor.check());
monitor.check();

// The two views. The URL's fragment names the current one, so that the browser's back and forward buttons work.

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
  // Other fragments are places within the view: a source, or the content.
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
  // The button with the focus is hidden now.
  if (focused === $("send") || focused === $("stop")) question.focus({ preventScroll: true });
}

async function begin(text) {
  const asked = text.trim();
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
  // Do not scroll while the user reads further up.
  const scrolled = () => {
    follows = isNearTheEnd();
  };
  window.addEventListener("scroll", scrolled, { passive: true });
  working(true);
  toTheEnd();
  announce("Question sent. The answer is read when it is complete. Press Escape to stop it.");
  try {
    if (!monitor.model) await monitor.check();
    const result = await ask({
      question: asked,
      model: monitor.model || "brunix",
      session: session(),
      signal: controller.signal,
      onSession: (id) => {
        setSession(id);
        showSession();
      },
      onText: (delta) => turn.add(delta),
    });
    turn.done(result);
    announce(turn.text ? `Answer: ${turn.answer.textContent}` : "The engine returned an empty answer.");
  } catch (fault) {
    if (controller.signal.aborted) {
      turn.stopped();
      // Not if starting a new conversation has stopped it.
      if (asking === controller) announce("Stopped.");
    } else {
      announce(turn.failed(fault));
      // Update the status at once.
      monitor.check();
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

// The field grows with the question. Most browsers do this automatically.
function fit() {
  if (!CSS.supports("field-sizing", "content")) question.rows = Math.min(8, question.value.split("\n").length);
}

question.addEventListener("input", fit);

function submit() {
  if (asking || !question.value.trim()) {
    question.focus();
    return;
  }
  const text = question.value;
  question.value = "";
  fit();
  question.focus({ preventScroll: true });
  begin(text);
}

$("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  submit();
});

question.addEventListener("keydown", (event) => {
  // During IME composition, Enter selects a word. Safari reports that only with keyCode 229.
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
  setSession("");
  showSession();
  $("resumed").hidden = true;
  $("turns").replaceChildren();
  $("view-ask").setAttribute("data-empty", "");
  window.scrollTo(0, 0);
  question.focus({ preventScroll: true });
  announce("New conversation.");
});

showSession();
$("resumed").hidden = !session();
