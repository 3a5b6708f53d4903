"""How a question is read: what is asked, what is pasted, and what kind of answer it wants."""

import pytest

from brunix_twisted.embedded.pasted import errors_in, separate
from brunix_twisted.embedded.question import read
from brunix_twisted.embedded.recency import date_in, version_in
from brunix_twisted.embedded.small_talk import is_small_talk, is_thanks

PYTHON = """\
import os

class Report:
    def __init__(self, name: str) -> None:
        self.name = name

    def path(self) -> str:
        return os.path.join("reports", self.name)
"""
JAVASCRIPT = 'const app = express();\napp.get("/", (req, res) => {\n  res.send("hello");\n});\napp.listen(3000);\n'
SQL = "SELECT id, name\nFROM users\nWHERE created > now() - interval '1 day'\nORDER BY name;\n"
LOG = "2026-03-01T12:00:00Z INFO started in 20 ms\n2026-03-01T12:00:04Z ERROR disk is full\n"
SYSLOG = "Mar  1 12:00:00 host app[7]: started\nMar  1 12:00:04 host app[7]: cannot write\n"
TRACEBACK = (
    'Traceback (most recent call last):\n  File "a.py", line 1, in <module>\n    main()\nValueError: no such depot\n'
)
YAML = "services:\n  web:\n    image: nginx\n    ports:\n      - 80:80\n"
CSV = "time,power\n2026-01-01,312\n2026-01-02,308\n"
DIFF = "--- a/x.py\n+++ b/x.py\n@@ -1,2 +1,2 @@\n-a = 1\n+a = 2\n"
SHELL = "$ ls -l /var/log\n$ rm -rf /tmp/cache\n"
PASTED = [PYTHON, JAVASCRIPT, SQL, LOG, SYSLOG, TRACEBACK, YAML, CSV, DIFF, SHELL]
QUESTION = "Why is the cache of the printer empty?"


@pytest.mark.parametrize("pasted", PASTED)
def test_pasted_lines_are_separated(pasted: str) -> None:
    """Code, logs, tables and commands before or after a question are not part of it."""
    assert separate(f"{QUESTION}\n\n{pasted}").asked == QUESTION
    assert separate(f"{pasted}\n{QUESTION}").asked == QUESTION


@pytest.mark.parametrize("pasted", [*PASTED, "Some plain text of a note.\n"])
@pytest.mark.parametrize(
    "form",
    [
        "```\n{}```\n",
        "```python src/a.py\n{}```\n",
        "~~~\n{}~~~\n",
        "<file path='a.py'>\n{}</file>\n",
        "<context>\n<file>\n{}</file>\n</context>\n",
        "<environment_details>\n{}</environment_details>\n",
    ],
)
def test_fences_and_tags_of_editors(pasted: str, form: str) -> None:
    """What editors enclose in fences and tags is not part of the question."""
    separated = separate(f"{form.format(pasted)}\n{QUESTION}")
    assert separated.asked == QUESTION
    assert separated.pasted


def test_tags_around_the_question() -> None:
    """A tag around the question itself is removed, and the question is kept."""
    assert separate(f"<task>\n{QUESTION}\n</task>").asked == QUESTION
    assert separate(f"<file>\nx = 1\n</file>\n<question>{QUESTION}</question>").asked == QUESTION


@pytest.mark.parametrize(
    "text",
    [
        QUESTION,
        "I moved the printer yesterday.\nSince then, it blinks.\nWhat does that mean?",
        "Hello,\n\nour scanner beeps twice, and then it stops.\nWhat can I do?\n\nThanks,\nAna",
        "Let me explain:\n- the light is red\n- the cable is connected\n\nIs it broken?",
        "import my contacts\nfor example from a file\nif that is possible",
        "Which of these is faster?\n1. the cable\n2. the radio",
        "What is x = 1?",
    ],
)
def test_prose_is_asked(text: str) -> None:
    """Prose of several lines is the question."""
    assert separate(text).asked == text
    assert separate(text).pasted == ""


def test_only_pasted() -> None:
    """A message that only consists of pasted lines is asked as a whole."""
    assert separate(TRACEBACK).asked == TRACEBACK


def test_one_pasted_line() -> None:
    """A single line is pasted if its beginning says so."""
    assert separate("What does this mean?\nValueError: no such depot").pasted == "ValueError: no such depot"


def test_pasted_lines_among_others() -> None:
    """Lines of a pasted block that could be prose are pasted too."""
    block = "Starting the server\n12:00:01 connected\nStopping it\n12:00:02 closed\nBye"
    assert separate(f"{QUESTION}\n\n{block}").pasted == block


def test_lines_that_report_an_error() -> None:
    """Of a log or traceback, the lines that report an error say most."""
    assert errors_in(LOG) == "2026-03-01T12:00:04Z ERROR disk is full"
    assert errors_in(TRACEBACK) == "ValueError: no such depot"
    assert errors_in("GET /a 200 in 500 ms\nGET /b 503 in 3 ms") == "GET /b 503 in 3 ms"
    assert not errors_in(CSV)


