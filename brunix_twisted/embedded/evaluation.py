"""EvaluateRAG: the golden questions, asked one by one outside every session, and what came of them."""

import time
from collections.abc import Callable, Sequence
from typing import Final

import attrs

from brunix_twisted._pb import brunix_pb2
from brunix_twisted.embedded import metrics
from brunix_twisted.embedded.answers import Answer, answer
from brunix_twisted.embedded.followups import weigh
from brunix_twisted.embedded.golden import GoldenQuestion
from brunix_twisted.embedded.quoting import wants_code
from brunix_twisted.embedded.retrieval import Retriever

INDEX_NAME: Final = "embedded"
JUDGE: Final = "none (lexical)"

# How deep a ranking is looked through for its first hit; deeper counts as not found.
_DEPTH: Final = 10
# What the scores of the context look at: as many passages as an answer quotes at most.
_CONTEXT: Final = 3

_PREVIEW_CHARACTERS: Final = 200

_MEANING: Final = """\
All of it is counted, nothing is judged:
  hit@k               share of the questions with a passage of the golden source among the first k
  MRR                 mean of 1/rank of the first such passage, 0 past rank 10
  key fact            share of the answers that have the golden answer in them word for word
  token F1            overlap of the answer's and the golden answer's words, as bags of stems
  lexical support     share of an answer's words, citations apart, that stand in the passages it quotes
  context_recall      here: mean share of the golden answer's words that stand in the first 3 passages
  context_precision   here: mean average precision of the first 3 passages, relevant = of the golden source
faithfulness, answer_relevancy and global_score need a judge and stay 0."""


@attrs.frozen
class Outcome:
    """What came of one question. ``rank`` is that of the first passage from the golden source, 0 for none."""

    golden: GoldenQuestion
    rank: int
    relevant: tuple[bool, ...]
    context_recall: float
    answer: Answer

    @property
    def support(self) -> float:
        """The share of the answer's words, its citations apart, that stand in the passages it quotes."""
        within = "\n".join(
            f"{block.head}\n{block.text}" for passage in self.answer.passages for block in passage.blocks
        )
        return metrics.word_share("\n".join(self.answer.quotations), within)


def evaluate(
    retriever: Retriever,
    golden: Sequence[GoldenQuestion],
    request: brunix_pb2.EvalRequest,
    goes_on: Callable[[], bool],
) -> brunix_pb2.EvalResponse:
    """Evaluate as a request asks. Any thread may call it; it stops early when ``goes_on`` says no.

    A category that no question has, or an index other than this engine's one, is told in ``status``, with no question
    evaluated.
    """
    start = time.monotonic()
    chosen = [question for question in golden if request.category in ("", question.category)]
    if request.index not in ("", INDEX_NAME):
        status = f"unknown index {request.index!r}: there is {INDEX_NAME!r}"
        return brunix_pb2.EvalResponse(status=status, judge_model=JUDGE, index=request.index)
    if not chosen:
        known = ", ".join(sorted({question.category for question in golden}))
        status = f"unknown category {request.category!r}: there are {known}"
        return brunix_pb2.EvalResponse(status=status, judge_model=JUDGE, index=INDEX_NAME)
    outcomes: list[Outcome] = []
    for question in chosen[: request.limit or None]:
        if not goes_on():
            break
        outcomes.append(_outcome(retriever, question))
    return brunix_pb2.EvalResponse(
        status="ok",
        questions_evaluated=len(outcomes),
        elapsed_seconds=time.monotonic() - start,
        judge_model=JUDGE,
        index=INDEX_NAME,
        context_recall=metrics.mean([each.context_recall for each in outcomes]),
        context_precision=metrics.mean([metrics.average_precision(each.relevant) for each in outcomes]),
        verdict=_verdict(outcomes),
        details=[
            brunix_pb2.QuestionDetail(
                id=each.golden.id,
                category=each.golden.category,
                question=each.golden.question,
                answer_preview=each.answer.text[:_PREVIEW_CHARACTERS],
                n_chunks=len(each.answer.passages),
            )
            for each in outcomes
        ],
    )


def _outcome(retriever: Retriever, golden: GoldenQuestion) -> Outcome:
    weights = weigh(golden.question)
    found = retriever.find(weights, _DEPTH)
    hits = [golden.is_answered_by(each.passage) for each in found]
    given = answer(retriever, weights, wants_code=wants_code(golden.question))
    # Of a table only the row that was found is context: the rest of it is not what the answer is drawn from.
    parts = [each.entry.part for each in found[:_CONTEXT]]
    context = "\n".join(f"{part.headings}\n{part.prose}\n{part.code}" for part in parts)
    return Outcome(
        golden=golden,
        rank=hits.index(True) + 1 if any(hits) else 0,
        relevant=tuple(hits[:_CONTEXT]),
        context_recall=metrics.word_share(golden.answer, context),
        answer=given,
    )


def _verdict(outcomes: Sequence[Outcome]) -> str:
    """Tell the whole as text: a line a question, the measures, and what each of them says."""
    width = max((len(each.golden.question) for each in outcomes), default=0)
    lines = [f"{'question':{width}}  rank  source"]
    lines += [f"{each.golden.question:{width}}  {each.rank or '-':>4}  {each.golden.source}" for each in outcomes]
    answered = [each for each in outcomes if each.answer.answered]
    figures = {
        "questions": f"{len(outcomes)}",
        "answered": f"{len(answered)}",
        "hit@1": _score([float(each.rank == 1) for each in outcomes]),
        "hit@3": _score([float(1 <= each.rank <= 3) for each in outcomes]),  # noqa: PLR2004 - the 3 of hit@3
        "MRR": _score([metrics.reciprocal(each.rank) for each in outcomes]),
        "key fact": _score([float(metrics.contains(each.answer.text, each.golden.answer)) for each in outcomes]),
        "token F1": _score([metrics.token_f1(each.answer.text, each.golden.answer) for each in outcomes]),
        "lexical support": _score([each.support for each in answered]),
    }
    lines += ["", *(f"{name}: {figure}" for name, figure in figures.items()), "", _MEANING]
    return "\n".join(lines)


def _score(values: Sequence[float]) -> str:
    return f"{metrics.mean(values):.3f}"
