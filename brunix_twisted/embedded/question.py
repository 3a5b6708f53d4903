"""Read a question: limit it, separate what is pasted, and find what kind of answer it wants.

Pure, except that stems come from SQLite. The time is linear in the text considered.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Final

import attrs

from brunix_twisted.embedded.lexicon import spanish_stop_words, without_phrases
from brunix_twisted.embedded.pasted import separate
from brunix_twisted.embedded.small_talk import is_small_talk
from brunix_twisted.embedded.tokenizer import content_terms, words

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
    code command commands comand config configuration curl example examples json script scripts snippet snippets yaml
    """.split()  # noqa: SIM905 - shorter than the list
)
_QUESTION_STARTS: Final = frozenset(
    """
    also and are but can could did do does has have how i is may must my or shall should so then was were what when
    where which who whose why will would wich waht hwo
    """.split()  # noqa: SIM905
)

_DEFINITION: Final = re.compile(
    r"\W*(?:(?:so|and|please|hi|hello|hey|ok)\W+)*(?:what(?:\s+exactly)?(?:\s+is|\s+are|['’]s|s)|wh?at\s+si|define"  # noqa: RUF001
    r"|(?:can\s+you\s+)?(?:tell\s+me|explain)(?:\s+(?:about|what))?|what\s+do(?:es)?(?=[^?]*\b(?:mean|stands?\s+for|do)\b)|what\s+do\s+you\s+mean\s+by"
    r"|meaning\s+of|(?:que|qué)\s+(?:es|son|significa))\s+(?:(?:an?|the|meant\s+by|un|una|el|la|los|las)\s+)?(?P<subject>[^?.!\n]{1,60})",
    re.IGNORECASE,
)
_AFTER_SUBJECT: Final = re.compile(
    r"\s+(?:is|are|mean|means|stands?\s+for|for|and\s+how|and\s+what|and\s+why|in\s+general|exactly)\b.*\Z",
    re.IGNORECASE | re.DOTALL,
)
_MAX_SUBJECT_TERMS: Final = 3
_POSSESSIVES: Final = [["its"], ["their"], ["your"], ["my"], ["our"], ["this"], ["that"], ["su"]]

_SUPERLATIVES: Final = {
    "newest": 1, "latest": 1, "lastest": 1, "oldest": -1, "earliest": -1, "recent": 1,
    "last": 1, "current": 1, "first": -1, "ultima": 1, "ultimo": 1, "reciente": 1, "new": 1,
}  # fmt: skip
_ALWAYS_SUPERLATIVE: Final = frozenset({"newest", "latest", "lastest", "oldest", "earliest"})
_DATED: Final = frozenset(
    """
    change changes edition entries entry incident incidents meeting meetings minutes news note notes outage outages
    post postmortem release releases report update updates upgrade version versions incidente version
    """.split()  # noqa: SIM905
)
# If the newest is asked for, these words select it, and say less about the subject.
_ABOUT_TIME: Final = frozenset(_SUPERLATIVES) | {"version", "versions", "release", "releases", "most", "update"}
_TIME_WEIGHT: Final = 0.2
_AMOUNT: Final = re.compile(
    r"\b(?:how\s+(?:much|many|long|often|old|big|large|fast|quick(?:ly)?|soon|late|early|far|high)|when|what\s+time"
    r"|how\s+\w+\s+(?:may|can|must|should)|cu[aá]nt[oa]s?|cu[aá]ndo|limit|maximum|default|price|costs?|version)\b",
    re.IGNORECASE,
)
_HISTORY: Final = re.compile(
    r"\b(?:which|what|since|qu[eé])\b[^?]*\b(?:versi[oó]n|release)\b|\bchange(?:d|s|log)\b|\bversion \d", re.IGNORECASE
)
_SENTENCE: Final = re.compile(r"[^.!?\n]+[.!?]*")
# Weight of the terms of sentences that do not ask, next to one that does.
_ASIDE_WEIGHT: Final = 0.5
# The same if something is pasted: "This is my configuration so far:"
_SHOWN_WEIGHT: Final = 0.2
_NAME: Final = re.compile(r"(?<=[a-z,] )[A-Z](?=[A-Z0-9]*[a-z])[A-Za-z0-9]{2,}\b")


@attrs.frozen
class Intent:
    """What kind of answer a question wants.

    ``subject`` are the terms of what is to be defined. ``newest`` is 1 for the newest of several, -1 for the oldest.
    ``wants_history`` says that a changelog may answer: "Which version added it?"
    """

    wants_code: bool = False
    wants_amount: bool = False
    subject: tuple[str, ...] = ()
    newest: int = 0
    names_version: bool = False
    wants_history: bool = False


@attrs.frozen
class Question:
    """A question as it is searched for.

    ``text`` is what is asked, without what is pasted. ``terms`` are its content terms with their weights.
    """

    text: str
    pasted: str
    terms: dict[str, float]
    names: frozenset[str]
    is_spanish: bool
    is_small_talk: bool
    intent: Intent


# The id of a request or a document, which says nothing about what is asked.
_UUID: Final = re.compile(r"\b[0-9a-f]{8}(?:-?[0-9a-f]{4}){3}-?[0-9a-f]{12}\b", re.IGNORECASE)


