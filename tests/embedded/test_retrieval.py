from collections.abc import Callable, Iterator

import pytest

from brunix_twisted.embedded.passages import Passage
from brunix_twisted.embedded.retrieval import Retriever
from searches import find_answer

Split = Callable[..., tuple[Passage, ...]]
Find = Callable[[str], list[tuple[str, ...]]]

FILLER = "This says nothing of interest to anybody here, and says it at some length. " * 4


@pytest.fixture
def find(split: Split) -> Iterator[Callable[[dict[str, str]], Find]]:
    """Return a function that indexes texts by file name and returns a search: the headings that a question finds."""
    made: list[Retriever] = []

    def retriever(texts: dict[str, str]) -> Find:
        made.append(Retriever([passage for source, text in texts.items() for passage in split(text, source)]))
        return lambda question: [each.passage.headings for each in find_answer(made[-1], question)]

    yield retriever
    for each in made:
        each.close()


def test_all_terms_beat_one_repeated_term(find: Callable[[dict[str, str]], Find]) -> None:
    """A passage with all terms once ranks above passages that repeat one term."""
    texts = {f"{name}.md": f"# {name}\n\n{FILLER}\n" for name in "abcdefgh"}
    texts["often.md"] = "# Often\n\nGauges, gauges, gauges, gauges, gauges.\n"
    texts["all.md"] = f"# All\n\n{FILLER} The gauges show pressure in the boiler. {FILLER}\n"
    texts["other.md"] = "# Other\n\nPressure, pressure, pressure. Boiler, boiler.\n"
    assert find(texts)("gauges for the pressure in a boiler")[0] == ("All",)


def test_terms_in_one_sentence(find: Callable[[dict[str, str]], Find]) -> None:
    """A passage with the terms in one sentence ranks above one with the terms spread out."""
    texts = {
        "apart.md": f"# Apart\n\nGauges are cheap. {FILLER} Pressure is high. {FILLER} The boiler is old.\n",
        "together.md": f"# Together\n\n{FILLER} Gauges show pressure in the boiler. {FILLER} So much for it.\n",
        "other.md": f"# Other\n\n{FILLER}\n",
    }
    assert find(texts)("gauges for the pressure in a boiler")[0] == ("Together",)


def test_code_example(find: Callable[[dict[str, str]], Find]) -> None:
    """A passage that states the fact ranks above an example that contains the question."""
    texts = {
        "example.md": '# Example\n\nLike this:\n\n```\nask("How long does a kettle take to boil?")\n```\n',
        "fact.md": f"# Fact\n\nBoiling a litre in the kettle is done within three minutes. {FILLER}\n",
        "other.md": f"# Other\n\n{FILLER}\n",
    }
    assert find(texts)("How long does a kettle take to boil?")[0] == ("Fact",)


def test_terms_in_code(find: Callable[[dict[str, str]], Find]) -> None:
    """Terms that occur only in code are found."""
    texts = {"a.md": f"# A\n\n{FILLER}\n\n```\nfrobnicate --all\n```\n", "b.md": f"# B\n\n{FILLER}\n"}
    assert find(texts)("frobnicate")[0] == ("A",)


def test_row_with_its_header(find: Callable[[dict[str, str]], Find]) -> None:
    """A table row is found by the terms of its header and its own."""
    rows = "\n".join(f"| lamp{number} | {number} |" for number in range(20))
    texts = {
        "a.md": f"# A\n\n| name | voltage |\n|---|---|\n{rows}\n",
        "b.md": f"# B\n\nLamp7 is a lamp. {FILLER}\n",
        "c.md": f"# C\n\nVoltage is a word. {FILLER}\n",
    }
    assert find(texts)("voltage of lamp7")[0] == ("A",)


def test_long_table(find: Callable[[dict[str, str]], Find]) -> None:
    """The rows of one table take one place in the ranking."""
    rows = "\n".join(f"| kettle | {number} |" for number in range(20))
    texts = {
        "a.md": f"# A\n\n| name | number |\n|---|---|\n{rows}\n",
        "b.md": f"# B\n\nA kettle. {FILLER}\n",
    }
    assert sorted(find(texts)("kettle")) == [("A",), ("B",)]


def test_repeatable(find: Callable[[dict[str, str]], Find]) -> None:
    """The same search returns the same ranking."""
    found = find({f"{name}.md": "# Same\n\nThe same words.\n" for name in "abcdefgh"})
    assert found("same words") == found("same words")
