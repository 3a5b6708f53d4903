"""`brunix run`, started by entrypoint.sh, with stand-ins for the engine and the gateway."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from brunix_twisted.app import launcher
from brunix_twisted.app.signals import STOP
from isolation import BARE
from stand_ins import HEALTHY_GATEWAY, LIMIT_S, SCRIPT, Run, Workshop, workshop_in
from wall_clock import HOUR_S, in_python

OTHER = {"engine": "gateway", "gateway": "engine"}
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="only Linux reports a parent's end and adopts orphans")
needs_setsid = pytest.mark.skipif(shutil.which("setsid") is None, reason="setsid is not installed")


@pytest.fixture
def workshop(tmp_path: Path) -> Iterator[Workshop]:
    with workshop_in(tmp_path) as workshop:
        yield workshop


def after(signals: str, *command: str) -> list[str]:
    """Return what starts a command that has received these signals, which stay pending until it is ready for them."""
    script = (
        "import os, signal, sys\n"
        "numbers = [getattr(signal, f'SIG{name}') for name in sys.argv[1].split(',')]\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, numbers)\n"
        "for number in numbers:\n"
        "    os.kill(os.getpid(), number)\n"
        "os.execv(sys.argv[2], sys.argv[2:])\n"
    )
    return [sys.executable, "-I", "-S", "-c", script, signals, *command]


# --- When one ends ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("child", OTHER)
@pytest.mark.parametrize(
    ("number", "manner", "how"),
    [
        pytest.param(signal.SIGUSR1, "0", "exited with status 0", id="exit-0"),
        pytest.param(signal.SIGUSR1, "3", "exited with status 3", id="exit-3"),
        pytest.param(signal.SIGUSR1, "255", "exited with status 255", id="exit-255"),
        pytest.param(signal.SIGKILL, "leaves", "was killed by SIGKILL", id="SIGKILL"),
        pytest.param(signal.SIGTERM, "raises", "was killed by SIGTERM", id="SIGTERM"),
        pytest.param(signal.SIGTERM, "leaves", "exited with status 0", id="SIGTERM-exit-0"),
        pytest.param(signal.SIGINT, "leaves", "was killed by SIGINT", id="SIGINT"),
    ],
)
def test_when_one_ends_so_does_the_other(
    workshop: Workshop, child: str, number: signal.Signals, manner: str, how: str
) -> None:
    """A gateway never stays without its engine, or an engine without its gateway, and the status is a failure's."""
    run = workshop.up(**{child: manner})
    os.kill(run.pids[child], number)
    status, stderr, events = run.end()
    assert status == 1
    assert f"brunix run: the {child} {how}: stopping everything\n" in stderr
    assert [event for event in events if not event.startswith(child)] == [f"{OTHER[child]} asked"]
    assert "killing" not in stderr


@pytest.mark.parametrize(("child", "text"), [("engine", "stays"), ("gateway", "{stays} & wait")])
def test_the_other_is_killed_if_it_does_not_stop(workshop: Workshop, child: str, text: str) -> None:
    """When one has ended, the other does not stay because it hangs."""
    run = workshop.up(BRUNIX_KILL_GRACE_S="2", **{OTHER[child]: text})
    os.kill(run.pids[child], signal.SIGKILL)
    status, stderr, events = run.end()
    # On a busy machine it is killed before it has said that it was asked.
    assert status == 1
    assert set(events) <= {f"{OTHER[child]} asked"}
    assert f"the {OTHER[child]}, or a process that it started, did not stop: killing it\n" in stderr


