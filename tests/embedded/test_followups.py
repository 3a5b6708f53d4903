import pytest

from brunix_twisted.embedded.assistant import Assistant
from brunix_twisted.embedded.followups import CONTEXT_WEIGHT, MOST_CONTEXT, context_of, needs_context, weigh
from brunix_twisted.embedded.history import Sessions, Turn
from brunix_twisted.embedded.retrieval import Retriever


@pytest.mark.parametrize(
    "question",
    [
        "and how do I turn it off?",
        "And on Debian?",
        "What about xz?",
        "How about a different folder?",
        "How do I undo that?",
        "Why?",
        "on a network filesystem?",
        "the default?",
        "tell me more",
        "Can they be renamed?",
    ],
)
def test_follow_ups_are_seen(question: str) -> None:
    """A second question would be answered as if nothing had been said before."""
    assert needs_context(question)


@pytest.mark.parametrize(
    "question",
    [
        "How do I unpack a tar archive?",
        "What is a checkpoint?",
        "Is it possible to compress an archive?",
        "Which signal ends a process that ignores the others?",
        "cron mail",
        "How do I keep an idle connection alive?",
        "Android phones and batteries",
    ],
)
def test_questions_that_stand_alone_are_left_alone(question: str) -> None:
    """A new question would be answered with the subject of the old one."""
    assert not needs_context(question)


def test_a_word_of_the_context_weighs_less() -> None:
    """What was asked before would outvote what is asked now."""
    assert weigh("and the archive?", ("cron", "archive")) == {"archive": 1.0, "cron": CONTEXT_WEIGHT}
    many = weigh("and the archive?", [f"word{number}" for number in range(5)])
    assert sum(many.values()) == pytest.approx(1 + CONTEXT_WEIGHT)


def test_a_context_is_bounded() -> None:
    """A long talk would drag all of its subjects along."""
    assert len(weigh("why?", tuple(f"word{number}" for number in range(50)))) == MOST_CONTEXT


def test_a_turn_that_was_not_answered_is_no_context() -> None:
    """After one question about something else, follow-ups would find nothing any more."""
    turns = (Turn(("cron",), answered=True), Turn(("quixote",), answered=False))
    assert context_of(turns) == ("cron",)
    assert context_of(()) == ()


class Talk:
    """One session with the assistant."""

    def __init__(self, retriever: Retriever) -> None:
        self.assistant = Assistant(retriever, Sessions())

    def ask(self, question: str, selected: str = "") -> str:
        """Give the heading that is quoted first, or nothing."""
        reply = self.assistant.reply(question, "talk", selected)
        self.assistant.remember("talk", reply.turn)
        return reply.answer.passages[0].headings[-1] if reply.answer.answered else ""


@pytest.fixture
def talk(retriever: Retriever) -> Talk:
    return Talk(retriever)


def test_a_follow_up_is_answered_in_its_context(talk: Talk) -> None:
    """Asking on, "And over a network?", would be answered about nothing, or about something else."""
    assert talk.ask("How do I switch on the write-ahead log of SQLite?") == "Write-ahead log"
    assert talk.ask("and does it work over a network?") == "Write-ahead log"


def test_a_follow_up_about_something_else_follows_its_own_words(talk: Talk) -> None:
    """Asking on about a second subject would be answered with the first."""
    talk.ask("How do I switch on the write-ahead log of SQLite?")
    assert talk.ask("and what does git stash do?") == "Stashing"
    assert talk.ask("and anacron?") == "Missed runs"


def test_a_chain_of_follow_ups_keeps_its_subject(talk: Talk) -> None:
    """The third question of a talk would have lost what the talk is about."""
    assert talk.ask("How does git stash work?") == "Stashing"
    assert talk.ask("and how do I bring it back?") == "Stashing"
    assert talk.ask("and untracked files?") == "Stashing"


def test_a_new_question_is_not_answered_with_the_old_subject(talk: Talk) -> None:
    """After talking about one thing, nobody could ask about another."""
    talk.ask("How do I switch on the write-ahead log of SQLite?")
    assert talk.ask("How do I unpack an archive?") == "Unpacking"
    assert talk.ask("Which redirect keeps the method?") == "Redirects"


def test_what_the_documents_do_not_say_stays_unsaid_in_a_talk(talk: Talk) -> None:
    """Any question would be answered with the subject of the one before."""
    talk.ask("How do I switch on the write-ahead log of SQLite?")
    assert talk.ask("What is the capital of France?") == ""
    assert talk.ask("And who wrote Don Quixote?") == ""
    assert talk.ask("and over a network?") == "Write-ahead log"


def test_a_selection_in_the_editor_is_what_a_question_points_at(talk: Talk) -> None:
    """Asking "What does this do?" in the editor would be answered about the turn before."""
    talk.ask("How do I switch on the write-ahead log of SQLite?")
    assert talk.ask("What does this do?", "git bisect start  # find it") == "Finding the commit that broke something"


def test_a_selection_does_not_disturb_a_question_that_stands_alone(talk: Talk) -> None:
    """Whatever happens to be marked in the editor would change every answer."""
    assert talk.ask("How do I unpack a tar archive?", "git bisect start") == "Unpacking"
