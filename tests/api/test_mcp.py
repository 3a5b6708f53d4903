"""What agents receive at ``/mcp``, over real sockets and from a real engine."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from typing import Any, Final

import pytest
import pytest_twisted
import treq
from twisted.internet.defer import ensureDeferred
from twisted.web.http_headers import Headers

from brunix_twisted.dialects.code_blocks import code_blocks
from gateways import Reply, RunningGateway, in_thread, run_gateway, stop_gateway
from log_lines import log_lines
from scripted_engine import ScriptedEngine, script
from stream_clients import until
from wire import check

MODERN: Final = "2026-07-28"
OLDER: Final = ("2025-11-25", "2025-06-18")
META: Final = "io.modelcontextprotocol/"
ENVELOPE: Final = {f"{META}protocolVersion": MODERN, f"{META}clientCapabilities": {}}

SCHEMAS: Final = {
    "content": "mcp_tool_result",
    "tools": "mcp_tools",
    "supportedVersions": "mcp_discovery",
    "serverInfo": "mcp_initialization",
}
"""The schema of a result that has this key."""

Json = dict[str, Any]


@pytest_twisted.async_yield_fixture
async def gateway(engine: ScriptedEngine) -> AsyncIterator[RunningGateway]:
    running = await run_gateway(grpc_target=engine.target, heartbeat_s=0.05)
    yield running
    await stop_gateway(running)


def modern(method: str, meta: Json | None = None, **params: Any) -> tuple[Json, dict[str, str]]:  # noqa: ANN401 - JSON
    """Return a message of 2026-07-28 and its headers."""
    headers = {"MCP-Protocol-Version": MODERN, "Mcp-Method": method}
    if "name" in params:
        headers["Mcp-Name"] = params["name"]
    params["_meta"] = ENVELOPE | (meta or {})
    return {"jsonrpc": "2.0", "id": 7, "method": method, "params": params}, headers


def older(method: str, version: str = OLDER[0], **params: Any) -> tuple[Json, dict[str, str]]:  # noqa: ANN401 - JSON
    """Return a message of a version with a handshake, and its headers."""
    return {"jsonrpc": "2.0", "id": 7, "method": method, "params": params}, {"MCP-Protocol-Version": version}


async def post(gateway: RunningGateway, message: object, headers: dict[str, str], accept: str = "") -> Reply:
    headers = headers | {"Accept": accept or "application/json, text/event-stream", "Content-Type": "application/json"}
    body = message if isinstance(message, bytes) else json.dumps(message).encode()
    return await gateway.ask("POST", "/mcp", data=body, headers=headers)


def asking(question: str, **arguments: str) -> tuple[Json, dict[str, str]]:
    return modern("tools/call", name="ask", arguments={"question": question} | arguments)


def result(reply: Reply) -> Json:
    """Return the result in a JSON response."""
    body = reply.json()
    assert (reply.status, body["jsonrpc"], body["id"]) == (200, "2.0", 7), body
    found: Json = body["result"]
    for key, schema in SCHEMAS.items():
        if key in found:
            check(schema, body if schema == "mcp_tool_result" else found)
    return found


def error(reply: Reply) -> tuple[int, int]:
    """Return the HTTP status and the code of an error."""
    body = reply.json()
    check("mcp_error", body)
    return reply.status, body["error"]["code"]


def events(reply: Reply) -> list[Json]:
    assert reply.headers["content-type"].startswith("text/event-stream")
    return [json.loads(part.removeprefix(b"data: ")) for part in reply.body.split(b"\n\n") if part]


@pytest_twisted.ensureDeferred
async def test_agents_discover_the_server(gateway: RunningGateway) -> None:
    """``server/discover`` names the version, the capability and the server, and can be cached."""
    found = result(await post(gateway, *modern("server/discover")))
    assert found["supportedVersions"] == [MODERN]
    assert found["capabilities"] == {"tools": {}}
    assert found["resultType"] == "complete"
    assert found["cacheScope"] == "public"
    assert found["ttlMs"] > 0
    assert found["_meta"][f"{META}serverInfo"]["name"] == "brunix"


@pytest.mark.parametrize("version", OLDER)
@pytest_twisted.ensureDeferred
async def test_older_clients_complete_their_handshake(gateway: RunningGateway, version: str) -> None:
    """A client of an older version can initialize, list the tool, call it and ping, without a protocol session."""
    headers = {"MCP-Protocol-Version": version}
    parameters: Json = {"protocolVersion": version, "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
    # The first request of a handshake has no header with the version.
    reply = await post(gateway, older("initialize", **parameters)[0], {})
    begun = result(reply)
    assert begun["protocolVersion"] == version
    assert begun["capabilities"] == {"tools": {}}
    assert begun["serverInfo"]["name"] == "brunix"
    headers["Mcp-Session-Id"] = reply.headers["mcp-session-id"]
    noted = await post(gateway, {"jsonrpc": "2.0", "method": "notifications/initialized"}, headers)
    assert (noted.status, noted.body, noted.headers.get("content-type")) == (202, b"", None)
    assert "mcp-session-id" not in noted.headers
    assert result(await post(gateway, *older("ping", version))) == {}
    listed = result(await post(gateway, *older("tools/list", version)))
    assert [tool["name"] for tool in listed["tools"]] == ["ask"]
    assert listed.keys() == {"tools"}
    answered = result(await post(gateway, *older("tools/call", version, name="ask", arguments={"question": "a b"})))
    assert answered["structuredContent"]["answer"] == "a b "
    assert answered.keys() == {"content", "structuredContent", "isError"}


@pytest_twisted.ensureDeferred
async def test_an_unknown_handshake_gets_the_newest_version(gateway: RunningGateway) -> None:
    """A client whose version is unknown can decide by the version that the gateway offers."""
    begun = result(await post(gateway, older("initialize", protocolVersion="2024-11-05")[0], {}))
    assert begun["protocolVersion"] == OLDER[0]


@pytest_twisted.ensureDeferred
async def test_the_tool_describes_itself(engine: ScriptedEngine) -> None:
    """The description contains the operator's words, and the schemas name each argument and each part of the result."""
    gateway = await run_gateway(grpc_target=engine.target, mcp_description="the AVAP language")
    try:
        (tool,) = result(await post(gateway, *modern("tools/list")))["tools"]
    finally:
        await stop_gateway(gateway)
    assert "the AVAP language" in tool["description"]
    assert tool["inputSchema"]["required"] == ["question"]
    assert tool["inputSchema"]["properties"].keys() == {"question", "session_id", "context"}
    assert tool["outputSchema"]["properties"].keys() == {"answer", "session_id", "code"}


