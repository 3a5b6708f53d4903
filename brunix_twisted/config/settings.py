"""
The one table of settings: every variable, its default, its unit, its meaning and what it allows.

argv beats environment beats default. Nothing here reads ``os.environ``: the caller hands in what it read. The page
``docs/settings.md`` is written from this table, and a test compares the two.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

import attrs

from brunix_twisted.config import addresses, allowed_hosts, certificates, cors_origins
from brunix_twisted.config.cors_origins import Origins


class SettingError(ValueError):
    """A setting holds what it must not. The text is one line: which setting, what it was, what is allowed."""

    def __init__(self, source: str, value: str, allowed: str) -> None:
        super().__init__(f"{source} is {value!r}; allowed: {allowed}")


@attrs.frozen
class Rule:
    """What a setting may hold, and how its text becomes a value."""

    allowed: str
    """For the reader: completes "allowed: …" in an error and in the docs."""
    read: Callable[[str], Any]
    """Text to value. Raises ValueError for anything else than what is allowed."""


def _matching(pattern: str, allowed: str) -> Rule:
    expression = re.compile(pattern)

    def read(text: str) -> str:
        if not expression.fullmatch(text):
            raise ValueError(text)
        return text

    return Rule(allowed, read)


def _whole_number(least: int, most: int) -> Rule:
    def read(text: str) -> int:
        # int() also takes "1_0", " 7" and other scripts' digits, none of which anybody means in a unit file.
        if not re.fullmatch(r"[0-9]{1,12}", text) or not least <= int(text) <= most:
            raise ValueError(text)
        return int(text)

    return Rule(f"a whole number from {least} to {most}", read)


def _or_auto(rule: Rule) -> Rule:
    return Rule(f"{rule.allowed}, or auto", lambda text: None if text == "auto" else rule.read(text))


def _seconds(least: float, most: float) -> Rule:
    def read(text: str) -> float:
        if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,6})?", text) or not least <= float(text) <= most:
            raise ValueError(text)
        return float(text)

    return Rule(f"a number of seconds from {least:g} to {most:g}", read)


# What may stand in an HTTP header, a log line and a URL's path without any escaping, and in Ollama's names.
_MODEL_NAME = r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,127}"


def _names(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if not all(name == "*" or re.fullmatch(_MODEL_NAME, name) for name in names):
        raise ValueError(text)
    return names


def _words(text: str) -> tuple[str, ...]:
    words = tuple(word.strip() for word in text.split(",") if word.strip())
    if not words or not all(re.fullmatch(r"[a-z][a-z0-9_-]{0,31}", word) for word in words):
        raise ValueError(text)
    return words


def _unquoted(text: str) -> str:
    """Complete an error where a file of variables was read by a program that keeps quotes, as Docker does."""
    return ", without quotes" if re.fullmatch(r"""'.*'|".*\"""", text.strip(), re.DOTALL) else ""


def _plain(read: Callable[[str], str]) -> Callable[[str], str]:
    """Refuse quotes, which are a part of no address."""

    def read_plain(text: str) -> str:
        if _unquoted(text):
            raise ValueError(text)
        return read(text)

    return read_plain


def _on_off(text: str) -> bool:
    if text not in {"on", "off"}:
        raise ValueError(text)
    return text == "on"


_ON_OFF = Rule("on or off", _on_off)


def _or_none(rule: Rule) -> Rule:
    return Rule(rule.allowed, lambda text: rule.read(text) if text else None)


def _setting(variable: str, default: str, rule: Rule, meaning: str) -> Any:  # noqa: ANN401 - attrs.field returns Any too
    return attrs.field(
        default=rule.read(default),
        metadata={"variable": variable, "default": default, "rule": rule, "meaning": meaning},
    )


