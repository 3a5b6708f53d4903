"""Questions as people ask them, about a small folder."""

from collections.abc import Callable, Iterator

import pytest

from brunix_twisted.embedded.answers import NO_ANSWER, Answer
from brunix_twisted.embedded.assistant import Assistant
from brunix_twisted.embedded.documents import text_document
from brunix_twisted.embedded.history import SessionHistory
from brunix_twisted.embedded.passages import passages_of_all
from brunix_twisted.embedded.retrieval import Retriever
from brunix_twisted.embedded.spelling import Spelling

LETTERS = str.maketrans("0123456789", "ghijklmnop")

PAGES = {
    "index.md": """\
# Kestrel

## Who uses it

Kestrel is used by museums. Archives use Kestrel too.

## Prices

| plan | price |
|---|---|
| Basic | 5 euros |
| Curator | 30 euros |
""",
    "about.md": "# About Kestrel\n\nKestrel is a catalogue of exhibits. It runs in a browser.\n",
    "sdk.md": """\
# SDK for Python

## Installation

The package is on PyPI. Use a virtual environment.

It needs Python 3.11 or newer.

```sh
pip install kestrel
```

## Timeouts

The client waits 20 seconds. Change that with `timeout=60`.
""",
    "install.md": """\
# Installing the server

The server runs on Linux and Windows.

## Linux

```sh
apt install kestrel-server
```

## Windows

```sh
winget install kestrel-server
```
""",
    "accounts.md": """\
# Accounts

## Deleting an account

An account is deleted under *Profile*. Its loans remain.

## Configuration

The configuration is in `kestrel.toml`.

## Login

A login expires after an hour. Passwords have twelve characters.

## E12 Damaged image

The scanner has stored a broken file. Scan the exhibit again.
""",
    "changes.md": """\
# Changes

## 2.9.0 (2026-01-10)

Adds loans.

## 2.10.0 (2026-05-02)

Adds scanners.

## 1.0.0 (2024-03-01)

The first one.
""",
    "notes.txt": """\
Notes of the opening

Meeting on 3 February 2026. We chose the paint.

Meeting on 12 March 2026. We chose the lamps.

Meeting on 9 January 2026. We chose the floor.
""",
    **{f"other{number}.md": f"# Room {number}\n\nRoom {number} shows stones and birds.\n" for number in range(12)},
}


@pytest.fixture(scope="module")
def retriever() -> Iterator[Retriever]:
    retriever = Retriever(passages_of_all(text_document(source, text) for source, text in PAGES.items()))
    yield retriever
    retriever.close()


@pytest.fixture
def ask(retriever: Retriever) -> Callable[..., Answer]:
    """Return a function that asks questions in one session, and returns the last answer."""
    assistant = Assistant(retriever, SessionHistory(), ("How do I scan an exhibit?", "What is a loan?"))

    def asked(*questions: str) -> Answer:
        replies = []
        for question in questions:
            replies.append(assistant.reply(question, "s"))
            assistant.remember("s", replies[-1].turn)
        return replies[-1].answer

    return asked


Ask = Callable[..., Answer]


@pytest.mark.parametrize("question", ["What is Kestrel?", "what's kestrel", "Explain Kestrel", "¿Qué es Kestrel?"])
def test_definition(ask: Ask, question: str) -> None:
    """A question for a definition is answered with the sentence that defines, not with one that mentions."""
    assert ask(question).quotations[0].startswith("Kestrel is a catalogue of exhibits.")


def test_definition_by_heading(ask: Ask) -> None:
    """A code or term that is a heading is explained by its section."""
    assert "stored a broken file" in ask("What does E12 mean?").text


def test_definition_by_row(ask: Ask) -> None:
    """A term in the first cell of a table is explained by its row."""
    assert "30 euros" in ask("What is the Curator plan?").quotations[0]


def answer_from(pages: dict[str, str], question: str) -> str:
    """Return the answer to a question from a few pages."""
    retriever = Retriever(passages_of_all(text_document(source, text) for source, text in pages.items()))
    try:
        return Assistant(retriever, SessionHistory()).reply(question, "").answer.text
    finally:
        retriever.close()


def test_definition_among_many_mentions() -> None:
    """A definition is found although most passages contain the subject more often."""
    pages = {f"{number}.md": f"# Depot {number}\n\nDepot, depot, depot {number}.\n" for number in range(80)}
    pages["about.md"] = "# Introduction\n\nIn short, you should know this first. The depot is a store for exhibits.\n"
    assert "store for exhibits" in answer_from(pages, "What is the depot?")


def test_changelog() -> None:
    """A changelog answers what changed, and not how to do something."""
    pages = {
        "CHANGELOG.md": "# Changelog\n\n## 1.2.0\n\nScanners can be added to the catalogue in one step.\n",
        "scanners.md": "# Scanners\n\n## Setup\n\nHold the button until the scanner is in the catalogue.\n",
        "rooms.md": "# Rooms\n\nThe rooms are dark. A room can be added.\n",
    }
    assert answer_from(pages, "How do I add a scanner to the catalogue?").startswith("Hold the button")
    assert answer_from(pages, "Which version added scanners to the catalogue?").startswith("Scanners can be added")


