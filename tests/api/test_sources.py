"""Sources that an engine reports with its answer, in the form of each API."""

from __future__ import annotations

from typing import Any, Final

import pytest
import pytest_twisted

from brunix_twisted.engine.sources import sources
from brunix_twisted.model import Source
from endpoints import CHAT, COMPLETIONS, ENDPOINTS, MESSAGES, PATHS, RESPONSES, asking, streamed, whole_text
from gateways import RunningGateway
from scripted_engine import script
from wire import check

TEXT: Final = ("Loops end. ", "— `guide.md`, Loops, line 3")
SOURCE: Final = {
    "url": "https://docs.example/guide.md#loops",
    "title": "guide.md, Loops, line 3",
    "start": 11,
    "end": 38,
    "cited_text": "Loops end.",
}
SECOND: Final = SOURCE | {"url": "other.md", "title": "other.md, line 1", "start": 0, "end": 5}
URL_CITATION: Final = {"start_index": 11, "end_index": 38, "url": SOURCE["url"], "title": SOURCE["title"]}
WEB_SEARCH: Final = {"type": "web_search_20250305", "name": "web_search"}
EXPECTED: Final = {
    CHAT: {"type": "url_citation", "url_citation": URL_CITATION},
    RESPONSES: {"type": "url_citation", **URL_CITATION},
    MESSAGES: {
        "type": "web_search_result_location",
        "cited_text": "Loops end.",
        "encrypted_index": "",
        "title": SOURCE["title"],
        "url": SOURCE["url"],
    },
}


