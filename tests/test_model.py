"""The values that everything speaks in."""

from __future__ import annotations

import pytest

from answers import ending
from brunix_twisted.model import CompletionRequest, Limits, Model


@pytest.mark.parametrize(
    ("models", "name", "accepted"),
    [
        (Model("brunix"), "brunix", True),
        (Model("brunix"), "brunix:latest", True),
        (Model("brunix"), "Brunix", False),
        (Model("brunix"), "brunix:7b", False),
        (Model("brunix"), "brunix:latest:latest", False),
        (Model("brunix"), ":latest", False),
        (Model("brunix"), "", False),
        (Model("brunix"), "*", False),
        (Model("brunix:7b"), "brunix:7b", True),
        (Model("brunix:7b"), "brunix", False),
        (Model("brunix:latest"), "brunix", True),
        (Model("brunix", aliases=("old:latest",)), "old", True),
        (Model("brunix", aliases=("gpt-4o", "old:1")), "brunix", True),
        (Model("brunix", aliases=("gpt-4o", "old:1")), "gpt-4o", True),
        (Model("brunix", aliases=("gpt-4o", "old:1")), "gpt-4o:latest", True),
        (Model("brunix", aliases=("gpt-4o", "old:1")), "old:1", True),
        (Model("brunix", aliases=("gpt-4o", "old:1")), "gpt-4", False),
        (Model("brunix", aliases=("gpt-4o", "*")), "anything at all", True),
    ],
)
def test_names(models: Model, name: str, accepted: bool) -> None:  # noqa: FBT001 - a column of the table
    """A client that spells the model as it was listed is turned away, or one that wants another is answered."""
    assert models.accepts(name) is accepted


@pytest.mark.parametrize(("name", "tagged"), [("brunix", "brunix:latest"), ("brunix:7b", "brunix:7b")])
def test_tagged(name: str, tagged: str) -> None:
    """An Ollama client lists the model without a tag, or with two."""
    assert Model(name).tagged == tagged
    assert Model(name).accepts(tagged)


def test_an_account_adds_up() -> None:
    """A client's figures contradict each other: the whole is not the sum of its parts."""
    account = ending("stop", "length")
    assert account.completion_tokens == 2 + 3
    assert account.total_duration_ns == 1 + 2 + 3
    assert ending().completion_tokens == 0


def test_nothing_is_asked_by_default() -> None:
    """A plain question is limited, ended or attributed in a way that its caller did not ask for."""
    ask = CompletionRequest(model="brunix", queries=("Hi",), stream=False, prompt="Hi")
    assert ask.limits == Limits(stop=(), max_tokens=None)
    assert (ask.session_id, ask.history, ask.include_usage, ask.echo, ask.ignored) == (None, None, False, False, ())
