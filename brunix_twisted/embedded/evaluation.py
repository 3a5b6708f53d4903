"""EvaluateRAG: ask the golden questions one by one, outside all sessions, and measure the results."""

import time
from collections.abc import Callable, Sequence
from typing import Final

import attrs

from brunix_twisted._pb import brunix_pb2
from brunix_twisted.embedded import metrics
from brunix_twisted.embedded.answers import Answer
from brunix_twisted.embedded.assistant import Assistant
from brunix_twisted.embedded.golden import GoldenQuestion
from brunix_twisted.embedded.history import SessionHistory
from brunix_twisted.embedded.retrieval import Retriever

INDEX_NAME: Final = "embedded"
JUDGE: Final = "none (lexical)"

# Number of passages that are searched for the golden source; a source that ranks lower counts as not found.
_RANKING_DEPTH: Final = 10
# Number of passages in the context scores: the maximum that an answer quotes.
_CONTEXT_PASSAGES: Final = 3

_PREVIEW_CHARACTERS: Final = 200
_MAX_SHOWN_CHARACTERS: Final = 100

_MEANING: Final = """\
Every figure is counted; no model judges the answers:
  useful              share of the replies that are as expected: an answer with the golden answer word for word, from
                      its source; that the documents do not answer; or small talk
  hit@k               share of the questions with a passage of the golden source among the first k
  MRR                 mean of 1/rank of the first such passage, 0 below rank 10
  key fact            share of the answers that contain the golden answer word for word
  token F1            overlap of the words of the answer and the golden answer, as bags of stems
  lexical support     share of an answer's words, without citations, that occur in the passages it quotes
  context_recall      here: mean share of the golden answer's words that occur in the first 3 passages
  context_precision   here: mean average precision of the first 3 passages, relevant = of the golden source
faithfulness, answer_relevancy and global_score require a judge and are always 0."""


@attrs.frozen
class QuestionResult:
    """The result of one question. ``rank`` is that of the first passage from the golden source; 0: not found."""

    golden: GoldenQuestion
    rank: int
    relevant: tuple[bool, ...]
    context_recall: float
    answer: Answer

    @property
    def is_useful(self) -> bool:
        """Whether the reply is what the golden question expects: an answer with the key fact from the source."""
        if self.golden.expect == "answer":
            return metrics.contains_fact(self.answer.text, self.golden.answer) and any(
                map(self.golden.is_answered_by, self.answer.passages)
            )
        return not self.answer.answered and self.answer.is_small_talk == (self.golden.expect == "small talk")

    @property
    def support(self) -> float:
        """The share of the answer's words, without citations, that occur in the passages it quotes."""
        within = "\n".join(
            f"{block.header}\n{block.text}" for passage in self.answer.passages for block in passage.blocks
        )
        return metrics.term_recall("\n".join(self.answer.quotations), within)


def evaluate(
    retriever: Retriever,
    golden: Sequence[GoldenQuestion],
    request: brunix_pb2.EvalRequest,
    should_continue: Callable[[], bool],
) -> brunix_pb2.EvalResponse:
    """Evaluate as requested; stop early when ``should_continue`` returns False. Thread-safe.

    If no question has the requested category, or the index is not this engine's, ``status`` reports it and no question
    is evaluated.
    """
    start_s = time.monotonic()
    chosen = [question for question in golden if request.category in ("", question.category)]
    if request.index not in ("", INDEX_NAME):
        status = f"unknown index {request.index!r}; available: {INDEX_NAME!r}"
        return brunix_pb2.EvalResponse(status=status, judge_model=JUDGE, index=request.index)
    if not chosen:
        known = ", ".join(sorted({question.category for question in golden}))
        status = f"unknown category {request.category!r}; available: {known}"
        return brunix_pb2.EvalResponse(status=status, judge_model=JUDGE, index=INDEX_NAME)
    results: list[QuestionResult] = []
    for question in chosen[: request.limit or None]:
        if not should_continue():
            break
        results.append(result_of(retriever, question))
    answerable = [result for result in results if result.golden.expect == "answer"]
    return brunix_pb2.EvalResponse(
        status="ok",
        questions_evaluated=len(results),
        elapsed_seconds=time.monotonic() - start_s,
        judge_model=JUDGE,
        index=INDEX_NAME,
        context_recall=metrics.mean([result.context_recall for result in answerable]),
        context_precision=metrics.mean([metrics.average_precision(result.relevant) for result in answerable]),
        verdict=_verdict(results),
        details=[
            brunix_pb2.QuestionDetail(
                id=result.golden.id,
                category=result.golden.category,
                question=result.golden.question,
                answer_preview=result.answer.text[:_PREVIEW_CHARACTERS],
                n_chunks=len(result.answer.passages),
            )
            for result in results
        ],
    )


def result_of(retriever: Retriever, golden: GoldenQuestion) -> QuestionResult:
    """Ask a question, after those that come before it, in a new session."""
    assistant = Assistant(retriever, SessionHistory())
    for before in golden.after:
        assistant.remember("", assistant.reply(before, "").turn)
    reply = assistant.reply(golden.question, "")
    hits = reply.hits[:_RANKING_DEPTH]
    relevant = [golden.is_answered_by(hit.passage) for hit in hits]
    # The context of a table is the row that was found: the answer is not taken from the other rows.
    context = "\n".join(hit.indexed.chunk.text for hit in hits[:_CONTEXT_PASSAGES])
    return QuestionResult(
        golden=golden,
        rank=relevant.index(True) + 1 if any(relevant) else 0,
        relevant=tuple(relevant[:_CONTEXT_PASSAGES]),
        context_recall=metrics.term_recall(golden.answer, context),
        answer=reply.answer,
    )


def _verdict(results: Sequence[QuestionResult]) -> str:
    """Write the report: one line per question, then the figures and what they mean."""
    shown = [_on_one_line(result.golden.question) for result in results]
    width = max(map(len, shown), default=0)
    lines = [f"{'question':{width}}  rank  source"]
    lines += [
        f"{question:{width}}  {result.rank or '-':>4}  {result.golden.source or f'({result.golden.expect})'}"
        for question, result in zip(shown, results, strict=True)
    ]
    answerable = [result for result in results if result.golden.expect == "answer"]
    pairs = [(result.answer.text, result.golden.answer) for result in answerable]
    answered = [result for result in results if result.answer.answered]
    figures = {
        "questions": f"{len(results)}",
        "answered": f"{len(answered)}",
        "useful": _score([float(result.is_useful) for result in results]),
        "hit@1": _score([float(result.rank == 1) for result in answerable]),
        "hit@3": _score([float(1 <= result.rank <= 3) for result in answerable]),  # noqa: PLR2004 - the 3 of hit@3
        "MRR": _score([metrics.reciprocal_rank(result.rank) for result in answerable]),
        "key fact": _score([float(metrics.contains_fact(text, fact)) for text, fact in pairs]),
        "token F1": _score([metrics.token_f1(text, fact) for text, fact in pairs]),
        "lexical support": _score([result.support for result in answered]),
    }
    lines += ["", *(f"{name}: {figure}" for name, figure in figures.items()), "", _MEANING]
    return "\n".join(lines)


def _on_one_line(question: str) -> str:
    line = " ".join(question.split())
    return line if len(line) <= _MAX_SHOWN_CHARACTERS else f"{line[:_MAX_SHOWN_CHARACTERS]} …"


def _score(values: Sequence[float]) -> str:
    return f"{metrics.mean(values):.3f}"
