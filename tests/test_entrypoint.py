"""
entrypoint.sh with stand-ins for the engine and the gateway.

Every process that a run starts holds the write end of one pipe. The stand-ins write a line to it for each thing that
happens to them; its end of file means that nothing of the run is left.
"""

from __future__ import annotations

import os
import re
import select
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import pytest

from isolation import BARE

LIMIT_S = 60
"""Only for what would otherwise hang a failing run."""

SCRIPT = Path(__file__).parent.parent / "entrypoint.sh"

STAND_IN = """
import os, signal, sys

name, pipe, manner = sys.argv[1], int(sys.argv[2]), sys.argv[3]


def tell(what):
    os.write(pipe, f"{name} {what}\\n".encode())


if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Python's own way would wait for sigwait() to return
numbers = {signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2}
signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
tell(f"up {os.getpid()} {os.getpgrp()}")
while True:
    number = signal.sigwait(numbers)
    if number == signal.SIGUSR1:
        os._exit(int(manner))
    if number == signal.SIGUSR2:
        tell("leaves")
        os._exit(0)
    tell("asked")
    if manner == "leaves":
        os._exit(0)
    if manner == "raises":  # the way of twistd
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)
        os.kill(os.getpid(), signal.SIGTERM)
    if manner == "fails":
        os._exit(3)
    if manner.isdecimal():
        os._exit(0)
    # "stays" until SIGUSR2, or for ever
"""

HEALTHY_GATEWAY = """
import http.server, os, socketserver, sys


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"status":"ok"}')

    def log_message(self, *words):
        pass


socketserver.UnixStreamServer(sys.argv[1], Handler).serve_forever()
"""


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
linux_only = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells of a parent's end")


