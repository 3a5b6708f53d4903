"""Questions that the documents answer, made from their headings, for the first screen that a user sees."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import PurePosixPath
from typing import Final

import attrs

from brunix_twisted.embedded.assistant import Assistant
from brunix_twisted.embedded.chunks import sentences
from brunix_twisted.embedded.history import SessionHistory
from brunix_twisted.embedded.passages import Passage
from brunix_twisted.embedded.retrieval import Retriever

MAX_SAMPLES: Final = 3
_MAX_QUESTION_CHARACTERS: Final = 80

# Limits on the work for a large folder: the documents that are read, the passages of each, and the searches.
_MAX_DOCUMENTS: Final = 200
_MAX_PASSAGES: Final = 40
_MAX_SEARCHES: Final = 60

_FIRST: Final = ("readme", "index", "overview", "introduction", "faq", "getting started", "quickstart")
_LAST: Final = ("changelog", "changes", "history", "news", "license", "licence", "copying", "authors")


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Verbs that begin a heading about how to do something.
_VERBS: Final = _words("""
    add apply approve archive ask assign authenticate automate back book build buy call cancel change check choose
    clean close collect compile compose configure connect contact convert cook copy create customize debug define delete
    deploy develop disable download edit enable export extend file find fix format generate get grow handle import
    improve install integrate keep launch learn limit load log maintain make manage measure merge migrate monitor move
    open order organize pair pay plan plant prepare print publish query read rebuild receive recover register remove
    rename renew repair replace report request reset resize restart restore return review rotate run save scale schedule
    search secure select send set share ship sign start stop store submit switch sync tag take test track transfer
    translate troubleshoot tune turn uninstall update upgrade upload use validate verify view write
""")
_GERUNDS: Final = {
    form: verb
    for verb in sorted(_VERBS)
    for form in (f"{verb}ing", f"{verb.removesuffix('e')}ing", f"{verb}{verb[-1]}ing")
}
# "Build the server" is an order and "Build server" is a thing; these verbs are no nouns.
_ONLY_VERBS: Final = _words("""
    add authenticate cancel choose configure connect create customize debug delete deploy disable enable generate
    install integrate migrate prepare publish remove rename replace rotate send submit sync troubleshoot uninstall
    update upgrade verify write
""")
_COMPOUNDS: Final = _words("""
    checklist command commands errors flags guide guidelines history instructions log notes options policy process
    requirements script scripts settings steps template
""")
_OBJECT: Final = re.compile(
    r"(?:a|all|an|and|another|from|in|into|it|my|off|on|one|our|out|the|to|up|with|your)\b", re.IGNORECASE
)

# Headings that only say something together with the title of their document.
_GENERIC_HOW_TO: Final = {"installation": "install", "setup": "set up", "configuration": "configure", "usage": "use"}
_GENERIC: Final = _words("""
    about abstract appendix background changelog conclusion contents description details example examples faq features
    general history index information introduction licence license limits links next notes options other overview
    preface reference references requirements resources summary todo
""")

_NUMBERING: Final = re.compile(r"^(?:\d+(?:\.\d+)*[.):]?|[-–—*§•]|step \d+[.:]?)\s+", re.IGNORECASE)
_PREPOSITION: Final = re.compile(r"(?:after|as|at|before|by|for|from|in|on|under|when|with|without)\b", re.IGNORECASE)
_TWO_TASKS: Final = re.compile(r"\b(?:and|or) \w+ing\b", re.IGNORECASE)
_QUESTION_FORM: Final = re.compile(
    r"(?:¿|how|what|when|where|which|who|why|can|do|does|is|are|should)\b", re.IGNORECASE
)
# "Descaling the machine": of a verb that is not in the list, the basic form is unknown.
_ACTIVITY: Final = re.compile(r"\w{2,}ing (?:a|an|the|your)\b", re.IGNORECASE)
_HOW_TO: Final = re.compile(r"how to\s+", re.IGNORECASE)
_DEFINITION: Final = re.compile(
    r"((?:(?:The|A|An)\s)?[\w`][\w`./+-]*(?:\s[\w`./+-]+){0,3}?)\s(is|are)\s(?:a|an|the|one|two)\b"
)
_NO_SUBJECT: Final = re.compile(
    r"(?:this|that|these|those|it|they|there|here|each|every|one|if|when|you|we|all|some)\b", re.IGNORECASE
)
_WORD: Final = re.compile(r"[^\W\d_]+")
_IN_SENTENCE: Final = re.compile(r"(?<=[a-z,] )([^\W\d_]+)")
_ARTICLES: Final = ("A", "An", "The")
_YOUR: Final = re.compile(r"\byour\b", re.IGNORECASE)
_ENGLISH: Final = _words("a an and are as at be by for from if in is it not of on or that the this to with you")
_MIN_ENGLISH_SHARE: Final = 0.12


@attrs.frozen
class _Candidate:
    """A question, the document that should answer it, and how good it is: 0 is best."""

    question: str
    source: str
    rank: int


SHIPPED: Final = (
    "How do I keep the context of a conversation?",
    "How long does a question wait for a worker?",
    "What happens to a client that reads slowly?",
)
"""The questions for this project's documentation."""


def sample_questions(passages: Sequence[Passage], retriever: Retriever) -> tuple[str, ...]:
    """Return up to three questions that the documents answer, from different documents if possible."""
    assistant = Assistant(retriever, SessionHistory())

    def is_found(candidate: _Candidate) -> bool:
        quoted = assistant.reply(candidate.question, "").answer.passages
        return bool(quoted) and quoted[0].source == candidate.source

    return _select(_candidates(passages), is_found)