@pytest_twisted.ensureDeferred
async def test_an_answer_has_text_session_and_code(engine: ScriptedEngine, gateway: RunningGateway) -> None:
    """A call returns the text, the session to continue, and the code blocks; the engine receives the context."""
    answer = "Use:\n```avap\nx = 1\n```\nor\n~~~\ny\n~~~\n"
    reply = await post(gateway, *asking(script(answer), context="línea 1"))
    found = result(reply)
    text, session = found["content"]
    assert text == {"type": "text", "text": answer}
    assert found["structuredContent"]["answer"] == answer
    assert found["structuredContent"]["code"] == [
        {"language": "avap", "text": "x = 1\n"},
        {"language": "", "text": "y\n"},
    ]
    assert (found["isError"], found["resultType"]) == (False, "complete")
    session_id = found["structuredContent"]["session_id"]
    assert session_id == reply.headers["x-session-id"] == engine.calls[0].request.session_id
    # For agents whose model receives no structured content.
    assert (session["text"], session["annotations"]) == (f"session_id: {session_id}", {"audience": ["assistant"]})
    assert base64.b64decode(engine.calls[0].request.selected_text).decode() == "línea 1"
    again = result(await post(gateway, *asking("more", session_id=session_id)))
    assert again["structuredContent"]["session_id"] == session_id
    assert engine.calls[1].request.session_id == session_id