class Run:
    """One run of the script and all that it started."""

    def __init__(self, command: Sequence[str], environment: dict[str, str], cwd: str, pipe: tuple[int, int]) -> None:
        self._read_fd, write_fd = pipe
        self._waiting = b""
        self.pids: dict[str, int] = {}
        self.groups: dict[str, int] = {}
        # A test run that outlives its terminal is deaf to this, and so would be all that it starts.
        usual = signal.signal(signal.SIGHUP, signal.SIG_DFL)
        try:
            self.process = subprocess.Popen(  # noqa: S603 - the script under test
                command,
                bufsize=0,  # what a line was read from can still be read to its end by communicate()
                env=environment,
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=[write_fd],
                start_new_session=True,
            )
        finally:
            signal.signal(signal.SIGHUP, usual)
            os.close(write_fd)

    def _line(self) -> str:
        while b"\n" not in self._waiting:
            if not select.select([self._read_fd], [], [], LIMIT_S)[0]:
                pytest.fail("nothing happened for too long")
            more = os.read(self._read_fd, 4096)
            if not more:
                return ""
            self._waiting += more
        line, _, self._waiting = self._waiting.partition(b"\n")
        return line.decode()

    def event(self) -> str:
        """What happens next, empty once everything is gone."""
        line = self._line()
        if " up " in line:
            name, _, pid, group = line.split()
            self.pids[name], self.groups[name] = int(pid), int(group)
            return f"{name} up"
        return line

    def expect(self, *events: str) -> None:
        """Let these happen, in any order, and nothing else."""
        assert sorted(self.event() for _ in events) == sorted(events)

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the script; SIGINT as a terminal does, to all of the script's process group."""
        if number == signal.SIGINT:
            os.killpg(self.process.pid, number)
        else:
            self.process.send_signal(number)

    def told(self) -> str:
        """The next line on stderr, empty at its end."""
        return self._text(self.process.stderr)

    def shown(self) -> str:
        """The next line on stdout, empty at its end."""
        return self._text(self.process.stdout)

    @staticmethod
    def _text(stream: IO[bytes] | None) -> str:
        assert stream is not None
        if not select.select([stream], [], [], LIMIT_S)[0]:
            pytest.fail("nothing was said for too long")
        return stream.readline().decode()

    def end(self) -> tuple[int, str, list[str]]:
        """Wait until everything is gone. The status, what stderr had still to say, and the remaining events."""
        events = list(iter(self.event, ""))
        _, stderr = self.process.communicate(timeout=LIMIT_S)
        return self.process.returncode, stderr.decode(), events

    def clean_up(self) -> None:
        """Leave nothing behind, whatever failed."""
        if self.process.poll() is None:
            self.process.kill()
        for stream in (self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()
        # While somebody holds the pipe, the groups are still theirs; once nobody does, the numbers may be a stranger's.
        while select.select([self._read_fd], [], [], 0.5)[0]:
            if not os.read(self._read_fd, 4096):
                break
        else:
            for group in self.groups.values():
                try:
                    os.killpg(group, signal.SIGKILL)
                except ProcessLookupError:
                    continue
        os.close(self._read_fd)
        self.process.wait(LIMIT_S)


class Workshop:
    """Where runs are put together."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.runs: list[Run] = []
        self.stand_in = folder / "stand_in.py"
        self.stand_in.write_text(STAND_IN)
        self.script = SCRIPT

    def run(
        self,
        shell: Sequence[str] = ("sh",),
        engine: str = "leaves",
        gateway: str = "leaves",
        command: Sequence[str] = (),
        cwd: str = "",
        **environment: str,
    ) -> Run:
        """
        Start the script.

        :param engine: the stand-in's manner, or a whole command in which ``{leaves}`` is a stand-in of that manner.
        :param gateway: the same.
        :param command: how to start it, if not as ``shell`` with the script.
        """
        pipe = os.pipe()

        def whole(name: str, text: str) -> str:
            stand_in = shlex.join([sys.executable, "-I", "-S", str(self.stand_in), name, str(pipe[1])])
            if text.isalnum():
                return f"{stand_in} {text}"
            return re.sub(r"{(\w+)}", lambda match: f"{stand_in} {match[1]}", text).replace("PIPE", str(pipe[1]))

        run = Run(
            command or [*shell, str(self.script)],
            BARE
            | {
                # The interpreter of the tests, which has the package, and nobody's checkout.
                "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
                "VIRTUAL_ENV": sys.prefix,
                "BRUNIX_ENGINE_COMMAND": whole("engine", engine),
                "BRUNIX_GATEWAY_COMMAND": whole("gateway", gateway),
                # Nobody is to be killed for being slow on a busy machine.
                "BRUNIX_DRAIN_GRACE_S": "9999",
                "BRUNIX_KILL_GRACE_S": "9999",
                "PROXY_LISTEN": f"unix:{self.folder}/gateway.sock",
            }
            | environment,
            cwd or str(self.folder),
            pipe,
        )
        self.runs.append(run)
        return run

    def up(self, *arguments: Any, **options: Any) -> Run:  # noqa: ANN401 - those of run()
        """Start the script, with both stand-ins up."""
        run = self.run(*arguments, **options)
        run.expect("engine up", "gateway up")
        return run


@pytest.fixture
def workshop(tmp_path: Path) -> Iterator[Workshop]:
    workshop = Workshop(tmp_path)
    yield workshop
    for run in workshop.runs:
        run.clean_up()


OTHER = {"engine": "gateway", "gateway": "engine"}


@every_shell
@pytest.mark.parametrize("child", OTHER)
@pytest.mark.parametrize(
    ("number", "manner", "how"),
    [
        pytest.param(signal.SIGUSR1, "0", "ended with status 0", id="exit-0"),
        pytest.param(signal.SIGUSR1, "3", "ended with status 3", id="exit-3"),
        pytest.param(signal.SIGUSR1, "255", "ended with status 255", id="exit-255"),
        pytest.param(signal.SIGKILL, "leaves", "was ended by SIGKILL", id="SIGKILL"),
        pytest.param(signal.SIGTERM, "raises", "was ended by SIGTERM", id="SIGTERM"),
        pytest.param(signal.SIGTERM, "leaves", "ended with status 0", id="SIGTERM-exit-0"),
        pytest.param(signal.SIGINT, "leaves", "was ended by SIGINT", id="SIGINT"),
    ],
)
def test_when_one_ends_so_does_the_other(  # noqa: PLR0913, PLR0917 - a matrix
    workshop: Workshop, shell: Sequence[str], child: str, number: signal.Signals, manner: str, how: str
) -> None:
    """A gateway without an engine, or an engine without a gateway, stayed on; or the service manager took it for 0."""
    run = workshop.up(shell, **{child: manner})
    os.kill(run.pids[child], number)
    status, stderr, events = run.end()
    assert status == 1
    assert f"entrypoint.sh: the {child} {how}, unasked: stopping everything\n" in stderr
    assert [event for event in events if not event.startswith(child)] == [f"{OTHER[child]} asked"]
    assert "killing" not in stderr


@every_shell
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize("manner", ["leaves", "raises"])
def test_stopping_is_clean(workshop: Workshop, shell: Sequence[str], number: signal.Signals, manner: str) -> None:
    """Ctrl-C or the service manager's stop left something running, or was reported as a failure."""
    run = workshop.up(shell, engine=manner, gateway=manner)
    run.send(number)
    status, stderr, events = run.end()
    assert status == 0
    assert events == ["gateway asked", "engine asked"]
    assert f"entrypoint.sh: {number.name}: asking" in stderr
    assert stderr.endswith("entrypoint.sh: stopped\n")


@every_shell
def test_the_gateway_finishes_while_the_engine_lives(workshop: Workshop, shell: Sequence[str]) -> None:
    """An answer that was under way at the stop broke off, because its engine went first."""
    run = workshop.up(shell, gateway="stays")
    run.send(signal.SIGTERM)
    run.expect("gateway asked")
    os.kill(run.pids["gateway"], signal.SIGUSR2)
    assert run.event() == "gateway leaves"
    assert run.event() == "engine asked"
    assert run.end()[0] == 0


@every_shell
def test_a_second_signal_hastens(workshop: Workshop, shell: Sequence[str]) -> None:
    """A second Ctrl-C changed nothing: one had to wait until the last slow answer was finished."""
    run = workshop.up(shell, gateway="stays", engine="leaves")
    run.send(signal.SIGINT)
    run.expect("gateway asked")
    run.send(signal.SIGINT)
    run.expect("engine asked")
    os.kill(run.pids["gateway"], signal.SIGUSR2)
    status, _, events = run.end()
    assert (status, events) == (0, ["gateway leaves"])


@every_shell
def test_a_third_signal_kills(workshop: Workshop, shell: Sequence[str]) -> None:
    """A child that hung could not be got rid of from the terminal."""
    run = workshop.up(shell, gateway="stays", engine="stays")
    for expected in "gateway asked", "engine asked":
        run.send(signal.SIGINT)
        run.expect(expected)
    run.send(signal.SIGINT)
    status, stderr, events = run.end()
    assert (status, events) == (2, [])
    assert "the gateway, or something it started, did not end when asked: killing it\n" in stderr
    assert "the engine, or something it started, did not end when asked: killing it\n" in stderr


@every_shell
@pytest.mark.parametrize(("child", "text"), [("engine", "stays"), ("gateway", "{stays} & wait")])
def test_who_does_not_leave_is_killed(workshop: Workshop, shell: Sequence[str], child: str, text: str) -> None:
    """A child that hung outlived the stop, or the stop was reported as clean although a child had to be killed."""
    run = workshop.up(shell, BRUNIX_DRAIN_GRACE_S="0", BRUNIX_KILL_GRACE_S="1", **{child: text})
    run.send(signal.SIGTERM)
    status, stderr, events = run.end()
    assert status == 2
    assert sorted(events) == ["engine asked", "gateway asked"]
    assert f"entrypoint.sh: the {child}, or something it started, did not end when asked: killing it\n" in stderr


@every_shell
@pytest.mark.parametrize(("child", "text"), [("engine", "stays"), ("gateway", "{stays} & wait")])
def test_who_does_not_follow_is_killed(workshop: Workshop, shell: Sequence[str], child: str, text: str) -> None:
    """One child was gone, and the other, which hung, stayed on for good."""
    run = workshop.up(shell, BRUNIX_KILL_GRACE_S="1", **{OTHER[child]: text})
    os.kill(run.pids[child], signal.SIGKILL)
    status, stderr, events = run.end()
    assert (status, events) == (1, [f"{OTHER[child]} asked"])
    assert f"the {OTHER[child]}, or something it started, did not end when asked: killing it\n" in stderr


@every_shell
@pytest.mark.parametrize("child", OTHER)
def test_a_failed_stop_is_reported(workshop: Workshop, shell: Sequence[str], child: str) -> None:
    """The gateway or the engine failed while stopping, and the service manager was told that all went well."""
    run = workshop.up(shell, **{child: "fails"})
    run.send(signal.SIGTERM)
    status, stderr, _ = run.end()
    assert status == 2
    assert f"entrypoint.sh: the {child} ended with status 3 when asked to stop\n" in stderr


@every_shell
@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGUSR2])
def test_signals_that_stop_nothing(workshop: Workshop, shell: Sequence[str], number: signal.Signals) -> None:
    """SIGUSR1, which opens a log file again, does not end the script and with it everything else."""
    run = workshop.up(shell)
    for _ in range(3):
        run.send(number)
    run.send(signal.SIGTERM)
    status, stderr, events = run.end()
    assert (status, events) == (0, ["gateway asked", "engine asked"])
    assert "entrypoint.sh: SIGTERM: asking" in stderr


