"""
The Dockerfile and compose.yaml, without a container engine.

The Dockerfile's steps are run as they stand, in a folder that takes the place of the image's, and what they made is
started as another user who may write nothing there.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import attrs
import pytest
import yaml

from brunix_twisted import __version__
from brunix_twisted.app import health_check
from brunix_twisted.app.service import _FLUSH_S
from brunix_twisted.config import redis_url
from brunix_twisted.config.settings import Settings, table
from brunix_twisted.embedded.options import VARIABLES
from dockerfile import instructions, pairs, stages, value
from isolation import OUTER, unmeasured
from paths import ROOT
from twistd import free_port

PREFIX = "/opt/brunix"
LIMIT_S = 120
MARGIN_S = 5

NO_INDEX = re.compile("NewConnectionError|ConnectTimeout|Max retries exceeded|Name or service not known|ProxyError")
"""What pip says when it reaches no package index."""


def copied(steps: Sequence[tuple[str, str]]) -> list[str]:
    """What these instructions copy from the folder of the build."""
    sources = [rest.split()[:-1] for name, rest in steps if name == "COPY" and not rest.startswith("--from")]
    return [word for words in sources for word in words]


def compose() -> Any:  # noqa: ANN401 - whatever YAML holds
    return yaml.safe_load((ROOT / "compose.yaml").read_text("utf-8"))


def seconds(text: str) -> int:
    assert text.endswith("s")
    return int(text[:-1])


def test_hadolint() -> None:
    """The image would be built in a way that is known to go wrong."""
    hadolint = Path(sys.executable).parent / "hadolint"
    found = subprocess.run([hadolint, ROOT / "Dockerfile"], capture_output=True, text=True, check=False)  # noqa: S603 - our own
    assert (found.returncode, found.stdout) == (0, "")


def test_context() -> None:
    """``docker build`` would not find what it copies, or send a checkout's environments and secrets along."""
    lines = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    first, *rest = [line for line in lines if line and not line.startswith("#")]
    assert first == "*"
    assert {line[1:] for line in rest if line.startswith("!")} == set(copied(instructions()))
    assert all(line.startswith("**/") for line in rest if not line.startswith("!"))
    assert all((ROOT / name).exists() for name in copied(instructions()))
    assert os.access(ROOT / "entrypoint.sh", os.X_OK)


def test_base_image() -> None:
    """The same Dockerfile would give another Python tomorrow, or one that the lock was not made for."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    oldest = project["requires-python"].removeprefix(">=")
    name, _, image = instructions()[0][1].partition("=")
    assert re.fullmatch(rf"python:{re.escape(oldest)}\.[0-9]+-slim-[a-z]+(@sha256:[0-9a-f]{{64}})?", image)
    assert [stage[0][1].split()[0] for stage in stages()] == [f"${{{name}}}"] * 2


def test_page() -> None:
    """Somebody who copies a command from the page would get another image than the one that the files name."""
    page = (ROOT / "docs" / "containers.md").read_text("utf-8")
    assert set(re.findall(r"brunix-twisted:([0-9.]+)", page)) == {__version__}
    assert set(re.findall(r"python:[0-9][0-9a-z.-]+", page)) == {instructions()[0][1].partition("=")[2]}
    assert f"--stop-timeout {seconds(compose()['services']['gateway']['stop_grace_period'])} " in page


def test_build_lock() -> None:
    """The image would be built with another release of the build's tools than the project asks for, or with none."""
    (wanted,) = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["build-system"]["requires"]
    lock = (ROOT / "requirements-build.lock").read_text("utf-8")
    name, _, least = wanted.partition(">=")
    (locked,) = re.findall(rf"^{name}==([0-9.]+) ", lock, re.MULTILINE)
    assert [int(part) for part in locked.split(".")] >= [int(part) for part in least.split(".")]


def test_image() -> None:
    """The image would run as root, listen where nobody looks, or be told ill while it is only slow."""
    assert re.fullmatch(r"[1-9][0-9]*:[1-9][0-9]*", value("USER"))
    environment = pairs("ENV")
    ours = {name for name in environment if name.startswith(("PROXY_", "BRUNIX_"))}
    assert ours <= {row.variable for _, row in table()}
    assert str(health_check.address(environment["PROXY_LISTEN"]).port) == value("EXPOSE")
    # Not the loopback interface, to which nothing from outside of a container gets.
    assert "interface" not in environment["PROXY_LISTEN"]
    timeout = re.search(r"--timeout=([0-9]+)s", value("HEALTHCHECK"))
    assert timeout is not None
    assert int(timeout[1]) > health_check.ONCE_TIMEOUT_S + 1
    labels = {name.removeprefix("org.opencontainers.image."): text for name, text in pairs("LABEL").items()}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert labels == {
        "title": "brunix_twisted",
        "description": project["description"],
        "version": __version__,
        "licenses": project["license"],
    }


