"""
The commands and their options.

Only argparse is imported before it is known which command is wanted: ``brunix --help`` has to be there at once.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Final

from brunix_twisted import __version__
from brunix_twisted.cli import terminal

if TYPE_CHECKING:
    from brunix_twisted.cli.address import GatewayAddress
    from brunix_twisted.cli.http_client import Target

_STATUSES: Final = """\
exit status: 0 well; 1 there is no answer, or something is wrong; 2 the command line is wrong, or the question;
130 stopped by Control-C; 141 whoever read the output has gone
"""
_ENVIRONMENT: Final = """\
environment: BRUNIX_URL is the gateway's address where none is given, BRUNIX_API_KEY a key that is sent as
`Authorization: Bearer`, for what stands before a gateway and wants one
"""
_DEFAULT_URL: Final = "http://127.0.0.1:8000"
_SILENCE_S: Final = 660.0
_PATIENT_S: Final = 180.0


_PATHS: Final = frozenset({"ca", "history"})
"""The options that name files, whose names are bytes."""


class _Parser(argparse.ArgumentParser):
    """Writes as the commands do. By itself argparse drops what cannot be written, and its status says 0."""

    def _print_message(self, message: str, file: object = None) -> None:
        if file is sys.stderr:
            terminal.print_err(message.rstrip("\n"))
        else:
            terminal.print_out(message)


def parser() -> argparse.ArgumentParser:
    """Every command and every option."""
    whole = _Parser(
        prog="brunix",
        description="Ask a Brunix gateway, connect clients to it, and find out what is wrong between them.",
        epilog=f"The gateway itself is started by `twistd brunix`.\n\n{_ENVIRONMENT}\n{_STATUSES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    whole.add_argument("--version", action="version", version=f"brunix {__version__}")
    commands = whole.add_subparsers(dest="command", metavar="COMMAND", title="commands")

    def command(name: str, summary: str, description: str) -> argparse.ArgumentParser:
        return commands.add_parser(
            name,
            help=summary,
            description=description,
            epilog=f"{_ENVIRONMENT}\n{_STATUSES}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    ask = command(
        "ask",
        "ask one question",
        "Ask one question and write the answer as it comes. Text that is piped in is put below the question.",
    )
    ask.add_argument("question", nargs="?", help="the question; - reads it from the standard input")
    _common(ask)
    _asking(ask)
    ask.add_argument("--no-stream", dest="stream", action="store_false", help="write the answer once it is whole")
    ask.add_argument("--json", action="store_true", help="write one JSON object, for programs")

    chat = command("chat", "ask one question after the other", "Have a conversation. The engine keeps it.")
    _common(chat)
    _asking(chat)
    chat.add_argument("--history", metavar="FILE", help="keep what was typed in this file; otherwise nothing is kept")

    connect = command(
        "connect",
        "print the configuration of a client",
        "List the clients, or print the configuration of one with this gateway's address and model in it. The text "
        "goes to the standard output, whatever else is to be known to the standard error.",
    )
    connect.add_argument("client", nargs="?", metavar="NAME", help="the client, as the list names it")
    _common(connect)
    connect.add_argument("--part", type=int, default=1, metavar="N", help="the Nth text of a client that has several")
    connect.add_argument("--all", action="store_true", help="every client, one after the other")
    connect.add_argument("--json", action="store_true", help="as JSON, for programs")

    doctor = command(
        "doctor",
        "find out what is wrong",
        "Walk from here to the engine and say what is found: is the gateway there, does what it says arrive as it "
        "should, and what stands in the way. It asks the engine up to ten short questions.",
    )
    doctor.add_argument("address", nargs="?", metavar="URL", help="the gateway's address, as it is given to clients")
    _common(doctor, url=False)
    doctor.add_argument(
        "--origin", type=_header_value, help="a web page's origin that should be able to use the gateway"
    )
    doctor.add_argument("--question", metavar="TEXT", help="the question to ask")
    doctor.add_argument("--no-questions", dest="ask", action="store_false", help="ask the engine nothing")
    doctor.add_argument("--metrics", metavar="URL", help="the gateway's /metrics, to see how soon a call is cancelled")
    doctor.add_argument(
        "--patient",
        nargs="?",
        type=_seconds,
        const=_PATIENT_S,
        metavar="SECONDS",
        help=f"wait so long for slow engines and for time-outs ({_PATIENT_S:g} where no number is given)",
    )
    doctor.add_argument("--json", action="store_true", help="write one JSON object, for programs")
    return whole


def _common(command: argparse.ArgumentParser, *, url: bool = True) -> None:
    if url:
        command.add_argument("--url", help=f"the gateway's address (default: $BRUNIX_URL, or {_DEFAULT_URL})")
    command.add_argument("--model", help="the model's name (default: the one that the gateway lists)")
    command.add_argument(
        "--header",
        dest="headers",
        action="append",
        default=[],
        type=_header,
        metavar="'NAME: VALUE'",
        help="send this header with everything; may be given several times",
    )
    command.add_argument("--ca", metavar="FILE", help="trust the certificates in this file, and not the system's")


def _asking(command: argparse.ArgumentParser) -> None:
    command.add_argument("--session", type=_header_value, metavar="ID", help="ask in this engine session")
    command.add_argument(
        "--timeout",
        type=_seconds,
        default=_SILENCE_S,
        metavar="SECONDS",
        help=f"how long nothing at all may come (default: {_SILENCE_S:g})",
    )


def _header(text: str) -> tuple[str, str]:
    name, colon, value = (part.strip() for part in text.partition(":"))
    if not colon or not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name) or not re.fullmatch(r"[\t -~]*", value):
        raise argparse.ArgumentTypeError("a header is written 'Name: value', in ASCII and in one line")
    if name.lower() in {"content-length", "transfer-encoding"}:
        raise argparse.ArgumentTypeError(f"brunix sets {name} itself")
    return name, value


def _header_value(text: str) -> str:
    if not (text.isascii() and text.isprintable()):
        raise argparse.ArgumentTypeError("it has to be printable ASCII")
    return text


def _seconds(text: str) -> float:
    if not re.fullmatch(r"[0-9]{1,6}(\.[0-9]{1,3})?", text) or not float(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds")
    return float(text)


def run(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run a command; the result is the process's status."""
    try:
        terminal.prepare()
        return _run(arguments, environment)
    except BrokenPipeError:
        return terminal.CLOSED_PIPE
    except terminal.OutputError as error:
        terminal.print_err(f"brunix: {error}")
        return 1