@every_shell
def test_an_engine_that_dies_ends_the_drain(workshop: Workshop, shell: Sequence[str]) -> None:
    """The stop took the gateway's full grace although the engine was dead and nothing could be finished."""
    run = workshop.up(shell, gateway="stays", BRUNIX_KILL_GRACE_S="0")
    run.send(signal.SIGTERM)
    run.expect("gateway asked")
    os.kill(run.pids["engine"], signal.SIGKILL)
    status, stderr, events = run.end()
    assert (status, events) == (2, [])
    assert "the engine was ended by SIGKILL when asked to stop" in stderr


@every_shell
def test_a_stop_while_starting(workshop: Workshop, shell: Sequence[str]) -> None:
    """A stop during the start was lost: everything came up all the same, or stayed behind half started."""
    run = workshop.run(shell)
    assert run.told().startswith("entrypoint.sh: starting the engine (")
    run.send(signal.SIGTERM)
    status, stderr, _ = run.end()
    assert status == 0
    assert stderr.endswith("entrypoint.sh: stopped\n")


@every_shell
@pytest.mark.parametrize(
    ("child", "text"),
    [
        ("engine", "{leaves} & wait"),
        ("engine", "{leaves} | cat"),
        ("gateway", "cd / && {leaves}"),
        ("gateway", "sh -c '{leaves} & wait'; true"),
    ],
)
def test_what_a_command_started_ends_with_it(workshop: Workshop, shell: Sequence[str], text: str, child: str) -> None:
    """SIGKILL, to a command that is a shell, left what that shell had started running, with the port still taken."""
    run = workshop.up(shell, **{child: text})
    assert run.groups[child] != run.pids[child]  # the first of its group is the shell
    os.kill(run.groups[child], signal.SIGKILL)
    status, stderr, events = run.end()
    assert status == 1
    assert f"the {child} was ended by SIGKILL, unasked" in stderr
    assert sorted(events) == ["engine asked", "gateway asked"]


