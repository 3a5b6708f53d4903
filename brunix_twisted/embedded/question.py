"""Read a question: limit it, and find what kind of answer it wants. Pure; the time is linear in the text considered."""

from typing import Final

from brunix_twisted.embedded.tokenizer import words

# Maximum number of characters of a question, or of a selection, that are read. People put the question before or after
# what they paste, so the beginning and the end count.
MAX_CHARACTERS: Final = 12_000

# "How do I", "how to" and "what can I" ask how to do something; "how long" and "how does it" do not.
_AFTER_HOW: Final = frozenset({"do", "can", "could", "should", "to"})
_INTERROGATIVES: Final = frozenset({"what", "where", "which"})
_AUXILIARIES: Final = frozenset({"do", "can", "should", "must"})
_PERSONS: Final = frozenset({"i", "we", "you"})
_CODE_WORDS: Final = frozenset(
    """
    code command commands config configuration curl example examples json script scripts snippet snippets yaml
    """.split()  # noqa: SIM905 - shorter than the list
)
_QUESTION_STARTS: Final = frozenset(
    """
    also and are but can could did do does has have how i is may must my or shall should so then was were what when
    where which who whose why will would
    """.split()  # noqa: SIM905
)


def considered(text: str) -> str:
    """Return what is read of a text: all of it, or the beginning and the end of a long one."""
    if len(text) <= MAX_CHARACTERS:
        return text
    half = MAX_CHARACTERS // 2
    return f"{text[:half]}\n{text[-half:]}"


def wants_code(question: str) -> bool:
    """Return whether a question asks how to do something, or for code; an imperative such as "Install it" does too."""
    asked = considered(question).strip()
    in_order = words(asked)
    is_imperative = not asked.endswith("?") and not (in_order and in_order[0] in _QUESTION_STARTS)
    return is_imperative or not _CODE_WORDS.isdisjoint(in_order) or _asks_how_to(in_order)


def _asks_how_to(in_order: list[str]) -> bool:
    """Look for "how to" and "which … should I" in one pass."""
    has_interrogative = False
    for before, word in zip(("", *in_order), in_order, strict=False):
        if (before == "how" and word in _AFTER_HOW) or (
            has_interrogative and before in _AUXILIARIES and word in _PERSONS
        ):
            return True
        has_interrogative = has_interrogative or word in _INTERROGATIVES
    return False