def considered(text: str) -> str:
    """Return what is read of a text: all of it, or the beginning and the end of a long one."""
    if len(text) <= MAX_CHARACTERS:
        return text
    half = MAX_CHARACTERS // 2
    return f"{text[:half]}\n{text[-half:]}"


def read(message: str) -> Question:
    """Read a message."""
    separated = separate(considered(message))
    text = _UUID.sub(" ", separated.asked)
    spoken = words(text)
    is_spanish = "¿" in text or "¡" in text or _is_spanish(spoken)
    newest = _newest(spoken)
    terms = _weighted(text, _SHOWN_WEIGHT if separated.pasted else _ASIDE_WEIGHT, is_spanish=is_spanish)
    if newest:
        terms = {term: _TIME_WEIGHT if term in _ABOUT_TIME else weight for term, weight in terms.items()}
    subject = () if newest else _subject(text, is_spanish=is_spanish)
    return Question(
        text=text,
        pasted=separated.pasted,
        terms=terms,
        names=frozenset(word for name in _NAME.findall(text) for word in words(name)) | _numbers(terms),
        is_spanish=is_spanish,
        is_small_talk=not separated.pasted and is_small_talk(text),
        intent=Intent(
            wants_code=wants_code(text),
            wants_amount=bool(_AMOUNT.search(text)),
            subject=subject,
            newest=newest,
            wants_history=bool(newest or _HISTORY.search(text)),
            names_version=any(word.startswith(("version", "release")) for word in spoken),
        ),
    )


def terms_of(text: str, *, is_spanish: bool = False) -> tuple[str, ...]:
    """Return the content terms of a text; of a Spanish one, without the stop words of that language."""
    terms = content_terms(" ".join(without_phrases(words(text))))
    return tuple(term for term in terms if term not in spanish_stop_words()) if is_spanish else terms


def wants_code(question: str) -> bool:
    """Return whether a question asks how to do something, or for code; an imperative such as "Install it" does too."""
    asked = considered(question).strip()
    in_order = words(asked)
    is_imperative = not asked.endswith("?") and not (in_order and in_order[0] in _QUESTION_STARTS)
    return is_imperative or not _CODE_WORDS.isdisjoint(in_order) or _asks_how_to(in_order)


def _asks_how_to(in_order: list[str]) -> bool:
    """Look for "how to", "cómo" and "which … should I" in one pass."""
    has_interrogative = False
    for before, word in zip(("", *in_order), in_order, strict=False):
        if (
            (before == "how" and word in _AFTER_HOW)
            or word == "como"
            or (has_interrogative and before in _AUXILIARIES and word in _PERSONS)
        ):
            return True
        has_interrogative = has_interrogative or word in _INTERROGATIVES
    return False


def _is_spanish(spoken: Sequence[str]) -> bool:
    # Words such as "no", "sin" and "me" are English too.
    shared = {
        "a",
        "me",
        "no",
        "e",
        "sin",
        "son",
        "era",
        "he",
        "van",
        "sea",
        "y",
        "o",
        "as",
        "use",
        "solo",
        "de",
        "la",
        "te",
        "da",
    }
    marks = {word for word in spoken if word in spanish_stop_words() and word not in shared}
    return len(marks) >= 2 or (len(marks) == 1 and len(spoken) <= 4)  # noqa: PLR2004


def _newest(spoken: Sequence[str]) -> int:
    """Return 1 if the newest of several is asked for, -1 for the oldest, otherwise 0."""
    for position, word in enumerate(spoken):
        direction = _SUPERLATIVES.get(word, 0)
        if word == "new":
            if spoken[max(0, position - 2) : position] in (["what", "s"], ["what", "is"]) or spoken[:1] == ["whats"]:
                return direction
        elif direction and (
            word in _ALWAYS_SUPERLATIVE or not _DATED.isdisjoint(spoken[max(0, position - 2) : position + 4])
        ):
            return direction
    return 0


def _subject(text: str, *, is_spanish: bool) -> tuple[str, ...]:
    """Return the terms of what a question wants to be defined; empty if it asks for something else."""
    found = _DEFINITION.match(text)
    # "What is its default?" asks about something that is known.
    if not found or words(found["subject"])[:1] in _POSSESSIVES:
        return ()
    terms = terms_of(_AFTER_SUBJECT.sub("", found["subject"]), is_spanish=is_spanish)
    return terms if len(terms) <= _MAX_SUBJECT_TERMS else ()


def _numbers(terms: Iterable[str]) -> frozenset[str]:
    """Return the terms with digits, such as codes and versions: they are as specific as names."""
    return frozenset(term for term in terms if any(map(str.isdigit, term)) and len(term) > 1)


def _weighted(text: str, aside_weight: float, *, is_spanish: bool) -> dict[str, float]:
    """Weigh the terms of the sentences that ask 1, and those of the other sentences less."""
    sentences = [match[0].strip() for match in _SENTENCE.finditer(text)]
    asking = " ".join(sentence for sentence in sentences if sentence.endswith("?"))
    weights = dict.fromkeys(terms_of(text, is_spanish=is_spanish), 1.0)
    asked = set(terms_of(asking, is_spanish=is_spanish))
    if len(asked) >= 2:  # noqa: PLR2004 - "What now?" says nothing without the sentence before it
        weights = {term: 1.0 if term in asked else aside_weight for term in weights}
    return weights
