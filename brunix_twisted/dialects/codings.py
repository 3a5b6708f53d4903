"""
Content codings of request bodies: gzip, deflate and zstd. Pure.

The decoded size is limited while decoding, so a small body that expands to gigabytes costs neither time nor memory.
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Final, Protocol

from brunix_twisted import errors
from brunix_twisted.errors import GatewayError

if sys.version_info >= (3, 14):
    from compression.zstd import DecompressionParameter, ZstdDecompressor, ZstdError
else:
    from backports.zstd import DecompressionParameter, ZstdDecompressor, ZstdError

# RFC 9659: a decoder of this content coding need not support windows above 8 MiB.
_ZSTD_OPTIONS: Final = {int(DecompressionParameter.window_log_max): 23}

# A gzip body may have several members, and a zstd body several frames. Each of them costs a copy of the rest of the
# body, so a body with very many empty ones would be expensive.
_MAX_MEMBERS: Final = 16


class _Decompressor(Protocol):
    """The common interface of both libraries' decompressors; each decodes one member."""

    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


def _gzip(_: bytes) -> _Decompressor:
    return zlib.decompressobj(16 + zlib.MAX_WBITS)


def _deflate(body_bytes: bytes) -> _Decompressor:
    # RFC 9110, 8.4.1.2 specifies the zlib format. Some clients send raw deflate, which has no header.
    header = int.from_bytes(body_bytes[:2], "big")
    has_header = header >> 8 & 0x0F == zlib.DEFLATED and header % 31 == 0
    return zlib.decompressobj(zlib.MAX_WBITS if has_header else -zlib.MAX_WBITS)


def _zstd(_: bytes) -> _Decompressor:
    return ZstdDecompressor(options=_ZSTD_OPTIONS)


_CODINGS: Final[Mapping[str, Callable[[bytes], _Decompressor]]] = MappingProxyType(
    {"gzip": _gzip, "x-gzip": _gzip, "deflate": _deflate, "zstd": _zstd}
)

ACCEPTED: Final = b"gzip, deflate, zstd"
"""The value of ``Accept-Encoding`` in a response: the codings that a request's body may have."""


def coding(values: Sequence[bytes]) -> str | None:
    """
    Return the coding of a body; None if it has none.

    :param values: the request's ``Content-Encoding`` headers.
    :raises GatewayError: UNSUPPORTED_CODING for an unknown coding, or more than one.
    """
    named = [name.strip(" \t").lower() for name in b",".join(values).decode("latin-1").split(",")]
    named = [name for name in named if name not in {"", "identity"}]
    if not named:
        return None
    if len(named) > 1 or named[0] not in _CODINGS:
        raise GatewayError(
            errors.UNSUPPORTED_CODING,
            f"Content-Encoding not supported. Send the body with one of {ACCEPTED.decode()}, or without any.",
        )
    return named[0]


def decoded(body_bytes: bytes, name: str, max_bytes: int) -> bytes:
    """
    Decode a body.

    :param name: as :func:`coding` returned it.
    :param max_bytes: maximum size of the result.
    :raises GatewayError: BODY_TOO_LARGE, or INVALID_REQUEST for a body that is damaged or truncated, or has data after
        its end.
    """
    chunks: list[bytes] = []
    remaining_bytes, rest = max_bytes, body_bytes
    for _ in range(_MAX_MEMBERS):
        decompressor = _CODINGS[name](rest)
        try:
            # One byte more than the limit: a shorter chunk is everything that the member contains.
            chunk = decompressor.decompress(rest, remaining_bytes + 1)
        except (zlib.error, ZstdError):
            raise _invalid(name, "data follows its end" if chunks else "it is damaged or in another format") from None
        remaining_bytes -= len(chunk)
        if remaining_bytes < 0:
            message = f"The decompressed body is too large; at most {max_bytes} bytes are allowed"
            raise GatewayError(errors.BODY_TOO_LARGE, message)
        if not decompressor.eof:
            raise _invalid(name, "it is truncated")
        chunks.append(chunk)
        rest = decompressor.unused_data
        if not rest:
            return b"".join(chunks)
        if name == "deflate":
            break
    raise _invalid(name, "data follows its end")


def _invalid(name: str, fault: str) -> GatewayError:
    return GatewayError(errors.INVALID_REQUEST, f"The body cannot be decompressed as {name}: {fault}")
