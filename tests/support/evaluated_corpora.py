"""Measure the embedded engine on three folders, by kind of question. Run it with ``make eval``.

Two folders are for tuning; ``handbook`` is only measured.
"""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final

import attrs

from brunix_twisted.embedded.assistant import Assistant
from brunix_twisted.embedded.documents import read_documents
from brunix_twisted.embedded.evaluation import result_of
from brunix_twisted.embedded.golden import GoldenQuestion, read_golden
from brunix_twisted.embedded.history import SessionHistory
from brunix_twisted.embedded.metrics import contains_fact
from brunix_twisted.embedded.options import parse
from brunix_twisted.embedded.passages import passages_of_all
from brunix_twisted.embedded.retrieval import Retriever
from brunix_twisted.embedded.semantic import Embedder, embedder
from brunix_twisted.embedded.writing import Writer

FOLDER: Final = Path(__file__).resolve().parents[1] / "embedded" / "corpora"
TUNED: Final = ("product", "language")
UNSEEN: Final = "handbook"


@attrs.frozen
class Outcome:
    """Whether the reply to a question was useful."""

    golden: GoldenQuestion
    is_useful: bool


@contextmanager
def retriever_of(name: str, model: Embedder | None = None) -> Iterator[Retriever]:
    """Index a corpus."""
    retriever = Retriever(passages_of_all(read_documents(FOLDER / name)), model)
    try:
        if retriever.semantic:
            retriever.semantic.ready.wait()
        yield retriever
    finally:
        retriever.close()


def quoted(retriever: Retriever, golden: GoldenQuestion) -> Outcome:
    """Ask a question of which the answer is quotations."""
    return Outcome(golden, result_of(retriever, golden).is_useful)


def written(writer: Writer, retriever: Retriever, golden: GoldenQuestion) -> Outcome:
    """Ask a question of which a language model writes the answer."""
    assistant = Assistant(retriever, SessionHistory())
    text, answered, is_small_talk = "", False, False
    for question in (*golden.after, golden.question):
        reply = assistant.reply(question, "")
        text, answered, is_small_talk = reply.answer.text, reply.answer.answered, reply.answer.is_small_talk
        turn = reply.turn
        if writing := writer.write(assistant, question, "", "", reply):
            text = "".join(writing.pieces(is_streamed=False))
            answered, turn = writing.answered, writing.turn()
        assistant.remember("", turn)
    if golden.expect == "answer":
        return Outcome(golden, answered and contains_fact(text, golden.answer))
    return Outcome(golden, not answered and is_small_talk == (golden.expect == "small talk"))


def evaluated(
    name: str, ask: Callable[[Retriever, GoldenQuestion], Outcome] = quoted, model: Embedder | None = None
) -> list[Outcome]:
    """Ask all questions about a corpus."""
    with retriever_of(name, model) as retriever:
        return [ask(retriever, golden) for golden in read_golden(FOLDER / f"{name}.jsonl")]


def table(columns: dict[str, Sequence[Outcome]]) -> str:
    """Show the number and the share of useful replies, by kind of question."""
    kinds = list(dict.fromkeys(outcome.golden.category for outcomes in columns.values() for outcome in outcomes))
    lines = ["".join([f"{'kind':14}", *(f"{name:>16}" for name in columns)])]
    for kind in (*kinds, "all"):
        cells: list[str] = []
        for outcomes in columns.values():
            chosen = [outcome for outcome in outcomes if kind in (outcome.golden.category, "all")]
            useful = sum(outcome.is_useful for outcome in chosen)
            cells.append(f"{useful}/{len(chosen)} {useful / len(chosen):4.0%}" if chosen else "-")
        lines.append("".join([f"{kind:14}", *(f"{cell:>16}" for cell in cells)]))
    return "\n".join(lines)


def main() -> None:
    """Print a table for each corpus: with words only, with embeddings and with a language model if there are any."""
    model = embedder()
    language_model = parse([], os.environ).model
    for name in (*TUNED, UNSEEN):
        columns: dict[str, Sequence[Outcome]] = {"keywords": evaluated(name)}
        if model:
            columns["semantic"] = evaluated(name, model=model)
        if language_model:
            columns["language model"] = evaluated(name, partial(written, Writer(language_model)), model)
        sys.stdout.write(f"\n{name}{' (not tuned on)' if name == UNSEEN else ''}\n{table(columns)}\n")
    if not model:
        sys.stdout.write("\nTo measure with embeddings: pip install -e '.[semantic]'\n")


if __name__ == "__main__":
    main()
