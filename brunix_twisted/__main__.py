"""``python -m brunix_twisted``, installed as ``brunix``: the commands for users of the gateway."""

from __future__ import annotations

import os
import sys

from brunix_twisted.cli.commands import run


def main() -> int:
    """Run the command and return the exit status."""
    try:
        return run(sys.argv[1:], os.environ)
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
