"""entrypoint.sh: it finds a Python and becomes `brunix run`, whose own tests are in test_run.py."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from stand_ins import SCRIPT, Workshop, workshop_in

every_shell = pytest.mark.parametrize(
    "shell",
    [
        pytest.param(
            command,
            id=command[0],
            marks=pytest.mark.skipif(shutil.which(command[0]) is None, reason=f"{command[0]} is not installed"),
        )
        for command in (["dash"], ["bash"], ["busybox", "sh"])
    ],
)


@pytest.fixture
def workshop(tmp_path: Path) -> Iterator[Workshop]:
    with workshop_in(tmp_path) as workshop:
        yield workshop


@every_shell
def test_it_becomes_brunix_run(workshop: Workshop, shell: Sequence[str]) -> None:
    """Signals and the exit status are those of `brunix run`, without a shell in between."""
    run = workshop.up(shell)
    words = Path(f"/proc/{run.process.pid}/cmdline")
    if words.exists():
        assert words.read_text().split("\0")[:-1] == ["python", "-m", "brunix_twisted", "run"]
    run.send(signal.SIGTERM)
    status, stderr, events = run.end()
    assert (status, events) == (0, ["gateway asked", "engine asked"])
    assert stderr.endswith("brunix run: stopped\n")


@every_shell
def test_arguments_are_passed_on(workshop: Workshop, shell: Sequence[str]) -> None:
    """``./entrypoint.sh --help`` explains the variables."""
    run = workshop.run(command=[*shell, str(SCRIPT), "--help"])
    assert "BRUNIX_DRAIN_GRACE_S" in "".join(iter(run.shown, ""))
    assert run.end() == (0, "", [])


@pytest.mark.parametrize(
    "command",
    [["./entrypoint.sh"], ["sh", "entrypoint.sh"], ["sh", "../main/entrypoint.sh"], ["sh", "-c", ". ./entrypoint.sh"]],
)
def test_every_way_to_start_it(workshop: Workshop, command: list[str]) -> None:
    """It does not matter from which folder, and how, the script is started."""
    folder = workshop.folder / "main"
    folder.mkdir()
    shutil.copy(SCRIPT, folder)
    run = workshop.up(command=command, cwd=str(folder))
    run.send(signal.SIGTERM)
    status, _, events = run.end()
    assert (status, events) == (0, ["gateway asked", "engine asked"])


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux reports a parent's end")
@pytest.mark.parametrize("text", ["./entrypoint.sh", "cd . && ./entrypoint.sh", "brunix run"])
@every_shell
def test_the_shell_around_it_can_be_stopped(workshop: Workshop, shell: Sequence[str], text: str) -> None:
    """A stop of ``sh -c ./entrypoint.sh`` does not end only the outer shell."""
    shutil.copy(SCRIPT, workshop.folder)
    run = workshop.up(command=[*shell, "-c", text])
    run.send(signal.SIGTERM)
    status, stderr, events = run.end()
    # Shells that become their last command give its status, the others end by the signal.
    assert status in {0, -signal.SIGTERM}
    assert events == ["gateway asked", "engine asked"]
    assert stderr.endswith("brunix run: stopped\n")


@every_shell
def test_without_python(workshop: Workshop, shell: Sequence[str]) -> None:
    """On a machine without Python, one line says what to do."""
    shutil.copy(SCRIPT, workshop.folder)
    found = shutil.which(shell[0])
    assert found is not None
    tools = workshop.folder / "tools"
    tools.mkdir()
    run = workshop.run(command=[found, *shell[1:], "./entrypoint.sh"], PATH=str(tools), VIRTUAL_ENV="")
    assert run.end() == (
        127,
        "entrypoint.sh: python is not on the PATH; in a checkout, make run installs everything\n",
        [],
    )


def program(path: Path, text: str) -> None:
    """Write a script that can be executed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


@every_shell
def test_without_the_package(workshop: Workshop, shell: Sequence[str]) -> None:
    """In a checkout where nothing is installed, one line says what to do; python3 is tried after python."""
    shutil.copy(SCRIPT, workshop.folder)
    tools = workshop.folder / "tools"
    program(tools / "python", "exit 1")
    program(tools / "python3", "exit 1")
    command = [shutil.which(shell[0]) or "", *shell[1:], "./entrypoint.sh"]
    run = workshop.run(command=command, PATH=str(tools), VIRTUAL_ENV="")
    missing = "brunix_twisted is not installed for python3"
    assert run.end() == (127, f"entrypoint.sh: {missing}; in a checkout, make run installs everything\n", [])
    program(tools / "python3", f'exec {shlex.quote(sys.executable)} "$@"')
    run = workshop.up(command=command, PATH=f"{tools}:{os.environ['PATH']}", VIRTUAL_ENV="")
    run.send(signal.SIGTERM)
    assert run.end()[0] == 0


@every_shell
@pytest.mark.parametrize("active", [False, True])
def test_a_checkout_brings_its_own_environment(workshop: Workshop, shell: Sequence[str], *, active: bool) -> None:
    """./entrypoint.sh uses what make run has installed, unless another environment is active."""
    checkout = workshop.folder / "check out"
    workshop.script = checkout / "entrypoint.sh"
    for name in ("python", "installed"):
        program(checkout / ".venv/bin" / name, f'exec {shlex.quote(sys.executable)} "$@"')
    shutil.copy(SCRIPT, checkout)
    stand_in = shlex.join(["-I", "-S", str(workshop.stand_in), "engine"])
    run = workshop.run(
        shell,
        engine=f"installed {stand_in} PIPE leaves",
        VIRTUAL_ENV=sys.prefix if active else "",
        PATH=os.environ["PATH"] if not active else f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    )
    if active:
        status, stderr, _ = run.end()
        assert status == 127
        assert "command not found: installed" in stderr
    else:
        run.expect("engine up", "gateway up")
        run.send(signal.SIGTERM)
        assert run.end()[0] == 0


@every_shell
def test_a_stop_while_it_looks_for_python(workshop: Workshop, shell: Sequence[str]) -> None:
    """A stop in the first moment starts nothing, also as process 1, which ignores signals without a trap."""
    # It sends the signal to the shell that tries it, and succeeds.
    program(workshop.folder / "tools" / "python", "kill -TERM $PPID")
    run = workshop.run(shell, PATH=f"{workshop.folder / 'tools'}:{os.environ['PATH']}")
    assert run.end() == (0, "", [])
