"""``brunix serve``: runs the gateway in the foreground, as ``twistd brunix`` does."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path


def gateway_command(environment: Mapping[str, str], python: str = sys.executable) -> list[str]:
    """Return the command that runs the gateway in the foreground; options of the gateway can follow."""
    reactor = "asyncio" if environment.get("PROXY_ENGINE_CLIENT") == "aio" else "default"
    twistd = Path(python).with_name("twistd")
    program = str(twistd) if twistd.exists() else "twistd"
    return [program, f"--reactor={reactor}", "--nodaemon", "--pidfile=", "brunix"]


def serve(options: Sequence[str], environment: Mapping[str, str], python: str = sys.executable) -> int:
    """
    Become the gateway. Returns only if it cannot be started, with the exit status.

    :param options: those of ``twistd brunix``.
    """
    # An option decides too which client asks the engine, and twistd has to know before it reads the gateway's options.
    client = _value("--engine-client", options)
    command = gateway_command(environment if client is None else {"PROXY_ENGINE_CLIENT": client}, python)
    try:
        os.execvpe(command[0], [*command, *options], dict(environment))  # noqa: S606 - no shell is wanted
    except OSError as error:
        sys.stderr.write(f"brunix serve: cannot run {command[0]}: {error.strerror}\n")
        return 127


def _value(name: str, options: Sequence[str]) -> str | None:
    """Return the last value of an option, given as ``name=value`` or ``name value``."""
    value = None
    for option, following in zip(options, [*options[1:], ""], strict=False):
        if option == name:
            value = following
        elif option.startswith(f"{name}="):
            value = option.partition("=")[2]
    return value
