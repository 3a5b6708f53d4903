from collections.abc import Callable
from pathlib import Path

import pytest

from brunix_twisted.embedded import __main__ as command
from brunix_twisted.embedded.documents import read_documents
from brunix_twisted.embedded.golden import GoldenQuestion, read_golden
from brunix_twisted.embedded.metrics import contains
from brunix_twisted.embedded.options import default_docs
from brunix_twisted.embedded.passages import Passage, passages_of_all

Line = Callable[..., str]


def test_a_golden_file_is_read(tmp_path: Path, golden_line: Line) -> None:
    """An evaluation would ask something else than the file says."""
    file = tmp_path / "golden.jsonl"
    file.write_text(f"\n{golden_line(question='né?')}\n\n{golden_line(id='2')}\n", encoding="utf-8")
    assert read_golden(file) == (
        GoldenQuestion("1", "c", "né?", "a", "s.md"),
        GoldenQuestion("2", "c", "q?", "a", "s.md"),
    )


@pytest.mark.parametrize(
    ("other", "complaint"),
    [
        ({"id": 1}, "line 2: id must be text"),
        ({"answer": " "}, "line 2: answer must be text"),
        ({"question": "\ud800"}, "line 2: .* surrogates not allowed"),
        ({"extra": "x"}, "line 2: an object with just id, category, question, answer, source is wanted"),
        ({"id": "first"}, "the id 'first' stands there more than once"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, golden_line: Line, other: dict[str, object], complaint: str) -> None:
    """Somebody would have to find the one bad line of a long file."""
    file = tmp_path / "golden.jsonl"
    file.write_text(f"{golden_line(id='first')}\n{golden_line(**other)}\n")
    with pytest.raises(ValueError, match=complaint):
        read_golden(file)


@pytest.mark.parametrize("text", ["{", "[]", "1", "null", "[" * 100_000, "", "\n \n"])
def test_what_is_no_golden_file_is_refused(tmp_path: Path, text: str) -> None:
    """The engine would start and fail at the first evaluation."""
    file = tmp_path / "golden.jsonl"
    file.write_text(text)
    with pytest.raises(ValueError, match=r"no JSON object|an object with just|there is no question"):
        read_golden(file)


def test_a_source_may_name_a_heading(passages: tuple[Passage, ...]) -> None:
    """A passage would be counted as found that does not have the answer."""
    [log] = [passage for passage in passages if passage.headings[-1:] == ("Checkpoints",)]

    def counts(source: str) -> bool:
        return GoldenQuestion("1", "c", "q", "a", source).is_answered_by(log)

    assert counts("sqlite.md")
    assert counts("sqlite.md#checkpoints")
    assert counts("sqlite.md#write-ahead-log")
    assert not counts("sqlite.md#locking")
    assert not counts("cron.md#checkpoints")


@pytest.mark.parametrize("where", ["shipped", "of the tests"])
def test_golden_answers_stand_where_they_are_said_to(where: str, corpus: Path, questions_file: Path) -> None:
    """An evaluation would count a right answer as wrong, because the golden file is behind the documents."""
    folder, file = (corpus, questions_file)
    if where == "shipped":
        folder, file = default_docs(), Path(command.__file__).with_name("golden.jsonl")
    passages = passages_of_all(read_documents(folder))
    missing = [
        (question.id, question.source, question.answer)
        for question in read_golden(file)
        if not any(
            question.is_answered_by(passage)
            and contains("\n".join(block.text for block in passage.blocks), question.answer)
            for passage in passages
        )
    ]
    assert missing == []
