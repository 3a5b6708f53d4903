from pathlib import Path

import pytest

from brunix_twisted.embedded.language_model import LanguageModel
from brunix_twisted.embedded.options import OptionError, default_docs, parse
from brunix_twisted.embedded.server import ListenAddress


def test_defaults() -> None:
    """The defaults are the documented ones."""
    options = parse([], {})
    assert options.listen == ListenAddress("localhost", 50051)
    assert options.tokens_per_second == 0
    assert options.docs == default_docs()
    assert options.docs.name == "docs"
    assert options.golden.name == "golden.jsonl"
    assert options.golden.parent.name == "embedded"
    assert not options.evaluate


def test_environment() -> None:
    """Every option can be set by its environment variable."""
    options = parse(
        [],
        {
            "BRUNIX_ENGINE_LISTEN": "[::1]:0",
            "BRUNIX_DOCS": "/some/docs",
            "BRUNIX_DOCS_URL": "https://docs.example/guide",
            "BRUNIX_ENGINE_TOKENS_PER_SECOND": "20.5",
            "BRUNIX_GOLDEN": "/some/golden.jsonl",
        },
    )
    assert options.listen == ListenAddress("::1", 0)
    assert options.docs == Path("/some/docs")
    assert options.docs_url == "https://docs.example/guide/"
    assert options.tokens_per_second == 20.5
    assert options.golden == Path("/some/golden.jsonl")


def test_command_line_beats_environment() -> None:
    """An option on the command line overrides the environment variable."""
    options = parse(["--listen", "a:1", "--tokens-per-second", "2"], {"BRUNIX_ENGINE_LISTEN": "bad"})
    assert options.listen == ListenAddress("a", 1)
    assert options.tokens_per_second == 2


def test_empty_variable() -> None:
    """An empty environment variable counts as unset."""
    assert parse([], {"BRUNIX_ENGINE_LISTEN": "", "BRUNIX_DOCS": ""}) == parse([], {})


@pytest.mark.parametrize("text", ["docs.example", "ftp://docs.example", "https://", "https://a b"])
def test_invalid_address_of_the_documents(text: str) -> None:
    """An address that no link can have is reported."""
    with pytest.raises(
        OptionError, match=r"^BRUNIX_DOCS_URL \(--docs-url\) is .*: it must be the URL of the documents"
    ):
        parse(["--docs-url", text], {})


@pytest.mark.parametrize(
    "text", ["", "localhost", ":1", "localhost:", "a:b", "a:-1", "a:65536", "a:²", "a:1.5", "::1:1"]
)
def test_invalid_address(text: str) -> None:
    """An invalid address is reported with its option and what is allowed."""
    with pytest.raises(OptionError) as error:
        parse(["--listen", text], {})
    assert str(error.value) == (
        f"BRUNIX_ENGINE_LISTEN (--listen) is {text!r}: it must be host:port, with a port from 0 (any) to 65535"
    )


@pytest.mark.parametrize("text", ["x", "-1", "nan", "inf", "1e999", " \n"])
def test_invalid_rate(text: str) -> None:
    """An invalid rate is reported with its option and what is allowed."""
    with pytest.raises(OptionError, match=r"^BRUNIX_ENGINE_TOKENS_PER_SECOND .* a number, 0 \(no limit\) or more$"):
        parse([], {"BRUNIX_ENGINE_TOKENS_PER_SECOND": text})


def test_model() -> None:
    """A model is configured by its address and its name; without an address, answers are quotations."""
    assert parse([], {"BRUNIX_LLM_MODEL": "llama3"}).model is None
    environ = {"BRUNIX_LLM_URL": "http://localhost:11434", "BRUNIX_LLM_MODEL": "llama3", "BRUNIX_LLM_KEY": "secret"}
    assert parse([], environ).model == LanguageModel("http://localhost:11434/v1", "llama3", "secret", 30.0)
    options = parse(["--llm-url", "https://x/v1", "--llm-model", "y", "--llm-timeout", "2.5"], environ)
    assert options.model == LanguageModel("https://x/v1", "y", "secret", 2.5)
    assert "secret" not in repr(options)


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        (
            {"BRUNIX_LLM_URL": "localhost:11434"},
            r"^BRUNIX_LLM_URL \(--llm-url\) is 'localhost:11434': .* base URL of an API",
        ),
        (
            {"BRUNIX_LLM_URL": "http://x/v1"},
            r"^BRUNIX_LLM_MODEL \(--llm-model\) is not set: name a model of http://x/v1$",
        ),
        (
            {"BRUNIX_LLM_TIMEOUT_S": "0"},
            r"^BRUNIX_LLM_TIMEOUT_S \(--llm-timeout\) is '0': .* more than 0 and at most 300",
        ),
        ({"BRUNIX_LLM_KEY": "sécret"}, r"^BRUNIX_LLM_KEY is '…': it must be printable ASCII$"),
    ],
)
def test_invalid_model(environ: dict[str, str], message: str) -> None:
    """An invalid setting of the model is reported with what is allowed, and a key is never shown."""
    with pytest.raises(OptionError, match=message):
        parse([], environ)


def test_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tilde is the home folder, also where no shell has replaced it."""
    monkeypatch.setenv("HOME", "/home/kim")
    assert parse([], {"BRUNIX_DOCS": "~/notes"}).docs == Path("/home/kim/notes")


@pytest.mark.parametrize("argv", [["--bogus"], ["--listen"], ["word"], ["--doc", "x"]])
def test_unknown_option(argv: list[str]) -> None:
    """An unknown option is reported in one line."""
    with pytest.raises(OptionError, match=r"^[^\n]*; see --help$"):
        parse(argv, {})