# --- What the Dockerfile makes ----------------------------------------------------------------------------------------


@attrs.frozen
class Image:
    """A folder in the place of the image's, and the user who runs it."""

    folder: Path
    user: int | None
    """None: the one who runs the tests."""
    started: list[subprocess.Popen[str]] = attrs.field(factory=list)

    @property
    def prefix(self) -> Path:
        return self.folder / "image"

    def start(self, command: Sequence[str], **environment: str) -> subprocess.Popen[str]:
        """Start a command as a container would: in the image's folder, with its environment and nothing else."""
        given = pairs("ENV") | {"PATH": f"{self.prefix}/bin:{os.defpath}", "TMPDIR": str(self.folder / "tmp")}
        process = subprocess.Popen(  # noqa: S603 - our own
            command,
            cwd=self.prefix,
            env=given | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            **as_user(self.user),
        )
        self.started.append(process)
        return process

    def run(self, command: Sequence[str], **environment: str) -> tuple[int, str]:
        """The status of a command, and what it said."""
        process = self.start(command, **environment)
        said, _ = process.communicate(timeout=LIMIT_S)
        return process.returncode, said

    def content(self) -> dict[str, int]:
        """Every file and folder, and when it was last changed."""
        return {str(path): path.lstat().st_mtime_ns for path in self.prefix.rglob("*")}


def as_user(user: int | None) -> dict[str, Any]:
    return {} if user is None else {"user": user, "group": user, "extra_groups": []}


def image_user() -> int | None:
    """The image's user, where the tests may become it."""
    return int(value("USER").partition(":")[0]) if os.geteuid() == 0 else None


def python_for(user: int | None) -> str:
    """A Python of the tests' release that this user can run: root's own may be out of reach for anybody else."""
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for python in (os.path.realpath(sys.executable), shutil.which(name, path=os.defpath)):
        try:
            if python is not None:
                subprocess.run([python, "-c", ""], check=True, cwd="/", **as_user(user))  # noqa: S603 - a Python
                return python
        except OSError:
            continue
    pytest.skip(f"no {name} here that another user may run")


def build(folder: Path, python: str) -> Path:
    """Do what the Dockerfile's steps do, as they stand, with a folder in the place of the image's."""
    stage, prefix, tools = folder / "build", folder / "image", folder / "tools"
    stage.mkdir()
    for name in copied(instructions()):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, stage / name, ignore=shutil.ignore_patterns("__pycache__", "dropin.cache"))
        else:
            shutil.copy2(ROOT / name, stage / name)
    # The Python of the stage, and a pip that belongs to it.
    subprocess.run([python, "-m", "venv", "--without-pip", tools], check=True)  # noqa: S603 - a Python
    pip = tools / "bin" / "pip"
    pip.write_text(f'#!/bin/sh\nexec {sys.executable} -m pip --quiet --python {tools}/bin/python "$@"\n', "utf-8")
    pip.chmod(0o755)
    first, last = stages()
    for steps, bin_folder in ((first, tools / "bin"), (last, prefix / "bin")):
        for name in copied(last) if steps is last else ():
            shutil.copy2(stage / name, prefix)
        for step in (rest for name, rest in steps if name == "RUN"):
            command = shlex.join(json.loads(step)) if step.startswith("[") else step.replace(PREFIX, str(prefix))
            done = subprocess.run(  # noqa: S603 - the Dockerfile's own
                ["/bin/sh", "-ec", command],
                cwd=stage,
                env=unmeasured(OUTER) | {"PATH": f"{bin_folder}:{os.defpath}"},
                capture_output=True,
                text=True,
                check=False,
            )
            if NO_INDEX.search(done.stderr):
                pytest.skip("no package index can be reached, from which the image is installed")
            assert done.returncode == 0, done.stderr
    return prefix


@pytest.fixture
def image() -> Iterator[Image]:
    user = image_user()
    python = python_for(user)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "tmp").mkdir()
        (folder / "tmp").chmod(0o777)
        prefix = build(folder, python)
        for path in (prefix, *prefix.rglob("*")):
            if not path.is_symlink():
                path.chmod(path.stat().st_mode & ~0o222)
        image = Image(folder, user)
        yield image
        for process in image.started:
            process.kill()  # with entrypoint.sh goes what it started
            process.communicate(timeout=LIMIT_S)