@pytest.mark.parametrize("text", ["{leaves} & wait", "{leaves} | cat", "cd / && {leaves}"])
def test_commands_that_are_shells_stop_cleanly(workshop: Workshop, text: str) -> None:
    """A stop of commands wrapped in a shell left the real ones running, or counted as a failure."""
    run = workshop.up(engine=text, gateway=text)
    run.send(signal.SIGTERM)
    status, _, events = run.end()
    assert (status, events) == (0, ["gateway asked", "engine asked"])


@linux_only
@every_shell
def test_nobody_outlives_the_script(workshop: Workshop, shell: Sequence[str]) -> None:
    """The out-of-memory killer took the script, and the two it had started kept the ports for ever."""
    run = workshop.up(shell)
    run.send(signal.SIGKILL)
    status, _, events = run.end()
    assert (status, events) == (-signal.SIGKILL, [])


@every_shell
def test_messages_that_nobody_reads_do_no_harm(workshop: Workshop, shell: Sequence[str]) -> None:
    """``./entrypoint.sh 2>&1 | head`` took the gateway down, or could not be stopped any more."""
    run = workshop.up(shell)
    for stream in (run.process.stdout, run.process.stderr):
        assert stream is not None
        stream.close()
    run.send(signal.SIGTERM)
    assert list(iter(run.event, "")) == ["gateway asked", "engine asked"]
    assert run.process.wait(LIMIT_S) == 0


