"""A request that presents a conversation and gets a new session is explained to its caller, without any text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import attrs
import pytest
import pytest_twisted
from twisted.internet.defer import Deferred, ensureDeferred

from brunix_twisted.api.conversations import Digests, Presented
from brunix_twisted.api.mismatches import MAX_PER_CALLER, MAX_RECORDED, Mismatches, Unmatched
from brunix_twisted.config import state_address
from brunix_twisted.model import Turn
from brunix_twisted.state import SessionEntry, StateLimits
from brunix_twisted.state.memory import MemoryStore
from endpoints import CHAT, CHATS, ENDPOINTS, GENERATE
from gateways import Reply, RunningGateway, run_gateway, stop_gateway
from log_lines import LogLines, log_lines
from received import Received
from scripted_engine import ScriptedEngine, script

every_api = pytest.mark.parametrize("path", CHATS)

PATH: Final = "/health/sessions"
Said = list[str]
"""A conversation's texts: question, answer, question and so on."""

NAMES: Final = ("zero", "one", "two", "three", "four", "five")
WORD: Final = "xyzzy"
"""A word in each text of these tests."""
NO_TURN: Final = [f"{WORD} a", f"{WORD} b"]


def question(number: int) -> str:
    return f"{WORD} {NAMES[number]}"


def turn(number: int) -> Said:
    """A turn as the engine answers it: with the question's own words."""
    return [question(number), question(number) + " "]


def turns(*numbers: int) -> Said:
    return [text for number in numbers for text in turn(number)]


def body_for(path: str, said: Sequence[str], *, stream: bool = False) -> dict[str, Any]:
    roles = ("user", "assistant")
    messages = [{"role": roles[index % 2], "content": text} for index, text in enumerate(said)]
    return {"model": "brunix", ENDPOINTS[path].question: messages, "stream": stream}


@attrs.frozen
class Caller:
    """A client with one key."""

    gateway: RunningGateway
    key: str = "a"

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"}

    async def ask(self, *said: str, path: str = CHAT) -> Reply:
        return await self.gateway.ask("POST", path, json=body_for(path, said), headers=self.headers)

    async def talk(self, *numbers: int, path: str = CHAT) -> str:
        """Have a conversation, and return its session."""
        session_ids = set()
        for index in range(len(numbers)):
            reply = await self.ask(*turns(*numbers[:index]), question(numbers[index]), path=path)
            assert reply.headers["x-brunix-session"] == ("found" if index else "new")
            session_ids.add(reply.headers["x-session-id"])
        (session_id,) = session_ids
        return session_id

    async def begin(self, *said: str) -> tuple[Received, str]:
        """Ask, and return once the answer has begun."""
        body = body_for(CHAT, said, stream=True)
        response = await self.gateway.send("POST", CHAT, json=body, headers=self.headers)
        received = Received()
        response.deliverBody(received)
        (session_id,) = response.headers.getRawHeaders("X-Session-Id") or [""]
        return received, session_id

    async def report(self) -> dict[str, Any]:
        reply = await self.gateway.ask("GET", PATH, headers=self.headers)
        assert (reply.status, WORD in reply.body.decode()) == (200, False)
        report: dict[str, Any] = reply.json()
        assert report.pop("process") is None
        return report

    async def explained(self, *said: str, path: str = CHAT) -> dict[str, Any]:
        """Ask something that gets a new session, and return the explanation."""
        with log_lines() as log:
            reply = await self.ask(*said, path=path)
            await log.until(": new session. ")
        assert (reply.status, reply.headers["x-brunix-session"]) == (200, "new")
        latest: dict[str, Any] = (await self.report())["mismatches"][0]
        request_id = reply.headers["x-request-id"]
        assert (latest["request_id"], latest["endpoint"], latest["outcome"]) == (request_id, path, "new")
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", latest["time"])
        assert latest["turns"] == len(said) // 2
        assert lines_of_mismatches(log) == [f"Request {request_id}: new session. {latest['explanation']}"]
        assert WORD not in "".join(log.texts)
        return latest


def lines_of_mismatches(log: LogLines) -> list[str]:
    return [text for text in log.texts if ": new session. " in text]


@pytest.fixture
def caller(gateway: RunningGateway) -> Caller:
    return Caller(gateway)


# Each reason.


