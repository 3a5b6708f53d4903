import pytest

from brunix_twisted.embedded.spelling import Spelling

WORDS = ("deployment", "delete", "printer", "connect", "account", "password", "rest", "plan", "thread", "pool", "a")


@pytest.fixture(scope="module")
def spelling() -> Spelling:
    return Spelling(WORDS)


@pytest.mark.parametrize(
    ("word", "similar"),
    [
        ("delte", ["delete"]),
        ("prniter", ["printer"]),
        ("deployement", ["deployment"]),
        ("depolymnet", ["deployment"]),
        ("conect", ["connect"]),
        ("acount", ["account"]),
        ("apssword", ["password"]),
        ("paln", ["plan"]),
        ("kitchen", []),
        ("rust", []),
        ("prinyer", ["printer"]),
        ("accaunt", ["account"]),
        ("prinver", []),
        ("plans", ["plan"]),
        ("plsn", []),
        ("rests", ["rest"]),
        ("res", []),
        ("est", []),
        ("nest", []),
        ("e12", []),
        ("x" * 10_000, []),
    ],
)
def test_similar(spelling: Spelling, word: str, similar: list[str]) -> None:
    """One typing error is tolerated, in long words two, and a letter only if it is easily mistaken for the other."""
    assert spelling.similar(word) == similar


def test_parts(spelling: Spelling) -> None:
    """A compound of two known words is split."""
    assert spelling.parts("threadpool") == ("thread", "pool")
    assert spelling.parts("thread") is None


def test_beginning(spelling: Spelling) -> None:
    """All words with a common beginning are found."""
    assert spelling.beginning_with("de") == ["delete", "deployment"]
