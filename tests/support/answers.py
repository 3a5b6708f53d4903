"""One answer with everything fixed that differs from answer to answer: what the tests of the dialects encode."""

from __future__ import annotations

import json
from typing import Final

from hypothesis import settings

from brunix_twisted.dialects import Dialect
from brunix_twisted.model import Choice, CompletionEnd, CompletionRequest, FinishReason, Model, ResponseMeta

MODELS: Final = Model("brunix", aliases=("old",))
HEAD: Final = ResponseMeta(id="1", created_s=1795348800.25)  # 2026-11-22T12:00:00.25Z

bounded = settings(max_examples=100, deadline=None, derandomize=True, database=None)


def ending(*reasons: FinishReason) -> CompletionEnd:
    """End each choice for its reason: the first after two tokens, the next after three, and so on."""
    return CompletionEnd(
        choices=tuple(
            Choice(finish_reason=reason, completion_tokens=tokens) for tokens, reason in enumerate(reasons, start=2)
        ),
        prompt_tokens=26,
        finished_s=HEAD.created_s + 1.5,
        load_duration_ns=1,
        prompt_eval_duration_ns=2,
        eval_duration_ns=3,
    )


def body_of(**parameters: object) -> bytes:
    return json.dumps(parameters).encode()


def answered(
    dialect: Dialect, ask: CompletionRequest, *pieces: tuple[int, str], reasons: tuple[FinishReason, ...]
) -> bytes:
    """Encode a complete answer of these pieces, each the text for the choice of an index."""
    encoder = dialect.encoder(ask, HEAD)
    texts = b"".join(encoder.delta(index, text) for index, text in pieces)
    return encoder.begin() + texts + encoder.finish(ending(*reasons))
