"""
The parser of the W3C Trace Context headers of a request. Pure.

Malformed headers are ignored and not rejected, as the standard requires.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from brunix_twisted.model import TraceContext

# 3.2.2: version, trace-id, parent-id and flags. Later versions may append more.
_TRACEPARENT = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-[!-~]*)?")
_FORBIDDEN_VERSION = b"ff"
_ZERO = re.compile(rb"0+")
# Sampled, and (level 2) random. The others are undefined, and must be zero when sent.
_KNOWN_FLAGS = 0x03

# 3.3.1.3: the key and value of a list member.
_KEY = rb"[a-z][a-z0-9_*/-]{0,255}|[a-z0-9][a-z0-9_*/-]{0,240}@[a-z][a-z0-9_*/-]{0,13}"
_MEMBER = re.compile(rb"(" + _KEY + rb")=[ -+\--<>-~]{0,255}[!-+\--<>-~]")
_MAX_MEMBERS = 32
# More than the 512 characters that must be passed on, and less than the limit of gRPC metadata.
_MAX_TRACESTATE_BYTES = 4096


def trace_context(traceparents: Sequence[bytes], tracestates: Sequence[bytes]) -> TraceContext | None:
    """
    Parse the values of a request's ``traceparent`` and ``tracestate`` headers, one value per line.

    Return None without a valid traceparent. An invalid tracestate is ignored, and the traceparent kept.
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
    # 4.3: send the version that is implemented here.
    known = int(flags, 16) & _KNOWN_FLAGS
    traceparent = f"00-{trace_id.decode('ascii')}-{parent_id.decode('ascii')}-{known:02x}"
    return TraceContext(traceparent, _tracestate(tracestates))


def _tracestate(values: Sequence[bytes]) -> str:
    # RFC 9110, 5.2: several header lines are one list.
    members = [member for value in values for member in (part.strip(b" \t") for part in value.split(b",")) if member]
    matches = [_MEMBER.fullmatch(member) for member in members]
    keys = {match[1] for match in matches if match is not None}
    # A malformed member or a repeated key makes the whole list invalid.
    if len(keys) != len(members) or len(members) > _MAX_MEMBERS:
        return ""
    joined = b",".join(members)
    return joined.decode("ascii") if len(joined) <= _MAX_TRACESTATE_BYTES else ""
