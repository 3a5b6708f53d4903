"""How the channel to the engine is set up, whichever of gRPC's two libraries opens it."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import grpc

from brunix_twisted._pb import brunix_pb2
from brunix_twisted.engine import ConnectionLimits, Tls
from brunix_twisted.engine.proxies import goes_direct
from brunix_twisted.model import Question, TraceContext

OPTIONS = (
    # After an outage the next attempt to connect is never further off than the second of these, with the fifth more
    # that grpc adds at random.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 250),
    # An engine that comes back under its name at another address is looked up again after a second, not after thirty.
    ("grpc.dns_min_time_between_resolutions_ms", 1000),
    # How much of a stream gRPC reads ahead. By itself it finds out how much the connection could hold, and then keeps
    # some 4 MiB of each answer whose client reads slowly.
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", 256 * 1024),
    # A name server that does not answer would otherwise hold every question for twelve seconds.
    ("grpc.dns_ares_query_timeout", 3000),
)

# While a question is with the engine, a connection on which nothing moves is tested, and so kept alive where a
# firewall forgets silent ones. gRPC's servers take it amiss more often than every five minutes, and end every call of
# the connection.
KEEPALIVE_OPTIONS = (
    ("grpc.keepalive_time_ms", 330_000),
    # gRPC sends pings of its own, to measure the connection. The engine's process has to answer them, not only its
    # machine, so they have longer: a process may well be paused for some seconds.
    ("grpc.http2.ping_timeout_ms", 20_000),
)

# A target that is a list, or asks for all the addresses of a name, means all of them; a plain host and port one engine,
# whose name may well have an address at which nobody listens, as localhost often has.
_SEVERAL_ENGINES: Final = ("dns:", "ipv4:", "ipv6:")
_BALANCING_OPTIONS = (("grpc.service_config", json.dumps({"loadBalancingConfig": [{"round_robin": {}}]})),)

# What may stand in a message around its text.
_MESSAGE_OVERHEAD_BYTES: Final = 65_536


def _limiting(limits: ConnectionLimits) -> tuple[tuple[str, int], ...]:
    return (
        # Despite its name it bounds one attempt to connect. A call waits for an attempt that is under way, so this is
        # how long a question is with an engine whose host drops packets; grpc's own number is twenty seconds.
        ("grpc.min_reconnect_backoff_ms", round(limits.connect_s * 1000)),
        # Also the connection's TCP_USER_TIMEOUT: what was sent, a question above all, has to be acknowledged within
        # it. Without it a connection whose packets are dropped lasts until TCP gives up, a quarter of an hour later.
        ("grpc.keepalive_timeout_ms", round(limits.acknowledge_s * 1000)),
        # A whole answer is one message, and gRPC's own 4 MiB is less than an engine may say.
        ("grpc.max_receive_message_length", limits.max_answer_bytes + _MESSAGE_OVERHEAD_BYTES),
    )


def proxy_options(target: str) -> tuple[tuple[str, int], ...]:
    """Keep gRPC from using a proxy on the way to this machine itself."""
    return (("grpc.enable_http_proxy", 0),) if goes_direct(target) else ()


def open_channel(
    library: ModuleType,
    target: str,
    tls: Tls | None,
    *options: tuple[str, str | int],
    limits: ConnectionLimits = ConnectionLimits(),  # noqa: B008 - frozen
) -> Any:  # noqa: ANN401 - grpc.Channel, or the other library's own
    """
    Open a channel; nothing is sent yet.

    :param library: ``grpc`` or ``grpc.aio``.
    :param target: ``localhost:50051`` for one engine; ``dns:///engines:50051`` or
        ``ipv4:10.0.0.1:50051,10.0.0.2:50051`` for several, which are asked in turn.
    :param tls: None for a connection that is not encrypted.
    :raises OSError: a file of the TLS cannot be read.
    """
    options += (*OPTIONS, *KEEPALIVE_OPTIONS, *_limiting(limits), *proxy_options(target))
    if target.startswith(_SEVERAL_ENGINES):
        options += _BALANCING_OPTIONS
    if tls is None:
        return library.insecure_channel(target, options=options)
    if tls.name is not None:
        options += (("grpc.ssl_target_name_override", tls.name), ("grpc.default_authority", tls.name))
    authorities, key, certificate = (
        None if path is None else Path(path).read_bytes() for path in (tls.authorities, tls.key, tls.certificate)
    )
    return library.secure_channel(target, grpc.ssl_channel_credentials(authorities, key, certificate), options=options)


def as_request(question: Question) -> brunix_pb2.AgentRequest:
    """Write a question as the engine's contract has it; what nobody sent is not set."""
    editor = question.editor
    return brunix_pb2.AgentRequest(
        query=question.query,
        session_id=question.session_id,
        editor_content=editor.editor_content,
        selected_text=editor.selected_text,
        extra_context=editor.extra_context,
        user_info=editor.user_info,
    )


def as_metadata(question: Question, trace: TraceContext | None) -> tuple[tuple[str, str], ...]:
    """Write what goes along with a question."""
    metadata: tuple[tuple[str, str], ...] = (("x-request-id", question.request_id),)
    if trace is not None:
        metadata += (("traceparent", trace.traceparent),)
        if trace.tracestate:
            metadata += (("tracestate", trace.tracestate),)
    return metadata
