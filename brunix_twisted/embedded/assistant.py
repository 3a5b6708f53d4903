"""Answer one question in its session. The rpcs without gRPC."""

from collections.abc import Sequence
from typing import Final

import attrs

from brunix_twisted.embedded.answers import Answer, answer, is_answered, small_talk
from brunix_twisted.embedded.followups import (
    CONTEXT_WEIGHT,
    MAX_CONTEXT_TERMS,
    context_of,
    context_weights,
    is_fragment,
    last_answered,
    needs_context,
)
from brunix_twisted.embedded.history import SessionHistory, Turn
from brunix_twisted.embedded.lexicon import common_stems
from brunix_twisted.embedded.pasted import errors_in
from brunix_twisted.embedded.query import Query
from brunix_twisted.embedded.question import Question, considered, read
from brunix_twisted.embedded.retrieval import Near, Retriever, SearchHit
from brunix_twisted.embedded.small_talk import is_thanks
from brunix_twisted.embedded.tokenizer import content_terms, stem, words

# A question with at most this many content terms that is not answered alone is tried with its context.
_MAX_SHORT_TERMS: Final = 4

# Weight of what is pasted next to a question that is complete without it, and of the lines that report an error.
_PASTED_WEIGHT: Final = 0.15
_ERROR_WEIGHT: Final = 0.5
# The same of what a question such as "What does this error mean?" is about.
_SHOWN_WEIGHT: Final = 1.0

# What being near to the last answer adds to the score: for a follow-up, and for any other question in the session.
_NEAR_FOLLOW_UP: Final = 0.2
_NEAR: Final = 0.05
# A follow-up such as "Show me an example" is about the section of the last answer.
_SAME_SECTION: Final = 2.0

# A follow-up that is answered from the document of the answer before it may match less closely.
_FOLLOW_UP_CONFIDENCE: Final = 0.2

# A follow-up with this share of unknown names is not about the last answer.
_MAX_DOUBT: Final = 0.2

# Number of passages to find: an answer quotes at most three, and an evaluation looks at ten.
_MAX_HITS: Final = 10


@attrs.frozen
class Reply:
    """An answer, the passages that were found, and the turn to remember when the caller has received everything."""

    answer: Answer
    turn: Turn
    hits: tuple[SearchHit, ...] = ()


@attrs.frozen
class Assistant:
    """Answers from the documents, with the history of each session. Thread-safe."""

    retriever: Retriever
    sessions: SessionHistory
    sample_questions: tuple[str, ...] = ()

    def reply(self, question: str, session_id: str, selected: str = "") -> Reply:
        """Answer a question in its session, without remembering it yet.

        ``selected`` is the text selected in the user's editor. It replaces the previous turn as the context of a
        question that needs one. Of a long question or selection, only the beginning and the end are read.
        """
        asked = read(question)
        if asked.is_small_talk:
            greeting = small_talk(self.retriever.document_count, self.sample_questions, is_thanks=is_thanks(asked.text))
            return Reply(greeting, Turn((), answered=False))
        turns = self.sessions.turns(session_id)
        last = last_answered(turns)
        if last and last.wants_code and is_fragment(asked.text):
            # "And on Linux?" asks what the question before it asked.
            asked = attrs.evolve(asked, intent=attrs.evolve(asked.intent, wants_code=True))
        query, hits = self._search(asked, last, considered(selected))
        reply = answer(hits, query, asked.intent)
        place = reply.passages[0].place if reply.answered else None
        subject = content_terms(" ".join(place.headings[-2:])) if place else ()
        turn = Turn(query.words, reply.answered, subject=subject, place=place, wants_code=asked.intent.wants_code)
        return Reply(reply, turn, tuple(hits))

    def remember(self, session_id: str, turn: Turn) -> None:
        """Add a turn to its session's history."""
        self.sessions.remember(session_id, turn)

    def _search(self, asked: Question, last: Turn | None, selected: str) -> tuple[Query, list[SearchHit]]:
        """Search alone, or with the context if the question needs it."""
        shown = f"{selected}\n{asked.pasted}"
        errors = self._rarest(errors_in(shown)) if asked.pasted else ()
        pasted = errors or self._rarest(shown)
        asked = self._without_identifiers(asked, shown)
        context = pasted or context_of(last)
        is_vague = bool(pasted) and common_stems().issuperset(map(stem, asked.terms))
        may_depend = bool(context) and self._is_known(asked)
        if may_depend and (is_vague or needs_context(asked.text)):
            return self._with_context(asked, context, None if pasted else last)
        aside = context_weights(len(asked.terms), pasted, _ERROR_WEIGHT if errors else _PASTED_WEIGHT)
        query = self.retriever.query(asked, aside)
        near = Near(last.place, _NEAR, _NEAR) if last and last.place else None
        hits = self.retriever.find(query, _MAX_HITS, asked.intent, near)
        if may_depend and len(asked.terms) <= _MAX_SHORT_TERMS and not is_answered(hits):
            second, found = self._with_context(asked, context, None if pasted else last)
            if is_answered(found):
                return second, found
        return query, hits

    def _with_context(
        self, asked: Question, context: Sequence[str], last: Turn | None
    ) -> tuple[Query, list[SearchHit]]:
        weight = CONTEXT_WEIGHT if last else _SHOWN_WEIGHT
        query = self.retriever.query(asked, context_weights(len(asked.terms), context, weight))
        section = _NEAR_FOLLOW_UP if asked.terms else _SAME_SECTION
        near = Near(last.place, section, _NEAR_FOLLOW_UP) if last and last.place else None
        hits = self.retriever.find(query, _MAX_HITS, asked.intent, near)
        if near and hits and hits[0].passage.source == near.place.source:
            hits[0] = attrs.evolve(hits[0], confidence=hits[0].confidence + _FOLLOW_UP_CONFIDENCE)
        return query, hits

    def _is_known(self, asked: Question) -> bool:
        """Return whether the documents contain a term of a question, or it has none.

        If they contain none of its terms, its context does not make it answerable.
        """
        if not asked.terms:
            return True
        query = self.retriever.query(asked, {})
        return query.doubt < _MAX_DOUBT and any(
            self.retriever.has_term(spelling) for concept in query.concepts for spelling in concept.spellings
        )

    def _without_identifiers(self, asked: Question, shown: str) -> Question:
        """Remove the terms that only the pasted text contains: the documents cannot know the user's own names."""
        own = set(words(shown))
        terms = {
            term: weight for term, weight in asked.terms.items() if term not in own or self.retriever.has_term(term)
        }
        return attrs.evolve(asked, terms=terms) if terms else asked

    def _rarest(self, text: str) -> tuple[str, ...]:
        """Return the rarest terms of a pasted text that the documents contain."""
        known = filter(self.retriever.has_term, content_terms(text))
        return tuple(sorted(known, key=self.retriever.idf, reverse=True)[:MAX_CONTEXT_TERMS])
