"""
The commands and their options.

Only argparse is imported until the command is known, so that ``brunix --help`` is fast.
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
exit status: 0 success; 1 no answer, or a problem was found; 2 invalid command line or question;
130 stopped by Control-C; 141 the reader of the output has closed it
"""
_ENVIRONMENT: Final = """\
environment: BRUNIX_URL is the default of the gateway's address; BRUNIX_API_KEY is a key for a proxy in front of
the gateway, sent as `Authorization: Bearer`
"""
_DEFAULT_URL: Final = "http://127.0.0.1:8000"
_IDLE_TIMEOUT_S: Final = 660.0
_PATIENT_S: Final = 180.0
_PATHS: Final = frozenset({"ca", "history"})
"""Options that name files; file names may contain any bytes."""


class _Parser(argparse.ArgumentParser):
    """Report output that cannot be written. argparse alone would ignore it and exit with 0."""

    def _print_message(self, message: str, file: object = None) -> None:
        if file is sys.stderr:
            terminal.print_err(message.rstrip("\n"))
        else:
            terminal.print_out(message)


def parser() -> argparse.ArgumentParser:
    """Build the parser with every command and option."""
    whole = _Parser(
        prog="brunix",
        description="Ask a Brunix gateway, connect clients to it, and diagnose problems.",
        epilog=f"To start the gateway: `twistd brunix`.\n\n{_ENVIRONMENT}\n{_STATUSES}",
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
        "Ask one question and print the answer as it arrives. Piped text is appended to the question.",
    )
    ask.add_argument("question", nargs="?", help="the question; - reads it from standard input")
    _common(ask)
    _asking(ask)
    ask.add_argument("--no-stream", dest="stream", action="store_false", help="print the answer when it is complete")
    ask.add_argument("--json", action="store_true", help="print one JSON object")

    chat = command("chat", "have a conversation", "Have a conversation. The engine keeps its history.")
    _common(chat)
    _asking(chat)
    chat.add_argument("--history", metavar="FILE", help="keep your input in this file; by default nothing is kept")

    connect = command(
        "connect",
        "print the configuration of a client",
        "List the clients, or print the configuration of one with this gateway's address and model.\n"
        "The configuration goes to standard output, notes go to standard error.",
    )
    connect.add_argument("client", nargs="?", metavar="NAME", help="the client, as shown in the list")
    _common(connect)
    connect.add_argument("--part", type=int, default=1, metavar="N", help="the Nth part, if the client has several")
    connect.add_argument("--all", action="store_true", help="print every client")
    connect.add_argument("--json", action="store_true", help="print JSON")

    doctor = command(
        "doctor",
        "diagnose problems",
        "Check everything between this machine and the engine: whether the gateway is reachable, whether answers\n"
        "stream, and which proxies interfere. Asks the engine up to ten short questions.",
    )
    doctor.add_argument("address", nargs="?", metavar="URL", help="the gateway's address, as clients use it")
    _common(doctor, url=False)
    doctor.add_argument(
        "--origin", type=_header_value, help="the origin of a web page that should be allowed to use the gateway"
    )
    doctor.add_argument("--question", metavar="TEXT", help="the question to ask the engine")
    doctor.add_argument("--no-questions", dest="ask", action="store_false", help="do not call the engine")
    doctor.add_argument(
        "--metrics", metavar="URL", help="the gateway's /metrics, to measure how fast calls are cancelled"
    )
    doctor.add_argument(
        "--patient",
        nargs="?",
        type=_seconds,
        const=_PATIENT_S,
        metavar="SECONDS",
        help=f"wait longer for slow engines and for timeouts ({_PATIENT_S:g} seconds, if no number is given)",
    )
    doctor.add_argument("--json", action="store_true", help="print one JSON object")
    return whole


def _common(command: argparse.ArgumentParser, *, url: bool = True) -> None:
    if url:
        command.add_argument("--url", help=f"the gateway's address (default: $BRUNIX_URL, or {_DEFAULT_URL})")
    command.add_argument("--model", help="the model's name (default: the first that the gateway lists)")
    command.add_argument(
        "--header",
        dest="headers",
        action="append",
        default=[],
        type=_header,
        metavar="'NAME: VALUE'",
        help="send this header with every request; may be repeated",
    )
    command.add_argument("--ca", metavar="FILE", help="trust the CA certificates in this file instead of the system's")


def _asking(command: argparse.ArgumentParser) -> None:
    command.add_argument("--session", type=_header_value, metavar="ID", help="use this engine session")
    command.add_argument(
        "--timeout",
        type=_seconds,
        default=_IDLE_TIMEOUT_S,
        metavar="SECONDS",
        help=f"how long the gateway may send nothing (default: {_IDLE_TIMEOUT_S:g})",
    )


def _header(text: str) -> tuple[str, str]:
    name, colon, value = (part.strip() for part in text.partition(":"))
    if not colon or not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name) or not re.fullmatch(r"[\t -~]*", value):
        raise argparse.ArgumentTypeError("expected 'Name: value' in printable ASCII")
    if name.lower() in {"content-length", "transfer-encoding"}:
        raise argparse.ArgumentTypeError(f"brunix sets {name} itself")
    return name, value


def _header_value(text: str) -> str:
    if not (text.isascii() and text.isprintable()):
        raise argparse.ArgumentTypeError("expected printable ASCII")
    return text


def _seconds(text: str) -> float:
    if not re.fullmatch(r"[0-9]{1,6}(\.[0-9]{1,3})?", text) or not float(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds")
    return float(text)


def run(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run a command and return its exit status."""
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
    # Imported late: --help needs no HTTP client.
    from brunix_twisted.cli import address  # noqa: PLC0415 - see above

    if name := _undecodable(options):
        terminal.print_err(f"brunix {options.command}: {name} is not valid UTF-8")
        return 2
    given = getattr(options, "address", None) or getattr(options, "url", None)
    source = "" if given else "BRUNIX_URL: "
    try:
        where, corrections = address.parse(given or environment.get("BRUNIX_URL") or _DEFAULT_URL)
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
    status: int = command(options, target)
    return status


def _undecodable(options: argparse.Namespace) -> str:
    """Return the name of an argument that is not valid UTF-8, or an empty string."""
    for name, value in vars(options).items():
        if isinstance(value, str) and name not in _PATHS and not terminal.is_text(value):
            is_argument = name in {"client", "address"} or (name, options.command) == ("question", "ask")
            return f"the {name}" if is_argument else f"--{name}"
    return ""


def _target(options: argparse.Namespace, environment: Mapping[str, str], where: GatewayAddress) -> Target:
    """Collect the address, the headers and the CA file. Raises ValueError if one of them is invalid."""
    import ssl  # noqa: PLC0415 - see _run()

    from brunix_twisted.cli.http_client import Target  # noqa: PLC0415 - see _run()

    headers = list(options.headers)
    if key := environment.get("BRUNIX_API_KEY", "").strip():
        try:
            headers.insert(0, _header(f"Authorization: Bearer {key}"))
        except argparse.ArgumentTypeError:
            raise ValueError("BRUNIX_API_KEY contains characters that are not allowed in a header") from None
    if options.ca:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=options.ca)
        except OSError as error:
            raise ValueError(f"--ca {options.ca}: {error.strerror or 'the file contains no certificates'}") from None
    return Target(where, tuple(headers), options.ca)
