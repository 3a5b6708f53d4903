from collections.abc import Callable
from pathlib import Path

import pytest

from brunix_twisted.embedded import __main__ as command
from brunix_twisted.embedded.documents import read_documents
from brunix_twisted.embedded.golden import GoldenQuestion, read_golden
from brunix_twisted.embedded.metrics import contains_fact
from brunix_twisted.embedded.options import default_docs
from brunix_twisted.embedded.passages import Passage, passages_of_all
from evaluated_corpora import FOLDER as CORPORA

Line = Callable[..., str]


def test_read_golden(tmp_path: Path, golden_line: Line) -> None:
    """Questions are read from a golden file; empty lines are skipped."""
    file = tmp_path / "golden.jsonl"
    file.write_text(f"\n{golden_line(question='né?')}\n\n{golden_line(id='2')}\n", encoding="utf-8")
    assert read_golden(file) == (
        GoldenQuestion("1", "c", "né?", "a", "s.md"),
        GoldenQuestion("2", "c", "q?", "a", "s.md"),
    )


@pytest.mark.parametrize(
    ("other", "complaint"),
    [
        ({"id": 1}, "line 2: id must be a non-empty string"),
        ({"answer": " "}, "line 2: answer must be a non-empty string"),
        ({"question": "\ud800"}, "line 2: .* surrogates not allowed"),
        (
            {"extra": "x"},
            "line 2: the fields must be id, category, question, answer, source",
        ),
        ({"expect": "silence"}, "line 2: expect must be one of answer, refusal, small talk"),
        ({"expect": "refusal"}, "line 2: the fields must be id, category, question"),
        ({"after": "q?"}, "line 2: after must be a list of questions"),
        ({"after": [1]}, "line 2: after must be a list of questions"),
        ({"id": "first"}, "duplicate id 'first'"),
    ],
)
def test_invalid_line(tmp_path: Path, golden_line: Line, other: dict[str, object], complaint: str) -> None:
    """An invalid line is reported with its number."""
    file = tmp_path / "golden.jsonl"
    file.write_text(f"{golden_line(id='first')}\n{golden_line(**other)}\n")
    with pytest.raises(ValueError, match=complaint):
        read_golden(file)


@pytest.mark.parametrize("text", ["{", "[]", "1", "null", "[" * 100_000, "", "\n \n"])
def test_invalid_file(tmp_path: Path, text: str) -> None:
    """A file that is not a golden file is an error."""
    file = tmp_path / "golden.jsonl"
    file.write_text(text)
    with pytest.raises(ValueError, match=r"not a JSON object|the fields must be|contains no questions"):
        read_golden(file)


def test_source_with_anchor(passages: tuple[Passage, ...]) -> None:
    """A source with an anchor matches only passages under that heading."""
    [log] = [passage for passage in passages if passage.headings[-1:] == ("Checkpoints",)]

    def counts(source: str) -> bool:
        return GoldenQuestion("1", "c", "q", "a", source).is_answered_by(log)

    assert counts("sqlite.md")
    assert counts("sqlite.md#checkpoints")
    assert counts("sqlite.md#write-ahead-log")
    assert not counts("sqlite.md#locking")
    assert not counts("cron.md#checkpoints")


@pytest.mark.parametrize("where", ["shipped", "of the tests", "product", "language", "handbook"])
def test_golden_answers_are_in_their_sources(where: str, corpus: Path, questions_file: Path) -> None:
    """The golden answers occur in the documents that they name."""
    folder, file = (corpus, questions_file)
    if where == "shipped":
        folder, file = default_docs(), Path(command.__file__).with_name("golden.jsonl")
    elif where != "of the tests":
        folder, file = CORPORA / where, CORPORA / f"{where}.jsonl"
    passages = passages_of_all(read_documents(folder))
    missing = [
        (question.id, question.source, question.answer)
        for question in read_golden(file)
        if question.expect == "answer"
        and not any(
            question.is_answered_by(passage)
            and contains_fact(
                "\n".join((*passage.headings, *(block.text for block in passage.blocks))), question.answer
            )
            for passage in passages
        )
    ]
    assert missing == []