def said_until(process: subprocess.Popen[str], words: str) -> str:
    """What a process says, to the line that holds these words."""
    assert process.stdout is not None
    said = ""
    for line in process.stdout:
        said += line
        if words in line:
            return said
    pytest.fail(f"it ended without saying {words!r}: {said}")


def ask(listen: str, *, padding: int, chunked: bool) -> tuple[int, str]:
    """Ask a question in a body that is large or sent in chunks, either of which Twisted puts into a file."""
    question = {"model": "brunix", "stream": False, "prompt": "Which variable sets the number of worker threads?"}
    body_bytes = json.dumps(question).encode() + b" " * padding
    connection: http.client.HTTPConnection = health_check.address(listen).connection(LIMIT_S)
    connection.request("POST", "/api/generate", iter([body_bytes]) if chunked else body_bytes, encode_chunked=chunked)
    response = connection.getresponse()
    answer = response.read().decode()
    connection.close()
    return response.status, answer


def test_image_serves(image: Image) -> None:
    """A container would not start, not answer, not stop, or fail as soon as its file system is read-only."""
    before = image.content()
    assert any(name.endswith("twisted/plugins/dropin.cache") for name in before)
    engine = f"127.0.0.1:{free_port()}"
    listen = f"unix:{image.folder / 'tmp' / 'gateway.sock'}"
    state = image.folder / "tmp" / "brunix" / "state.sqlite"
    assert pairs("ENV")["PROXY_STATE"] == f"sqlite:{state_folder()}/{state.name}"
    where = {
        "PROXY_LISTEN": listen,
        "PROXY_STATE": f"sqlite:{state}",
        "BRUNIX_ENGINE_LISTEN": engine,
        "BRUNIX_GRPC_TARGET": engine,
    }
    health = json.loads(value("HEALTHCHECK").partition(" CMD ")[2])
    _, *engine_health = [
        word.replace("localhost:50051", engine) for word in compose()["services"]["engine"]["healthcheck"]["test"]
    ]

    alone = image.start(json.loads(value("CMD")), **where)
    said = said_until(alone, "Serving the model")
    status, told = image.run(health, **where)
    assert (status, "the gateway is up, the engine is not healthy yet" in told) == (1, True), told
    assert image.run(engine_health)[0] != 0
    alone.terminate()
    said += alone.communicate(timeout=LIMIT_S)[0]
    assert alone.returncode == -15
    assert "Traceback" not in said

    both = image.start(["./entrypoint.sh"], **where)
    said = said_until(both, "curl")
    assert image.run(health, **where)[0] == 0
    assert image.run(engine_health) == (0, "")
    for padding, chunked in ((0, False), (200_000, False), (0, True)):
        status, answer = ask(listen, padding=padding, chunked=chunked)
        assert (status, "PROXY_THREAD_WORKERS" in answer) == (200, True), answer
    both.terminate()
    said += both.communicate(timeout=LIMIT_S)[0]
    assert both.returncode == 0, said
    assert "Traceback" not in said

    assert image.content() == before
    assert {path.name for path in state.parent.iterdir()} == {"state.sqlite", "state.sqlite.secret"}


def state_folder() -> str:
    """The folder of the image that belongs to its user."""
    (copied_for_user,) = [rest.split() for name, rest in stages()[1] if name == "COPY" and "--chown" in rest]
    assert f"--chown={value('USER')}" in copied_for_user
    return copied_for_user[-1]


def test_compose_keeps_the_state() -> None:
    """``docker compose up`` after an update would begin all conversations again."""
    (mounted,) = compose()["services"]["gateway"]["volumes"]
    name, _, folder = mounted.partition(":")
    assert name in compose()["volumes"]
    assert folder == state_folder()


# --- compose.yaml -----------------------------------------------------------------------------------------------------


