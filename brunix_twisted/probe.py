"""``python -m brunix_twisted.probe [--once]``: the older name of `brunix health`, kept for deployments that use it."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence

from brunix_twisted.app.health_check import check


def main(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run the command; return the exit status."""
    name = "python -m brunix_twisted.probe"
    parser = argparse.ArgumentParser(
        prog=name, description="Wait until the gateway and the engine answer, then say where they are."
    )
    parser.add_argument("--once", action="store_true", help="a health check: one try, status 0 or 1")
    return check(environment, wait=not parser.parse_args(arguments).once, name="brunix_twisted.probe")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
