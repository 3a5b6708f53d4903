from collections.abc import Callable, Iterator

import pytest

from brunix_twisted.embedded.followups import weigh
from brunix_twisted.embedded.passages import Passage
from brunix_twisted.embedded.retrieval import Library

Cut = Callable[..., tuple[Passage, ...]]
Find = Callable[[str], list[tuple[str, ...]]]

FILLER = "This says nothing of interest to anybody here, and says it at some length. " * 4


@pytest.fixture
def find(cut: Cut) -> Iterator[Callable[[dict[str, str]], Find]]:
    """Give a function that makes a library of texts by file and gives another: the headings that a question finds."""
    made: list[Library] = []

    def library(texts: dict[str, str]) -> Find:
        made.append(Library([passage for source, text in texts.items() for passage in cut(text, source)]))
        return lambda question: [each.entry.passage.headings for each in made[-1].find(weigh(question), 3)]

    yield library
    for each in made:
        each.close()


def test_all_words_once_beat_one_word_often(find: Callable[[dict[str, str]], Find]) -> None:
    """A passage that repeats one word would push aside the one that speaks of the question."""
    texts = {f"{name}.md": f"# {name}\n\n{FILLER}\n" for name in "abcdefgh"}
    texts["often.md"] = "# Often\n\nGauges, gauges, gauges, gauges, gauges.\n"
    texts["all.md"] = f"# All\n\n{FILLER} The gauges show pressure in the boiler. {FILLER}\n"
    texts["other.md"] = "# Other\n\nPressure, pressure, pressure. Boiler, boiler.\n"
    assert find(texts)("gauges for the pressure in a boiler")[0] == ("All",)


def test_of_equal_passages_the_one_on_the_right_page_comes_first(find: Callable[[dict[str, str]], Find]) -> None:
    """A passage does not repeat what its page is about, and would not be found by it."""
    section = "## Removing\n\nTurn the screw on the left.\n"
    texts = {
        "a.md": f"# Lamps\n\n{FILLER}\n\n{section}",
        "b.md": f"# Boilers\n\n{FILLER}\n\n{section}\n## Cleaning\n\nA kettle is descaled.\n",
        "c.md": f"# Doors\n\n{FILLER}\n\n{section}",
    }
    assert find(texts)("removing: turn the left screw of the kettle")[0] == ("Boilers", "Removing")


def test_a_search_is_repeatable(find: Callable[[dict[str, str]], Find]) -> None:
    """The same question would get another answer each time."""
    found = find({f"{name}.md": "# Same\n\nThe same words.\n" for name in "abcdefgh"})
    assert found("same words") == found("same words")