@every_api
@pytest_twisted.ensureDeferred
async def test_a_changed_first_answer(caller: Caller, path: str) -> None:
    """A client that changes the answer to its first question is reported as such, in every API."""
    with log_lines() as log:
        await caller.talk(1, path=path)
        found = await caller.explained(question(1), f"{WORD} changed", question(2), path=path)
    assert (found["reason"], found["differs"], found["differing_turn"]) == ("changed", "answer", 1)
    digest = found["session"]
    assert found["explanation"] == f"The first question matches session {digest}, but its answer differs."
    assert f"session={digest} " in log.of_requests()[0]


@pytest.mark.parametrize("changed", [1, 2, 3])
@pytest_twisted.ensureDeferred
async def test_a_changed_answer(caller: Caller, changed: int) -> None:
    """A client that changes its last answer is reported with the number of the turn."""
    numbers = (1, 2, 3)[:changed]
    await caller.talk(*numbers)
    found = await caller.explained(*turns(*numbers)[:-1], f"{WORD} changed", question(4))
    assert [found[name] for name in ("reason", "differs", "differing_turn", "first_matching_turns")] == [
        "changed", "answer", changed, changed - 1,
    ]  # fmt: skip


@pytest_twisted.ensureDeferred
async def test_every_answer_changed(caller: Caller) -> None:
    """A client that changes every answer is still reported as one that changes answers, turn after turn."""
    said: Said = []
    for number in (1, 2, 3, 4):
        if said:
            found = await caller.explained(*said, question(number))
            assert (found["reason"], found["differs"]) == ("changed", "answer")
            assert found["differing_turn"] == number - 1
        else:
            await caller.ask(question(number))
        said += [question(number), f"{WORD} changed {number}"]


@pytest_twisted.ensureDeferred
async def test_a_changed_question(caller: Caller) -> None:
    """A client that changes an earlier question is reported with the number of the turn."""
    await caller.talk(1, 2, 3)
    changed = [*turns(1), f"{WORD} at 12:00, two", *turns(2)[1:]]
    for said in ([*changed, *turns(4)], changed):
        found = await caller.explained(*said, question(5))
        assert (found["reason"], found["differs"], found["differing_turn"]) == ("changed", "question", 2)
        total = len(said) // 2
        expected = f"The first 1 of {total} turns match session {found['session']}, but the question of turn 2 differs."
        assert found["explanation"] == expected


@pytest_twisted.ensureDeferred
async def test_a_turn_that_was_asked_elsewhere(caller: Caller) -> None:
    """A turn that another gateway answered is reported as one that the session does not have."""
    await caller.talk(1, 2)
    found = await caller.explained(*turns(1, 2), *NO_TURN, question(3))
    assert [found[name] for name in ("reason", "differs", "differing_turn")] == ["elsewhere", None, 3]
    assert found["explanation"].endswith(", but turn 3 was not asked there.")


@pytest_twisted.ensureDeferred
async def test_a_window_that_is_too_small(caller: Caller) -> None:
    """A client that sends too few of the last turns, after others, is reported as such."""
    await caller.talk(1, 2, 3, 4)
    found = await caller.explained(*NO_TURN, *NO_TURN, *turns(3, 4), question(5))
    assert (found["reason"], found["last_matching_turns"], found["differing_turn"]) == ("window", 2, None)
    assert found["explanation"].startswith("Only the last 2 of 4 turns match session ")


@pytest_twisted.ensureDeferred
async def test_an_unknown_conversation(caller: Caller) -> None:
    """A conversation that the gateway has never seen from this caller is reported as such."""
    await caller.talk(1)
    # In the second case, the request's own answer makes the turn known.
    for said in ([*NO_TURN, question(1)], [*turns(2), question(2)]):
        found = await caller.explained(*said)
        assert (found["reason"], found["session"]) == ("unknown", None)
        assert found["explanation"] == "No turn of the conversation is known for this caller."


@pytest_twisted.ensureDeferred
async def test_a_session_that_is_answering(caller: Caller, engine: ScriptedEngine) -> None:
    """A question that arrives while its session answers another is reported as such."""
    session_id = await caller.talk(1)
    first, first_id = await caller.begin(*turns(1), script(WORD, {"wait": "go"}))
    assert first_id == session_id
    found = await caller.explained(*turns(1), question(2))
    assert (found["reason"], found["sessions"]) == ("busy", 1)
    assert found["explanation"] == f"Session {found['session']} fits, but was still answering another question."
    engine.go("go")
    await first.ended


