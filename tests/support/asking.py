"""Ask a gateway in another process, over TCP, TLS or a Unix socket."""

from __future__ import annotations

import json
import socket
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from fake_reactor import LIMIT_S


def ask(connection: HTTPConnection) -> Any:  # noqa: ANN401 - whatever JSON holds
    """Ask for a whole answer."""
    body = json.dumps({"model": "brunix", "prompt": "one two", "stream": False})
    connection.request("POST", "/api/generate", body)
    response = connection.getresponse()
    assert response.status == 200
    return json.loads(response.read())["response"]


class UnixConnection(HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=LIMIT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(LIMIT_S)
        self.sock.connect(str(self._path))
