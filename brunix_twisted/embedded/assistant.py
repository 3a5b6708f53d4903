"""Answer one question in its session. The rpcs without gRPC."""

from typing import Final

import attrs

from brunix_twisted.embedded.answers import Answer, answer, is_answered
from brunix_twisted.embedded.followups import MAX_CONTEXT_TERMS, context_of, needs_context, weighted_terms
from brunix_twisted.embedded.history import SessionHistory, Turn
from brunix_twisted.embedded.question import considered, wants_code
from brunix_twisted.embedded.retrieval import Retriever
from brunix_twisted.embedded.tokenizer import content_terms

# A question with at most this many content terms that is not answered alone is tried with its context.
_MAX_SHORT_TERMS: Final = 2


@attrs.frozen
class Reply:
    """An answer, and the turn to remember when the caller has received it completely."""

    answer: Answer
    turn: Turn


@attrs.frozen
class Assistant:
    """Answers from the documents, with the history of each session. Thread-safe."""

    retriever: Retriever
    sessions: SessionHistory

    def reply(self, question: str, session_id: str, selected: str = "") -> Reply:
        """Answer a question in its session, without remembering it yet.

        ``selected`` is the text selected in the user's editor. It replaces the previous turn as the context of a
        question that needs one. Of a long question or selection, only the beginning and the end are read.
        """
        question = considered(question)
        context = self._selection_terms(selected) or context_of(self.sessions.turns(session_id))
        weights = weighted_terms(question)
        if context and self._may_follow_up(question, context):
            weights = weighted_terms(question, context)
        reply = answer(self.retriever, weights, wants_code=wants_code(question))
        return Reply(reply, Turn(tuple(weights), reply.answered))

    def remember(self, session_id: str, turn: Turn) -> None:
        """Add a turn to its session's history."""
        self.sessions.remember(session_id, turn)

    def _may_follow_up(self, question: str, context: tuple[str, ...]) -> bool:
        """Return whether to search with the context: the question needs it, or is answered only with it.

        If the documents contain none of the question's content terms, its context does not make it answerable.
        """
        terms = content_terms(question)
        if terms and not any(map(self.retriever.has_term, terms)):
            return False
        return needs_context(question) or (
            len(terms) <= _MAX_SHORT_TERMS
            and not is_answered(self.retriever.find(weighted_terms(question), 1))
            and is_answered(self.retriever.find(weighted_terms(question, context), 1))
        )

    def _selection_terms(self, selected: str) -> tuple[str, ...]:
        """Return the rarest terms of a selection that the documents contain."""
        known = filter(self.retriever.has_term, content_terms(considered(selected)))
        return tuple(sorted(known, key=self.retriever.idf, reverse=True)[:MAX_CONTEXT_TERMS])