def test_compose_config() -> None:
    """``docker compose up`` would refuse the file."""
    for command in (["docker-compose"], ["docker", "compose"]):
        if shutil.which(command[0]) is not None:
            told = subprocess.run([*command, "version"], capture_output=True, check=False)  # noqa: S603 - as installed
            if told.returncode == 0:
                break
    else:
        pytest.skip("docker compose is not installed")
    done = subprocess.run(  # noqa: S603 - as installed
        [*command, "--profile", "*", "config", "--quiet"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_compose_settings() -> None:
    """A setting in compose.yaml would not be known, not be allowed, or lead past the engine."""
    gateway, engine = compose()["services"]["gateway"], compose()["services"]["engine"]
    assert set(gateway["environment"]) <= {row.variable for _, row in table()}
    assert set(engine["environment"]) <= set(VARIABLES.values())
    settings = Settings.read(pairs("ENV") | gateway["environment"], {})
    assert settings.grpc_target == f"engine:{engine['environment']['BRUNIX_ENGINE_LISTEN'].partition(':')[2]}"
    assert settings.grpc_target.replace("engine", "localhost") in engine["healthcheck"]["test"][-1]
    assert seconds(gateway["stop_grace_period"]) >= settings.drain_s + _FLUSH_S + MARGIN_S
    (source, target, mode) = engine["volumes"][0].replace(":-", "=").split(":")
    assert (target, mode) == (engine["environment"]["BRUNIX_DOCS"], "ro")
    assert (ROOT / source.partition("=")[2].rstrip("}")).is_dir()


def test_compose_reach() -> None:
    """Somebody on the network could ask the engine past the gateway, or the gateway without having been let in."""
    whole = compose()
    gateway, engine, webui = (whole["services"][name] for name in ("gateway", "engine", "webui"))
    port = value("EXPOSE")
    assert gateway["ports"] == [f"127.0.0.1:{port}:{port}"]
    assert all(published.startswith("127.0.0.1:") for published in webui["ports"])
    assert "ports" not in engine
    (back,) = engine["networks"]
    assert whole["networks"][back] == {"internal": True}
    assert back in gateway["networks"]
    assert back not in webui["networks"]
    # Published on this machine, it is within reach of every web page that is open there.
    hosts = Settings.read(gateway["environment"], {}).allowed_hosts
    for name in ("OLLAMA_BASE_URL", "OPENAI_API_BASE_URL"):
        url = urlsplit(webui["environment"][name])
        assert (url.hostname in hosts, str(url.port)) == (True, port)


@pytest.mark.parametrize("name", ["gateway", "engine"])
def test_compose_hardening(name: str) -> None:
    """Whoever broke into the gateway could change it, or gain rights."""
    service = compose()["services"][name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    # The gateway cannot take a large body without a folder for it.
    assert any(folder.startswith("/tmp:") for folder in service.get("tmpfs", [])) == (name == "gateway")  # noqa: S108 - the container's


def test_compose_images() -> None:
    """What ``docker compose pull`` brings would change from one day to the next."""
    images = {name: service["image"] for name, service in compose()["services"].items()}
    own = {images.pop(name) for name in ("gateway", "gateway-a", "gateway-b", "engine")}
    assert own == {f"brunix-twisted:{__version__}"}
    assert all(re.search(r":v?[0-9]+\.[0-9]+\.[0-9]+$", image) for image in images.values())


def test_compose_order() -> None:
    """The first question after ``docker compose up`` would come too early for what has to answer it."""
    services = compose()["services"]
    after = {name: dict(service.get("depends_on", {})) for name, service in services.items()}
    healthy = {"condition": "service_healthy"}
    shared = {"engine": healthy, "valkey": healthy}
    assert after == {
        "gateway": {"engine": healthy},
        "engine": {},
        "webui": {"gateway": healthy},
        "gateway-a": shared,
        "gateway-b": shared,
        "valkey": {},
        "nginx": {"gateway-a": healthy, "gateway-b": healthy},
    }


def test_compose_shared_state() -> None:
    """The two gateways of the profile share one Valkey, which nothing else reaches, and nginx balances between them."""
    whole = compose()
    services = whole["services"]
    for name in ("gateway-a", "gateway-b"):
        given = services[name]["environment"]
        assert given["PROXY_STATE_SECRET"] == "${PROXY_STATE_SECRET:-}"  # noqa: S105 - of whoever starts them
        settings = Settings.read(pairs("ENV") | given | {"PROXY_STATE_SECRET": 64 * "a"}, {})
        assert redis_url.parse(settings.state.url).hosts == (("valkey", 6379),)
        assert settings.grpc_target == Settings.read(services["gateway"]["environment"], {}).grpc_target
        assert services[name]["ports"] == []
        assert services[name]["profiles"] == ["shared"]
    on_network = {name for name, service in services.items() if "state" in service["networks"]}
    assert on_network == {"gateway-a", "gateway-b", "valkey"}
    assert whole["networks"]["state"] == {"internal": True}
    assert "ports" not in services["valkey"]
    assert all(published.startswith("127.0.0.1:") for published in services["nginx"]["ports"])
    (source, target, _) = services["nginx"]["volumes"][0].split(":")
    command = services["nginx"]["command"][2]
    assert target in command
    edits = [word.split("/")[1:3] for word in re.findall(r"'(s/[^']+/)'", command)]
    configuration = (ROOT / source).read_text("utf-8")
    for before, after in edits:
        assert configuration.count(before) == 1
        configuration = configuration.replace(before, after)
    assert re.findall(r"^ *server ([^ ;{]+) ", configuration, re.MULTILINE) == ["gateway-a:8000", "gateway-b:8000"]
