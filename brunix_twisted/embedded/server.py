"""The gRPC server around the engine: where it listens, health, reflection, and how it stops."""

import errno
import os
import socket
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Final

import attrs
import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from brunix_twisted._pb import brunix_pb2, brunix_pb2_grpc
from brunix_twisted.embedded.servicer import Servicer

SERVICE: Final = brunix_pb2.DESCRIPTOR.services_by_name["AssistanceEngine"].full_name

# A call holds a thread for as long as it lasts, and a paced stream lasts: with fewer threads than streams some would
# wait for others to end. Threads are started when they are needed and take about 0.1 MB each. One call more is refused
# with RESOURCE_EXHAUSTED, not left to wait unseen.
MAX_CONCURRENT_CALLS: Final = 1024

# How long a stop waits for the calls that run before it cancels them.
GRACE_S: Final = 2.0

_PORT_ATTEMPTS: Final = 16

_OPTIONS: Final = (
    # With it, a second engine on the same port would start in silence and take half of the calls.
    ("grpc.so_reuseport", 0),
    # A client may keep an idle connection alive with a ping every ten seconds; the default ends it after a few.
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
)


class ListenError(Exception):
    """The address cannot be listened on; the text says why."""


@attrs.frozen
class ListenAddress:
    """A host and a port. Port 0 takes a free one."""

    host: str
    port: int

    def __str__(self) -> str:
        """Write it as a client dials it, an IPv6 address in brackets."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class EngineServer:
    """A running engine. Its methods are for the thread that made it."""

    def __init__(self, servicer: Servicer, address: ListenAddress) -> None:
        """Listen, serve, and say so to who asks for the health. Raises ListenError."""
        self._pool = ThreadPoolExecutor(MAX_CONCURRENT_CALLS, thread_name_prefix="call")
        self._server = grpc.server(self._pool, options=_OPTIONS, maximum_concurrent_rpcs=MAX_CONCURRENT_CALLS)
        self._health = health.HealthServicer()
        brunix_pb2_grpc.add_AssistanceEngineServicer_to_server(servicer, self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection((SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME), self._server)
        try:
            self.address = _listen(self._server, address)
        except BaseException:
            self._server.stop(0)
            self._pool.shutdown()
            raise
        self._server.start()
        for service in (health.OVERALL_HEALTH, SERVICE):
            self._health.set(service, health_pb2.HealthCheckResponse.SERVING)

    def stop(self, grace_s: float = GRACE_S) -> None:
        """Stop: tell the health, take no new call, let the others end for a while, then cancel what is left."""
        # The last step first: each runs whether those before it have failed or not.
        with ExitStack() as steps:
            steps.callback(self._pool.shutdown)
            steps.callback(lambda: self._server.stop(grace_s).wait())
            steps.callback(self._health.enter_graceful_shutdown)


def _listen(server: grpc.Server, address: ListenAddress) -> ListenAddress:
    """Bind every address of a host to the one port, or fail.

    grpc, given a name with an IPv4 and an IPv6 address, is content with the one whose port is free, and the clients of
    the other would talk to a stranger. So they are tried by hand first, which also gives the system's plain reason.
    """
    try:
        port, hosts = _find_port(_resolve(address), address.port)
    except OSError as error:
        raise ListenError(error.strerror or str(error)) from error
    try:
        for host in hosts:
            server.add_insecure_port(str(ListenAddress(host, port)))
    except RuntimeError as error:  # taken since it was tried
        raise ListenError(os.strerror(errno.EADDRINUSE)) from error
    return ListenAddress(address.host, port)


def _resolve(address: ListenAddress) -> list[tuple[socket.AddressFamily, str]]:
    """Resolve a host, IPv4 first: the order in which most clients try."""
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise ListenError("the host has no address") from error
    unique = {(family, str(where[0])) for family, _, _, _, where in found}
    return sorted(unique, key=lambda each: (each[0] != socket.AF_INET, each[1]))


def _find_port(resolved: Sequence[tuple[socket.AddressFamily, str]], port: int) -> tuple[int, list[str]]:
    """Try the port; for port 0 again if the one that the system gave for an address is taken on another."""
    for _ in range(_PORT_ATTEMPTS if port == 0 else 0):
        try:
            return _bind(resolved, port)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
    return _bind(resolved, port)


def _bind(resolved: Sequence[tuple[socket.AddressFamily, str]], port: int) -> tuple[int, list[str]]:
    """Bind all addresses for a moment: give the port, the same for all, and the hosts that this machine has.

    Raises OSError when the port cannot be had on one of them, or when there is none.
    """
    hosts: list[str] = []
    with ExitStack() as trials:
        for family, host in resolved:
            try:
                trial = trials.enter_context(socket.socket(family, socket.SOCK_STREAM))
                trial.setsockopt(
                    socket.SOL_SOCKET, socket.SO_REUSEADDR, 1
                )  # or a restart would wait for old connections
                trial.bind((host, port))
            except OSError as error:
                # A machine without IPv6 still resolves a name to it.
                if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                    raise
                continue
            port = int(trial.getsockname()[1])
            hosts.append(host)
    if not hosts:
        raise OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))
    return port, hosts
