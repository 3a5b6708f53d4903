"""
Throw generated requests at a running gateway: ``make fuzz``.

schemathesis makes them from /openapi.json, right ones and wrong ones, and checks that every answer is one that the
description has: no 5xx, no other status, media type or error body.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from isolation import CLEAN
from scripted_engine import ScriptedEngine
from threads import Threads
from twistd import twistd, wait_for_port

CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,"
    "response_schema_conformance,negative_data_rejection,unsupported_method"
)


def main(schemathesis: str) -> int:
    """Run it, with the program ``st`` that is named, and return its status."""
    engine = ScriptedEngine()
    with (
        Threads() as threads,
        TemporaryDirectory() as folder,
        twistd(
            Path(folder),
            "--listen=tcp:0:interface=127.0.0.1",
            f"--grpc-target={engine.target}",
            # Otherwise nearly every request would end at its model's name.
            "--model-aliases=*",
        ) as process,
    ):
        port = wait_for_port(process)
        assert process.stdout is not None
        # A log that nobody reads would stop its writer.
        threads.start(process.stdout.read)
        url = f"http://127.0.0.1:{port}/openapi.json"
        done = subprocess.run(  # noqa: S603 - the one that make installed
            [schemathesis, "run", url, "--max-examples=100", f"--checks={CHECKS}", "--seed=1"],
            cwd=folder,
            env=CLEAN,
            check=False,
        )
    engine.stop()
    return done.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
