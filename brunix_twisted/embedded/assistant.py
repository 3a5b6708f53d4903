"""One question, asked in a session: what the rpcs say, without gRPC."""

from typing import Final

import attrs

from brunix_twisted.embedded.answers import Answer, answer, is_answered
from brunix_twisted.embedded.followups import MOST_CONTEXT, context_of, needs_context, weigh
from brunix_twisted.embedded.history import Sessions, Turn
from brunix_twisted.embedded.quoting import wants_code
from brunix_twisted.embedded.retrieval import Retriever
from brunix_twisted.embedded.tokenizer import telling_words

# A question of this many telling words or fewer that finds nothing alone is tried with its context.
_SHORT: Final = 2


@attrs.frozen
class Reply:
    """An answer, and the turn to remember once it has been read to its end."""

    answer: Answer
    turn: Turn


@attrs.frozen
class Assistant:
    """The documents and the sessions. Any thread may call any method."""

    retriever: Retriever
    sessions: Sessions

    def reply(self, question: str, session_id: str, selected: str = "") -> Reply:
        """Answer a question in its session, and remember nothing yet.

        ``selected`` is text that the asker has marked in an editor: a question that needs a context is about it, and
        not about the turn before.
        """
        context = self._selected_words(selected) or context_of(self.sessions.turns(session_id))
        weights = weigh(question)
        if context and self._may_be_known(question) and (needs_context(question) or self._gains(question, context)):
            weights = weigh(question, context)
        given = answer(self.retriever, weights, wants_code=wants_code(question))
        return Reply(given, Turn(tuple(weights), given.answered))

    def remember(self, session_id: str, turn: Turn) -> None:
        """Keep a turn in its session's history."""
        self.sessions.remember(session_id, turn)

    def _may_be_known(self, question: str) -> bool:
        """Tell whether the documents have any word of a question; with none, no context makes it one they answer."""
        own = telling_words(question)
        return not own or any(self.retriever.knows(word) for word in own)

    def _gains(self, question: str, context: tuple[str, ...]) -> bool:
        """Tell whether a short question that says nothing alone says something with its context."""
        return (
            len(telling_words(question)) <= _SHORT
            and not is_answered(self.retriever.find(weigh(question), 1))
            and is_answered(self.retriever.find(weigh(question, context), 1))
        )

    def _selected_words(self, selected: str) -> tuple[str, ...]:
        """Give the rarest words of a selection that the documents know."""
        known = filter(self.retriever.knows, telling_words(selected))
        return tuple(sorted(known, key=self.retriever.rarity, reverse=True)[:MOST_CONTEXT])
