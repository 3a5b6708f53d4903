"""Questions that an engine's documents answer, as the embedded engine reports them with its health."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Final

# The embedded engine has the same name: it shares no code with the gateway.
METADATA: Final = "brunix-sample-questions-bin"

_MAX_QUESTIONS: Final = 5
_MAX_CHARACTERS: Final = 200


def sample_questions(trailing_metadata: Iterable[tuple[str, str | bytes]] | None) -> tuple[str, ...]:
    """Return the questions in the metadata of a health check; none for other engines, or if they are malformed."""
    value = next((value for name, value in trailing_metadata or () if name == METADATA), b"[]")
    try:
        found = json.loads(value)
    except (ValueError, RecursionError):
        return ()
    questions = found if isinstance(found, list) else ()
    return tuple(each for each in questions if isinstance(each, str) and each.strip() and len(each) <= _MAX_CHARACTERS)[
        :_MAX_QUESTIONS
    ]
