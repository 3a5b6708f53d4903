"""
The paths of the public APIs: which have a route, which are documented but not implemented, and their dialect.

Paths are compared segment by segment, so ``/v1/modelsX`` does not match ``/v1/models``. The functions return values
from fixed sets, so the values can be labels of a metric.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

import attrs

DialectName = Literal["openai", "anthropic", "ollama", "mcp", "none"]

ENDPOINTS: Final[dict[str, DialectName]] = {
    "/v1/chat/completions": "openai",
    "/v1/completions": "openai",
    "/v1/responses": "openai",
    "/v1/responses/{id}": "openai",
    "/v1/models": "openai",
    "/v1/models/{id}": "openai",
    "/v1/messages": "anthropic",
    "/v1/messages/count_tokens": "anthropic",
    "/api/chat": "ollama",
    "/api/generate": "ollama",
    "/api/tags": "ollama",
    "/api/ps": "ollama",
    "/api/show": "ollama",
    "/api/version": "ollama",
    "/mcp": "mcp",
    "/": "none",
    "/health": "none",
    "/health/live": "none",
    "/health/sessions": "none",
    "/openapi.json": "none",
    "/page/questions.json": "none",
    "/page/{id}": "none",
}
"""The routes' patterns and their dialects. Any other path is ``other``."""

QUESTIONS: Final = (
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/responses",
    "/v1/messages",
    "/api/chat",
    "/api/generate",
    "/mcp",
)
"""The endpoints that call the engine."""

# In these, the id may contain slashes, as a model's name does.
_WITH_SLASHES: Final = frozenset({"/v1/models/{id}", "/page/{id}"})

# The dialects of a path that is in both APIs. The first one counts if the request's headers name no API.
_SHARED: Final[tuple[DialectName, ...]] = ("openai", "anthropic")


@attrs.frozen
class _NotOffered:
    """Documented paths without a route, and the reason."""

    apis: tuple[DialectName, ...]
    reason: str
    patterns: tuple[str, ...]
    """``{id}`` matches one segment, ``**`` at the end any number of segments."""


_NOT_OFFERED: Final = (
    _NotOffered(
        ("openai",),
        "chat completions are not stored. The answers of /v1/responses are",
        ("/v1/chat/completions/{id}", "/v1/chat/completions/{id}/messages"),
    ),
    _NotOffered(
        ("openai",),
        "no response runs in the background. Close the connection to cancel one",
        ("/v1/responses/{id}/cancel",),
    ),
    _NotOffered(("openai",), "a response is stored without its input", ("/v1/responses/{id}/input_items",)),
    _NotOffered(("openai",), "tokens are counted only by /v1/messages/count_tokens", ("/v1/responses/input_tokens",)),
    _NotOffered(("openai",), "conversations are not compacted", ("/v1/responses/compact",)),
    _NotOffered(
        ("openai",),
        "conversations are not stored. Continue one with previous_response_id or session_id",
        ("/v1/conversations/**", "/v1/threads/**", "/v1/assistants/**", "/v1/chatkit/**"),
    ),
    _NotOffered(("openai",), "requests are not answered in batches", ("/v1/batches/**",)),
    _NotOffered(("anthropic",), "requests are not answered in batches", ("/v1/messages/batches/**",)),
    _NotOffered(
        ("openai",),
        "the gateway has no accounts to administer",
        (
            "/v1/organization/**",
            "/v1/projects/**",
            "/v1/safety/**",
            "/v1/webhook_endpoints/**",
            "/v1/webhook_event_types/**",
        ),
    ),
    _NotOffered(
        ("anthropic",),
        "the gateway has no accounts to administer",
        ("/v1/organizations/**", "/v1/oauth/**", "/v1/user_profiles/**"),
    ),
    _NotOffered(_SHARED, "files are not stored", ("/v1/files/**",)),
    _NotOffered(("openai",), "files are not stored", ("/v1/uploads/**", "/v1/containers/**", "/v1/vector_stores/**")),
    _NotOffered(
        _SHARED, "the gateway answers questions and runs no agents", ("/v1/agents/**", "/v1/skills/**", "/v1/vaults/**")
    ),
    _NotOffered(
        ("anthropic",),
        "the gateway answers questions and runs no agents",
        (
            "/v1/deployment_runs/**",
            "/v1/deployments/**",
            "/v1/dreams/**",
            "/v1/environments/**",
            "/v1/memory_stores/**",
            "/v1/sessions/**",
            "/v1/tunnels/**",
        ),
    ),
    _NotOffered(("anthropic",), "text completions are only offered at /v1/completions", ("/v1/complete",)),
    _NotOffered(("openai",), "the model makes no embeddings", ("/v1/embeddings",)),
    _NotOffered(
        ("openai",),
        "the model reads and writes only text",
        ("/v1/audio/**", "/v1/images/**", "/v1/live/**", "/v1/realtime/**", "/v1/videos/**"),
    ),
    _NotOffered(
        ("openai",),
        "the model only answers questions",
        ("/v1/content_provenance_checks/**", "/v1/decisions/**", "/v1/moderations"),
    ),
    _NotOffered(("openai",), "the model cannot be trained or evaluated", ("/v1/fine_tuning/**", "/v1/evals/**")),
    _NotOffered(
        ("ollama",),
        "there is one model, and it cannot be replaced, copied or removed",
        ("/api/pull", "/api/push", "/api/create", "/api/copy", "/api/delete", "/api/blobs/**"),
    ),
    _NotOffered(("ollama",), "the model makes no embeddings", ("/api/embed", "/api/embeddings")),
    _NotOffered(
        ("ollama",), "the gateway has no accounts to administer", ("/api/me", "/api/signout", "/api/user/keys/{id}")
    ),
    _NotOffered(
        ("ollama",),
        "the gateway answers questions and does nothing else",
        ("/api/experimental/**", "/api/status", "/api/web_fetch", "/api/web_search"),
    ),
)


