import pytest

from brunix_twisted.embedded.assistant import Assistant
from brunix_twisted.embedded.followups import (
    CONTEXT_WEIGHT,
    MAX_CONTEXT_TERMS,
    context_of,
    context_weights,
    last_answered,
    needs_context,
)
from brunix_twisted.embedded.history import SessionHistory, Turn
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
def test_follow_ups(question: str) -> None:
    """A follow-up needs the context of the previous turn."""
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
def test_self_contained_questions(question: str) -> None:
    """A self-contained question does not need context."""
    assert not needs_context(question)


def test_context_weight() -> None:
    """Context terms weigh less than the question's, also all together."""
    assert context_weights(1, ("cron",)) == {"cron": CONTEXT_WEIGHT}
    many = context_weights(1, [f"word{number}" for number in range(5)])
    assert sum(many.values()) == pytest.approx(CONTEXT_WEIGHT)


def test_context_limit() -> None:
    """The number of context terms is limited."""
    assert len(context_weights(0, tuple(f"word{number}" for number in range(50)))) == MAX_CONTEXT_TERMS


def test_unanswered_turns_are_skipped() -> None:
    """A turn that was not answered is not used as context."""
    turns = (Turn(("cron",), answered=True), Turn(("quixote",), answered=False))
    assert context_of(last_answered(turns)) == ("cron",)
    assert context_of(last_answered(())) == ()


class Conversation:
    """One session with the assistant."""

    def __init__(self, retriever: Retriever) -> None:
        self.assistant = Assistant(retriever, SessionHistory())

    def ask(self, question: str, selected: str = "") -> str:
        """Return the first quoted heading, or an empty string."""
        reply = self.assistant.reply(question, "s", selected)
        self.assistant.remember("s", reply.turn)
        return reply.answer.passages[0].headings[-1] if reply.answer.answered else ""


@pytest.fixture
def conversation(retriever: Retriever) -> Conversation:
    return Conversation(retriever)


def test_follow_up_is_answered_in_context(conversation: Conversation) -> None:
    """A follow-up is answered from the subject of the question before it."""
    assert conversation.ask("How do I switch on the write-ahead log of SQLite?") == "Write-ahead log"
    assert conversation.ask("and does it work over a network?") == "Write-ahead log"


def test_follow_up_about_another_subject(conversation: Conversation) -> None:
    """A follow-up that names another subject is answered from that subject."""
    conversation.ask("How do I switch on the write-ahead log of SQLite?")
    assert conversation.ask("and what does git stash do?") == "Stashing"
    assert conversation.ask("and anacron?") == "Missed runs"


def test_several_follow_ups(conversation: Conversation) -> None:
    """Several follow-ups keep the subject of the first question."""
    assert conversation.ask("How does git stash work?") == "Stashing"
    assert conversation.ask("and how do I bring it back?") == "Stashing"
    assert conversation.ask("and untracked files?") == "Stashing"


def test_new_question(conversation: Conversation) -> None:
    """A new question is not answered from the previous subject."""
    conversation.ask("How do I switch on the write-ahead log of SQLite?")
    assert conversation.ask("How do I unpack an archive?") == "Unpacking"
    assert conversation.ask("Which redirect keeps the method?") == "Redirects"


def test_no_answer_from_context_alone(conversation: Conversation) -> None:
    """A question with unknown terms is not answered from its context."""
    conversation.ask("How do I switch on the write-ahead log of SQLite?")
    assert conversation.ask("What is the capital of France?") == ""
    assert conversation.ask("And who wrote Don Quixote?") == ""
    assert conversation.ask("and over a network?") == "Write-ahead log"


def test_selection_is_the_context(conversation: Conversation) -> None:
    """The question "What does this do?" refers to the selection in the editor, not to the previous turn."""
    conversation.ask("How do I switch on the write-ahead log of SQLite?")
    assert (
        conversation.ask("What does this do?", "git bisect start  # find it")
        == "Finding the commit that broke something"
    )


def test_selection_and_self_contained_question(conversation: Conversation) -> None:
    """A selection does not change the answer to a self-contained question."""
    assert conversation.ask("How do I unpack a tar archive?", "git bisect start") == "Unpacking"
