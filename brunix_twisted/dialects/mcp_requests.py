"""The messages of the Model Context Protocol that the gateway reads, from the schemas 2025-06-18 to 2026-07-28."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from brunix_twisted.dialects.decode import Element


class Message(Element, frozen=True, kw_only=True):
    """``POST /mcp``: one JSON-RPC request or notification. A notification has no id."""

    jsonrpc: Literal["2.0"]
    method: str
    id: str | int | msgspec.UnsetType = msgspec.UNSET
    params: dict[str, Any] | None = None


class AskArguments(Element, frozen=True, kw_only=True):
    """The arguments of the tool ``ask``."""

    question: str
    session_id: str | None = None
    context: str | None = None