@pytest.mark.parametrize(
    ("question", "words"), [(script({"status": "UNAVAILABLE"}), "engine"), ("", "question"), ("  ", "question")]
)
@pytest_twisted.ensureDeferred
async def test_failures_of_a_call_are_results_in_words(gateway: RunningGateway, question: str, words: str) -> None:
    """The agent's model receives why a call failed, as the tool's result."""
    for message, headers in (asking(question), older("tools/call", name="ask", arguments={"question": question})):
        found = result(await post(gateway, message, headers))
        assert found["isError"] is True
        (content,) = found["content"]
        assert words in content["text"]


@pytest.mark.parametrize("arguments", [{}, {"question": 3}, [], {"question": "x", "session_id": "a b\n"}])
@pytest_twisted.ensureDeferred
async def test_wrong_arguments_are_results_in_words(gateway: RunningGateway, arguments: object) -> None:
    """The agent's model can correct its arguments."""
    found = result(await post(gateway, *modern("tools/call", name="ask", arguments=arguments)))
    assert found["isError"] is True
    assert found["content"][0]["text"]


@pytest_twisted.ensureDeferred
async def test_progress_is_sent_to_clients_that_ask_for_it(engine: ScriptedEngine, gateway: RunningGateway) -> None:
    """Notifications with rising values come before the result, also while the engine is silent."""
    message, headers = modern(
        "tools/call",
        {"progressToken": "t"},
        name="ask",
        arguments={"question": script({"wait": "later"}, "x" * 3000, "y" * 3000)},
    )
    asked = ensureDeferred(
        gateway.send("POST", "/mcp", json=message, headers=headers | {"Accept": "application/json, text/event-stream"})
    )
    # The response begins with the first notification, before the engine has answered.
    response = await asked
    engine.go("later")
    body = await treq.content(response)
    *notes, last = events(Reply(response.code, {"content-type": "text/event-stream"}, body))
    check("mcp_tool_result", last)
    for note in notes:
        check("mcp_progress", note)
    assert {note["method"] for note in notes} == {"notifications/progress"}
    assert {note["params"]["progressToken"] for note in notes} == {"t"}
    values = [note["params"]["progress"] for note in notes]
    assert values == sorted(set(values))
    assert last["result"]["structuredContent"]["answer"] == "x" * 3000 + "y" * 3000


@pytest_twisted.ensureDeferred
async def test_a_failure_after_progress_is_a_result(engine: ScriptedEngine, gateway: RunningGateway) -> None:
    """A call that fails after its first notification ends with a result in words."""
    question = script("some text", {"status": "INTERNAL"})
    message, headers = modern("tools/call", {"progressToken": 1}, name="ask", arguments={"question": question})
    last = events(await post(gateway, message, headers))[-1]
    assert last["id"] == 7
    assert last["result"]["isError"] is True
    assert engine.calls


@pytest.mark.parametrize("accept", ["application/json", ""])
@pytest_twisted.ensureDeferred
async def test_no_stream_without_a_token_or_the_media_type(gateway: RunningGateway, accept: str) -> None:
    """The response is JSON unless the client asks for progress and accepts a stream."""
    meta = {"progressToken": 1} if accept else None
    message, headers = modern("tools/call", meta, name="ask", arguments={"question": "a"})
    assert result(await post(gateway, message, headers, accept))["isError"] is False


@pytest.mark.parametrize("newest", [True, False], ids=["2026-07-28", "2025-11-25"])
@pytest_twisted.ensureDeferred
async def test_a_disconnect_cancels_the_engine_call(
    engine: ScriptedEngine, gateway: RunningGateway, *, newest: bool
) -> None:
    """When the agent closes the connection, the engine stops working: a response cannot be resumed in any version."""
    question = script({"hang": True})
    message, headers = asking(question) if newest else asking_older(question, await handshake(gateway))
    asked = ensureDeferred(gateway.send("POST", "/mcp", json=message, headers=headers))
    call = await in_thread(engine.call)
    asked.addErrback(lambda _: None)
    asked.cancel()
    await until(call.ended.is_set)