@attrs.frozen(kw_only=True)
class Settings:
    """Everything an operator can choose, checked. Times are in seconds."""

    grpc_target: str = _setting(
        "BRUNIX_GRPC_TARGET",
        "localhost:50051",
        Rule("a gRPC target such as host:port, dns:///host:port or unix:///path", _plain(addresses.grpc_target)),
        "Where the engine listens. A host and port alone are one engine; `dns:///engines:50051` and "
        "`ipv4:10.0.0.1:50051,10.0.0.2:50051` are several, asked in turn.",
    )
    grpc_tls_ca: str | None = _setting(
        "BRUNIX_GRPC_TLS_CA",
        "",
        _or_none(Rule("the path of a file of certificates in PEM form", certificates.authorities)),
        "Turns on TLS to the engine, whose certificate has to be signed by one of these.",
    )
    grpc_tls_cert: str | None = _setting(
        "BRUNIX_GRPC_TLS_CERT",
        "",
        _or_none(Rule("the path of a file that can be read", certificates.readable)),
        "The certificate that the gateway shows the engine, in PEM form: mutual TLS.",
    )
    grpc_tls_key: str | None = _setting(
        "BRUNIX_GRPC_TLS_KEY",
        "",
        _or_none(Rule("the path of a file that can be read", certificates.readable)),
        "The private key of that certificate, in PEM form and without a password.",
    )
    grpc_tls_name: str | None = _setting(
        "BRUNIX_GRPC_TLS_NAME",
        "",
        _or_none(_matching(r"[A-Za-z0-9*._-]{1,253}", "a host name")),
        "The name in the engine's certificate, where it is not the host of `BRUNIX_GRPC_TARGET`.",
    )
    grpc_connect_timeout_s: float = _setting(
        "BRUNIX_GRPC_CONNECT_TIMEOUT_S",
        "1",
        _seconds(0.1, 60),
        "How long one attempt to connect to the engine may take, handshakes included. Questions that wait for it then "
        "fail with 503.",
    )
    grpc_ack_timeout_s: float = _setting(
        "BRUNIX_GRPC_ACK_TIMEOUT_S",
        "5",
        _seconds(0.1, 600),
        "How long the engine's host may take to acknowledge data on an open connection. Then the connection is closed, "
        "and every question on it fails with 503.",
    )
    model_id: str = _setting(
        "PROXY_MODEL_ID",
        "brunix",
        _matching(_MODEL_NAME, "1 to 128 letters, digits and . _ : / @ + -, a letter or a digit first"),
        "The model's name in `/v1/models`, and with `:latest` in `/api/tags`. Both spellings are accepted everywhere.",
    )
    model_aliases: tuple[str, ...] = _setting(
        "PROXY_MODEL_ALIASES",
        "",
        Rule("model names separated by commas, or * for any name", _names),
        "Further model names that requests may use. Any other name is answered with 404.",
    )
    thread_workers: int = _setting(
        "PROXY_THREAD_WORKERS",
        "20",
        _whole_number(1, 10_000),
        "How many questions may be asked of the engine in parallel: threads of the pool, one for each. Each gateway "
        "process has so many.",
    )
    engine_client: Literal["blocking", "aio"] = _setting(
        "PROXY_ENGINE_CLIENT",
        "blocking",
        _matching("blocking|aio", "blocking or aio"),
        "How the engine is asked: in blocking calls with a thread each, or, for thousands of streams in one process, "
        "without threads, which needs `twistd --reactor=asyncio`. The number of questions at once is the same.",
    )
    processes: int = _setting(
        "PROXY_PROCESSES",
        "1",
        _whole_number(1, 256),
        "How many gateway processes share the socket of `PROXY_LISTEN`: a processor runs one at a time. With more than "
        "one, a supervisor starts them and replaces one that dies.",
    )
    listen: str = _setting(
        "PROXY_LISTEN",
        "tcp:8000:interface=127.0.0.1",
        Rule("a port, host:port, or a Twisted endpoint description such as tcp:8000", _plain(addresses.endpoint)),
        "Where the gateway listens. The default, and a port alone, is this machine only; `tcp:8000` and `0.0.0.0:8000` "
        "are every interface.",
    )
    engine_timeout_s: float = _setting(
        "PROXY_ENGINE_TIMEOUT_S",
        "600",
        _seconds(0.1, 86_400),
        "The deadline of one call to the engine, from the question to the end of the answer.",
    )
    first_token_timeout_s: float = _setting(
        "PROXY_FIRST_TOKEN_TIMEOUT_S",
        "120",
        _seconds(0.1, 86_400),
        "How long the engine may take to the first word of a streamed answer.",
    )
    stall_timeout_s: float = _setting(
        "PROXY_STALL_TIMEOUT_S",
        "60",
        _seconds(0.1, 86_400),
        "A client that reads nothing of a waiting stream for so long is cut off, and its question with it.",
    )
    buffer_bytes: int = _setting(
        "PROXY_BUFFER_BYTES",
        "1048576",
        _whole_number(1024, 1_073_741_824),
        "How much of a stream is held for a client that reads slowly; then the engine has to wait, and its worker with "
        "it.",
    )
    max_answer_bytes: int = _setting(
        "PROXY_MAX_ANSWER_BYTES",
        "16777216",
        _whole_number(1024, 1_073_741_824),
        "The largest answer the gateway passes on, in bytes of UTF-8 text. A larger one ends with 502, or in a stream "
        "with an error, and its engine call is cancelled.",
    )
    queue_size: int | None = _setting(
        "PROXY_QUEUE_SIZE",
        "auto",
        _or_auto(_whole_number(0, 1_000_000)),
        "How many questions may wait for a worker; more are refused with 503. `auto` is four for each worker. Each "
        "gateway process has a queue of its own.",
    )
    queue_timeout_s: float = _setting(
        "PROXY_QUEUE_TIMEOUT_S",
        "30",
        _seconds(0.1, 86_400),
        "How long a question waits for a worker before it is refused with 503.",
    )
    heartbeat_s: float = _setting(
        "PROXY_HEARTBEAT_S",
        "15",
        _seconds(0, 86_400),
        "After so long a silence a stream gets a sign of life, so that nothing on the way takes it for dead. 0: never.",
    )
    heartbeat_form: Literal["comment", "delta"] = _setting(
        "PROXY_HEARTBEAT_FORM",
        "comment",
        _matching("comment|delta", "comment or delta"),
        "The sign of life in Server-Sent Events: a comment, or an empty delta for clients that count only events.",
    )
    session_continuity: bool = _setting(
        "PROXY_SESSION_CONTINUITY",
        "on",
        _ON_OFF,
        "Whether a conversation that is sent without a session goes on in the engine session that holds it.",
    )
    session_max: int = _setting(
        "PROXY_SESSION_MAX",
        "10000",
        _whole_number(1, 10_000_000),
        "How many conversations each gateway process remembers for that; the one remembered longest ago is forgotten "
        "first.",
    )
    session_max_age_s: float = _setting(
        "PROXY_SESSION_MAX_AGE_S",
        "86400",
        _seconds(1, 31_536_000),
        "How long a conversation is remembered for that. Not longer than the engine keeps a session.",
    )
    store_max: int = _setting(
        "PROXY_STORE_MAX",
        "1000",
        _whole_number(0, 10_000_000),
        "How many answers of `/v1/responses` each gateway process keeps in memory to be had again by their ids; the "
        "oldest goes first.",
    )
    store_max_bytes: int = _setting(
        "PROXY_STORE_MAX_BYTES",
        "67108864",
        _whole_number(0, 1_099_511_627_776),
        "How much memory these answers may take in each gateway process. The oldest goes first, and an answer that is "
        "larger by itself is not stored.",
    )
    capabilities: tuple[str, ...] = _setting(
        "PROXY_CAPABILITIES",
        "completion",
        Rule("words such as completion or tools separated by commas", _words),
        "What `/api/show` says the model can do. Some editors list only models with `tools`, which are then sent, and "
        "ignored.",
    )
    context_length: int = _setting(
        "PROXY_CONTEXT_LENGTH",
        "4096",
        _whole_number(1, 1_000_000_000),
        "How many tokens of a question `/api/show` and `/api/ps` say the model takes.",
    )
    model_family: str = _setting(
        "PROXY_MODEL_FAMILY",
        "brunix",
        _matching(r"[a-z0-9][a-z0-9_-]{0,63}", "1 to 64 lower-case letters, digits and _ -"),
        "The family and architecture that Ollama's lists name.",
    )
    cors_origins: Origins = _setting(
        "PROXY_CORS_ORIGINS",
        cors_origins.DEFAULT,
        Rule(
            "origins separated by commas, such as https://chat.example, https://*.example:*, app://* or *",
            cors_origins.read,
        ),
        "Web pages that may use the gateway from a browser; any other is refused with 403.",
    )
    allowed_hosts: frozenset[str] = _setting(
        "PROXY_ALLOWED_HOSTS",
        "",
        Rule("names or addresses separated by commas, without ports, or * for any", allowed_hosts.read),
        "Further names by which the gateway may be called (the request's `Host`), beside loopback and private "
        "addresses, `localhost`, this machine's own and those in `.localhost`, `.local` and `.internal`. Any other, "
        "such as a public address, is refused with 403, unless the gateway listens beyond this machine and nothing is "
        "set here.",
    )
    page: bool = _setting(
        "PROXY_PAGE",
        "on",
        _ON_OFF,
        "Whether a browser gets a page at `/`, to see whether all is up, to ask, and to connect clients. With `off` "
        "nothing is left of it.",
    )
    max_body_bytes: int = _setting(
        "PROXY_MAX_BODY_BYTES",
        "4194304",
        _whole_number(1, 1_000_000_000),
        "How large a request's body may be; a larger one is refused with 413.",
    )
    max_bodies_bytes: int = _setting(
        "PROXY_MAX_BODIES_BYTES",
        "67108864",
        _whole_number(1, 1_000_000_000_000),
        "Maximum memory for all request bodies that have not been parsed yet, in each gateway process; a request that "
        "would exceed it is refused with 503. The first 64 KiB of each body do not count, and one body of "
        "`PROXY_MAX_BODY_BYTES` always fits.",
    )
    max_header_bytes: int = _setting(
        "PROXY_MAX_HEADER_BYTES",
        "65536",
        _whole_number(1_024, 16_777_216),
        "How large a request's headers may be together; larger ones are refused with 431.",
    )
    headers_timeout_s: float = _setting(
        "PROXY_HEADERS_TIMEOUT_S",
        "10",
        _seconds(0.1, 86_400),
        "How long a request's headers may take from their first byte to their end; then 408.",
    )
    body_timeout_s: float = _setting(
        "PROXY_BODY_TIMEOUT_S",
        "30",
        _seconds(0.1, 86_400),
        "How long a request's body may take from the end of the headers to its own; then 408.",
    )
    log_format: Literal["text", "json"] = _setting(
        "PROXY_LOG_FORMAT",
        "text",
        _matching("text|json", "text or json"),
        "What the log is made of: lines for people, or one JSON object a line.",
    )
    metrics_listen: str | None = _setting(
        "PROXY_METRICS_LISTEN",
        "",
        _or_none(
            Rule(
                "a port, host:port, or a Twisted endpoint description such as tcp:9464:interface=127.0.0.1",
                _plain(addresses.endpoint),
            )
        ),
        "Where Prometheus finds `/metrics`, on a port of its own; nowhere unless it is set.",
    )
    traces: Literal["off", "otlp"] = _setting(
        "PROXY_TRACES",
        "off",
        _matching("off|otlp", "off or otlp"),
        "Where the spans of requests and of their engine calls go: nowhere, or by OTLP to the collector that the "
        "variables `OTEL_…` name. That needs the extra `otel`.",
    )
    drain_s: float = _setting(
        "PROXY_DRAIN_S",
        "25",
        _seconds(0, 86_400),
        "How long answers under way may take to end when the gateway is stopped.",
    )

    @classmethod
    def read(cls, environment: Mapping[str, str], options: Mapping[str, str | None]) -> Settings:
        """
        The settings that an environment and a command line ask for.

        :param environment: variable name to text; an empty text counts as not set, as in a unit file's ``VAR=``.
        :param options: option name without its dashes to text, or None where it was not given.
        :raises SettingError: for the first value that is not allowed.
        """
        chosen: dict[str, Any] = {}
        for name, row in table():
            variable, option = row.variable, row.option
            text, source = options.get(option), f"--{option} ({variable})"
            if text is None:
                text, source = environment.get(variable, "").strip(), variable
                if not text:
                    continue
            try:
                chosen[name] = row.rule.read(text.strip())
            except addresses.InsteadError as instead:
                raise SettingError(source, text, f"{row.rule.allowed}; {instead}") from None
            except ValueError:
                raise SettingError(source, text, row.rule.allowed + _unquoted(text)) from None
        settings = cls(**chosen)
        settings._check_tls()
        return settings

    def _check_tls(self) -> None:
        """Hold what one setting's own rule cannot see: that they go together."""
        files = {
            "BRUNIX_GRPC_TLS_CA": self.grpc_tls_ca,
            "BRUNIX_GRPC_TLS_CERT": self.grpc_tls_cert,
            "BRUNIX_GRPC_TLS_KEY": self.grpc_tls_key,
        }
        for variable, value, others in (
            ("BRUNIX_GRPC_TLS_CERT", self.grpc_tls_cert, ("BRUNIX_GRPC_TLS_CA", "BRUNIX_GRPC_TLS_KEY")),
            ("BRUNIX_GRPC_TLS_KEY", self.grpc_tls_key, ("BRUNIX_GRPC_TLS_CA", "BRUNIX_GRPC_TLS_CERT")),
            ("BRUNIX_GRPC_TLS_NAME", self.grpc_tls_name, ("BRUNIX_GRPC_TLS_CA",)),
        ):
            if value is not None and any(files[other] is None for other in others):
                raise SettingError(variable, value, f"only together with {' and '.join(others)}")
        certificate, key = self.grpc_tls_cert, self.grpc_tls_key
        if certificate is not None and key is not None and not certificates.belong_together(certificate, key):
            allowed = "the private key of BRUNIX_GRPC_TLS_CERT, both in PEM form, the key without a password"
            raise SettingError("BRUNIX_GRPC_TLS_KEY", key, allowed)


@attrs.frozen
class Row:
    """One setting as the docs, the command line and the environment see it."""

    variable: str
    option: str
    """The long option's name, without the dashes."""
    default: str
    rule: Rule
    meaning: str


def table() -> Iterator[tuple[str, Row]]:
    """Every setting in order: the attribute's name and what is written about it."""
    for field in attrs.fields(Settings):
        variable = field.metadata["variable"]
        option = variable.partition("_")[2].lower().replace("_", "-")
        yield field.name, Row(option=option, **field.metadata)
