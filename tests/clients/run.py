"""
Start gateways, and run the tests of the real clients against them: all suites side by side, or the given command.

The tests run in separate environments in which this project is not installed. They get what they need by environment
variables:

=================  ===================================================================================================
``BRUNIX_URL``     the gateway with the embedded engine, started as ``make run`` starts them
``SCRIPTED_URL``   a gateway with the scripted engine, which does what the question says
``HEARTBEAT_URL``  a gateway with the same engine and frequent heartbeats
``FULL_URL``       a gateway with the same engine, one worker and no queue; each suite has its own
``DOWN_URL``       a gateway without an engine
``ENGINE_URL``     what the scripted engine saw: ``/TAG`` waits for the end of the call with this tag in its question;
                   ``/go/NAME`` resumes every script that waits for this name
``CLIENTS``        the names of the clients that a suite tests; see the table in ``providers``
``CLIENTS_JSON``   a file with the clients' documented texts, as :func:`brunix_twisted.connect.clients_json` has them
``DOCUMENTED``     a file to which tests append the documented texts that they use, one per line
=================  ===================================================================================================

Nothing is sent to other machines: clients that would do so are configured not to.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import attrs

HERE: Final = Path(__file__).resolve().parent
ROOT: Final = HERE.parent.parent
sys.path.insert(0, str(HERE.parent / "support"))

from gateway_processes import (  # noqa: E402
    CLEAN,
    Gateway,
    TaggedEngine,
    observe,
    start,
    with_embedded_engine,
    without_engine,
)

import side_by_side  # noqa: E402 - found by the line before
from brunix_twisted import connect  # noqa: E402

# Settings that keep the clients from sending anything to other machines.
QUIET: Final = {
    "CONTINUE_TELEMETRY_ENABLED": "0",
    "CONTINUE_METRICS_ENABLED": "0",
    "DO_NOT_TRACK": "1",
    "HF_HUB_OFFLINE": "1",
    "LANGSMITH_TRACING": "false",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "NO_UPDATE_NOTIFIER": "1",
}


@attrs.frozen
class Suite:
    """Tests that run in one environment. ``clients`` are rows of the table in ``providers``, ``files`` test modules."""

    environment: str
    clients: str
    files: str

    @property
    def command(self) -> list[str]:
        """The command that runs it."""
        python = ROOT / ".venv-clients" / self.environment / "bin" / "python"
        files = [f"test_{name}.py" for name in ("every_client", *self.files.split())]
        return ["env", f"CLIENTS={self.clients}", str(python), "-m", "pytest", "-c", str(HERE / "pytest.ini"), *files]


# Some packages still require the second release of OpenAI's package, others the third.
SUITES: Final = [
    Suite(
        "openai-3",
        "openai responses anthropic ollama langchain-openai langchain-ollama",
        "openai responses anthropic ollama langchain llm curl mcp",
    ),
    Suite(
        "openai-2",
        "openai responses litellm-openai litellm-ollama_chat litellm-ollama llamaindex-openai llamaindex-ollama",
        "openai responses litellm_proxy llamaindex compliance",
    ),
]
NODE: Final = ["node", "--test"]


def tested_texts() -> set[str]:
    """Return the documented texts that are marked as tested: the client's id and the language."""
    return {f"{client.id} {text.language}" for client in connect.clients() if client.tested for text in client.snippets}


def main(command: list[str]) -> int:
    """Return 0 if all tests have passed."""
    # Otherwise SIGTERM would leave the servers running.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        (folder / "home").mkdir()
        scripted = TaggedEngine()
        stack.callback(scripted.stop)
        observer = observe(scripted)
        stack.callback(observer.shutdown)
        to_scripted = {"BRUNIX_GRPC_TARGET": scripted.target, "PROXY_DRAIN_S": "0"}
        full = Gateway({**to_scripted, "PROXY_THREAD_WORKERS": "1", "PROXY_QUEUE_SIZE": "0"})
        urls = start(
            stack,
            folder,
            {
                "BRUNIX_URL": with_embedded_engine(),
                "SCRIPTED_URL": Gateway(to_scripted),
                "HEARTBEAT_URL": Gateway({**to_scripted, "PROXY_HEARTBEAT_S": "0.1"}),
                "FULL_URL": full,
                "NODE_FULL_URL": full,
                "DOWN_URL": without_engine(stack),
            },
        )

        (folder / "clients.json").write_bytes(connect.clients_json())
        documented = folder / "documented"
        documented.touch()
        os.environ.clear()
        os.environ.update(
            CLEAN
            | QUIET
            | urls
            | {"ENGINE_URL": f"http://127.0.0.1:{observer.server_port}"}
            | {"CLIENTS_JSON": str(folder / "clients.json"), "DOCUMENTED": str(documented)}
            | {"HOME": str(folder / "home"), "LITELLM_PROXY_BIN": str(ROOT / ".venv-bench-litellm" / "bin")}
        )
        os.chdir(HERE)
        if command:
            return subprocess.run(command, check=False).returncode  # noqa: S603 - the caller's
        node = ["env", f"FULL_URL={urls['NODE_FULL_URL']}", *NODE, *sorted(map(str, HERE.glob("*.test.mjs")))]
        status = side_by_side.main([shlex.join(each) for each in (*(suite.command for suite in SUITES), node)])
        if unused := tested_texts() - set(documented.read_text().splitlines()):
            print(f"documented texts that no test has used: {', '.join(sorted(unused))}", file=sys.stderr)  # noqa: T201
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
