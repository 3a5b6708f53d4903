"""Run coroutines that outlive the request that wants their result."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

from twisted.internet.defer import Deferred, ensureDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure

P = ParamSpec("P")
T = TypeVar("T")

_log = Logger("brunix.gateway")


def start(function: Callable[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs) -> Deferred[T | None]:
    """Start a coroutine. The Deferred fires with its result, or with None if it raises, which is logged."""
    return ensureDeferred(function(*args, **kwargs)).addErrback(_failed)


def _failed(failure: Failure) -> None:
    _log.failure("An operation in the background failed", failure=failure)


async def unless_cancelled(deferred: Deferred[T]) -> T:
    """
    Wait for a Deferred. Cancelling the wait does not cancel what is waited for.

    Several may wait for the same Deferred, but only the first gets its result.
    """
    waiting: Deferred[T] = Deferred()
    deferred.chainDeferred(waiting)
    return await waiting


async def attempt(function: Callable[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs) -> T | None:
    """Run a coroutine to its end, and return its result, or None if it raises. Cancelling does not stop it."""
    return await unless_cancelled(start(function, *args, **kwargs))