def test_a_command_that_cannot_be_started(workshop: Workshop) -> None:
    """When the system refuses to start one, the other is stopped, and the message has the reason."""
    # A quarter of the stack's size limits arguments and environment together. The environment fits, but not the
    # engine's command once more.
    limit_bytes, long = 2**21, 120_000
    padding = {f"PADDING_{number:02}": "x" * long for number in range(15)}
    # A file, since the message has the long command in it.
    with (workshop.folder / "log").open("w+") as log:
        run = workshop.run(
            engine="true " + "x" * (long - 5),
            command=["sh", "-c", f'ulimit -s {4 * limit_bytes // 1024} && exec "{SCRIPT}"'],
            popen={"stderr": log},
            PADDING_15="x" * (limit_bytes - 16 * long - long // 2),
            **padding,
        )
        status, _, events = run.end()
        log.seek(0)
        told = log.read()
    assert status == 1
    assert "brunix run: the engine could not be started: Argument list too long: stopping everything\n" in told
    assert events in ([], ["gateway up", "gateway asked"])


# --- Stopping ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", STOP)
@pytest.mark.parametrize("manner", ["leaves", "raises"])
def test_stopping_is_clean(workshop: Workshop, number: signal.Signals, manner: str) -> None:
    """After Ctrl-C or the service manager's stop nothing runs any more, and the status is 0."""
    run = workshop.up(engine=manner, gateway=manner)
    run.send(number)
    status, stderr, events = run.end()
    assert status == 0
    assert events == ["gateway asked", "engine asked"]
    assert f"brunix run: {number.name}: stopping the gateway, then the engine\n" in stderr
    assert stderr.endswith("brunix run: stopped\n")


def test_the_gateway_finishes_while_the_engine_lives(workshop: Workshop) -> None:
    """The engine stays until the gateway has ended its answers."""
    run = workshop.up(gateway="stays")
    run.send(signal.SIGTERM)
    run.expect("gateway asked")
    os.kill(run.pids["gateway"], signal.SIGUSR2)
    assert run.event() == "gateway leaves"
    assert run.event() == "engine asked"
    assert run.end()[0] == 0


def test_a_second_signal_stops_the_engine_at_once(workshop: Workshop) -> None:
    """A second Ctrl-C does not wait for slow answers."""
    run = workshop.up(gateway="stays", engine="leaves")
    run.send(signal.SIGINT)
    run.expect("gateway asked")
    run.send(signal.SIGINT)
    run.expect("engine asked")
    os.kill(run.pids["gateway"], signal.SIGUSR2)
    status, _, events = run.end()
    assert (status, events) == (0, ["gateway leaves"])


def test_a_third_signal_kills(workshop: Workshop) -> None:
    """A process that hangs can be ended from the terminal."""
    run = workshop.up(gateway="stays", engine="stays")
    for expected in "gateway asked", "engine asked":
        run.send(signal.SIGINT)
        run.expect(expected)
    run.send(signal.SIGINT)
    status, stderr, events = run.end()
    assert (status, events) == (2, [])
    assert "the gateway, or a process that it started, did not stop: killing it\n" in stderr
    assert "the engine, or a process that it started, did not stop: killing it\n" in stderr


@pytest.mark.parametrize(("child", "text"), [("engine", "stays"), ("gateway", "{stays} & wait")])
def test_a_process_that_does_not_stop_is_killed(workshop: Workshop, child: str, text: str) -> None:
    """A process that hangs does not outlive the stop, and the status says that it was killed."""
    run = workshop.up(BRUNIX_DRAIN_GRACE_S="0", BRUNIX_KILL_GRACE_S="2", **{child: text})
    run.send(signal.SIGTERM)
    status, stderr, events = run.end()
    assert status == 2
    assert set(events) <= {"engine asked", "gateway asked"}
    assert f"brunix run: the {child}, or a process that it started, did not stop: killing it\n" in stderr


@pytest.mark.parametrize("child", OTHER)
def test_a_failed_stop_is_reported(workshop: Workshop, child: str) -> None:
    """A gateway or an engine that fails while it stops is not reported to the service manager as a success."""
    run = workshop.up(**{child: "fails"})
    run.send(signal.SIGTERM)
    status, stderr, _ = run.end()
    assert status == 2
    assert f"brunix run: the {child} exited with status 3 when asked to stop\n" in stderr


def test_an_engine_that_dies_ends_the_drain(workshop: Workshop) -> None:
    """Without an engine no answer can end, so the stop does not wait for the gateway's whole grace."""
    run = workshop.up(gateway="stays", BRUNIX_KILL_GRACE_S="0")
    run.send(signal.SIGTERM)
    run.expect("gateway asked")
    os.kill(run.pids["engine"], signal.SIGKILL)
    status, stderr, events = run.end()
    assert (status, events) == (2, [])
    assert "the engine was killed by SIGKILL when asked to stop" in stderr


def test_a_clock_that_is_set_back_stops_no_timer(workshop: Workshop, tmp_path: Path) -> None:
    """A gateway that hangs is killed after its grace even if the wall clock is set meanwhile."""
    wall_clock = in_python(tmp_path)
    run = workshop.up(gateway="stays", BRUNIX_DRAIN_GRACE_S="1", BRUNIX_KILL_GRACE_S="1", **wall_clock.environment)
    run.send(signal.SIGTERM)
    assert run.event() in {"gateway asked", ""}
    wall_clock.set(-HOUR_S)
    assert run.end()[0] == 2


def test_a_stop_while_starting(workshop: Workshop) -> None:
    """A stop during the start is not lost, and leaves nothing half started."""
    run = workshop.run()
    assert run.told().startswith("brunix run: starting the engine (")
    run.send(signal.SIGTERM)
    status, stderr, _ = run.end()
    assert status == 0
    assert stderr.endswith("brunix run: stopped\n")


def test_a_stop_before_the_start(workshop: Workshop) -> None:
    """A stop that comes before anything runs starts nothing."""
    run = workshop.run(command=after("TERM", sys.executable, "-m", "brunix_twisted", "run"))
    status, stderr, events = run.end()
    assert (status, events) == (0, [])
    assert stderr == "brunix run: SIGTERM: stopped before anything was started\n"


# --- Signals that do not stop -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGUSR2])
def test_signals_that_stop_nothing(workshop: Workshop, number: signal.Signals) -> None:
    """SIGUSR1, which makes programs open their log file again, does not end everything."""
    run = workshop.up()
    for _ in range(3):
        run.send(number)
    run.send(signal.SIGTERM)
    status, stderr, events = run.end()
    assert (status, events) == (0, ["gateway asked", "engine asked"])
    assert "brunix run: SIGTERM: stopping" in stderr


def test_nohup(workshop: Workshop) -> None:
    """Under nohup, SIGHUP ends neither `brunix run` nor its commands."""
    run = workshop.up(command=["sh", "-c", f'trap "" HUP; exec "{SCRIPT}"'])
    run.send(signal.SIGHUP)
    for pid in run.pids.values():
        os.kill(pid, signal.SIGHUP)
    run.send(signal.SIGTERM)
    status, stderr, events = run.end()
    assert (status, events) == (0, ["gateway asked", "engine asked"])
    assert "SIGHUP" not in stderr


def test_suspended_and_resumed(workshop: Workshop) -> None:
    """The commands keep running while `brunix run` is suspended, and what has ended meanwhile is noticed afterwards."""
    run = workshop.up()
    run.send(signal.SIGSTOP)
    os.waitid(os.P_PID, run.process.pid, os.WSTOPPED | os.WNOWAIT)
    os.kill(run.pids["engine"], signal.SIGTERM)
    run.expect("engine asked")
    run.send(signal.SIGCONT)
    status, stderr, events = run.end()
    assert (status, events) == (1, ["gateway asked"])
    assert "the engine exited with status 0: stopping everything" in stderr


# --- Everything that the commands have started ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("child", "text"),
    [
        ("engine", "{leaves} & wait"),
        ("engine", "{leaves} | cat"),
        ("gateway", "cd / && {leaves}"),
        ("gateway", "sh -c '{leaves} & wait'; true"),
    ],
)
def test_what_a_command_started_ends_with_it(workshop: Workshop, text: str, child: str) -> None:
    """When a command that is a shell is killed, what it has started does not keep the port."""
    run = workshop.up(**{child: text})
    assert run.groups[child] != run.pids[child]  # the first of its group is the shell
    os.kill(run.groups[child], signal.SIGKILL)
    status, stderr, events = run.end()
    assert status == 1
    assert f"the {child} was killed by SIGKILL: stopping" in stderr
    assert sorted(events) == ["engine asked", "gateway asked"]