@pytest.mark.parametrize("command", [["./entrypoint.sh"], ["sh", "entrypoint.sh"], ["sh", "../main/entrypoint.sh"]])
def test_every_way_to_start_it(workshop: Workshop, command: list[str]) -> None:
    """The script started in one way and failed in another."""
    folder = workshop.folder / "main"
    folder.mkdir()
    shutil.copy(SCRIPT, folder)
    run = workshop.up(command=command, cwd=str(folder))
    run.send(signal.SIGTERM)
    status, _, events = run.end()
    assert (status, events) == (0, ["gateway asked", "engine asked"])


@linux_only
@pytest.mark.parametrize("text", ["./entrypoint.sh", "cd . && ./entrypoint.sh"])
@every_shell
def test_the_shell_around_it_can_be_stopped(workshop: Workshop, shell: Sequence[str], text: str) -> None:
    """``sh -c ./entrypoint.sh`` was stopped, and all that ended was the outer shell."""
    shutil.copy(SCRIPT, workshop.folder)
    run = workshop.up(command=[*shell, "-c", text])
    run.send(signal.SIGTERM)
    status, stderr, events = run.end()
    # Shells that become their last command give its status, the others end by the signal.
    assert status in {0, -signal.SIGTERM}
    assert events == ["gateway asked", "engine asked"]
    assert stderr.endswith("entrypoint.sh: stopped\n")


def test_the_banner_comes_when_both_answer(workshop: Workshop) -> None:
    """Nobody said where the gateway was and what to try, or the probe kept running for ever after."""
    server = workshop.folder / "gateway.py"
    server.write_text(HEALTHY_GATEWAY)
    command = shlex.join([sys.executable, "-I", "-S", str(server), f"{workshop.folder}/gateway.sock"])
    run = workshop.run(gateway=command, PROXY_MODEL_ID="mine")
    run.expect("engine up")
    lines = [run.shown() for _ in range(4)]
    assert lines[0] == f"brunix is up: unix:{workshop.folder}/gateway.sock  model: mine\n"
    assert lines[3].startswith("  try:  curl ")
    run.send(signal.SIGTERM)
    status, stderr, events = run.end()
    assert (status, events) == (0, ["engine asked"])
    assert "probe" not in stderr


@every_shell
def test_a_probe_that_fails_stops_nobody(workshop: Workshop, shell: Sequence[str]) -> None:
    """A gateway behind a socket that the probe cannot ask was taken down for that, or the failure went unsaid."""
    run = workshop.up(shell, PROXY_LISTEN="systemd:domain=INET:index=0")
    told = next(line for line in iter(run.told, "") if line.startswith("entrypoint.sh: the probe"))
    assert "the probe ended with status 2, so nobody will say when the gateway is up" in told
    run.send(signal.SIGTERM)
    status, _, events = run.end()
    assert (status, events) == (0, ["gateway asked", "engine asked"])


@every_shell
@pytest.mark.parametrize("variable", ["BRUNIX_ENGINE_COMMAND", "BRUNIX_GATEWAY_COMMAND"])
def test_a_command_that_is_not_found(workshop: Workshop, shell: Sequence[str], variable: str) -> None:
    """A mistyped command started half of it, or showed as a page of shell errors."""
    run = workshop.run(shell, **{variable: "twisted-nonsense --nodaemon"})
    status, stderr, events = run.end()
    assert (status, events) == (127, [])
    assert stderr.startswith(f"entrypoint.sh: twisted-nonsense is not found, which {variable} would run")
    assert stderr.count("\n") == 1