def test_addresses_of_links() -> None:
    """The words in the address of a link say nothing about a passage."""
    pages = {
        "links.md": "# Links\n\nSee [this page](https://video.example/watch/scanner-light) and [that](https://a.example).\n",
        "scanners.md": "# Machines\n\nIf the light of the scanner is red, it is too warm.\n",
    }
    assert "links.md" not in answer_from(pages, "Why is the scanner light on in the video?")
    assert answer_from(pages, "Which example can I watch?").startswith(NO_ANSWER)


def test_sentences_that_repeat_the_heading() -> None:
    """From a long section, the sentences that only repeat its heading are not quoted."""
    filler = " ".join(f"Sentence {number} is about something else." for number in range(20))
    lending = f"Lending an exhibit takes a week. {filler} The weight is at most five kilograms. {filler}"
    text = answer_from(
        {"loans.md": f"# Loans\n\n## Lending an exhibit\n\n{lending}\n"}, "What weight may a lent exhibit have?"
    )
    assert text.startswith("The weight is at most five kilograms.")
    assert "takes a week" not in text


def test_first_code_of_the_section(ask: Ask) -> None:
    """How to do something includes the code of the section, although sentences are between."""
    assert "```sh\npip install kestrel\n```" in ask("How do I install the SDK for Python?").text


@pytest.mark.parametrize(
    ("question", "phrase"),
    [
        ("How do I delte an acount?", "deleted under"),
        ("deleting an accuont", "deleted under"),
        ("wich plan costs 30 eruos", "Curator"),
        ("Where is the configuraton?", "kestrel.toml"),
        ("where is the config", "kestrel.toml"),
        ("where is the conf", "kestrel.toml"),
        ("hwo long is the logn valid", "expires after an hour"),
    ],
)
def test_typing_errors(ask: Ask, question: str, phrase: str) -> None:
    """Typing errors and abbreviations are tolerated."""
    assert phrase in ask(question).text


@pytest.mark.parametrize(
    ("question", "phrase"),
    [
        ("How do I get rid of my account?", "deleted under"),
        ("How do I erase a profile?", "deleted under"),
        ("How do I log in, and when does it expire?", "expires after an hour"),
        ("What does Basic cost?", "5 euros"),
        ("Where are the settings?", "kestrel.toml"),
    ],
)
def test_synonyms(ask: Ask, question: str, phrase: str) -> None:
    """Other words for the same are found."""
    assert phrase in ask(question).text


@pytest.mark.parametrize(
    ("question", "phrase"),
    [
        ("¿Cómo borro una cuenta?", "deleted under"),
        ("¿Dónde está la configuración?", "kestrel.toml"),
        ("¿Cuántos caracteres tiene una contraseña?", "twelve characters"),
        ("como instalo el servidor en windows", "winget install"),
    ],
)
def test_spanish(ask: Ask, question: str, phrase: str) -> None:
    """Questions in Spanish find English documents."""
    assert phrase in ask(question).text


@pytest.mark.parametrize(
    ("question", "phrase"),
    [
        ("What is the newest version?", "Adds scanners"),
        ("Which version is the oldest?", "The first one"),
        ("What was decided at the last meeting?", "the lamps"),
        ("When was the first meeting?", "the floor"),
    ],
)
def test_newest_and_oldest(ask: Ask, question: str, phrase: str) -> None:
    """Versions and dates are compared, whatever their order in the document."""
    assert phrase in ask(question).quotations[0]


def test_follow_up_on_the_answer(ask: Ask) -> None:
    """A follow-up may be about something that only the last answer mentions."""
    assert "timeout=60" in ask("How long does the client wait?", "Can I change that?").text
    assert "Its loans remain" in ask("How do I delete an account?", "What happens to its loans?").text


def test_follow_up_with_a_fragment(ask: Ask) -> None:
    """A fragment asks the same about something else, and gets its code."""
    assert "```sh\napt install kestrel-server\n```" in ask("How do I install the server on Linux?").text
    follow_up = ask("And on Windows?").text
    assert "```sh\nwinget install kestrel-server\n```" in follow_up
    assert "apt" not in follow_up


def test_code_far_from_the_sentence() -> None:
    """How to do something includes the first code of a long section, although it is not next to the sentence."""
    filler = "\n\n".join(f"Paragraph {number} is about something else, and it is not short." for number in range(12))
    page = f"# Machines\n\n## Setup\n\nA scanner is connected once.\n\n{filler}\n\n```sh\nconnect now\n```\n"
    assert "connect now" in answer_from({"machines.md": page}, "How do I connect a scanner?")