def _run(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    whole = parser()
    options = whole.parse_args(arguments)
    if options.command is None:
        whole.print_help()
        return 2
    # Not before: these need an HTTP client, TLS and more, and --help needs none of them.
    from brunix_twisted.cli import address  # noqa: PLC0415 - see above

    if name := _no_text(options):
        terminal.print_err(f"brunix {options.command}: {name} holds bytes that are no UTF-8 text")
        return 2
    given = getattr(options, "address", None) or getattr(options, "url", None)
    source = "" if given else "BRUNIX_URL: "
    try:
        where, corrections = address.read(given or environment.get("BRUNIX_URL") or _DEFAULT_URL)
    except address.AddressError as error:
        terminal.print_err(f"brunix {options.command}: {source}{error}")
        return 2
    try:
        target = _target(options, environment, where)
    except ValueError as error:
        terminal.print_err(f"brunix {options.command}: {error}")
        return 2
    if options.command == "doctor":
        from brunix_twisted.cli.doctor.run import doctor  # noqa: PLC0415 - see above

        return doctor(options, target, corrections, environment)
    command = getattr(import_module(f"brunix_twisted.cli.{options.command}"), options.command)
    done: int = command(options, target)
    return done


def _no_text(options: argparse.Namespace) -> str:
    """Name what was given and could not be decoded; nothing where all is text."""
    for name, value in vars(options).items():
        if isinstance(value, str) and name not in _PATHS and not terminal.is_text(value):
            is_argument = name in {"client", "address"} or (name, options.command) == ("question", "ask")
            return f"the {name}" if is_argument else f"--{name}"
    return ""


def _target(options: argparse.Namespace, environment: Mapping[str, str], where: GatewayAddress) -> Target:
    """Put together whom to ask and as whom. Raises ValueError for what cannot be sent or read."""
    import ssl  # noqa: PLC0415 - see run()

    from brunix_twisted.cli.http_client import Target  # noqa: PLC0415 - see run()

    headers = list(options.headers)
    if key := environment.get("BRUNIX_API_KEY", "").strip():
        try:
            headers.insert(0, _header(f"Authorization: Bearer {key}"))
        except argparse.ArgumentTypeError:
            raise ValueError("BRUNIX_API_KEY holds characters that no header can have") from None
    if options.ca:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=options.ca)
        except OSError as error:
            raise ValueError(f"--ca {options.ca}: {error.strerror or 'it holds no certificates'}") from None
    return Target(where, tuple(headers), options.ca)