@pytest.mark.parametrize("text", ["{leaves} & wait", "{leaves} | cat", "cd / && {leaves}"])
def test_commands_that_are_shells_stop_cleanly(workshop: Workshop, text: str) -> None:
    """A stop reaches the programs inside of shells, and counts as clean."""
    run = workshop.up(engine=text, gateway=text)
    run.send(signal.SIGTERM)
    status, _, events = run.end()
    assert (status, events) == (0, ["gateway asked", "engine asked"])


@linux_only
@needs_setsid
@pytest.mark.parametrize("child", OTHER)
def test_a_process_that_left_its_group_is_stopped(workshop: Workshop, child: str) -> None:
    """A daemon that one of the commands has started, in a session of its own, does not outlive the run."""
    run = workshop.up(**{child: "setsid {leaves} & wait"})
    assert run.groups[child] == run.pids[child]
    os.kill(parent(run.pids[child]), signal.SIGKILL)
    status, stderr, events = run.end()
    assert status == 1
    assert f"the {child} was killed by SIGKILL: stopping" in stderr
    assert sorted(events) == ["engine asked", "gateway asked"]
    assert "killing" not in stderr


@linux_only
@needs_setsid
def test_a_process_that_left_its_group_is_killed(workshop: Workshop) -> None:
    """A daemon that hangs does not outlive the run either, and the status says so."""
    run = workshop.up(engine="setsid {stays} & wait")
    run.send(signal.SIGTERM)
    assert [run.event(), run.event()] == ["gateway asked", "engine asked"]
    run.send(signal.SIGINT)
    run.send(signal.SIGQUIT)
    status, stderr, events = run.end()
    assert (status, events) == (2, [])
    assert f"processes that left their groups did not stop: killing {run.pids['engine']}\n" in stderr


