"""
The commands and their options.

Only argparse is imported until the command is known, so that ``brunix --help`` is fast.
"""

from __future__ import annotations

import argparse
import os
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
_RUN: Final = """\
environment, in addition to the settings of the gateway and of the engine:

  BRUNIX_ENGINE_COMMAND    the engine; default: python -m brunix_twisted.embedded
  BRUNIX_GATEWAY_COMMAND   the gateway; default: twistd --nodaemon --pidfile= brunix,
                           with --reactor=asyncio if PROXY_ENGINE_CLIENT=aio
  BRUNIX_DRAIN_GRACE_S     seconds that the gateway has, once asked to stop, to end
                           the answers that it has begun; default: 30
  BRUNIX_KILL_GRACE_S      seconds from SIGTERM to SIGKILL in every other case;
                           default: 5

Commands are written as for sh. The embedded engine listens on port 50051, or on a free
port if that is in use; BRUNIX_ENGINE_LISTEN or BRUNIX_GRPC_TARGET chooses another one,
and one of them is enough.

SIGTERM, SIGINT, SIGHUP and SIGQUIT stop the gateway first, and the engine when the gateway
has exited. The second signal stops the engine at once and leaves both the short grace; the
third kills. SIGUSR1 and SIGUSR2 have no effect. Signals go to whole process groups. On
Linux, processes that left their group are stopped too, and if `brunix run` itself is killed,
so are the two commands, but not what they have started.

exit status:

  0    stopped by a signal, and both exited cleanly
  1    the engine or the gateway exited without being asked to, whatever its status
  2    stopped by a signal, but one exited with an error or had to be killed; or the
       command line is wrong
  64   one of the variables above has a wrong value
  127  a command is not found; nothing was started
"""
_HEALTH: Final = """\
environment: PROXY_LISTEN is the gateway's address, as the gateway itself reads it; tcp:, tcp6:
and unix: can be checked

exit status: 0 the gateway and the engine answer; 1 one of them does not; 2 the command line or
a setting is wrong, or PROXY_LISTEN cannot be checked; 130 interrupted by Control-C
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
        description="Run and ask a Brunix gateway, connect clients to it, and diagnose problems.",
        epilog=f"{_ENVIRONMENT}\n{_STATUSES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    whole.add_argument("--version", action="version", version=f"brunix {__version__}")
    commands = whole.add_subparsers(dest="command", metavar="COMMAND", title="commands")

    def command(
        name: str, summary: str, description: str, epilog: str = f"{_ENVIRONMENT}\n{_STATUSES}"
    ) -> argparse.ArgumentParser:
        return commands.add_parser(
            name,
            help=summary,
            description=description,
            epilog=epilog,
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

    mcp = command(
        "mcp",
        "connect an agent that starts commands",
        "Connect an agent that starts its tools as commands to the gateway's /mcp. Reads JSON-RPC messages from\n"
        "standard input, one per line, writes the responses to standard output, and ends with its input.",
    )
    _common(mcp)

    # For the list of commands only: its options are those of `twistd brunix`, see run().
    command(
        "serve",
        "run the gateway in front of your engine",
        "Run the gateway in the foreground.",
    )
    run = command(
        "run",
        "run an engine and the gateway",
        "Start an engine and the gateway side by side, print the gateway's URL when both answer, and stop both when "
        "either exits.",
        _RUN,
    )
    run.add_argument(
        "--docs",
        type=_folder,
        metavar="FOLDER",
        help="the folder of documents that the embedded engine answers from (default: $BRUNIX_DOCS, or the "
        "documentation of Brunix)",
    )
    health = command(
        "health",
        "check a gateway on this machine",
        "Check once whether the gateway and the engine behind it answer, and print the result on one line.",
        _HEALTH,
    )
    health.add_argument("--wait", action="store_true", help="wait until both answer, then print the gateway's URL")
    health.add_argument("--json", action="store_true", help="print one JSON object")
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


def _folder(text: str) -> str:
    # A shell leaves the tilde in --docs=~/notes.
    folder = os.path.expanduser(text)  # noqa: PTH111 - pathlib takes a tenth of the time that `brunix ask` has to start
    if not os.path.isdir(folder):  # noqa: PTH112 - likewise
        raise argparse.ArgumentTypeError(f"{text!r} is not a folder")
    return folder


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
        # `brunix run` starts its commands even if the standard output is closed.
        if arguments[:1] != ["run"]:
            terminal.prepare()
        if arguments[:1] == ["serve"]:
            from brunix_twisted.app.serve import serve  # noqa: PLC0415 - see _run()

            return serve(arguments[1:], environment)
        whole = parser()
        options = whole.parse_args(arguments)
        if options.command is None:
            whole.print_help()
            return 2
        command = _operate if options.command in {"run", "health"} else _run
        return command(options, environment)
    except BrokenPipeError:
        return terminal.CLOSED_PIPE
    except terminal.OutputError as error:
        terminal.print_err(f"brunix: {error}")
        return 1


def _operate(options: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Run a command for the operator: it reads the gateway's own settings, and imports nothing of the HTTP client."""
    if options.command == "run":
        from brunix_twisted.app.run import run as run_both  # noqa: PLC0415 - Twisted, for this command only

        return run_both(environment if options.docs is None else {**environment, "BRUNIX_DOCS": options.docs})
    from brunix_twisted.app.health_check import check  # noqa: PLC0415 - see _run()

    return check(environment, wait=options.wait, as_json=options.json)


def _run(options: argparse.Namespace, environment: Mapping[str, str]) -> int:
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