def cancelled(request_id: object, session_id: str | None) -> tuple[Json, dict[str, str]]:
    """Return the notification by which clients of the older versions cancel a request, and its headers."""
    message = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": request_id}}
    return message, {"MCP-Protocol-Version": OLDER[0]} | ({} if session_id is None else {"Mcp-Session-Id": session_id})


async def handshake(gateway: RunningGateway) -> str:
    """Return the id of a protocol session."""
    return (await post(gateway, older("initialize", protocolVersion=OLDER[0])[0], {})).headers["mcp-session-id"]


def asking_older(question: str, session_id: str, **meta: object) -> tuple[Json, dict[str, str]]:
    message, headers = older("tools/call", name="ask", arguments={"question": question}, _meta=meta)
    return message, headers | {"Mcp-Session-Id": session_id}


@pytest.mark.parametrize("meta", [{}, {"progressToken": 1}], ids=["whole", "with progress"])
@pytest_twisted.ensureDeferred
async def test_older_clients_cancel_a_call_by_a_notification(
    engine: ScriptedEngine, gateway: RunningGateway, meta: Json
) -> None:
    """The engine stops working, and the call's response says why it has no answer."""
    session_id = await handshake(gateway)
    message, headers = asking_older(script("some text", {"hang": True}), session_id, **meta)
    with log_lines() as log:
        headers |= {"Accept": "application/json, text/event-stream"}
        asked = ensureDeferred(gateway.send("POST", "/mcp", json=message, headers=headers))
        call = await in_thread(engine.call)
        # With progress, the response begins before the call is cancelled.
        response = await asked if meta else None
        noted = await post(gateway, *cancelled(7, session_id))
        assert (noted.status, noted.body) == (202, b"")
        response = response or await asked
        body = await treq.content(response)
    await until(call.ended.is_set)
    reply = Reply(response.code, {"content-type": "text/event-stream"}, body)
    last = events(reply)[-1] if meta else reply.json()
    assert last["id"] == 7
    assert last["result"]["isError"] is True
    assert "cancelled" in last["result"]["content"][0]["text"]
    assert [line for line in log.texts if "ended=client_gone" in line]


@pytest_twisted.ensureDeferred
async def test_older_clients_cancel_a_call_in_the_queue(engine: ScriptedEngine) -> None:
    """A call that waits for a worker ends at once, and the engine is not asked."""
    gateway = await run_gateway(grpc_target=engine.target, thread_workers=1)
    try:
        session_id = await handshake(gateway)
        first = ensureDeferred(post(gateway, *asking(script({"wait": "go"}, "first"))))
        await in_thread(engine.call)
        second = ensureDeferred(post(gateway, *asking_older("second", session_id)))
        entries = gateway.service._completion.in_flight.entries  # noqa: SLF001 - a queued call shows nowhere else
        await until(lambda: len(entries) == 2 and all(entry.answer for entry in entries))
        await post(gateway, *cancelled(7, session_id))
        assert result(await second)["isError"] is True
        engine.go("go")
        assert result(await first)["isError"] is False
    finally:
        await stop_gateway(gateway)
    assert len(engine.calls) == 1


@pytest_twisted.ensureDeferred
async def test_no_client_cancels_the_call_of_another(engine: ScriptedEngine, gateway: RunningGateway) -> None:
    """Clients count their requests from 0, so the id of a request alone says nothing."""
    session_id, other_session_id = await handshake(gateway), await handshake(gateway)
    assert session_id != other_session_id
    asked = ensureDeferred(post(gateway, *asking_older(script({"wait": "go"}, "answer"), session_id)))
    await in_thread(engine.call)
    modern_headers = {"MCP-Protocol-Version": MODERN, "Mcp-Session-Id": session_id}
    for message, headers in (
        cancelled(7, other_session_id),
        cancelled(7, None),
        cancelled("7", session_id),
        cancelled(8, session_id),
        cancelled({"7": []}, session_id),
        (cancelled(7, session_id)[0], modern_headers),
    ):
        assert (await post(gateway, message, headers)).status == 202
    engine.go("go")
    assert result(await asked)["structuredContent"]["answer"] == "answer"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"{", (400, -32700)),
        (b"\xff", (400, -32700)),
        (b"[" * 100_000, (400, -32700)),
        (b"[]", (400, -32600)),
        (b'[{"jsonrpc":"2.0","id":1,"method":"ping"}]', (400, -32600)),
        (b'"x"', (400, -32600)),
        (b'{"id":1,"method":"ping"}', (400, -32600)),
        (b'{"jsonrpc":"2.0","id":null,"method":"ping"}', (400, -32600)),
        (b'{"jsonrpc":"2.0","id":1}', (400, -32600)),
        (b'{"jsonrpc":"2.0","id":1,"method":"ping","params":[]}', (400, -32600)),
    ],
)
@pytest_twisted.ensureDeferred
async def test_malformed_messages_are_rejected(gateway: RunningGateway, body: bytes, expected: tuple[int, int]) -> None:
    """What is not one JSON-RPC message gets JSON-RPC's error."""
    assert error(await post(gateway, body, {})) == expected