@linux_only
def test_what_ran_before_is_left_alone(workshop: Workshop) -> None:
    """A start script's own background process is not stopped when the script becomes `brunix run`."""
    run = workshop.run(command=["sh", "-c", f'$BESIDE & exec "{SCRIPT}"'], BESIDE="{stays}")
    run.expect("beside up", "engine up", "gateway up")
    run.send(signal.SIGTERM)
    run.expect("gateway asked")
    run.expect("engine asked")
    assert run.process.wait(LIMIT_S) == 0
    os.kill(run.pids["beside"], signal.SIGUSR2)
    assert run.event() == "beside leaves"


@linux_only
def test_neither_outlives_a_killed_run(workshop: Workshop) -> None:
    """When the out-of-memory killer ends `brunix run`, the two commands do not keep the ports."""
    run = workshop.up()
    run.send(signal.SIGKILL)
    status, _, events = run.end()
    assert (status, events) == (-signal.SIGKILL, [])


# --- Output -----------------------------------------------------------------------------------------------------------


def test_messages_with_a_reader_that_has_gone(workshop: Workshop) -> None:
    """``brunix run 2>&1 | head`` neither ends the gateway nor prevents a stop."""
    run = workshop.up()
    for stream in (run.process.stdout, run.process.stderr):
        assert stream is not None
        stream.close()
    run.send(signal.SIGTERM)
    assert list(iter(run.event, "")) == ["gateway asked", "engine asked"]
    assert run.process.wait(LIMIT_S) == 0


def test_messages_that_are_not_read(workshop: Workshop) -> None:
    """A log pipe that is full blocks neither the start nor the stop."""
    read_fd, write_fd = os.pipe()
    try:
        os.set_blocking(write_fd, False)
        with suppress(BlockingIOError):
            while os.write(write_fd, b"x" * 4096):
                pass
        os.set_blocking(write_fd, True)
        run = workshop.up(popen={"stderr": write_fd})
        run.send(signal.SIGTERM)
        assert run.end() == (0, "", ["gateway asked", "engine asked"])
    finally:
        os.close(read_fd)
        os.close(write_fd)


def test_closed_standard_streams(workshop: Workshop) -> None:
    """A start without standard streams, as from some daemons, does not write messages into another file."""
    run = workshop.up(command=["sh", "-c", f'exec "{SCRIPT}" <&- >&- 2>&-'])
    assert {str(Path(f"/proc/{run.process.pid}/fd/{number}").readlink()) for number in range(3)} <= {"/dev/null"}
    run.send(signal.SIGTERM)
    assert run.end() == (0, "", ["gateway asked", "engine asked"])


