"""
Start gateways, and run the tests of the page in a real browser against them: all, or the command that is given.

The tests learn from the environment what to open:

==================  ==================================================================================================
``BRUNIX_URL``      the gateway and the embedded engine, started as ``make run`` starts them, at a pace one can watch
``SCRIPTED_URL``    a gateway before the scripted engine, which does as the question says
``DOWN_URL``        a gateway before no engine at all
``ENGINE_URL``      tells what the scripted engine saw, and lets it go on: see ``tests/clients/run.py``
``ENGINE_TARGET``   where that engine listens, for gateways that a test starts and stops itself
``TWISTD``          what it starts them with
``CHROMIUM``        the browser
``SCREENSHOTS``     the folder for pictures of the page
==================  ==================================================================================================

``--screenshots`` takes the pictures alone, and puts them where the documentation has them.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

HERE: Final = Path(__file__).resolve().parent
ROOT: Final = HERE.parent.parent
sys.path[:0] = [str(HERE.parent / "support"), str(HERE.parent / "clients")]

from gateway_processes import (  # type: ignore[import-not-found] # noqa: E402 - found by the line before, in what mypy leaves out
    CLEAN,
    TWISTD,
    Gateway,
    TaggedEngine,
    observe,
    start,
    with_embedded_engine,
    without_engine,
)

BROWSERS: Final = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")

# One after the other: a browser wants a processor for itself.
SUITE: Final = ["node", "--test", "--test-concurrency=1"]


def main(arguments: list[str]) -> int:
    """Return 0 when everything passed, or when there is no browser to try it in."""
    browser = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        print(f"skipped: none of {', '.join(BROWSERS)} is installed; CHROMIUM names another browser of the kind")  # noqa: T201 - for whoever watches
        return 0
    kept = arguments == ["--screenshots"]
    tests = "pictures.test.mjs" if kept else "*.test.mjs"
    command = [*SUITE, *sorted(map(str, HERE.glob(tests)))] if kept or not arguments else arguments
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        scripted = TaggedEngine()
        stack.callback(scripted.stop)
        observer = observe(scripted)
        stack.callback(observer.shutdown)
        urls = start(
            stack,
            folder,
            {
                "BRUNIX_URL": with_embedded_engine(BRUNIX_ENGINE_TOKENS_PER_SECOND="150"),
                "SCRIPTED_URL": Gateway({"BRUNIX_GRPC_TARGET": scripted.target, "PROXY_DRAIN_S": "0"}),
                "DOWN_URL": without_engine(stack),
            },
        )
        environment = {
            **CLEAN,
            **urls,
            "ENGINE_URL": f"http://127.0.0.1:{observer.server_port}",
            "ENGINE_TARGET": scripted.target,
            "TWISTD": TWISTD,
            "CHROMIUM": browser,
            "HOME": str(folder),
            "SCREENSHOTS": str(ROOT / "docs" / "images" if kept else folder),
        }
        return subprocess.run(command, env=environment, cwd=HERE, check=False).returncode  # noqa: S603 - our own


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