def _select(candidates: Iterable[_Candidate], is_found: Callable[[_Candidate], bool]) -> tuple[str, ...]:
    """Select the best questions that are found; a second one of a document only after one of each other."""
    by_source: dict[str, int] = {}
    turns = []
    # A stable sort: among equals, documents and headings keep their order.
    for candidate in sorted(candidates, key=lambda candidate: candidate.rank):
        turn = by_source[candidate.source] = by_source.get(candidate.source, -1) + 1
        turns.append((turn, candidate))
    selected: dict[str, None] = {}
    for _, candidate in sorted(turns, key=lambda each: each[0])[:_MAX_SEARCHES]:
        if len(selected) < MAX_SAMPLES and is_found(candidate):
            selected[candidate.question] = None
    return tuple(selected)


def _candidates(passages: Sequence[Passage]) -> Iterator[_Candidate]:
    documents = [(source, list(group)) for source, group in groupby(passages, key=lambda passage: passage.source)]
    documents.sort(key=lambda document: _place(document[0]))
    for source, own in documents[:_MAX_DOCUMENTS]:
        in_sentence = _Casing(passage.body for passage in own[:_MAX_PASSAGES])
        for passage in own[:_MAX_PASSAGES]:
            rank, question = _question(passage, in_sentence)
            if 0 < len(question) <= _MAX_QUESTION_CHARACTERS:
                yield _Candidate(question, source, rank)


def _place(source: str) -> int:
    """Order documents: introductions first, changelogs and licences last."""
    stem = re.sub(r"[-_ ]+", " ", PurePosixPath(source).stem.lower())
    return -1 if stem in _FIRST else 1 if stem in _LAST else 0


class _Casing:
    """Write words as in a sentence: a heading's "Checkpoints" in lower case, and "Git" as it is."""

    def __init__(self, texts: Iterable[str]) -> None:
        """Learn from texts which words they write in lower case in the middle of a sentence, and which they do not."""
        self._score: Counter[str] = Counter()
        for text in texts:
            for found in _IN_SENTENCE.finditer(text):
                self._score[found[1].lower()] += 1 if found[1].islower() else -1

    def __call__(self, text: str) -> str:
        """Return the text with its words so written."""
        return _WORD.sub(lambda word: self._word(word[0]), text)

    def _word(self, word: str) -> str:
        is_common = word.istitle() and self._score[word.lower()] > 0
        return word.lower() if is_common or word in _ARTICLES else word


def _question(passage: Passage, in_sentence: _Casing) -> tuple[int, str]:
    """Ask for what a passage says. Return the rank of the question's form, and the question; empty for no question."""
    heading = _NUMBERING.sub("", passage.headings[-1] if passage.headings else passage.title).rstrip(" .:")
    if heading.endswith("?") or not _WORD.search(heading):
        return 0, heading if _QUESTION_FORM.match(heading) else ""
    if not _is_english(passage.body):
        return 4, heading
    return _english_question(heading, passage, in_sentence)


def _english_question(heading: str, passage: Passage, in_sentence: _Casing) -> tuple[int, str]:
    if task := _task(heading, in_sentence(_NUMBERING.sub("", passage.title)), in_sentence):
        return 1, f"How do I {task}?"
    if _ACTIVITY.match(heading):
        return 2, f"How does {_mine(heading[0].lower() + in_sentence(heading[1:]))} work?"
    if subject := _definition(passage, in_sentence):
        return 2, f"What {subject}?"
    is_generic = heading.lower() in _GENERIC or heading.lower() in _GENERIC_HOW_TO
    if is_generic or _QUESTION_FORM.match(heading) or _PREPOSITION.match(heading):
        return 0, ""
    return 3, f"What should I know about {_mine(in_sentence(heading))}?"


def _task(heading: str, title: str, in_sentence: _Casing) -> str:
    """Return what a heading explains how to do, as a verb and its object; empty if it explains something else."""
    if found := _HOW_TO.match(heading):
        rest = heading[found.end() :]
        return _mine(rest[:1].lower() + in_sentence(rest[1:]))
    if verb := _GENERIC_HOW_TO.get(heading.lower()):
        return f"{verb} {title}" if title.lower() != heading.lower() else ""
    first, _, rest = heading.partition(" ")
    if not rest or _TWO_TASKS.search(rest):
        return ""
    if verb := _GERUNDS.get(first.lower(), ""):
        return _mine(f"{verb} {in_sentence(rest)}")
    is_order = first.lower() in _VERBS and (_OBJECT.match(rest) or first.lower() in _ONLY_VERBS)
    # "Install options" are options for installing.
    is_order = is_order and rest.rpartition(" ")[2].lower() not in _COMPOUNDS
    return _mine(f"{first.lower()} {in_sentence(rest)}") if is_order else ""


def _definition(passage: Passage, in_sentence: _Casing) -> str:
    """Return "is" and a subject, if the passage begins by saying what the subject of its heading is."""
    first = next((block for block in passage.blocks if block.kind == "prose"), None)
    found = _DEFINITION.match(next(iter(sentences(first.text)), "")) if first else None
    if not found or _NO_SUBJECT.match(found[1]):
        return ""
    about = set(map(str.lower, _WORD.findall(f"{passage.title} {' '.join(passage.headings[-1:])}")))
    if about.isdisjoint(word.lower() for word in _WORD.findall(found[1])):
        return ""
    return f"{found[2]} {in_sentence(found[1].replace('`', ''))}"


def _mine(text: str) -> str:
    return _YOUR.sub("my", text)


def _is_english(text: str) -> bool:
    words = [word.lower() for word in _WORD.findall(text)]
    return bool(words) and sum(word in _ENGLISH for word in words) >= _MIN_ENGLISH_SHARE * len(words)