@pytest_twisted.ensureDeferred
async def test_unknown_methods_and_tools_are_rejected(gateway: RunningGateway) -> None:
    """The HTTP status is 404 in the new version; older clients would take that for the end of their session."""
    assert error(await post(gateway, *modern("resources/list"))) == (404, -32601)
    assert error(await post(gateway, *modern("initialize"))) == (404, -32601)
    assert error(await post(gateway, *older("resources/list"))) == (200, -32601)
    assert error(await post(gateway, *modern("tools/call", name="other", arguments={}))) == (400, -32602)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"Mcp-Method": "tools/list"}, -32020),
        ({"Mcp-Method": None}, -32020),
        ({"Mcp-Name": "other"}, -32020),
        ({"Mcp-Name": None}, -32020),
        ({"MCP-Protocol-Version": "2025-11-25"}, -32020),
        ({"MCP-Protocol-Version": None}, -32020),
    ],
)
@pytest_twisted.ensureDeferred
async def test_headers_must_agree_with_the_message(
    engine: ScriptedEngine, gateway: RunningGateway, changes: dict[str, str | None], expected: int
) -> None:
    """A proxy that decides by the headers decides about the message that is answered."""
    message, headers = asking("x")
    changed = {name: value for name, value in (headers | changes).items() if value is not None}
    assert error(await post(gateway, message, changed)) == (400, expected)
    assert not engine.calls


@pytest_twisted.ensureDeferred
async def test_an_encoded_name_is_decoded(gateway: RunningGateway) -> None:
    """A client may send the tool's name in base64."""
    message, headers = asking("x")
    headers["Mcp-Name"] = f"=?base64?{base64.b64encode(b'ask').decode()}?="
    assert result(await post(gateway, message, headers))["isError"] is False


@pytest_twisted.ensureDeferred
async def test_the_declared_version_is_required_and_checked(gateway: RunningGateway) -> None:
    """An unsupported version gets the supported ones; a message without its declarations is invalid."""
    message, headers = modern("tools/list")
    message["params"]["_meta"][f"{META}protocolVersion"] = headers["MCP-Protocol-Version"] = "1900-01-01"
    reply = await post(gateway, message, headers)
    assert error(reply) == (400, -32022)
    assert reply.json()["error"]["data"] == {"supported": [MODERN], "requested": "1900-01-01"}
    assert reply.json()["id"] == message["id"]
    assert error(await post(gateway, *older("tools/list", "1900-01-01"))) == (400, -32022)
    assert error(await post(gateway, *older("tools/list", MODERN))) == (400, -32602)
    message, headers = modern("tools/list")
    del message["params"]["_meta"][f"{META}clientCapabilities"]
    assert error(await post(gateway, message, headers)) == (400, -32602)


@pytest.mark.parametrize("name", ["Accept", "MCP-Protocol-Version", "Mcp-Method", "Mcp-Name", "Mcp-Session-Id"])
@pytest_twisted.ensureDeferred
async def test_a_header_that_is_not_utf_8(gateway: RunningGateway, name: str) -> None:
    """A client's mistake would be reported as the gateway's, with a traceback in the log."""
    message, headers = modern("tools/list")
    given: dict[bytes, list[bytes]] = {each.encode(): [value.encode()] for each, value in headers.items()}
    given[name.encode()] = [b"\xff\xfe"]
    reply = await gateway.ask("POST", "/mcp", data=json.dumps(message).encode(), headers=Headers(given))
    assert reply.status in {200, 400}


