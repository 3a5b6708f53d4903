"""Channel options, requests and metadata, shared by the blocking and the asyncio client."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any, Final

import grpc

from brunix_twisted._pb import brunix_pb2
from brunix_twisted.engine import ConnectionLimits, Tls, keeps_sessions
from brunix_twisted.engine.affinity import METADATA_KEY, balancing_options
from brunix_twisted.engine.proxies import goes_direct
from brunix_twisted.model import Question, TraceContext

OPTIONS = (
    # After an outage gRPC reconnects within the maximum, plus up to a fifth of jitter.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 250),
    # Look up the name again after a second, not after thirty: a restarted engine may have another address.
    ("grpc.dns_min_time_between_resolutions_ms", 1000),
    # How much of a stream gRPC reads ahead. Without these it measures the bandwidth, and then buffers about 4 MiB of
    # each answer whose client reads slowly.
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", 256 * 1024),
    # The default is to wait twelve seconds for a name server that does not answer.
    ("grpc.dns_ares_query_timeout", 3000),
)

# Ping an idle connection while a call is running: it detects a lost connection, and keeps firewalls from dropping it.
# gRPC's servers end all calls of a connection with pings more often than every five minutes.
KEEPALIVE_OPTIONS = (
    ("grpc.keepalive_time_ms", 330_000),
    # gRPC also sends pings to measure the connection. The engine's process answers these, and a process may be paused
    # for some seconds, so their timeout is longer.
    ("grpc.http2.ping_timeout_ms", 20_000),
)

# Space in a message for everything except its text.
_MESSAGE_OVERHEAD_BYTES: Final = 65_536


def _limiting(limits: ConnectionLimits) -> tuple[tuple[str, int], ...]:
    return (
        # Despite its name, the timeout of one attempt to connect. A call waits for a running attempt, so this is how
        # long a call takes to fail if the engine's host drops packets. grpc's default is twenty seconds.
        ("grpc.min_reconnect_backoff_ms", round(limits.connect_s * 1000)),
        # Also the connection's TCP_USER_TIMEOUT: sent data must be acknowledged within it. Without it, a connection
        # whose packets are dropped lasts until TCP gives up after a quarter of an hour.
        ("grpc.keepalive_timeout_ms", round(limits.acknowledge_s * 1000)),
        # A complete answer is one message, and may be larger than gRPC's default of 4 MiB.
        ("grpc.max_receive_message_length", limits.max_answer_bytes + _MESSAGE_OVERHEAD_BYTES),
    )


def proxy_options(target: str) -> tuple[tuple[str, int], ...]:
    """Return the options that keep gRPC from using a proxy for loopback addresses."""
    return (("grpc.enable_http_proxy", 0),) if goes_direct(target) else ()


def open_channel(
    library: ModuleType,
    target: str,
    tls: Tls | None,
    *options: tuple[str, str | int],
    limits: ConnectionLimits = ConnectionLimits(),  # noqa: B008 - frozen
) -> Any:  # noqa: ANN401 - grpc.Channel or grpc.aio.Channel
    """
    Create a channel; it sends nothing yet.

    :param library: ``grpc`` or ``grpc.aio``.
    :param target: ``localhost:50051`` for one engine; ``dns:///engines:50051`` or
        ``ipv4:10.0.0.1:50051,10.0.0.2:50051`` for several: see :mod:`brunix_twisted.engine.affinity`.
    :param tls: None for a connection without encryption.
    :raises OSError: a certificate or key file cannot be read.
    """
    options += (*OPTIONS, *KEEPALIVE_OPTIONS, *_limiting(limits), *proxy_options(target))
    options += balancing_options(target, by_session=keeps_sessions(target))
    if tls is None:
        return library.insecure_channel(target, options=options)
    if tls.name is not None:
        options += (("grpc.ssl_target_name_override", tls.name), ("grpc.default_authority", tls.name))
    authorities, key, certificate = (
        None if path is None else Path(path).read_bytes() for path in (tls.authorities, tls.key, tls.certificate)
    )
    return library.secure_channel(target, grpc.ssl_channel_credentials(authorities, key, certificate), options=options)


def as_request(question: Question) -> brunix_pb2.AgentRequest:
    """Convert a question to the engine's request message. A field without a value stays unset."""
    editor = question.editor
    return brunix_pb2.AgentRequest(
        query=question.query,
        session_id=question.session_id,
        editor_content=editor.editor_content,
        selected_text=editor.selected_text,
        extra_context=editor.extra_context,
        user_info=editor.user_info,
    )


def as_metadata(question: Question, trace: TraceContext | None, *, with_session: bool) -> tuple[tuple[str, str], ...]:
    """
    Return the call's metadata: the request id, and the trace context if there is one.

    :param with_session: whether gRPC selects the engine by the session: see :mod:`brunix_twisted.engine.affinity`.
    """
    metadata: tuple[tuple[str, str], ...] = (("x-request-id", question.request_id),)
    if with_session:
        metadata += ((METADATA_KEY, question.session_id),)
    if trace is not None:
        metadata += (("traceparent", trace.traceparent),)
        if trace.tracestate:
            metadata += (("tracestate", trace.tracestate),)
    return metadata
