"""Content codings of request bodies: what is decoded, within which limits, and how the rest is refused."""

from __future__ import annotations

import gzip
import json
import random
import sys
import zlib
from typing import Final

import pytest
import pytest_twisted

from brunix_twisted import errors
from brunix_twisted.dialects import codings
from brunix_twisted.errors import GatewayError
from endpoints import PATHS, asking, error_in, error_schema, whole_text
from gateways import RunningGateway, run_gateway, stop_gateway
from scripted_engine import ScriptedEngine
from wire import check

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

MAX_BYTES: Final = 100_000
TEXT: Final = b'{"model": "brunix"}' * 100


# Two copies further apart than the half of the largest window.
FAR: Final = random.Random(1).randbytes(20_000) * 2  # noqa: S311 - no secret, and the same in each run


def raw_deflate(data: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return compressor.compress(data) + compressor.flush()


ENCODED: Final = {
    "gzip": ("gzip", gzip.compress(TEXT)),
    "x-gzip": ("x-gzip", gzip.compress(TEXT)),
    "gzip of several members": ("gzip", gzip.compress(TEXT[:50]) + gzip.compress(b"") + gzip.compress(TEXT[50:])),
    "deflate": ("deflate", zlib.compress(TEXT)),
    "deflate without compression": ("deflate", zlib.compress(TEXT, 0)),
    "raw deflate": ("deflate", raw_deflate(TEXT)),
    "zstd": ("zstd", zstd.compress(TEXT)),
    "zstd of several frames": ("zstd", zstd.compress(TEXT[:50]) + zstd.compress(TEXT[50:])),
}
encoded = pytest.mark.parametrize(("name", "data"), ENCODED.values(), ids=ENCODED)


@encoded
def test_decoded(name: str, data: bytes) -> None:
    """A compressed body is what was compressed."""
    assert codings.decoded(data, name, MAX_BYTES) == TEXT
    assert codings.decoded(data, name, len(TEXT)) == TEXT


@pytest.mark.parametrize(
    ("name", "data"), [("gzip", gzip.compress(FAR)), ("deflate", zlib.compress(FAR)), ("deflate", raw_deflate(FAR))]
)
def test_the_largest_window(name: str, data: bytes) -> None:
    """A body with repetitions that are far apart is decoded."""
    assert codings.decoded(data, name, MAX_BYTES) == FAR


@pytest.mark.parametrize(
    ("data", "text"),
    [
        # The first two bytes are a multiple of 31, as in a zlib header, but name another method.
        (raw_deflate(b"mm"), b"mm"),
        # They name zlib's method, but are no multiple of 31: a stored block, and an empty one at the end.
        (b"\x08\x01\x00\xfe\xffx" + b"\x01\x00\x00\xff\xff", b"x"),
    ],
)
def test_raw_deflate_that_resembles_a_header(data: bytes, text: bytes) -> None:
    """A raw body is not taken for zlib's format because of how it happens to begin."""
    assert codings.decoded(data, "deflate", MAX_BYTES) == text


@encoded
def test_truncated(name: str, data: bytes) -> None:
    """A body that lost its end is not taken for a whole one."""
    for length in (*range(20), len(data) // 2, len(data) - 4, len(data) - 1):
        with pytest.raises(GatewayError, match="cannot be decompressed") as caught:
            codings.decoded(data[:length], name, MAX_BYTES)
        assert caught.value.kind is errors.INVALID_REQUEST


@encoded
def test_data_after_the_end(name: str, data: bytes) -> None:
    """A body is refused if something follows that the compressor did not write."""
    with pytest.raises(GatewayError, match="data follows its end") as caught:
        codings.decoded(data + b"garbage", name, MAX_BYTES)
    assert caught.value.kind is errors.INVALID_REQUEST


def test_deflate_has_one_member() -> None:
    """A second zlib stream after the first is refused: other than gzip's and zstd's, this format has one."""
    with pytest.raises(GatewayError, match="data follows its end"):
        codings.decoded(zlib.compress(TEXT[:50]) + zlib.compress(TEXT[50:]), "deflate", MAX_BYTES)


@pytest.mark.parametrize("name", ["gzip", "deflate", "zstd"])
@pytest.mark.parametrize("data", [b"", b"\x00", b"{}", TEXT, b"\x78\x9c" + b"\xff" * 50, b"\xff" * 50])
def test_damaged(name: str, data: bytes) -> None:
    """A body that is not compressed as its header says is refused, and the message says so."""
    with pytest.raises(GatewayError, match=f"cannot be decompressed as {name}: ") as caught:
        codings.decoded(data, name, MAX_BYTES)
    assert caught.value.kind is errors.INVALID_REQUEST


@pytest.mark.parametrize(
    ("name", "compress"), [("gzip", gzip.compress), ("deflate", zlib.compress), ("zstd", zstd.compress)]
)
def test_bomb(name: str, compress: object) -> None:
    """A body that expands beyond the limit is refused without being expanded much further."""
    assert callable(compress)
    data = compress(bytes(50_000_000))
    with pytest.raises(GatewayError, match="100000 bytes are allowed") as caught:
        codings.decoded(data, name, MAX_BYTES)
    assert caught.value.kind is errors.BODY_TOO_LARGE
    exact = compress(bytes(MAX_BYTES))
    assert codings.decoded(exact, name, MAX_BYTES) == bytes(MAX_BYTES)
    with pytest.raises(GatewayError) as caught:
        codings.decoded(compress(bytes(MAX_BYTES + 1)), name, MAX_BYTES)
    assert caught.value.kind is errors.BODY_TOO_LARGE


def test_the_output_of_a_bomb_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each decompressor is asked for no more than there is room for."""
    asked = []

    class Endless:
        eof = False
        unused_data = b""

        def decompress(self, _: bytes, max_length: int) -> bytes:
            asked.append(max_length)
            return bytes(max_length)

    monkeypatch.setattr(codings, "_CODINGS", {"gzip": lambda _: Endless()})
    with pytest.raises(GatewayError):
        codings.decoded(b"x", "gzip", 1_000)
    assert asked == [1_001]


def test_another_format() -> None:
    """A body in zlib's format is not decoded as gzip, nor the other way round."""
    for name, data in (("gzip", zlib.compress(TEXT)), ("deflate", gzip.compress(TEXT)), ("zstd", gzip.compress(TEXT))):
        with pytest.raises(GatewayError, match=f"cannot be decompressed as {name}: it is damaged or in another format"):
            codings.decoded(data, name, MAX_BYTES)


def test_very_many_members() -> None:
    """A body of very many empty members would cost far more time than its size."""
    with pytest.raises(GatewayError, match="data follows its end"):
        codings.decoded(gzip.compress(b"") * 17, "gzip", MAX_BYTES)
    assert codings.decoded(gzip.compress(b"x") * 16, "gzip", MAX_BYTES) == b"x" * 16


def test_large_window() -> None:
    """A zstd body may have a window of 8 MiB, and may not make the decoder allocate one of gigabytes."""

    def compressed(window_log: int) -> bytes:
        parameter = zstd.CompressionParameter
        options = {int(parameter.window_log): window_log, int(parameter.content_size_flag): 0}
        compressor = zstd.ZstdCompressor(options=options)
        return compressor.compress(b"x" * 20_000_000) + compressor.flush()

    assert len(codings.decoded(compressed(23), "zstd", 30_000_000)) == 20_000_000
    for window_log in (24, 27):
        with pytest.raises(GatewayError, match="cannot be decompressed as zstd"):
            codings.decoded(compressed(window_log), "zstd", 30_000_000)


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ([], None),
        ([b""], None),
        ([b"identity"], None),
        ([b"Identity, ,identity"], None),
        ([b"GZIP"], "gzip"),
        ([b" x-gzip "], "x-gzip"),
        ([b"identity", b"deflate"], "deflate"),
        ([b"zstd"], "zstd"),
    ],
)
def test_named(values: list[bytes], name: str | None) -> None:
    """The header is read as RFC 9110 says: names in any case, in lists."""
    assert codings.coding(values) == name