@pytest_twisted.ensureDeferred
async def test_several_sessions(caller: Caller) -> None:
    """A conversation that several sessions contain as an earlier state is reported with their number."""
    for _ in range(3):
        await caller.ask(question(1))
    for _ in range(3):
        await caller.ask(*turns(1), question(2))
    found = await caller.explained(*turns(1), question(3))
    assert (found["reason"], found["sessions"], found["session"]) == ("several", 3, None)
    assert found["explanation"] == "3 sessions fit, and none of them contains exactly this conversation."


@pytest_twisted.ensureDeferred
async def test_exact(engine: ScriptedEngine) -> None:
    """With PROXY_SESSION_MATCH=exact, a session that would fit otherwise is reported as such."""
    gateway = await run_gateway(grpc_target=engine.target, drain_s=0.0, session_match="exact")
    caller = Caller(gateway)
    await caller.talk(1, 2, 3)
    for said in (turns(1), turns(2, 3), [*turns(1, 2, 3), *NO_TURN]):
        found = await caller.explained(*said, question(4))
        assert found["reason"] == ("elsewhere" if WORD + " a" in said else "exact")
    assert (await caller.report())["match"] == "exact"
    await stop_gateway(gateway)


@pytest_twisted.ensureDeferred
async def test_exact_and_answering(engine: ScriptedEngine) -> None:
    """With PROXY_SESSION_MATCH=exact, a session that was answering is reported as such, although it no longer is."""
    gateway = await run_gateway(grpc_target=engine.target, drain_s=0.0, session_match="exact")
    caller = Caller(gateway)
    session_id = await caller.talk(1)
    first, first_id = await caller.begin(*turns(1), script(WORD, {"wait": "first"}))
    second, second_id = await caller.begin(*turns(1), script(WORD, {"wait": "second"}))
    assert first_id == session_id != second_id
    for name, received in (("first", first), ("second", second)):
        engine.go(name)
        await received.ended
    assert [each["reason"] for each in (await caller.report())["mismatches"]] == ["busy"]
    await stop_gateway(gateway)


@pytest_twisted.ensureDeferred
async def test_no_state(engine: ScriptedEngine, tmp_path: Path) -> None:
    """While the store is unavailable, that is reported as the reason."""
    (tmp_path / "state.db").write_bytes(b"not a database" * 1000)
    gateway = await run_gateway(
        grpc_target=engine.target, drain_s=0.0, state=state_address.read(f"sqlite:{tmp_path}/state.db")
    )
    found = await Caller(gateway).explained(*turns(1), question(2))
    assert (found["reason"], found["explanation"]) == ("unavailable", "The stored sessions could not be read.")
    await stop_gateway(gateway)


@pytest_twisted.ensureDeferred
async def test_a_stored_conversation(engine: ScriptedEngine, tmp_path: Path) -> None:
    """After a restart, a mismatch with a stored session is explained as before."""
    settings = {"grpc_target": engine.target, "state": state_address.read(f"sqlite:{tmp_path}/state.db")}
    gateway = await run_gateway(drain_s=0.0, **settings)
    await Caller(gateway).talk(1, 2)
    await stop_gateway(gateway)
    gateway = await run_gateway(drain_s=0.0, **settings)
    caller = Caller(gateway)
    with log_lines() as log:
        await caller.ask(*turns(1), question(2), f"{WORD} changed", question(3))
        await log.until(": new session. ")
    (found,) = (await caller.report())["mismatches"]
    assert (found["reason"], found["differs"], found["differing_turn"]) == ("changed", "answer", 2)
    await stop_gateway(gateway)


