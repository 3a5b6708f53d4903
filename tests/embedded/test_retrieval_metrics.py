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
def test_contains_fact(text: str, key_fact: str, *, expected: bool) -> None:
    """A key fact is found regardless of case, emphasis and white space."""
    assert metrics.contains_fact(text, key_fact) is expected


@pytest.mark.parametrize(
    ("text", "wanted", "expected"),
    [("a b", "a b", 1.0), ("a b c d", "a b", 2 / 3), ("a", "b", 0.0), ("", "b", 0.0), ("connected", "connection", 1.0)],
)
def test_token_f1(text: str, wanted: str, expected: float) -> None:
    """Token F1 is the harmonic mean of precision and recall over stems."""
    assert metrics.token_f1(text, wanted) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("relevant", "expected"),
    [((), 0.0), ((False, False), 0.0), ((True,), 1.0), ((False, True), 0.5), ((True, False, True), 5 / 6)],
)
def test_average_precision(relevant: tuple[bool, ...], expected: float) -> None:
    """Average precision is the mean of the precision at each relevant position."""
    assert metrics.average_precision(relevant) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("text", "within", "expected"),
    [("the port 1", "port 2", 0.5), ("the", "the", 1.0), ("", "a", 0.0), ("ports", "a port", 1.0)],
)
def test_term_recall(text: str, within: str, expected: float) -> None:
    """Term recall compares stems, and ignores stop words unless the text has no other words."""
    assert metrics.term_recall(text, within) == pytest.approx(expected)


def test_rank_zero() -> None:
    """A question whose source was not found counts 0."""
    assert [metrics.reciprocal_rank(rank) for rank in (0, 1, 4)] == [0.0, 1.0, 0.25]
    assert metrics.mean([]) == 0.0