@pytest.mark.parametrize(
    "text",
    [
        "hi",
        "Hello!",
        "hey there",
        "Good morning",
        "thanks, that helped a lot",
        "Thank you so much!",
        "ok, great",
        "bye",
        "who are you?",
        "What can you do?",
        "What can you help me with? Answer in a few sentences.",
        "Hi, what can you do?",
        "help",
        "how are you?",
        "Hola",
        "¡Buenos días!",
        "gracias",
        "¿Quién eres?",
    ],
)
def test_small_talk(text: str) -> None:
    """Greetings, thanks and questions about the engine are small talk."""
    assert is_small_talk(text)


@pytest.mark.parametrize(
    "text",
    [
        "Hi, how do I install it?",
        "help with the printer",
        "Is it good?",
        "thanks, and how do I remove it?",
        "What can you do with a token?",
        "",
        "why?",
        "Answer in a few sentences.",
        "How do I reply in a thread?",
        "How do I test it?",
    ],
)
def test_questions_are_no_small_talk(text: str) -> None:
    """A question is no small talk, even if it begins with a greeting."""
    assert not is_small_talk(text)


def test_thanks() -> None:
    """Thanks are recognized among small talk."""
    assert is_thanks("Thanks a lot!")
    assert not is_thanks("hello")


@pytest.mark.parametrize(
    ("text", "subject"),
    [
        ("What is Loom?", ("loom",)),
        ("what's a write-ahead log", ("write", "ahead", "log")),
        ("What does SEV2 mean?", ("sev2",)),
        ("Explain the quiet hours", ("quiet", "hours")),
        ("Can you tell me about households?", ("households",)),
        ("¿Qué es un módulo?", ("modulo",)),
        ("How do I install Loom?", ()),
        ("What is the latest version of Loom?", ()),
    ],
)
def test_definitions(text: str, subject: tuple[str, ...]) -> None:
    """A question for a definition names what is to be defined."""
    assert read(text).intent.subject == subject


@pytest.mark.parametrize(
    ("text", "newest"),
    [
        ("What is the newest version?", 1),
        ("latest release notes", 1),
        ("What's new?", 1),
        ("When was the last incident?", 1),
        ("Which is the oldest release?", -1),
        ("What happens on the last day?", 0),
        ("What do I do first?", 0),
        ("How do I create a new account?", 0),
    ],
)
def test_newest_and_oldest(text: str, newest: int) -> None:
    """A question for the newest or oldest of several is recognized."""
    assert read(text).intent.newest == newest


def test_phrases_are_one_term() -> None:
    """A phrase such as "get rid of" is searched for as the word that it means."""
    assert set(read("How do I get rid of it?").terms) == {"delete"}
    assert "rid" in read("Is it rid?").terms


def test_sentences_that_ask_weigh_more() -> None:
    """The terms of a sentence that asks weigh more than those of the story before it."""
    terms = read("I bought a lamp in Paris. How do I replace the bulb?").terms
    assert terms["bulb"] == 1.0
    assert terms["paris"] == 0.5


def test_spanish_stop_words() -> None:
    """The words that Spanish questions consist of are not searched for."""
    assert set(read("¿Dónde están los secretos?").terms) == {"secretos"}


@pytest.mark.parametrize(
    ("text", "date", "version"),
    [
        ("2.10.1 (2026-03-01)", (2026, 3, 1), (2, 10, 1)),
        ("Version 3.18, 14 October 2026", (2026, 10, 14), (3, 18)),
        ("March 2026", (2026, 3, 0), ()),
        ("January 5th, 2026", (2026, 1, 5), ()),
        ("v1.0", (), (1, 0)),
        ("5 apples", (), ()),
    ],
)
def test_dates_and_versions(text: str, date: tuple[int, ...], version: tuple[int, ...]) -> None:
    """Dates and versions are read so that they can be compared."""
    assert date_in(text) == date
    assert version_in(text) == version


def test_versions_are_compared_as_numbers() -> None:
    """Version 2.10 is newer than 2.9."""
    assert version_in("2.10") > version_in("2.9.9")


@pytest.mark.parametrize("question", ["What is its default?", "What does that cost?", "What do I need?"])
def test_no_definition(question: str) -> None:
    """A question about something that is known wants no definition."""
    assert read(question).intent.subject == ()


@pytest.mark.parametrize("question", ["What is a loan?", "What does loan mean?", "What does a loan do?"])
def test_definition(question: str) -> None:
    """A question for what something is or means wants a definition."""
    assert read(question).intent.subject == ("loan",)


@pytest.mark.parametrize("identifier", ["3fa9c1d2-1111-4222-8333-abcdef123456", "3FA9C1D2111142228333ABCDEF123456"])
def test_ids_are_no_names(identifier: str) -> None:
    """A question with the id of a request would be refused, because no document contains the id."""
    assert read(f"How do I install it? {identifier}").names == read("How do I install it?").names
    assert read(f"How do I install it? {identifier}").terms == read("How do I install it?").terms