def test_follow_up_stays_in_the_document() -> None:
    """Of passages that match a follow-up equally, the one in the document of the last answer ranks first."""
    pages = {
        "a-lamps.md": "## Time\n\nIt takes two hours.\n",
        "scanners.md": "## Repair\n\nA repair is free.\n\n## Time\n\nIt takes nine days.\n",
        "z-rooms.md": "## Time\n\nIt takes one minute.\n",
    }
    retriever = Retriever(passages_of_all(text_document(source, text) for source, text in pages.items()))
    assistant = Assistant(retriever, SessionHistory())
    assistant.remember("s", assistant.reply("Is a repair free?", "s").turn)
    hits = assistant.reply("And the time?", "s").hits
    assert next(hit.passage.source for hit in hits if hit.passage.headings == ("Time",)) == "scanners.md"
    retriever.close()


def test_example_of_the_last_answer(ask: Ask) -> None:
    """A request for an example shows the code of the section of the last answer."""
    ask("Which Python does the SDK need?")
    assert "```sh\npip install kestrel\n```" in ask("Show me an example").text


def test_follow_up_with_another_question(ask: Ask) -> None:
    """A follow-up may ask "What does that …?" without asking for a definition."""
    assert "30 euros" in ask("Which plan is called Curator?", "What does that cost?").text


def test_follow_up_about_an_unknown_name(ask: Ask) -> None:
    """A follow-up about a name that no document contains is not answered from its context."""
    assert not ask("How do I install the server on Linux?", "And on Plan9 from Bell?").answered


def test_pasted_text_weighs_little(ask: Ask) -> None:
    """A pasted file full of other words does not hide the question next to it."""
    code = "\n".join(f"room_{number} = birds[{number}] + stones[{number}]  # shows room" for number in range(40))
    assert "twelve characters" in ask(f"```python\n{code}\n```\nHow many characters has a password?").text
    assert "twelve characters" in ask(f"How many characters has a password?\n\n{code}").text


def test_pasted_error(ask: Ask) -> None:
    """A question about a pasted error is answered from the words of the error."""
    log = "2026-01-01T10:00:00Z INFO room 7\n2026-01-01T10:00:01Z ERROR E12 damaged image\n"
    assert "Scan the exhibit again" in ask(f"What does this mean?\n\n{log}").text


def test_names_in_pasted_code(ask: Ask) -> None:
    """The names in pasted code, which no document contains, do not make the question unanswerable."""
    code = "db_walrus = connect()\ndef remove_pelican(pelican_id):\n    session.execute(query, pelican_id)\n"
    given = ask(f"{code}\nWhat is the password in remove_pelican with pelican_id and db_walrus?")
    assert "twelve characters" in given.text


@pytest.mark.parametrize("question", ["What is a picture?", "What is a cost?", "What is a log?", "What is a signin?"])
def test_definition_of_something_similar(ask: Ask, question: str) -> None:
    """A question for a definition is not answered with something that has a similar name or meaning."""
    assert not ask(question).answered


@pytest.mark.parametrize(
    "question",
    [
        "Is there an SDK for Haskell?",
        "How do I install the SDK for Java?",
        "Can I pay with Bitcoin?",
        "How do I bake bread?",
        "Who painted Guernica?",
    ],
)
def test_refusals(ask: Ask, question: str) -> None:
    """A question about something that no document contains is not answered."""
    assert not ask(question).answered


def test_refusal_names_the_nearest_sections(ask: Ask) -> None:
    """A refusal names sections that are near to the question."""
    text = ask("Is there an SDK for Haskell?").text
    assert text.startswith(f"{NO_ANSWER} The nearest sections are:\n\n- SDK for Python")
    assert "(`sdk.md`)" in text
    assert ask("xyzzy").text == NO_ANSWER


def test_greeting(ask: Ask) -> None:
    """A greeting gets one sentence about the engine, and questions that it answers."""
    given = ask("hi")
    assert given.text == (
        "I answer questions by quoting from 19 documents, and name the source of each quotation. You can ask, for "
        "example:\n\n- How do I scan an exhibit?\n- What is a loan?"
    )
    assert given.is_small_talk
    assert not given.answered
    assert ask("thanks!").text.startswith("You are welcome. I answer")


def test_greeting_keeps_the_context(ask: Ask) -> None:
    """Thanks between a question and its follow-up do not change what the follow-up is about."""
    assert "timeout=60" in ask("How long does the client wait?", "thanks", "Can I change that?").text


@pytest.mark.parametrize("question", ["¿Cómo puedo instalar ", "How do I install "], ids=["Spanish", "English"])
def test_few_words_are_searched(ask: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch, question: str) -> None:
    """A question of unknown words would take minutes: each is compared with all words of the documents."""
    searched: list[str] = []
    for name in ("similar", "beginning_with"):
        original = getattr(Spelling, name)

        def search(spelling: Spelling, word: str, original: Callable[..., list[str]] = original) -> list[str]:
            searched.append(word)
            return original(spelling, word)

        monkeypatch.setattr(Spelling, name, search)
    ask(question + " ".join(f"qu{number:x}zwort".translate(LETTERS) for number in range(300)))
    assert len(searched) <= 48