def annotations_of_whole(path: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    if path == CHAT:
        (choice,) = body["choices"]
        return list(choice["message"]["annotations"])
    if path == RESPONSES:
        (item,) = body["output"]
        (part,) = item["content"]
        return list(part["annotations"])
    (block,) = body["content"]
    return list(block["citations"])


def annotations_in(path: str, event: dict[str, Any]) -> list[dict[str, Any]]:
    if path == CHAT:
        return [each for choice in event["choices"] for each in choice["delta"].get("annotations", [])]
    if path == RESPONSES:
        return [event["annotation"]] if event["type"] == "response.output_text.annotation.added" else []
    is_citation = event["type"] == "content_block_delta" and event["delta"]["type"] == "citations_delta"
    return [event["delta"]["citation"]] if is_citation else []


def question(*reported: Any) -> str:  # noqa: ANN401 - whatever JSON holds
    return script(*TEXT, {"sources": list(reported)})


@pytest.mark.parametrize("path", EXPECTED)
@pytest_twisted.ensureDeferred
async def test_a_whole_answer_has_its_sources(gateway: RunningGateway, path: str) -> None:
    """A client that shows links finds them in the field that its API has for them."""
    body = (await gateway.ask("POST", path, json=asking(path, question(SOURCE, SECOND), stream=False))).json()
    check(ENDPOINTS[path].schemas[1], body)
    first, second = annotations_of_whole(path, body)
    assert first == EXPECTED[path]
    assert "other.md" in str(second)
    assert whole_text(path, body) == "".join(TEXT)


@pytest.mark.parametrize("path", EXPECTED)
@pytest_twisted.ensureDeferred
async def test_a_stream_has_its_sources_after_the_text(gateway: RunningGateway, path: str) -> None:
    """A client receives the sources once all of the text that they refer to has arrived, and before its end."""
    more = {"tools": [WEB_SEARCH]} if path == MESSAGES else {}
    reply = await gateway.ask("POST", path, json=asking(path, question(SOURCE, SECOND)) | more)
    endpoint = ENDPOINTS[path]
    events = endpoint.events(reply.body)
    for event in events:
        check(endpoint.schemas[0], event)
    with_sources = [number for number, event in enumerate(events) if annotations_in(path, event)]
    with_text = [number for number, event in enumerate(events) if endpoint.text(event)]
    ends = [number for number, event in enumerate(events) if endpoint.ends(event)]
    assert with_text[-1] < with_sources[0] <= with_sources[-1] < ends[0]
    found = [each for event in events for each in annotations_in(path, event)]
    assert (found[0], len(found)) == (EXPECTED[path], 2)
    assert streamed(path, reply.body).text == "".join(TEXT)
    if path == RESPONSES:
        last = events[-1]["response"]
        assert annotations_of_whole(path, last) == found
        assert [event["annotation_index"] for event in events if annotations_in(path, event)] == [0, 1]


@pytest_twisted.ensureDeferred
async def test_a_stream_of_messages_without_web_search_has_only_texts(gateway: RunningGateway) -> None:
    """A client that reads ``delta.text`` of every delta does not fail on a citation that it has not asked for."""
    for tools in ([], [{"name": "read", "input_schema": {}}]):
        reply = await gateway.ask("POST", MESSAGES, json=asking(MESSAGES, question(SOURCE), tools=tools))
        events = ENDPOINTS[MESSAGES].events(reply.body)
        assert not any(annotations_in(MESSAGES, event) for event in events)


@pytest_twisted.ensureDeferred
async def test_a_stored_response_keeps_its_sources(gateway: RunningGateway) -> None:
    """A response that is retrieved later is the one that was sent."""
    sent = (await gateway.ask("POST", RESPONSES, json=asking(RESPONSES, question(SOURCE), stream=False))).json()
    kept = (await gateway.ask("GET", f"{RESPONSES}/{sent['id']}")).json()
    assert annotations_of_whole(RESPONSES, kept) == [EXPECTED[RESPONSES]]


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize("path", [path for path in PATHS if path not in EXPECTED])
@pytest_twisted.ensureDeferred
async def test_other_apis_have_only_the_text(gateway: RunningGateway, path: str, *, stream: bool) -> None:
    """An API without a field for sources keeps its form; the text names them."""
    reply = await gateway.ask("POST", path, json=asking(path, question(SOURCE), stream=stream))
    endpoint = ENDPOINTS[path]
    if stream:
        for event in endpoint.events(reply.body):
            check(endpoint.schemas[0], event)
    else:
        check(endpoint.schemas[1], reply.json())
    assert "guide.md#loops" not in reply.body.decode()


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
@pytest_twisted.ensureDeferred
async def test_a_truncated_text_has_no_source_that_is_not_in_it(gateway: RunningGateway, *, stream: bool) -> None:
    """A citation that the caller's limit has removed from the text is not reported."""
    body = asking(CHAT, script("".join(TEXT), {"sources": [SOURCE]}), stream=stream, stop=["— "])
    reply = await gateway.ask("POST", CHAT, json=body)
    assert "url_citation" not in reply.body.decode()


@pytest_twisted.ensureDeferred
async def test_text_completions_of_several_prompts(gateway: RunningGateway) -> None:
    """Sources of one choice do not appear in another, nor in an API without them."""
    prompts = [question(SOURCE), "two"]
    reply = await gateway.ask("POST", COMPLETIONS, json={"model": "brunix", "prompt": prompts})
    check("openai_completion", reply.json())


@pytest.mark.parametrize(
    "reported",
    [
        "",
        "{",
        "[" * 10_000,
        "{}",
        "[1]",
        '[{"url": "x"}]',
        '[{"url": 1, "title": "x", "start": 0, "end": 1}]',
        '[{"url": "x", "title": "x", "start": -1, "end": 1}]',
        '[{"url": "x", "title": "x", "start": 2, "end": 1}]',
        r'[{"url": "x\ud800", "title": "x", "start": 0, "end": 1}]',
        r'[{"url": "x", "title": "x", "start": 0, "end": 1, "cited_text": "\udfff"}]',
        '[{"url": "javascript:alert(1)", "title": "x", "start": 0, "end": 1}]',
        '[{"url": " Data:text/html,x", "title": "x", "start": 0, "end": 1}]',
    ],
)
def test_malformed_sources_are_ignored(reported: str) -> None:
    """An engine that uses this metadata otherwise does not lose its answer."""
    assert sources([("other", b"x"), ("brunix-sources-bin", reported.encode())]) == ()


def test_there_is_a_limit() -> None:
    """An engine cannot fill the gateway's memory with sources."""
    one = '{"url": "x", "title": "x", "start": 0, "end": 1, "new": {}}'
    found = sources([("brunix-sources-bin", f"[{','.join([one] * 60)}]".encode())])
    assert found == (Source("x", "x", 0, 1),) * 50
    assert (
        sources([("brunix-sources-bin", f'[{{"url": "{"x" * 2001}", "title": "", "start": 0, "end": 1}}]'.encode())])
        == ()
    )
    assert sources(None) == ()