@every_shell
@pytest.mark.parametrize("variable", ["BRUNIX_DRAIN_GRACE_S", "BRUNIX_KILL_GRACE_S"])
@pytest.mark.parametrize("value", ["1.5", "-1", "soon", "99999", " "])
def test_a_grace_that_is_none(workshop: Workshop, shell: Sequence[str], variable: str, value: str) -> None:
    """A mistyped grace showed only at the stop, as a shell error with everything still running."""
    run = workshop.run(shell, **{variable: value})
    status, stderr, events = run.end()
    assert (status, events) == (64, [])
    assert stderr == f"entrypoint.sh: {variable} is '{value}'; allowed: a whole number from 0 to 9999\n"


@every_shell
def test_without_python(workshop: Workshop, shell: Sequence[str]) -> None:
    """A machine without Python showed shell errors in place of what to do."""
    shutil.copy(SCRIPT, workshop.folder)
    tools = workshop.folder / "tools"
    tools.mkdir()
    for name in ("dirname", "sleep", "tr"):
        found = shutil.which(name)
        assert found is not None
        (tools / name).symlink_to(found)
    found = shutil.which(shell[0])
    assert found is not None
    run = workshop.run(command=[found, *shell[1:], "./entrypoint.sh"], PATH=str(tools), VIRTUAL_ENV="")
    status, stderr, events = run.end()
    assert (status, events) == (127, [])
    assert stderr == "entrypoint.sh: python is not on the PATH; in a checkout, make run installs everything\n"


@every_shell
@pytest.mark.parametrize("active", [False, True])
def test_a_checkout_brings_its_own_environment(workshop: Workshop, shell: Sequence[str], *, active: bool) -> None:
    """./entrypoint.sh did not find what make run had installed, or did not use the environment that was active."""
    checkout = workshop.folder / "check out"
    (checkout / ".venv/bin").mkdir(parents=True)
    workshop.script = Path(shutil.copy(SCRIPT, checkout))
    for name in ("python", "installed"):
        program = checkout / ".venv/bin" / name
        program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n')
        program.chmod(0o755)
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
        assert "installed is not found" in stderr
    else:
        run.expect("engine up", "gateway up")
        run.send(signal.SIGTERM)
        assert run.end()[0] == 0


def namespace() -> list[str]:
    """What makes a command process 1 of its own world, or nothing where that is not allowed."""
    unshare = shutil.which("unshare")
    for options in (["--pid"], ["--user", "--map-root-user", "--pid"]):
        command = [unshare or "false", *options, "--fork", "--mount-proc"]
        tried = subprocess.run([*command, "true"], capture_output=True, check=False, timeout=LIMIT_S)  # noqa: S603 - unshare
        if tried.returncode == 0:
            return command
    return []


def children(pid: int) -> list[int]:
    """The numbers of a process's children, oldest first."""
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.fixture
def as_process_1() -> Callable[[Sequence[str]], list[str]]:
    command = namespace()
    if not command or not Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").exists():
        pytest.skip("this machine does not let us make a process namespace")
    return lambda shell: [*command, *shell, str(SCRIPT)]


@every_shell
def test_as_process_1_it_stops(
    workshop: Workshop, shell: Sequence[str], as_process_1: Callable[[Sequence[str]], list[str]]
) -> None:
    """``docker stop`` waited ten seconds and killed: as process 1 of a container the script was deaf to SIGTERM."""
    run = workshop.up(command=as_process_1(shell))
    (process_1,) = children(run.process.pid)
    os.kill(process_1, signal.SIGTERM)
    status, _, events = run.end()
    assert (status, events) == (0, ["gateway asked", "engine asked"])


@every_shell
def test_as_process_1_it_buries_orphans(
    workshop: Workshop, shell: Sequence[str], as_process_1: Callable[[Sequence[str]], list[str]]
) -> None:
    """In a container, what a killed engine had left behind was waited for as if it were still alive."""
    run = workshop.up(command=as_process_1(shell), engine="{leaves} & wait", BRUNIX_KILL_GRACE_S="9999")
    (process_1,) = children(run.process.pid)
    os.kill(children(process_1)[0], signal.SIGKILL)
    status, stderr, events = run.end()
    assert status == 1
    assert "the engine was ended by SIGKILL, unasked" in stderr
    assert sorted(events) == ["engine asked", "gateway asked"]
