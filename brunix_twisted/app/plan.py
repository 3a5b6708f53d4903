"""What `brunix run` starts, read from the environment."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from typing import Final

import attrs

from brunix_twisted.app.rendezvous import DEFAULT_PORT, meet
from brunix_twisted.app.serve import gateway_command

BAD_VARIABLE: Final = 64
NOT_FOUND: Final = 127

_SHELL_SYNTAX: Final = frozenset("|&;<>()$`*?[]#~!{}\\\"\n'")
_PLAIN_WORD: Final = re.compile(r"[A-Za-z0-9_./+-]+")


class PlanError(Exception):
    """Nothing can be started. The text is one line; `status` is the exit status."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


@attrs.frozen
class Plan:
    """What to start, with which environment, and how long to wait for its end."""

    engine: Sequence[str]
    gateway: Sequence[str]
    health: Sequence[str]
    environment: Mapping[str, str]
    drain_grace_s: int
    kill_grace_s: int
    summary: str
    """What is started, for the log."""


def read_plan(environment: Mapping[str, str], python: str = sys.executable) -> Plan:
    """
    Read the variables; see ``brunix run --help``.

    :raises PlanError: a variable has a wrong value, or a command does not exist.
    """
    # More than the gateway needs to drain (25 s by default), with a margin for a busy machine.
    drain_grace_s = _whole_number(environment, "BRUNIX_DRAIN_GRACE_S", "30")
    # A failure ends everything within ten seconds.
    kill_grace_s = _whole_number(environment, "BRUNIX_KILL_GRACE_S", "5")
    commands = _Commands(environment)
    engine = commands.read("BRUNIX_ENGINE_COMMAND", [python, "-m", "brunix_twisted.embedded"])
    gateway = commands.read("BRUNIX_GATEWAY_COMMAND", gateway_command(environment, python))
    summary = "starting " + " and ".join(f"the {name} ({text})" for name, text in commands.texts.items())
    if not environment.get("BRUNIX_ENGINE_COMMAND"):
        environment, moved = _meet(environment)
        summary += moved
    # Without the current folder on its path: it must be the same release.
    health = [python, "-P", "-m", "brunix_twisted", "health", "--wait"]
    return Plan(engine, gateway, health, environment, drain_grace_s, kill_grace_s, summary)


def _whole_number(environment: Mapping[str, str], variable: str, default: str) -> int:
    text = environment.get(variable) or default
    if not re.fullmatch(r"[0-9]{1,4}", text):
        raise PlanError(BAD_VARIABLE, f"{variable} is {text!r}; allowed: a whole number from 0 to 9999")
    return int(text)


def _meet(environment: Mapping[str, str]) -> tuple[Mapping[str, str], str]:
    """Let the embedded engine and the gateway agree on a port; the second value reports another than the usual one."""
    usual = f"localhost:{DEFAULT_PORT}"
    wanted = (environment.get("BRUNIX_ENGINE_LISTEN") or usual, environment.get("BRUNIX_GRPC_TARGET") or usual)
    try:
        listen, target = meet(environment)
    except OSError:
        return environment, ""  # the engine reports why
    moved = "" if (listen, target) == wanted else f"; the engine listens on {listen}"
    return {**environment, "BRUNIX_ENGINE_LISTEN": listen, "BRUNIX_GRPC_TARGET": target}, moved


class _Commands:
    """Reads commands, which are written as for a shell, and remembers their texts."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self.texts: dict[str, str] = {}

    def read(self, variable: str, default: list[str]) -> list[str]:
        """
        Return the words to execute.

        There is a shell in between only where it is needed, since it would receive SIGKILL in the place of the command.
        """
        text = self._environment.get(variable)
        self.texts[variable.split("_")[1].lower()] = text or shlex.join(default)
        if not text:
            self._is_program(variable, default[0])
            return default
        first, _, _ = text.partition(" ")
        # Whether any other word makes sense is the shell's to report.
        is_program = bool(_PLAIN_WORD.fullmatch(first)) and self._is_program(variable, first)
        return text.split() if is_program and not _SHELL_SYNTAX & set(text) else ["sh", "-c", text]

    def _is_program(self, variable: str, word: str) -> bool:
        """
        Return False for a command that only the shell has.

        :raises PlanError: there is no such command.
        """
        if shutil.which(word, path=self._environment.get("PATH")):
            return True
        import subprocess  # noqa: PLC0415 - hardly ever needed

        looked = subprocess.run(  # noqa: S603 - the word is an argument
            ["sh", "-c", 'command -v "$1"', "sh", word],  # noqa: S607 - the shell that runs the commands
            env=self._environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
        )
        if looked.returncode:
            raise PlanError(
                NOT_FOUND,
                f"command not found: {word} ({variable}); in a checkout, make run installs the default commands",
            )
        return False