@pytest.mark.parametrize(
    "values", [[b"br"], [b"gzip, gzip"], [b"gzip", b"zstd"], [b"compress"], [b"\xff"], [b"gzip;q=1"]]
)
def test_not_supported(values: list[bytes]) -> None:
    """Any other coding, or several, is refused in words that name what is supported."""
    with pytest.raises(GatewayError, match="one of gzip, deflate, zstd") as caught:
        codings.coding(values)
    assert caught.value.kind is errors.UNSUPPORTED_CODING


# The running gateway.


@pytest.mark.parametrize("path", PATHS)
@encoded
@pytest_twisted.ensureDeferred
async def test_compressed_question(
    gateway: RunningGateway, engine: ScriptedEngine, path: str, name: str, data: bytes
) -> None:
    """A client that compresses its requests is answered by every endpoint."""
    body = json.dumps(asking(path, "every word of this", stream=False)).encode()
    compress = {"zstd": zstd.compress, "deflate": zlib.compress if data[:1] == b"\x78" else raw_deflate}
    sent = compress.get(name, gzip.compress)(body)
    reply = await gateway.ask("POST", path, data=sent, headers={"Content-Encoding": name})
    assert reply.status == 200
    assert whole_text(path, reply.json()) == "every word of this "
    assert engine.calls[0].request.query == "every word of this"


@pytest.mark.parametrize("path", [*PATHS, "/v1/messages/count_tokens", "/api/show"])
@pytest_twisted.ensureDeferred
async def test_refused_in_each_form(gateway: RunningGateway, engine: ScriptedEngine, path: str) -> None:
    """A client reads in its own API's form which codings there are, or what is wrong with its body."""
    reply = await gateway.ask("POST", path, data=b"{}", headers={"Content-Encoding": "br"})
    assert (reply.status, reply.headers["accept-encoding"]) == (415, "gzip, deflate, zstd")
    check(error_schema(path), reply.json())
    assert "gzip, deflate, zstd" in error_in("/v1/messages" if "messages" in path else path, reply.json())
    for data, status in ((b"{}", 400), (gzip.compress(b"{}")[:-1], 400), (gzip.compress(bytes(5_000_000)), 413)):
        reply = await gateway.ask("POST", path, data=data, headers={"Content-Encoding": "gzip"})
        assert reply.status == status
        check(error_schema(path), reply.json())
    assert engine.calls == []


@pytest_twisted.ensureDeferred
async def test_limit_of_the_decoded_size(engine: ScriptedEngine) -> None:
    """``PROXY_MAX_BODY_BYTES`` holds for the decoded body too."""
    gateway = await run_gateway(grpc_target=engine.target, drain_s=0.0, max_body_bytes=1_000)
    for more_bytes, status in ((0, 200), (1, 413)):
        body = b'{"model": "brunix"' + b" " * (1_000 - 19 + more_bytes) + b"}"
        for name, compress in (("gzip", gzip.compress), ("zstd", zstd.compress)):
            reply = await gateway.ask("POST", "/api/show", data=compress(body), headers={"Content-Encoding": name})
            assert reply.status == status
    await stop_gateway(gateway)
