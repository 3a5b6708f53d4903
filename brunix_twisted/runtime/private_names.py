"""
The private names of other packages that the gateway uses, and a check that the installed releases have them.

Any release may rename a private name. Without the check, that would cause an error in the middle of an answer, or a
memory leak. With it, the gateway does not start, and reports what to install. ``pyproject.toml`` allows only releases
that have been tested. ``tests/runtime/test_private_names.py`` checks that the table is complete.
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

from brunix_twisted.errors import StartError


@attrs.frozen
class PrivateName:
    """A name that is not part of its package's public interface."""

    package: str
    """The name of the package on PyPI."""
    owner: str
    """The class or function that has the name: ``module:name``."""
    name: str
    """An attribute of the class or of its instances, or a parameter of the function."""
    purpose: str
    """What the gateway uses it for."""

    def exists(self) -> bool:
        """Return whether the installed release has the name."""
        module, _, owner_name = self.owner.partition(":")
        try:
            owner = getattr(import_module(module), owner_name)
        except (ImportError, AttributeError):
            return False
        if isinstance(owner, FunctionType):
            return self.name in signature(owner).parameters
        # Instance attributes are found in the code of the methods that set them.
        methods = [part for base in owner.__mro__ for part in vars(base).values() if isinstance(part, FunctionType)]
        return hasattr(owner, self.name) or any(self.name in method.__code__.co_names for method in methods)


def _all_of(package: str, owner: str, purpose: str, *names: str) -> tuple[PrivateName, ...]:
    return tuple(PrivateName(package, owner, name, purpose) for name in names)


_CHANNEL: Final = "twisted.web.http:HTTPChannel"

NAMES: Final = (
    *_all_of("twisted", "twisted.internet.tcp:Connection", "to send at once", "_tempDataBuffer", "_writeDisconnected"),
    *_all_of("twisted", _CHANNEL, "to limit how long a request takes to arrive", "_buffer", "_busyReceiving"),
    *_all_of("twisted", _CHANNEL, "to limit a request's headers", "_receivedHeaderCount", "_receivedHeaderSize"),
    *_all_of("twisted", _CHANNEL, "to parse a head in one pass", "_command", "_path", "_version"),
    *_all_of("twisted", _CHANNEL, "to parse a head in one pass", "_maybeChooseTransferDecoder"),
    *_all_of("twisted", _CHANNEL, "to answer malformed requests", "_respondToBadRequestAndDisconnect"),
    *_all_of("twisted", _CHANNEL, "to check a request's trailers", "_transferDecoder"),
    *_all_of("twisted", "twisted.web.http:_ChunkedTransferDecoder", "to check a request's trailers", "_trailerHeaders"),
    *_all_of("twisted", "twisted.web.http:Request", "to write nothing to a disconnected client", "_disconnected"),
    *_all_of(
        "twisted", "twisted.internet.tcp:Port", "to share a socket", "_shouldShutdown", "_fromListeningDescriptor"
    ),
    *_all_of("twisted", "twisted.internet.unix:Port", "to share a socket", "_preexistingSocket"),
    *_all_of("twisted", "twisted.internet.unix:Port", "to share a socket", "_fromListeningDescriptor"),
    *_all_of("twisted", "twisted.internet.task:react", "to run --check", "_reactor"),
)


def check_private_names(names: Iterable[PrivateName] = NAMES) -> None:
    """
    Check that the installed packages have the private names that the gateway uses.

    Those of grpc are not among them: without them, its public interface is used (:mod:`brunix_twisted.engine.rpc`).

    :raises StartError: a name is missing; the message names the first.
    """
    for name in names:
        if not name.exists():
            raise StartError(f"twistd brunix: {_error_message(name)}")


def _error_message(name: PrivateName) -> str:
    owner = name.owner.replace(":", ".")
    release = f"{name.package} {_version(name.package)}"
    fault = f"{release} has no {owner}.{name.name}, which the gateway needs {name.purpose}"
    return f"{fault}. Install a supported release: pip install '{_requirement(name.package)}'"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "(of unknown version)"


def _requirement(package: str) -> str:
    """Return the supported releases of a package from the gateway's metadata."""
    try:
        requirements = requires("brunix-twisted") or []
    except PackageNotFoundError:
        requirements = []  # the gateway runs from a checkout and is not installed
    found = (re.fullmatch(rf"({package}[<>=!~].*?)\s*", requirement) for requirement in requirements)
    return next((match[1] for match in found if match), package)
