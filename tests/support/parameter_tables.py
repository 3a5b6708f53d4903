"""
The tables of ``docs/parameters.md``, made from what the request types say of their own fields.

Run as a script, it writes them into the page.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, get_args, get_type_hints

from brunix_twisted.dialects import anthropic_requests, ollama_requests, openai_requests, responses_requests
from brunix_twisted.dialects.parameters import Ignored, Parameters, Treatment, treatments
from paths import ROOT

PAGE: Final = ROOT / "docs" / "parameters.md"

ENDPOINTS: Final[dict[str, type[Parameters]]] = {
    "POST /v1/chat/completions": openai_requests.ChatRequest,
    "POST /v1/completions": openai_requests.CompletionsRequest,
    "POST /v1/responses": responses_requests.ResponsesRequest,
    "POST /v1/messages": anthropic_requests.MessagesRequest,
    "POST /v1/messages/count_tokens": anthropic_requests.CountTokensRequest,
    "POST /api/chat": ollama_requests.ChatRequest,
    "POST /api/generate": ollama_requests.GenerateRequest,
    "POST /api/show": ollama_requests.ShowRequest,
}


def rows(parameters: type, prefix: str = "") -> Iterator[tuple[str, Treatment]]:
    """Go through the parameters: those that do something in their class's order, then the ignored ones by name."""
    treated = treatments(parameters)
    for name in sorted(treated, key=lambda name: name.lstrip("_") if isinstance(treated[name], Ignored) else ""):
        inner = [
            kind
            for kind in get_args(get_type_hints(parameters)[name])
            if isinstance(kind, type) and issubclass(kind, Parameters)
        ]
        if inner and not isinstance(treated[name], Ignored):
            for kind in inner:
                yield from rows(kind, f"{prefix}{name}.")
        else:
            yield prefix + name, treated[name]


def table(parameters: type) -> str:
    """Render one endpoint's parameters as a Markdown table."""
    lines = ["| parameter | here | what it does |", "|---|---|---|"]
    for name, treatment in rows(parameters):
        lines.append(f"| `{name}` | {type(treatment).__name__.lower()} | {treatment.effect} |".replace("|  |", "| |"))
    return "".join(f"{line}\n" for line in lines)


def rewritten(page: str) -> str:
    """Put each endpoint's table in place of the one below its heading."""
    for endpoint, parameters in ENDPOINTS.items():
        section = re.compile(rf"(^## `{re.escape(endpoint)}`\n(?:(?!\||## ).*\n)*)(?:\|.*\n)+", re.MULTILINE)
        below = section.search(page)
        assert below, f"the page has no table below a heading `{endpoint}`"
        page = page[: below.end(1)] + table(parameters) + page[below.end() :]
    return page


if __name__ == "__main__":
    PAGE.write_text(rewritten(PAGE.read_text("utf-8")), "utf-8")
