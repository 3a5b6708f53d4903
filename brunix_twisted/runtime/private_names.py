"""
The private names of other packages that the gateway uses, and a check that the installed releases have them.

Any release may rename what is private. Without the check that would show as an error in the middle of an answer, or as
memory that is lost; with it the gateway does not start, and says what to install. The bounds in ``pyproject.toml``
admit the releases that the tests have seen. ``tests/runtime/test_private_names.py`` keeps the table complete.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from importlib import import_module
from importlib.metadata import PackageNotFoundError, requires, version
from inspect import signature
from types import FunctionType
from typing import Final

import attrs

from brunix_twisted.runtime.listening import StartError


@attrs.frozen
class PrivateName:
    """A name that is not part of its package's public interface."""

    package: str
    """As pip knows it."""
    owner: str
    """The class or function that has it: ``module:name``."""
    name: str
    """An attribute, also one that instances alone have, or a function's parameter."""
    purpose: str
    """What the gateway uses it for."""

    def is_there(self) -> bool:
        """Look for it in the installed release."""
        module, _, kind = self.owner.partition(":")
        try:
            owner = getattr(import_module(module), kind)
        except (ImportError, AttributeError):
            return False
        if isinstance(owner, FunctionType):
            return self.name in signature(owner).parameters
        # An attribute of instances alone is known by the methods that set it.
        methods = [part for base in owner.__mro__ for part in vars(base).values() if isinstance(part, FunctionType)]
        return hasattr(owner, self.name) or any(self.name in method.__code__.co_names for method in methods)


def _all_of(package: str, owner: str, purpose: str, *names: str) -> tuple[PrivateName, ...]:
    return tuple(PrivateName(package, owner, name, purpose) for name in names)


_CHANNEL: Final = "twisted.web.http:HTTPChannel"
_GRPC_CLIENT: Final = "to release the memory of cancelled streams"

NAMES: Final = (
    *_all_of("twisted", "twisted.internet.tcp:Connection", "to send at once", "_tempDataBuffer", "_writeDisconnected"),
    *_all_of("twisted", _CHANNEL, "to limit how long a request takes to arrive", "_buffer", "_busyReceiving"),
    *_all_of("twisted", _CHANNEL, "to limit a request's headers", "_receivedHeaderCount", "_receivedHeaderSize"),
    *_all_of("twisted", _CHANNEL, "to answer malformed requests", "_respondToBadRequestAndDisconnect"),
    *_all_of("twisted", _CHANNEL, "to check a request's trailers", "_transferDecoder"),
    *_all_of("twisted", "twisted.web.http:_ChunkedTransferDecoder", "to check a request's trailers", "_trailerHeaders"),
    *_all_of("twisted", "twisted.web.http:Request", "to write nothing to a client that has gone", "_disconnected"),
    *_all_of(
        "twisted", "twisted.internet.tcp:Port", "to share a socket", "_shouldShutdown", "_fromListeningDescriptor"
    ),
    *_all_of("twisted", "twisted.internet.unix:Port", "to share a socket", "_preexistingSocket"),
    *_all_of("twisted", "twisted.internet.unix:Port", "to share a socket", "_fromListeningDescriptor"),
    *_all_of("twisted", "twisted.internet.task:react", "to run --check", "_reactor"),
    *_all_of("grpcio", "grpc._channel:_SingleThreadedRendezvous", _GRPC_CLIENT, "_consume_next_event", "_state"),
    *_all_of("grpcio", "grpc._channel:_RPCState", _GRPC_CLIENT, "due"),
)


def check_private_names(engine_client: str, names: Iterable[PrivateName] = NAMES) -> None:
    """
    See to it that the installed packages have what the gateway uses of them.

    :param engine_client: what ``PROXY_ENGINE_CLIENT`` says; only ``blocking`` uses grpc's private names.
    :raises StartError: one of them has not; the message names the first.
    """
    for name in names:
        if name.package == "grpcio" and engine_client != "blocking":
            continue
        if not name.is_there():
            raise StartError(f"twistd brunix: {_complaint(name)}")


def _complaint(name: PrivateName) -> str:
    owner = name.owner.replace(":", ".")
    what = f"{name.package} {_version(name.package)} has no {owner}.{name.name}, which the gateway needs {name.purpose}"
    todo = f"Install a supported release: pip install '{_requirement(name.package)}'"
    if name.package == "grpcio":
        todo += ", or set PROXY_ENGINE_CLIENT=aio and start twistd with --reactor=asyncio"
    return f"{what}. {todo}"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "(of unknown version)"


def _requirement(package: str) -> str:
    """Read from the gateway's own metadata which releases it supports."""
    try:
        requirements = requires("brunix-twisted") or []
    except PackageNotFoundError:
        requirements = []  # it runs from a folder
    found = (re.fullmatch(rf"({package}[<>=!~].*?)\s*", requirement) for requirement in requirements)
    return next((match[1] for match in found if match), package)
