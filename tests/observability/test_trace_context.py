from __future__ import annotations

import pytest

from brunix_twisted.model import TraceContext
from brunix_twisted.observability.trace_context import trace_context

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
PARENT_ID = "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE_ID}-{PARENT_ID}-01"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (TRACEPARENT, TRACEPARENT),
        (f" {TRACEPARENT}\t", TRACEPARENT),
        (f"00-{TRACE_ID}-{PARENT_ID}-00", f"00-{TRACE_ID}-{PARENT_ID}-00"),
        # The random flag of level 2 is kept; flags that mean nothing have to be zero.
        (f"00-{TRACE_ID}-{PARENT_ID}-03", f"00-{TRACE_ID}-{PARENT_ID}-03"),
        (f"00-{TRACE_ID}-{PARENT_ID}-fd", TRACEPARENT),
        # A later version is read as far as it is known.
        (f"cc-{TRACE_ID}-{PARENT_ID}-01", TRACEPARENT),
        (f"cc-{TRACE_ID}-{PARENT_ID}-01-what-is-new", TRACEPARENT),
    ],
)
def test_traceparent(given: str, expected: str) -> None:
    """A caller's trace would end at the gateway."""
    assert trace_context([given.encode()], []) == TraceContext(expected)


def test_trace_id() -> None:
    """A log line would not be found by its trace."""
    assert TraceContext(TRACEPARENT).trace_id == TRACE_ID


@pytest.mark.parametrize(
    "given",
    [
        "",
        "nonsense",
        TRACEPARENT.upper(),
        f"ff-{TRACE_ID}-{PARENT_ID}-01",
        f"00-{TRACE_ID}-{PARENT_ID}-01-more",
        f"00-{TRACE_ID}-{PARENT_ID}-01-",
        f"cc-{TRACE_ID}-{PARENT_ID}-01.more",
        f"00-{'0' * 32}-{PARENT_ID}-01",
        f"00-{TRACE_ID}-{'0' * 16}-01",
        f"00-{TRACE_ID[1:]}-{PARENT_ID}-01",
        f"00-{TRACE_ID}-{PARENT_ID}-1",
        f"00-{TRACE_ID}-{PARENT_ID}-0x",
        f"00_{TRACE_ID}_{PARENT_ID}_01",
        f"{TRACEPARENT}\n",
        f"{TRACEPARENT}, {TRACEPARENT}",
    ],
)
def test_malformed_traceparent(given: str) -> None:
    """The engine would be told nonsense, or a stranger's bytes."""
    assert trace_context([given.encode()], [b"vendor=1"]) is None


def test_several_traceparents() -> None:
    """One of two traces would be taken at a guess."""
    assert trace_context([TRACEPARENT.encode()] * 2, []) is None


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([], ""),
        (["vendor=1"], "vendor=1"),
        (["a=1, b=2\t,,c=3"], "a=1,b=2,c=3"),
        (["a=1", "b=2"], "a=1,b=2"),
        (["1tenant@vendor=x"], "1tenant@vendor=x"),
        (["a=with spaces within"], "a=with spaces within"),
        (["a=!~<>"], "a=!~<>"),
        ([",".join(f"k{number}=v" for number in range(32))], ",".join(f"k{number}=v" for number in range(32))),
        # What breaks a rule is dropped, and all of it.
        ([",".join(f"k{number}=v" for number in range(33))], ""),
        (["a=1,a=2"], ""),
        (["a=1,=2"], ""),
        (["a=1,b"], ""),
        (["a=1,B=2"], ""),
        (["a=1,2b=2"], ""),
        (["a=b=c"], ""),
        (["a=\x7f"], ""),
        (["a=\xe9"], ""),
        ([f"{'k' * 257}=v"], ""),
        ([f"k={'v' * 257}"], ""),
        ([",".join(f"k{number}={'v' * 200}" for number in range(32))], ""),
    ],
)
def test_tracestate(given: list[str], expected: str) -> None:
    """What other vendors say of the trace would be lost, or spoil what is sent to the engine."""
    read = trace_context([TRACEPARENT.encode()], [value.encode("latin-1") for value in given])
    assert read == TraceContext(TRACEPARENT, expected)