@pytest_twisted.ensureDeferred
async def test_the_answer_does_not_wait(caller: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that is slow to explain a mismatch delays no answer."""
    store = caller.gateway.service._state.store  # noqa: SLF001 - memory is never slow
    find, calls = store.find, 0

    async def slow(keys: Sequence[bytes], limit: int) -> list[SessionEntry]:
        nonlocal calls
        calls += 1
        if calls > 1:
            await Deferred()
        return await find(keys, limit)

    monkeypatch.setattr(store, "find", slow)
    assert (await caller.ask(*NO_TURN, question(1))).status == 200
    assert (calls, (await caller.report())["mismatches"]) == (2, [])


# What is no mismatch.


@pytest_twisted.ensureDeferred
async def test_turned_off(engine: ScriptedEngine) -> None:
    """With PROXY_SESSION_CONTINUITY=off, the report says so and contains no mismatch."""
    gateway = await run_gateway(grpc_target=engine.target, drain_s=0.0, session_continuity=False)
    caller = Caller(gateway)
    with log_lines() as log:
        await caller.ask(*turns(1), question(2))
    assert lines_of_mismatches(log) == []
    assert await caller.report() == {"match": "off", "mismatches": []}
    await stop_gateway(gateway)


@pytest_twisted.ensureDeferred
async def test_what_is_no_mismatch(caller: Caller) -> None:
    """A new conversation, a found one, a prompt, a side request and a named session are not reported."""
    with log_lines() as log:
        await caller.talk(1, 2)
        requests: list[tuple[str, dict[str, Any]]] = [
            (GENERATE, {"model": "brunix", "prompt": question(1)}),
            (CHAT, body_for(CHAT, [*turns(3), "### Task:\nx\n<chat_history>\n</chat_history>"])),
            (CHAT, body_for(CHAT, [*turns(3), question(4)]) | {"session_id": "mine"}),
            (CHAT, body_for(CHAT, ["", f"{WORD} greeting", question(4)])),
        ]
        for path, body in requests:
            assert (await caller.gateway.ask("POST", path, json=body, headers=caller.headers)).status == 200
    assert lines_of_mismatches(log) == []
    assert await caller.report() == {"match": "fitting", "mismatches": []}


@pytest_twisted.ensureDeferred
async def test_an_answer_that_failed(caller: Caller) -> None:
    """A request that gets an error is not reported: its client has lost nothing yet."""
    reply = await caller.ask(*NO_TURN, script({"status": "INTERNAL"}))
    assert (reply.status, (await caller.report())["mismatches"]) == (502, [])


# Who reads it, and how much is kept.


@every_api
@pytest_twisted.ensureDeferred
async def test_another_caller(caller: Caller, path: str) -> None:
    """Nothing of a caller's conversations is reported to another, not even that its turns are known."""
    await caller.talk(1, 2, path=path)
    await caller.explained(*turns(1), *NO_TURN, question(3), path=path)
    other = Caller(caller.gateway, "b")
    assert (await other.report())["mismatches"] == []
    assert (await other.explained(*turns(1), *NO_TURN, question(3), path=path))["reason"] == "unknown"
    for headers in ({"x-api-key": "a"}, {"Authorization": "bearer a"}, {}):
        reply = await caller.gateway.ask("GET", PATH, headers=headers)
        assert reply.json()["mismatches"] == []
    assert len((await caller.report())["mismatches"]) == 1


@pytest_twisted.ensureDeferred
async def test_the_latest_first(caller: Caller) -> None:
    """The latest mismatch comes first, so that a user finds what has just happened."""
    ids = [(await caller.explained(*NO_TURN, question(number)))["request_id"] for number in (1, 2, 3)]
    assert [each["request_id"] for each in (await caller.report())["mismatches"]] == ids[::-1]


def test_how_many_are_kept() -> None:
    """Callers cannot fill the gateway's memory, and one caller does not displace the others'."""
    limits = StateLimits(max_sessions=1, max_age_s=1.0, max_bodies=0, max_bytes=0)
    mismatches = Mismatches(MemoryStore(lambda: 0.0, limits), "fitting", str, lambda: 0.0)

    def record(caller: bytes, request_id: str) -> None:
        presented = Presented(Digests(lambda: b""), caller, b"", [Turn("a", "b")])
        recording = mismatches.record(Unmatched(presented), request_id=request_id, endpoint=CHAT, session_ids=())
        ensureDeferred(recording)

    def count(caller: bytes) -> int:
        return len(mismatches.of(caller)["mismatches"])

    record(b"quiet", "first")
    for number in range(2 * MAX_RECORDED):
        record(b"busy", str(number))
    assert (count(b"quiet"), count(b"busy")) == (1, MAX_PER_CALLER)
    assert mismatches.of(b"busy")["mismatches"][0]["request_id"] == str(2 * MAX_RECORDED - 1)
    for number in range(MAX_RECORDED):
        record(b"caller %d" % number, "x")
    assert (count(b"quiet"), count(b"busy")) == (0, 0)
    assert sum(count(b"caller %d" % number) for number in range(MAX_RECORDED)) == MAX_RECORDED