@pytest_twisted.ensureDeferred
async def test_a_long_progress_token(gateway: RunningGateway, engine: ScriptedEngine) -> None:
    """Each notification repeats the token: a hundred of them would make a small answer large."""
    for token, is_valid in (("x" * 1000, True), ("x" * 1001, False), (10**1000, False)):
        message, headers = modern("tools/call", {"progressToken": token}, name="ask", arguments={"question": "x"})
        reply = await post(gateway, message, headers)
        assert (reply.status == 200) is is_valid
    assert len(engine.calls) == 1


CODE_BLOCKS: list[tuple[str, list[tuple[str, str]]]] = [
    ("", []),
    ("text", []),
    ("```py\none\n\ntwo\n```\n", [("py", "one\n\ntwo\n")]),
    ("a\n   ~~~ sh extra\nb\n~~~~ \nc", [("sh", "b\n")]),
    ("````\n```\nb\n```\n````\n```\nc\n```", [("", "```\nb\n```\n"), ("", "c\n")]),
    ("```\nno end", [("", "no end")]),
    ("```\n", [("", "")]),
    ("```", []),
    ("    ```\nindented\n    ```\n", []),
    ("``` not `code` ```\nx\n", []),
    ("```a\r\nb\r\n```\r\n", [("a", "b\r\n")]),
    ("```x\na\u2028```\nb\n```", [("x", "a\u2028```\nb\n")]),
]


@pytest.mark.parametrize(("answer", "blocks"), CODE_BLOCKS)
def test_code_blocks(answer: str, blocks: list[tuple[str, str]]) -> None:
    """An agent would get other code than the answer contains."""
    assert [(block["language"], block["text"]) for block in code_blocks(answer)] == blocks


@pytest.mark.parametrize("line", ["~" * 200_000 + "`", "```json" + "x" * 200_000 + "```", "`" * 200_000])
def test_code_blocks_of_a_long_line(line: str) -> None:
    """One answer would block the gateway for minutes: this test would not end."""
    assert code_blocks(line) == []


@pytest_twisted.ensureDeferred
async def test_only_post_is_offered(gateway: RunningGateway) -> None:
    """There are no streams to GET and no sessions to DELETE."""
    for method in ("GET", "DELETE"):
        reply = await gateway.ask(method, "/mcp", headers={"Accept": "text/event-stream"})
        assert (reply.status, reply.headers["allow"]) == (405, "POST")
        assert reply.json()["error"]["code"] == -32600


@pytest_twisted.ensureDeferred
async def test_web_pages_and_large_bodies_are_refused(engine: ScriptedEngine) -> None:
    """The shared checks apply, and report errors in JSON-RPC's form."""
    gateway = await run_gateway(grpc_target=engine.target, max_body_bytes=1000)
    try:
        message, headers = asking("x")
        assert error(await post(gateway, message, headers | {"Origin": "https://evil.example"})) == (403, -32600)
        assert error(await post(gateway, *asking("x" * 2000))) == (413, -32600)
    finally:
        await stop_gateway(gateway)
    assert not engine.calls


@pytest_twisted.ensureDeferred
async def test_it_can_be_disabled(engine: ScriptedEngine) -> None:
    """With PROXY_MCP=off there is nothing at /mcp."""
    gateway = await run_gateway(grpc_target=engine.target, mcp=False)
    try:
        assert (await post(gateway, *modern("tools/list"))).status == 404
    finally:
        await stop_gateway(gateway)


@pytest_twisted.ensureDeferred
async def test_responses_of_older_clients_are_accepted(gateway: RunningGateway) -> None:
    """A client may answer a request that the gateway never sent."""
    reply = await post(gateway, {"jsonrpc": "2.0", "id": 1, "result": {}}, {"MCP-Protocol-Version": OLDER[0]})
    assert (reply.status, reply.body) == (202, b"")
