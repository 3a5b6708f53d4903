import pytest

from brunix_twisted.embedded import metrics


@pytest.mark.parametrize(
    ("text", "key_fact", "expected"),
    [
        ("The port is `50051`.", "port is 50051", True),
        ("Set **PATH**\nthere", "path there", True),
        ("port 500511", "port 50052", False),
        ("", "a", False),
    ],
)
def test_a_key_fact_is_found_whatever_its_dress(text: str, key_fact: str, *, expected: bool) -> None:
    """A right answer would be counted as wrong because a word of it is set as code."""
    assert metrics.contains(text, key_fact) is expected


@pytest.mark.parametrize(
    ("text", "wanted", "expected"),
    [("a b", "a b", 1.0), ("a b c d", "a b", 2 / 3), ("a", "b", 0.0), ("", "b", 0.0), ("connected", "connection", 1.0)],
)
def test_token_f1(text: str, wanted: str, expected: float) -> None:
    """The figure would mean something else than its name."""
    assert metrics.token_f1(text, wanted) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("relevant", "expected"),
    [((), 0.0), ((False, False), 0.0), ((True,), 1.0), ((False, True), 0.5), ((True, False, True), 5 / 6)],
)
def test_average_precision(relevant: tuple[bool, ...], expected: float) -> None:
    """The figure would mean something else than its name."""
    assert metrics.average_precision(relevant) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("text", "within", "expected"),
    [("the port 1", "port 2", 0.5), ("the", "the", 1.0), ("", "a", 0.0), ("ports", "a port", 1.0)],
)
def test_word_share(text: str, within: str, expected: float) -> None:
    """The figure would mean something else than its name."""
    assert metrics.word_share(text, within) == pytest.approx(expected)


def test_a_rank_of_nothing_counts_nothing() -> None:
    """A question that was not found would raise the mean."""
    assert [metrics.reciprocal(rank) for rank in (0, 1, 4)] == [0.0, 1.0, 0.25]
    assert metrics.mean([]) == 0.0