def test_the_banner_comes_when_both_answer(workshop: Workshop) -> None:
    """The address and an example are printed when the gateway can be used, and the health check ends with that."""
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
    assert "health" not in stderr


def test_a_failed_health_check_stops_nothing(workshop: Workshop) -> None:
    """A gateway on a socket that cannot be checked keeps running, and the failure is reported."""
    run = workshop.up(PROXY_LISTEN="systemd:domain=INET:index=0")
    told = next(line for line in iter(run.told, "") if line.startswith("brunix run: the health check"))
    assert "the health check exited with status 2, so no message will say when the gateway is up" in told
    run.send(signal.SIGTERM)
    status, _, events = run.end()
    assert (status, events) == (0, ["gateway asked", "engine asked"])


# --- Wrong variables and commands -------------------------------------------------------------------------------------


@pytest.mark.parametrize("variable", ["BRUNIX_ENGINE_COMMAND", "BRUNIX_GATEWAY_COMMAND"])
@pytest.mark.parametrize("rest", [" --nodaemon", " | cat", ""])
def test_a_command_that_is_not_found(workshop: Workshop, variable: str, rest: str) -> None:
    """A mistyped command starts nothing and is reported in one line."""
    wrong: dict[str, Any] = {variable: f"twisted-nonsense{rest}"}
    run = workshop.run(**wrong)
    status, stderr, events = run.end()
    assert (status, events) == (127, [])
    assert stderr.startswith(f"brunix run: command not found: twisted-nonsense ({variable}); ")
    assert stderr.count("\n") == 1


def test_commands_that_only_a_shell_has(workshop: Workshop) -> None:
    """A command may begin with a word or an assignment that is the shell's, and a script may lack its first line."""
    script = workshop.folder / "engine"
    script.write_text('exec $ENGINE "$@"\n')
    script.chmod(0o755)
    run = workshop.run(engine="./engine leaves", gateway="NAME=x {leaves}", ENGINE="{}")
    run.expect("engine up", "gateway up")
    run.send(signal.SIGTERM)
    assert run.end()[0] == 0
    run = workshop.up(engine="exec {leaves}")
    run.send(signal.SIGTERM)
    assert run.end()[0] == 0


def test_text_that_is_not_utf_8(workshop: Workshop) -> None:
    """Commands and other variables may contain any bytes, which reach the commands unchanged."""
    latin_1 = "caf\udce9"
    run = workshop.up(engine=f'test "$PLACE" = {latin_1} && {{leaves}}', PLACE=latin_1)
    run.send(signal.SIGTERM)
    status, _, events = run.end()
    assert (status, events) == (0, ["gateway asked", "engine asked"])


@pytest.mark.parametrize("variable", ["BRUNIX_DRAIN_GRACE_S", "BRUNIX_KILL_GRACE_S"])
@pytest.mark.parametrize("value", ["1.5", "-1", "soon", "99999", " ", "٣"])
def test_a_wrong_grace(workshop: Workshop, variable: str, value: str) -> None:
    """A mistyped grace is reported at the start, and not at the stop with everything still running."""
    wrong: dict[str, Any] = {variable: value}
    run = workshop.run(**wrong)
    status, stderr, events = run.end()
    assert (status, events) == (64, [])
    assert stderr == f"brunix run: {variable} is '{value}'; allowed: a whole number from 0 to 9999\n"


def test_a_wrong_command_line(workshop: Workshop) -> None:
    """An argument that is not understood starts nothing."""
    run = workshop.run(command=["sh", str(SCRIPT), "engine"])
    status, stderr, events = run.end()
    assert (status, events) == (2, [])
    assert "unrecognized arguments: engine" in stderr


