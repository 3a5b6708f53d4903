"""
The place of a request in its caller's trace, as W3C Trace Context has it: read from a request's headers. Pure.

What is malformed is dropped and not refused, as the standard asks: a trace is no part of what was asked.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from brunix_twisted.model import TraceContext

# 3.2.2: version, trace-id, parent-id and flags. A later version may have more behind them.
_TRACEPARENT = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-[!-~]*)?")
_FORBIDDEN_VERSION = b"ff"
_ZERO = re.compile(rb"0+")
# Sampled, and (level 2) random. Others mean nothing yet, and have to be zero in what is sent.
_KNOWN_FLAGS = 0x03

# 3.3.1.3: key and value of one member.
_KEY = rb"[a-z][a-z0-9_*/-]{0,255}|[a-z0-9][a-z0-9_*/-]{0,240}@[a-z][a-z0-9_*/-]{0,13}"
_MEMBER = re.compile(rb"(" + _KEY + rb")=[ -+\--<>-~]{0,255}[!-+\--<>-~]")
_MAX_MEMBERS = 32
# More than the 512 characters that are to be passed on at least, and less than what any metadata may hold.
_MAX_TRACESTATE_BYTES = 4096


def trace_context(traceparents: Sequence[bytes], tracestates: Sequence[bytes]) -> TraceContext | None:
    """
    Read the two headers of a request, with one value for each line there was.

    None if there is no trace, or none that can be told. A tracestate that breaks its rules is dropped alone.
    """
    if len(traceparents) != 1:
        return None
    found = _TRACEPARENT.fullmatch(traceparents[0].strip(b" \t"))
    if found is None:
        return None
    version, trace_id, parent_id, flags, more = found.groups()
    if version == _FORBIDDEN_VERSION or (version == b"00" and more is not None):
        return None
    if _ZERO.fullmatch(trace_id) or _ZERO.fullmatch(parent_id):
        return None
    # 4.3: what is passed on is in the version that is known here.
    known = int(flags, 16) & _KNOWN_FLAGS
    traceparent = f"00-{trace_id.decode('ascii')}-{parent_id.decode('ascii')}-{known:02x}"
    return TraceContext(traceparent, _tracestate(tracestates))


def _tracestate(values: Sequence[bytes]) -> str:
    # RFC 9110, 5.2: several lines are one list.
    members = [member for value in values for member in (part.strip(b" \t") for part in value.split(b",")) if member]
    matches = [_MEMBER.fullmatch(member) for member in members]
    keys = {match[1] for match in matches if match is not None}
    # One that is no member, or whose key was there already, makes all of it invalid.
    if len(keys) != len(members) or len(members) > _MAX_MEMBERS:
        return ""
    joined = b",".join(members)
    return joined.decode("ascii") if len(joined) <= _MAX_TRACESTATE_BYTES else ""