def _segments(path: str) -> tuple[str, ...]:
    return tuple(path.removeprefix("/").split("/"))


def _matches(pattern: Sequence[str], segments: Sequence[str]) -> bool:
    if pattern[-1] == "**":
        pattern = pattern[:-1]
        segments = segments[: len(pattern)]
    return len(pattern) == len(segments) and all(
        expected in ("{id}", segment) for expected, segment in zip(pattern, segments, strict=True)
    )


# By the first two segments, which are always literal, so that a path is compared with a few patterns only.
_FAMILIES: Final[dict[tuple[str, ...], list[tuple[tuple[str, ...], _NotOffered]]]] = {}
for _group in _NOT_OFFERED:
    for _text in _group.patterns:
        _FAMILIES.setdefault(_segments(_text)[:2], []).append((_segments(_text), _group))

# The first segments of OpenAI's and Anthropic's paths after their prefix.
_AFTER_VERSION: Final = frozenset(_segments(path)[1] for path in ENDPOINTS if path.startswith("/v1/"))

_NAMED: Final = [
    (_segments(pattern.replace("{id}", "{id}/**") if pattern in _WITH_SLASHES else pattern), pattern)
    for pattern in ENDPOINTS
    if pattern.endswith("{id}")
]


def _not_offered(segments: Sequence[str]) -> _NotOffered | None:
    families = _FAMILIES.get(tuple(segments[:2]), ())
    return next((group for pattern, group in families if _matches(pattern, segments)), None)


def with_version(path: str) -> str:
    """
    Return the path with exactly one ``/v1`` if it is OpenAI's or Anthropic's, otherwise unchanged.

    Clients append their paths to a base URL, which users set with or without the prefix.
    """
    if not path.startswith("/v1/"):
        return f"/v1{path}" if _segments(path)[0] in _AFTER_VERSION else path
    # A loop, not recursion: the client decides how often the prefix is repeated.
    while path.startswith("/v1/v1/"):
        path = path.removeprefix("/v1")
    return path


def not_offered(path: str) -> str | None:
    """Return why a documented path has no route; None if it has one, or is not documented."""
    group = _not_offered(_segments(path))
    return None if group is None else group.reason


def endpoint_of(path: str, *, anthropic: bool = False) -> tuple[str, DialectName]:
    """
    Return the endpoint of a normalised path, and its dialect.

    :param anthropic: whether the request has Anthropic's version header. It selects the dialect of paths that are in
        both Anthropic's and OpenAI's API, and of unknown paths.
    """
    endpoint, apis = _find(path)
    return endpoint, "anthropic" if anthropic and "anthropic" in apis else apis[0]


def _find(path: str) -> tuple[str, tuple[DialectName, ...]]:
    if path in ENDPOINTS:
        return path, _apis_of(path)
    segments = _segments(path)
    if group := _not_offered(segments):
        return "other", group.apis
    for pattern, endpoint in _NAMED:
        if _matches(pattern, segments):
            return endpoint, _apis_of(endpoint)
    return "other", _apis(segments)


def _apis_of(endpoint: str) -> tuple[DialectName, ...]:
    return _SHARED if endpoint in {"/v1/models", "/v1/models/{id}"} else (ENDPOINTS[endpoint],)


def _apis(segments: Sequence[str]) -> tuple[DialectName, ...]:
    """Return the dialects that an unknown path may belong to."""
    match segments:
        case ["v1", "messages", *_]:
            return ("anthropic",)
        case ["v1", "chat" | "completions" | "responses", *_]:
            return ("openai",)
        case ["v1", *_]:
            return _SHARED
        case ["api", *_]:
            return ("ollama",)
    return ("none",)
