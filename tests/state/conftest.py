"""A Redis server that the tests of a module share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from redis_servers import RedisServer, redis_server


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server
