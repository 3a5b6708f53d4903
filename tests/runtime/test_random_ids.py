"""The ids of requests, answers and sessions."""

from __future__ import annotations

import os
import re

from brunix_twisted.runtime.random_ids import random_id


def test_ids_differ() -> None:
    """Two requests had the same id, or two conversations the same session."""
    ids = [random_id() for _ in range(1000)]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch("[0-9a-f]{32}", an_id) for an_id in ids)


def test_a_forked_process_has_its_own() -> None:
    """The processes of a gateway gave the same ids."""
    random_id()
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.write(writing, random_id().encode())
        os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    with os.fdopen(reading, "rb") as pipe:
        assert pipe.read().decode() not in {random_id() for _ in range(1000)}
