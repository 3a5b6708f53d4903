"""Run coroutines that outlive the request that wants their result."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

from twisted.internet.defer import Deferred, ensureDeferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

P = ParamSpec("P")
T = TypeVar("T")

_log = Logger("brunix.gateway")


def start(function: Callable[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs) -> Deferred[T | None]:
    """
    Start a coroutine. The Deferred fires with its result, or with None if it raises, which is logged.

    A coroutine that waits for nothing, as those of a store in memory, takes a third of the time of ``ensureDeferred``.
    """
    coroutine = function(*args, **kwargs)
    try:
        awaited = coroutine.send(None)
    except StopIteration as ended:
        return succeed(ended.value)
    except Exception:  # noqa: BLE001 - reported as any failure of it
        _failed(Failure())
        return succeed(None)
    return ensureDeferred(_continued(coroutine, awaited)).addErrback(_failed)


async def _continued(coroutine: Coroutine[Deferred[Any], Any, T], awaited: Deferred[Any]) -> T:
    """Run the rest of a coroutine that waits for a Deferred."""
    try:
        while True:
            try:
                result = await awaited
            except Exception as fault:  # noqa: BLE001 - the coroutine decides
                awaited = coroutine.throw(fault)
            else:
                awaited = coroutine.send(result)
    except StopIteration as ended:
        value: T = ended.value
        return value
    finally:
        coroutine.close()


def _failed(failure: Failure) -> None:
    _log.failure("An operation in the background failed", failure=failure)


async def unless_cancelled(deferred: Deferred[T]) -> T:
    """
    Wait for a Deferred. Cancelling the wait does not cancel what is waited for.

    Several may wait for the same Deferred, but only the first gets its result.
    """
    if deferred.called and not deferred.paused and not isinstance(deferred.result, Failure):
        return await deferred
    waiting: Deferred[T] = Deferred()
    deferred.chainDeferred(waiting)
    return await waiting


async def attempt(function: Callable[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs) -> T | None:
    """Run a coroutine to its end, and return its result, or None if it raises. Cancelling does not stop it."""
    return await unless_cancelled(start(function, *args, **kwargs))
