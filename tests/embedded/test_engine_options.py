from pathlib import Path

import pytest

from brunix_twisted.embedded.options import OptionError, default_docs, parse
from brunix_twisted.embedded.server import Address


def test_the_defaults_are_those_that_are_documented() -> None:
    """The engine would listen elsewhere, or read other documents, than the documentation says."""
    options = parse([], {})
    assert options.listen == Address("localhost", 50051)
    assert options.tokens_per_second == 0
    assert options.docs == default_docs()
    assert options.docs.name == "docs"
    assert options.golden.name == "golden.jsonl"
    assert options.golden.parent.name == "embedded"
    assert not options.evaluate


def test_the_environment_is_read() -> None:
    """A container could not be configured."""
    options = parse(
        [],
        {
            "BRUNIX_ENGINE_LISTEN": "[::1]:0",
            "BRUNIX_DOCS": "/some/docs",
            "BRUNIX_ENGINE_TOKENS_PER_SECOND": "20.5",
            "BRUNIX_GOLDEN": "/some/golden.jsonl",
        },
    )
    assert options.listen == Address("::1", 0)
    assert options.docs == Path("/some/docs")
    assert options.tokens_per_second == 20.5
    assert options.golden == Path("/some/golden.jsonl")


def test_the_command_line_beats_the_environment() -> None:
    """An option that was typed would be ignored."""
    options = parse(["--listen", "a:1", "--tokens-per-second", "2"], {"BRUNIX_ENGINE_LISTEN": "bad"})
    assert options.listen == Address("a", 1)
    assert options.tokens_per_second == 2


def test_an_empty_variable_is_none() -> None:
    """A variable that a compose file passes on empty would stop the start."""
    assert parse([], {"BRUNIX_ENGINE_LISTEN": "", "BRUNIX_DOCS": ""}) == parse([], {})


@pytest.mark.parametrize(
    "text", ["", "localhost", ":1", "localhost:", "a:b", "a:-1", "a:65536", "a:²", "a:1.5", "::1:1"]
)
def test_a_bad_address_is_named_with_what_is_allowed(text: str) -> None:
    """Somebody would have to guess which setting is wrong, and how."""
    with pytest.raises(OptionError) as error:
        parse(["--listen", text], {})
    assert str(error.value) == (
        f"BRUNIX_ENGINE_LISTEN (--listen) is {text!r}: it must be host:port, the port 0 (any free one) to 65535"
    )


@pytest.mark.parametrize("text", ["x", "-1", "nan", "inf", "1e999", " \n"])
def test_a_bad_rate_is_named_with_what_is_allowed(text: str) -> None:
    """Somebody would have to guess which setting is wrong, and how."""
    with pytest.raises(OptionError, match=r"^BRUNIX_ENGINE_TOKENS_PER_SECOND .* a number, 0 \(as fast as it can\) or"):
        parse([], {"BRUNIX_ENGINE_TOKENS_PER_SECOND": text})


@pytest.mark.parametrize("argv", [["--bogus"], ["--listen"], ["word"], ["--doc", "x"]])
def test_an_unknown_option_is_one_line(argv: list[str]) -> None:
    """A typing error would be answered with a page of usage."""
    with pytest.raises(OptionError, match=r"^[^\n]*; see --help$"):
        parse(argv, {})
