"""
The table of settings: the variable, default, allowed values and description of each.

An option overrides the environment, which overrides the default. This module does not read ``os.environ``: the caller
passes it. ``docs/settings.md`` is generated from this table, and a test compares the two.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

import attrs

from brunix_twisted.config import addresses, allowed_hosts, certificates, cors_origins, state_address, trusted_proxies
from brunix_twisted.config.cors_origins import Origins
from brunix_twisted.config.rows import Row, read_values, rows_of, setting
from brunix_twisted.config.rules import (
    MODEL_NAME,
    Rule,
    SettingError,
    beginnings,
    matching,
    model_names,
    on_off,
    optional,
    or_auto,
    seconds,
    secret,
    some_of,
    unquoted,
    whole_number,
    words,
)
from brunix_twisted.config.state_address import StateAddress
from brunix_twisted.config.trusted_proxies import TrustedProxies


@attrs.frozen(kw_only=True)
class Settings:
    """All settings, validated. Times are in seconds."""

    grpc_target: str = setting(
        "BRUNIX_GRPC_TARGET",
        "localhost:50051",
        Rule("a gRPC target such as host:port, dns:///host:port or unix:///path", unquoted(addresses.grpc_target)),
        "Address of the engine. A host and port are one engine; `dns:///engines:50051` and "
        "`ipv4:10.0.0.1:50051,10.0.0.2:50051` are several: all calls of a session go to the same one.",
    )
    grpc_tls_ca: str | None = setting(
        "BRUNIX_GRPC_TLS_CA",
        "",
        optional(Rule("the path of a file of certificates in PEM form", certificates.authorities)),
        "Turns on TLS to the engine. The engine's certificate must be signed by a certificate in this file.",
    )
    grpc_tls_cert: str | None = setting(
        "BRUNIX_GRPC_TLS_CERT",
        "",
        optional(Rule("the path of a file that can be read", certificates.readable)),
        "Client certificate of the gateway, in PEM form, for mutual TLS.",
    )
    grpc_tls_key: str | None = setting(
        "BRUNIX_GRPC_TLS_KEY",
        "",
        optional(Rule("the path of a file that can be read", certificates.readable)),
        "Private key of the client certificate, in PEM form and without a password.",
    )
    grpc_tls_name: str | None = setting(
        "BRUNIX_GRPC_TLS_NAME",
        "",
        optional(matching(r"[A-Za-z0-9*._-]{1,253}", "a host name")),
        "Name in the engine's certificate, if it differs from the host of `BRUNIX_GRPC_TARGET`.",
    )
    grpc_connect_timeout_s: float = setting(
        "BRUNIX_GRPC_CONNECT_TIMEOUT_S",
        "1",
        seconds(0.1, 60),
        "Timeout of an attempt to connect to the engine, including handshakes. Questions that wait for the connection "
        "then fail with 503.",
    )
    grpc_ack_timeout_s: float = setting(
        "BRUNIX_GRPC_ACK_TIMEOUT_S",
        "5",
        seconds(0.1, 600),
        "How long the engine's host may take to acknowledge data on an open connection. Then the connection is "
        "closed, and every question on it fails with 503.",
    )
    model_id: str = setting(
        "PROXY_MODEL_ID",
        "brunix",
        matching(MODEL_NAME, "1 to 128 letters, digits and . _ : / @ + -, a letter or a digit first"),
        "Name of the model in `/v1/models`, and with the suffix `:latest` in `/api/tags`. All endpoints accept both "
        "names.",
    )
    model_aliases: tuple[str, ...] = setting(
        "PROXY_MODEL_ALIASES",
        "",
        Rule("model names separated by commas, or * for any name", model_names),
        "Additional model names, which requests may use and all model lists contain; `*` is not listed. A request with "
        "any other name gets 404.",
    )
    thread_workers: int = setting(
        "PROXY_THREAD_WORKERS",
        "20",
        whole_number(1, 10_000),
        "Maximum number of concurrent engine calls per gateway process; one thread each. Raise it so that more "
        "questions are asked of the engine in parallel.",
    )
    engine_client: Literal["blocking", "aio"] = setting(
        "PROXY_ENGINE_CLIENT",
        "blocking",
        matching("blocking|aio", "blocking or aio"),
        "How the gateway calls the engine. `blocking`: one thread per call. `aio`: without threads, for thousands of "
        "streams in one process; needs `twistd --reactor=asyncio`. The maximum number of calls is the same.",
    )
    processes: int = setting(
        "PROXY_PROCESSES",
        "1",
        whole_number(1, 256),
        "Number of gateway processes that share the socket of `PROXY_LISTEN`; one process uses one processor. With "
        "more than one, a supervisor starts them and replaces one that dies.",
    )
    listen: str = setting(
        "PROXY_LISTEN",
        "tcp:8000:interface=127.0.0.1",
        Rule("a port, host:port, or a Twisted endpoint description such as tcp:8000", unquoted(addresses.endpoint)),
        "Where the gateway listens. The default, and a port alone, accept connections from this machine only; "
        "`tcp:8000` and `0.0.0.0:8000` listen on all interfaces.",
    )
    engine_timeout_s: float = setting(
        "PROXY_ENGINE_TIMEOUT_S",
        "600",
        seconds(0.1, 86_400),
        "Deadline of one engine call, from the question to the end of the answer.",
    )
    first_token_timeout_s: float = setting(
        "PROXY_FIRST_TOKEN_TIMEOUT_S",
        "120",
        seconds(0.1, 86_400),
        "Maximum time until the engine sends the first token of a streamed answer.",
    )
    stall_timeout_s: float = setting(
        "PROXY_STALL_TIMEOUT_S",
        "60",
        seconds(0.1, 86_400),
        "Disconnect a client that has read nothing for this long, and cancel its engine call.",
    )
    buffer_bytes: int = setting(
        "PROXY_BUFFER_BYTES",
        "1048576",
        whole_number(1024, 1_073_741_824),
        "Maximum size of the part of a stream that is buffered for a slow client. When the buffer is full, the engine "
        "call waits and keeps its worker.",
    )
    max_answer_bytes: int = setting(
        "PROXY_MAX_ANSWER_BYTES",
        "16777216",
        whole_number(1024, 1_073_741_824),
        "Maximum size of an answer, in bytes of UTF-8 text. A larger answer ends with 502, or in a stream with an "
        "error, and its engine call is cancelled.",
    )
    queue_size: int | None = setting(
        "PROXY_QUEUE_SIZE",
        "auto",
        or_auto(whole_number(0, 1_000_000)),
        "Maximum length of the queue, per gateway process; further requests are rejected with 503. `auto` is four per "
        "worker.",
    )
    queue_per_caller: int | None = setting(
        "PROXY_QUEUE_PER_CALLER",
        "auto",
        or_auto(whole_number(1, 1_000_000)),
        "Maximum number of questions of one caller in the queue; further ones are rejected with 429. `auto`: as many "
        "as fit. Workers and the queue are shared fairly between callers in any case.",
    )
    queue_timeout_s: float = setting(
        "PROXY_QUEUE_TIMEOUT_S",
        "30",
        seconds(0.1, 86_400),
        "How long a question may wait for a worker before it is rejected with 503.",
    )
    heartbeat_s: float = setting(
        "PROXY_HEARTBEAT_S",
        "15",
        seconds(0, 86_400),
        "Send a heartbeat in a stream after this long without data, so that clients and proxies do not time out. 0: "
        "never.",
    )
    whole_heartbeat_s: float = setting(
        "PROXY_WHOLE_HEARTBEAT_S",
        "0",
        seconds(0, 86_400),
        "Send a space before an answer that is not streamed after this long without data, so that clients and proxies "
        "do not time out. After the first one the status is 200, so an answer that then fails is truncated. 0: never.",
    )
    heartbeat_form: Literal["comment", "delta"] = setting(
        "PROXY_HEARTBEAT_FORM",
        "comment",
        matching("comment|delta", "comment or delta"),
        "The heartbeat in Server-Sent Events: a comment, or an empty delta for clients that count only events.",
    )
    session_continuity: bool = setting(
        "PROXY_SESSION_CONTINUITY",
        "on",
        on_off(),
        "Whether a conversation that is sent without a session id continues in its existing engine session.",
    )
    session_max: int = setting(
        "PROXY_SESSION_MAX",
        "10000",
        whole_number(1, 10_000_000),
        "Maximum number of conversations that are kept for that in `PROXY_STATE`; the oldest is removed first.",
    )
    session_max_age_s: float = setting(
        "PROXY_SESSION_MAX_AGE_S",
        "86400",
        seconds(1, 31_536_000),
        "How long a conversation is remembered for that. It should not exceed the time that the engine keeps a "
        "session.",
    )
    session_match: Literal["fitting", "exact"] = setting(
        "PROXY_SESSION_MATCH",
        "fitting",
        matching("fitting|exact", "fitting or exact"),
        "What a request must present to continue a session. `fitting`: turns that fit this one session of its caller "
        "and no other, such as the last ones, or those before an edited question. `exact`: the complete conversation, "
        "for callers who share an address and a key, but may not share a session.",
    )
    trusted_proxies: TrustedProxies = setting(
        "PROXY_TRUSTED_PROXIES",
        "",
        Rule("addresses or networks separated by commas, such as 10.0.0.0/8, or unix", trusted_proxies.read),
        "Proxies whose `X-Forwarded-For` and `X-Forwarded-User` tell callers apart; `unix` is every client on a UNIX "
        "socket. From all others these headers are ignored.",
    )
    system_prompt: Literal["ignore", "prepend", "extra_context"] = setting(
        "PROXY_SYSTEM_PROMPT",
        "ignore",
        matching("ignore|prepend|extra_context", "ignore, prepend or extra_context"),
        "What the engine receives of a request's system prompt. `ignore`: nothing, and the header `X-Brunix-Ignored` "
        "lists `system`. `prepend`: its text in front of the question. `extra_context`: its text in that field, which "
        "older engines do not read.",
    )
    side_requests: Literal["answer", "refuse"] = setting(
        "PROXY_SIDE_REQUESTS",
        "answer",
        matching("answer|refuse", "answer or refuse"),
        "What happens to the requests that clients make for themselves, for example for a chat's title. `answer`: they "
        "get separate sessions. `refuse`: they get status 400, and the engine is not called.",
    )
    side_request_patterns: tuple[str, ...] = setting(
        "PROXY_SIDE_REQUEST_PATTERNS",
        "",
        beginnings(6, 500),
        "Additional side requests, for example of changed templates in Open WebUI: how their last user message begins. "
        "A user's question must not begin like this.",
    )
    store_max: int = setting(
        "PROXY_STORE_MAX",
        "1000",
        whole_number(0, 10_000_000),
        "Maximum number of responses of `/v1/responses` whose text is stored for retrieval by id; the oldest is "
        "removed first. 0 stores no text.",
    )
    store_max_bytes: int = setting(
        "PROXY_STORE_MAX_BYTES",
        "67108864",
        whole_number(0, 1_099_511_627_776),
        "Maximum size of these responses. The oldest is removed first, and a response that is larger than this is not "
        "stored.",
    )
    state: StateAddress = setting(
        "PROXY_STATE",
        "auto",
        Rule(
            "auto, memory:, sqlite:PATH, or a URL that begins with redis://, rediss:// or redis+sentinel://",
            state_address.read,
            state_address.shown,
        ),
        "Where conversations and stored responses are kept. `memory:` until the gateway stops. `sqlite:PATH` in a file "
        "that the processes on one machine share, also after a restart. `redis://…` for gateways on several machines; "
        "needs the extra `redis`. `auto`: in memory, or with several processes in a private file until the gateway "
        "stops.",
    )
    state_secret: str | None = setting(
        "PROXY_STATE_SECRET",
        "",
        optional(secret(32, "at least 32 printable characters without spaces; openssl rand -hex 32 makes one")),
        "The key of the digests under which conversations are kept in `PROXY_STATE`. If it changes, they are no longer "
        "found. Empty: generated, and for `sqlite:PATH` kept in the file `PATH.secret`. Required with Redis, and the "
        "same for all gateways. Set the variable: other users can read options.",
    )
    capabilities: tuple[str, ...] = setting(
        "PROXY_CAPABILITIES",
        "completion",
        Rule("words such as completion or tools separated by commas", words),
        "Capabilities of the model that `/api/show` reports. Some editors list only models with `tools`; the gateway "
        "ignores the tools that they send.",
    )
    context_length: int = setting(
        "PROXY_CONTEXT_LENGTH",
        "131072",
        whole_number(1, 1_000_000_000),
        "Context length in tokens that the model lists, `/api/show` and `/api/ps` report. Clients shorten longer "
        "conversations. The engine receives only the question, so the default is large: a shortened conversation may "
        "lose its session.",
    )
    model_family: str = setting(
        "PROXY_MODEL_FAMILY",
        "brunix",
        matching(r"[a-z0-9][a-z0-9_-]{0,63}", "1 to 64 lower-case letters, digits and _ -"),
        "Family and architecture of the model that Ollama's endpoints report.",
    )
    cors_origins: Origins = setting(
        "PROXY_CORS_ORIGINS",
        cors_origins.DEFAULT,
        Rule(
            "origins separated by commas, such as https://chat.example, https://*.example:*, app://* or *",
            cors_origins.read,
        ),
        "Origins of the web pages that may use the gateway from a browser; any other is rejected with 403.",
    )
    allowed_hosts: frozenset[str] = setting(
        "PROXY_ALLOWED_HOSTS",
        "",
        Rule("names or addresses separated by commas, without ports, or * for any", allowed_hosts.read),
        "Additional hosts that are allowed in a request's `Host` header. Loopback and private addresses, `localhost`, "
        "this machine's name, and names in `.localhost`, `.local` and `.internal` are always allowed. Any other host, "
        "such as a public address, is rejected with 403, unless this is empty and the gateway listens on more than "
        "loopback.",
    )
    page: bool = setting(
        "PROXY_PAGE",
        "on",
        on_off(),
        "Whether `/` is a page for browsers that shows the status, asks the engine and connects clients. With `off` "
        "there is no page.",
    )
    mcp: bool = setting(
        "PROXY_MCP",
        "on",
        on_off(),
        "Whether `/mcp` offers agents the tool `ask`, over the Model Context Protocol. With `off` it returns 404.",
    )
    mcp_description: str | None = setting(
        "PROXY_MCP_DESCRIPTION",
        "",
        optional(matching(r"[^\x00-\x1f\x7f]{6,1000}", "one line of 6 to 1000 characters")),
        "What the engine knows, such as `the AVAP language and its products`: the description of the tool `ask` says "
        "so, and agents decide by it when to ask. Empty: the company's language, products and documentation.",
    )
    max_body_bytes: int = setting(
        "PROXY_MAX_BODY_BYTES",
        "4194304",
        whole_number(1, 1_000_000_000),
        "Maximum size of a request body; a larger one is rejected with 413.",
    )
    max_bodies_bytes: int = setting(
        "PROXY_MAX_BODIES_BYTES",
        "67108864",
        whole_number(1, 1_000_000_000_000),
        "Maximum memory for all request bodies that have not been parsed yet, per gateway process; a request that "
        "would exceed it is rejected with 503. The first 64 KiB of each body do not count, and one body of "
        "`PROXY_MAX_BODY_BYTES` always fits.",
    )
    max_header_bytes: int = setting(
        "PROXY_MAX_HEADER_BYTES",
        "65536",
        whole_number(1_024, 16_777_216),
        "Maximum size of all headers of a request; larger ones are rejected with 431.",
    )
    headers_timeout_s: float = setting(
        "PROXY_HEADERS_TIMEOUT_S",
        "10",
        seconds(0.1, 86_400),
        "Maximum time to receive a request's headers, from their first byte; then 408.",
    )
    body_timeout_s: float = setting(
        "PROXY_BODY_TIMEOUT_S",
        "30",
        seconds(0.1, 86_400),
        "Maximum time to receive a request's body, from the end of the headers; then 408.",
    )
    log_format: Literal["text", "json"] = setting(
        "PROXY_LOG_FORMAT",
        "text",
        matching("text|json", "text or json"),
        "Format of the log: lines of text, or one JSON object per line.",
    )
    log_client: frozenset[str] = setting(
        "PROXY_LOG_CLIENT",
        "",
        some_of("address", "user", "agent"),
        "What the log line of a request says about its client: its address, the user that a trusted proxy names, and "
        "its `User-Agent`. Empty: nothing.",
    )
    metrics_listen: str | None = setting(
        "PROXY_METRICS_LISTEN",
        "",
        optional(
            Rule(
                "a port, host:port, or a Twisted endpoint description such as tcp:9464:interface=127.0.0.1",
                unquoted(addresses.endpoint),
            )
        ),
        "Where Prometheus scrapes `/metrics`, on a separate port. Empty: no metrics.",
    )
    traces: Literal["off", "otlp"] = setting(
        "PROXY_TRACES",
        "off",
        matching("off|otlp", "off or otlp"),
        "Where the spans of requests and engine calls are exported: nowhere, or by OTLP to the collector that the "
        "variables `OTEL_…` define. Needs the extra `otel`.",
    )
    drain_s: float = setting(
        "PROXY_DRAIN_S",
        "25",
        seconds(0, 86_400),
        "Maximum time for running answers to finish when the gateway stops.",
    )

    @classmethod
    def read(cls, environment: Mapping[str, str], options: Mapping[str, str | None]) -> Settings:
        """
        Read the settings from an environment and a command line.

        :param environment: texts by variable; an empty text counts as not set, as in a unit file's ``VAR=``.
        :param options: texts by option name without dashes; None if not given.
        :raises SettingError: for the first value that is not allowed.
        """
        settings = cls(**read_values(table(), environment, options))
        certificates.check_together(
            settings.grpc_tls_ca, settings.grpc_tls_cert, settings.grpc_tls_key, settings.grpc_tls_name
        )
        if settings.state.kind == "redis" and settings.state_secret is None:
            why = "with Redis, at least 32 characters, the same for all gateways; openssl rand -hex 32 makes one"
            raise SettingError("PROXY_STATE_SECRET", "", why)
        return settings


def table() -> Iterator[tuple[str, Row]]:
    """Yield the attribute's name and the row of every setting, in order."""
    return rows_of(Settings)