def test_little_is_imported() -> None:
    """A process that only waits takes no more memory than it needs."""
    script = (
        "import os, sys\n"
        "from brunix_twisted.cli.commands import run\n"
        "status = run(['run'], dict(os.environ))\n"
        "print(status, *(name for name, module in sys.modules.items() if module))\n"
    )
    done = subprocess.run(  # noqa: S603 - this interpreter
        [sys.executable, "-c", script],
        env=BARE | {"BRUNIX_ENGINE_COMMAND": "exit 3", "BRUNIX_GATEWAY_COMMAND": "sleep 9999"},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=True,
    )
    status, *modules = done.stdout.splitlines()[-1].split()
    assert status == "1"
    assert "twisted.internet.process" in modules
    ours = {
        name for name in modules if name.startswith("brunix_twisted.") and not name.startswith("brunix_twisted.cli")
    }
    assert {name.partition(".")[2].partition(".")[0] for name in ours} == {"app", "embedded", "runtime"}
    assert not {name.partition(".")[0] for name in modules} & {"OpenSSL", "cryptography", "grpc", "klein", "msgspec"}


# --- The launcher -----------------------------------------------------------------------------------------------------


def launch(before: list[str], parent: int, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 - this interpreter
        [*before, sys.executable, "-I", "-S", launcher.__file__, str(parent), "hup", *words],
        env=BARE,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )


def test_a_terminals_signal_does_not_reach_what_is_starting() -> None:
    """Ctrl-C in the first moment is for `brunix run` alone, and the commands react to later signals as usual."""
    done = launch(after("HUP,INT,QUIT,TSTP"), os.getpid(), "cat", "/proc/self/status")
    assert (done.returncode, done.stderr) == (0, "")
    masks = dict(re.findall(r"^(SigBlk|SigIgn|SigPnd|ShdPnd):\s+(\S+)$", done.stdout, re.MULTILINE))
    # The rest are real-time signals; GNU make leaves one that the C library uses ignored.
    assert {name for name, mask in masks.items() if int(mask, 16) & 0x7FFFFFFF} == set()


def test_nothing_starts_without_its_parent() -> None:
    """A command is not started for a `brunix run` that has just been killed."""
    done = launch([], os.getpid() + 1, "echo", "started")
    assert (done.returncode, done.stdout) == (1, "")


# --- Process 1 --------------------------------------------------------------------------------------------------------


def namespace() -> list[str]:
    """Return what makes a command process 1 of a namespace, or nothing where that is not allowed."""
    unshare = shutil.which("unshare")
    for options in (["--pid"], ["--user", "--map-root-user", "--pid"]):
        command = [unshare or "false", *options, "--fork", "--mount-proc"]
        tried = subprocess.run([*command, "true"], capture_output=True, check=False, timeout=LIMIT_S)  # noqa: S603 - unshare
        if tried.returncode == 0:
            return command
    return []


def children(pid: int) -> list[int]:
    """Return the pids of a process's children, oldest first."""
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def parent(pid: int) -> int:
    """Return the pid of a process's parent."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


@pytest.fixture
def process_1(workshop: Workshop) -> Callable[..., tuple[Run, int]]:
    """Starts it as process 1 of a namespace; returns the run, and the process's pid outside of that."""
    command = namespace()
    if not command or not Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").exists():
        pytest.skip("this machine does not let us make a process namespace")

    def start(**options: str) -> tuple[Run, int]:
        run = workshop.up(command=[*command, "sh", str(SCRIPT)], **options)
        (pid,) = children(run.process.pid)
        return run, pid

    return start


def test_as_process_1_it_stops(process_1: Callable[..., tuple[Run, int]]) -> None:
    """``docker stop`` does not wait ten seconds and then kill."""
    run, pid = process_1()
    os.kill(pid, signal.SIGTERM)
    status, _, events = run.end()
    assert (status, events) == (0, ["gateway asked", "engine asked"])


def test_as_process_1_it_reaps_orphans(process_1: Callable[..., tuple[Run, int]]) -> None:
    """In a container, what a killed engine has left behind is not waited for as if it were still running."""
    run, pid = process_1(engine="{leaves} & wait", BRUNIX_KILL_GRACE_S="9999")
    os.kill(children(pid)[0], signal.SIGKILL)
    status, stderr, events = run.end()
    assert status == 1
    assert "the engine was killed by SIGKILL: stopping" in stderr
    assert sorted(events) == ["engine asked", "gateway asked"]
