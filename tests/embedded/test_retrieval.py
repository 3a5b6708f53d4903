from collections.abc import Callable, Iterator

import pytest

from brunix_twisted.embedded.followups import weigh
from brunix_twisted.embedded.passages import Passage
from brunix_twisted.embedded.retrieval import Retriever

Cut = Callable[..., tuple[Passage, ...]]
Find = Callable[[str], list[tuple[str, ...]]]

FILLER = "This says nothing of interest to anybody here, and says it at some length. " * 4


@pytest.fixture
def find(cut: Cut) -> Iterator[Callable[[dict[str, str]], Find]]:
    """Give a function that makes a retriever of texts by file and gives another: the headings that a question finds."""
    made: list[Retriever] = []

    def retriever(texts: dict[str, str]) -> Find:
        made.append(Retriever([passage for source, text in texts.items() for passage in cut(text, source)]))
        return lambda question: [each.passage.headings for each in made[-1].find(weigh(question), 3)]

    yield retriever
    for each in made:
        each.close()


def test_all_words_once_beat_one_word_often(find: Callable[[dict[str, str]], Find]) -> None:
    """A passage that repeats one word would push aside the one that speaks of the question."""
    texts = {f"{name}.md": f"# {name}\n\n{FILLER}\n" for name in "abcdefgh"}
    texts["often.md"] = "# Often\n\nGauges, gauges, gauges, gauges, gauges.\n"
    texts["all.md"] = f"# All\n\n{FILLER} The gauges show pressure in the boiler. {FILLER}\n"
    texts["other.md"] = "# Other\n\nPressure, pressure, pressure. Boiler, boiler.\n"
    assert find(texts)("gauges for the pressure in a boiler")[0] == ("All",)


def test_words_together_in_a_sentence_beat_the_same_words_apart(find: Callable[[dict[str, str]], Find]) -> None:
    """A page that happens to have the words here and there would push aside the sentence that says it."""
    texts = {
        "apart.md": f"# Apart\n\nGauges are cheap. {FILLER} Pressure is high. {FILLER} The boiler is old.\n",
        "together.md": f"# Together\n\n{FILLER} Gauges show pressure in the boiler. {FILLER} So much for it.\n",
        "other.md": f"# Other\n\n{FILLER}\n",
    }
    assert find(texts)("gauges for the pressure in a boiler")[0] == ("Together",)


def test_a_code_example_does_not_beat_the_passage_that_states_the_fact(find: Callable[[dict[str, str]], Find]) -> None:
    """A question would be answered with an example in which somebody asks the same."""
    texts = {
        "example.md": '# Example\n\nLike this:\n\n```\nask("How long does a kettle take to boil?")\n```\n',
        "fact.md": f"# Fact\n\nBoiling a litre in the kettle is done within three minutes. {FILLER}\n",
        "other.md": f"# Other\n\n{FILLER}\n",
    }
    assert find(texts)("How long does a kettle take to boil?")[0] == ("Fact",)


def test_words_that_stand_only_in_code_are_found(find: Callable[[dict[str, str]], Find]) -> None:
    """Nobody could ask about a command by its name."""
    texts = {"a.md": f"# A\n\n{FILLER}\n\n```\nfrobnicate --all\n```\n", "b.md": f"# B\n\n{FILLER}\n"}
    assert find(texts)("frobnicate")[0] == ("A",)


def test_a_row_is_found_under_the_head_of_its_table(find: Callable[[dict[str, str]], Find]) -> None:
    """A row has only half of the words that it is asked for by: the names of its columns have the others."""
    rows = "\n".join(f"| lamp{number} | {number} |" for number in range(20))
    texts = {
        "a.md": f"# A\n\n| name | voltage |\n|---|---|\n{rows}\n",
        "b.md": f"# B\n\nLamp7 is a lamp. {FILLER}\n",
        "c.md": f"# C\n\nVoltage is a word. {FILLER}\n",
    }
    assert find(texts)("voltage of lamp7")[0] == ("A",)


def test_a_long_table_takes_one_place(find: Callable[[dict[str, str]], Find]) -> None:
    """The rows of one table would fill the first places, and nothing else would be found."""
    rows = "\n".join(f"| kettle | {number} |" for number in range(20))
    texts = {
        "a.md": f"# A\n\n| name | number |\n|---|---|\n{rows}\n",
        "b.md": f"# B\n\nA kettle. {FILLER}\n",
    }
    assert sorted(find(texts)("kettle")) == [("A",), ("B",)]


def test_a_search_is_repeatable(find: Callable[[dict[str, str]], Find]) -> None:
    """The same question would get another answer each time."""
    found = find({f"{name}.md": "# Same\n\nThe same words.\n" for name in "abcdefgh"})
    assert found("same words") == found("same words")
