"""The engine's options: the command line, then the environment, then the defaults."""

import argparse
import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, NoReturn, Self, TypeVar

import attrs

from brunix_twisted.embedded.language_model import MAX_TOTAL_S, LanguageModel, base_url
from brunix_twisted.embedded.server import ListenAddress

VARIABLES: Final = {
    "listen": "BRUNIX_ENGINE_LISTEN",
    "docs": "BRUNIX_DOCS",
    "docs_url": "BRUNIX_DOCS_URL",
    "tokens_per_second": "BRUNIX_ENGINE_TOKENS_PER_SECOND",
    "golden": "BRUNIX_GOLDEN",
    "llm_url": "BRUNIX_LLM_URL",
    "llm_model": "BRUNIX_LLM_MODEL",
    "llm_timeout_s": "BRUNIX_LLM_TIMEOUT_S",
    "llm_key": "BRUNIX_LLM_KEY",
}
"""The environment variable of each option."""

# Every user of the machine can read a command line.
_VARIABLES_ONLY: Final = frozenset({"llm_key"})

_PACKAGE: Final = Path(__file__).resolve().parent
_MAX_PORT: Final = 65535

T = TypeVar("T")


class OptionError(Exception):
    """An option is invalid. The text is one line that names the option and what is allowed."""

    @classmethod
    def of(cls, name: str, value: object, allowed: str) -> Self:
        """Name an option, its value and what is allowed."""
        option = "" if name in _VARIABLES_ONLY else f" (--{name.replace('_', '-').removesuffix('-s')})"
        text = f"{VARIABLES[name]}{option} is {str(value)!r}: {allowed}"
        return cls(" ".join(text.split()))


@attrs.frozen
class Options:
    """The engine's options. ``evaluate`` makes the command evaluate the engine instead of serving it.

    Without a ``model``, answers are quotations.
    """

    listen: ListenAddress
    docs: Path
    docs_url: str
    """The address of the documents, with a slash at its end; empty if they have none."""
    tokens_per_second: float
    golden: Path
    model: LanguageModel | None
    evaluate: bool


def default_docs() -> Path:
    """Return the folder of the project's documentation: next to this package in a wheel, in a checkout at its top."""
    shipped = _PACKAGE.parent / "docs"
    return shipped if shipped.is_dir() else _PACKAGE.parent.parent / "docs"


def parse(argv: Sequence[str], environ: Mapping[str, str]) -> Options:
    """Read the options. The command line beats the environment; an empty variable counts as unset.

    Raises OptionError. ``--help`` prints the usage and raises SystemExit.
    """
    arguments = _parser().parse_args(argv)

    def value(name: str, default: str, convert: Callable[[str], T], allowed: str) -> T:
        text = None if name in _VARIABLES_ONLY else getattr(arguments, name)
        if text is None:
            text = environ.get(VARIABLES[name]) or default
        try:
            return convert(text)
        except ValueError as error:
            raise OptionError.of(name, "…" if name in _VARIABLES_ONLY else text, allowed) from error

    def folder(text: str) -> Path:
        # Only a shell replaces the tilde: a unit of systemd does not, and neither does a compose file.
        return Path(text).expanduser()

    url = value("llm_url", "", _url, "it must be the base URL of an API, such as http://localhost:11434/v1")
    name = value("llm_model", "", str.strip, "it must be the name of a model")
    docs_url = value("docs_url", "", _docs_url, "it must be the URL of the documents, such as https://docs.example/")
    key = value("llm_key", "", _key, "it must be printable ASCII")
    timeout_s = value(
        "llm_timeout_s", "30", _timeout, f"it must be a number of seconds, more than 0 and at most {MAX_TOTAL_S:g}"
    )
    if url and not name:
        raise OptionError(f"{VARIABLES['llm_model']} (--llm-model) is not set: name a model of {url}")
    return Options(
        listen=value("listen", "localhost:50051", _address, "it must be host:port, with a port from 0 (any) to 65535"),
        docs=value("docs", str(default_docs()), folder, "it must be a folder"),
        docs_url=docs_url,
        tokens_per_second=value("tokens_per_second", "0", _rate, "it must be a number, 0 (no limit) or more"),
        golden=value("golden", str(_PACKAGE / "golden.jsonl"), Path, "it must be a file"),
        model=LanguageModel(url, name, key, timeout_s) if url else None,
        evaluate=arguments.evaluate,
    )


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Raise OptionError instead of printing the usage and exiting."""
        raise OptionError(f"{message}; see --help")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m brunix_twisted.embedded",
        description="The embedded engine: answers from a folder of documents, over gRPC.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--listen",
        metavar="HOST:PORT",
        help="address to listen on (BRUNIX_ENGINE_LISTEN; default: localhost:50051)",
    )
    parser.add_argument(
        "--docs",
        metavar="FOLDER",
        help="folder of documents to answer from (BRUNIX_DOCS; default: the project's documentation)",
    )
    parser.add_argument(
        "--docs-url",
        metavar="URL",
        help="address of the documents, to link the sources of answers (BRUNIX_DOCS_URL; default: none)",
    )
    parser.add_argument(
        "--tokens-per-second",
        metavar="N",
        help="speed of a stream (BRUNIX_ENGINE_TOKENS_PER_SECOND; default: 0, no limit)",
    )
    parser.add_argument(
        "--golden",
        metavar="FILE",
        help="questions for an evaluation (BRUNIX_GOLDEN; default: those that are shipped)",
    )
    parser.add_argument(
        "--llm-url",
        metavar="URL",
        help="OpenAI-compatible API of a language model that writes the answers (BRUNIX_LLM_URL; default: none)",
    )
    parser.add_argument("--llm-model", metavar="NAME", help="the model's name (BRUNIX_LLM_MODEL)")
    parser.add_argument(
        "--llm-timeout",
        dest="llm_timeout_s",
        metavar="SECONDS",
        help="how long the model may send nothing (BRUNIX_LLM_TIMEOUT_S; default: 30)",
    )
    parser.add_argument("--evaluate", action="store_true", help="run an evaluation, print its result and exit")
    return parser


def _address(text: str) -> ListenAddress:
    host, colon, port = text.strip().rpartition(":")
    if not colon:
        host, colon = "localhost", ":"
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(text)  # an IPv6 address without brackets, whose last group would be read as a port
    if not colon or not host or not (port.isascii() and port.isdigit()) or not 0 <= int(port) <= _MAX_PORT:
        raise ValueError(text)
    return ListenAddress(host, int(port))


def _url(text: str) -> str:
    return base_url(text) if text else ""


def _docs_url(text: str) -> str:
    text = text.strip()
    if text and not re.fullmatch(r"https?://[!-~]{1,2000}", text):
        raise ValueError(text)
    return text if not text or text.endswith("/") else f"{text}/"


def _key(text: str) -> str:
    if not re.fullmatch(r"[ -~]*", text.strip()):
        raise ValueError(text)
    return text.strip()


def _timeout(text: str) -> float:
    timeout_s = _rate(text)
    if not 0 < timeout_s <= MAX_TOTAL_S:
        raise ValueError(text)
    return timeout_s


def _rate(text: str) -> float:
    rate = float(text)
    if not math.isfinite(rate) or rate < 0:
        raise ValueError(text)
    return rate
