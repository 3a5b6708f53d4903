"""What the engine is told at its start: the command line, and behind it the environment."""

import argparse
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, NoReturn, TypeVar

import attrs

from brunix_twisted.embedded.server import Address

_PACKAGE: Final = Path(__file__).resolve().parent
_MOST_PORTS: Final = 65535

T = TypeVar("T")


class OptionError(Exception):
    """A value that cannot be used; the text names it, and what is allowed, on one line."""


@attrs.frozen
class Options:
    """The engine's settings. ``evaluate`` is a command, the rest has defaults."""

    listen: Address
    docs: Path
    tokens_per_second: float
    golden: Path
    evaluate: bool


def default_docs() -> Path:
    """Give the project's own documentation: beside this package in a wheel, in the repository otherwise."""
    shipped = _PACKAGE.parent / "docs"
    return shipped if shipped.is_dir() else _PACKAGE.parent.parent / "docs"


def parse(argv: Sequence[str], environ: Mapping[str, str]) -> Options:
    """Read the options; the command line beats the environment, and an empty variable counts as unset.

    Raises OptionError. Like every program, it prints and leaves for ``--help`` (SystemExit).
    """
    given = _parser().parse_args(argv)

    def value(name: str, default: str, convert: Callable[[str], T], allowed: str) -> T:
        variable = VARIABLES[name]
        text = getattr(given, name)
        if text is None:
            text = environ.get(variable) or default
        try:
            return convert(text)
        except ValueError as error:
            raise OptionError(complaint(name, text, allowed)) from error

    return Options(
        listen=value("listen", "localhost:50051", _address, "it must be host:port, the port 0 (any free one) to 65535"),
        docs=value("docs", str(default_docs()), Path, "it must be a folder"),
        tokens_per_second=value("tokens_per_second", "0", _rate, "it must be a number, 0 (as fast as it can) or more"),
        golden=value("golden", str(_PACKAGE / "golden.jsonl"), Path, "it must be a file"),
        evaluate=given.evaluate,
    )


VARIABLES: Final = {
    "listen": "BRUNIX_ENGINE_LISTEN",
    "docs": "BRUNIX_DOCS",
    "tokens_per_second": "BRUNIX_ENGINE_TOKENS_PER_SECOND",
    "golden": "BRUNIX_GOLDEN",
}


def complaint(name: str, text: object, allowed: str) -> str:
    """Say on one line what is wrong with the value of an option."""
    return " ".join(f"{VARIABLES[name]} (--{name.replace('_', '-')}) is {str(text)!r}: {allowed}".split())


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Leave the saying to the caller, who says everything on one line."""
        raise OptionError(f"{message}; see --help")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m brunix_twisted.embedded",
        description="The embedded engine: answers from a folder of documents, over gRPC.",
        allow_abbrev=False,
    )
    parser.add_argument("--listen", metavar="HOST:PORT", help="where to listen (BRUNIX_ENGINE_LISTEN, localhost:50051)")
    parser.add_argument("--docs", metavar="FOLDER", help="the documents (BRUNIX_DOCS, the project's own)")
    parser.add_argument(
        "--tokens-per-second",
        metavar="N",
        help="how fast a stream is sent (BRUNIX_ENGINE_TOKENS_PER_SECOND, 0: as fast as it can)",
    )
    parser.add_argument("--golden", metavar="FILE", help="the questions of EvaluateRAG (BRUNIX_GOLDEN, the shipped)")
    parser.add_argument("--evaluate", action="store_true", help="ask those questions, print what came of it, and leave")
    return parser


def _address(text: str) -> Address:
    host, colon, port = text.strip().rpartition(":")
    if not colon:
        host, colon = "localhost", ":"
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(text)  # an IPv6 address without brackets: its last group would pass for a port
    if not colon or not host or not (port.isascii() and port.isdigit()) or not 0 <= int(port) <= _MOST_PORTS:
        raise ValueError(text)
    return Address(host, int(port))


def _rate(text: str) -> float:
    rate = float(text)
    if not math.isfinite(rate) or rate < 0:
        raise ValueError(text)
    return rate
