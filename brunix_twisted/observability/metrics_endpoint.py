"""The listener of its own from which Prometheus takes the metrics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, cast

from twisted.application.service import Service
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.interfaces import IAddress, IListeningPort, IStreamServerEndpoint
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import INTERNAL_SERVER_ERROR
from twisted.web.pages import notFound
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

from brunix_twisted.runtime.listening import Listener

Expose = Callable[[str], Deferred[tuple[bytes, bytes]]]
"""Takes the ``Accept`` of a scraper, and fires with a content type and the metrics."""

_PLAIN: Final = b"text/plain; charset=utf-8"


class _MetricsResource(Resource):
    """``/metrics``."""

    isLeaf = True  # noqa: N815 - as in Resource

    _log = Logger()

    def __init__(self, expose: Expose) -> None:
        super().__init__()
        self._expose = expose

    def render_GET(self, request: Request) -> int:  # noqa: N802 - as in Resource
        """Answer when the metrics are there."""
        gone: list[Failure] = []
        request.notifyFinish().addErrback(gone.append)

        async def answer() -> None:
            try:
                content_type, body_bytes = await self._expose(request.getHeader("Accept") or "")
            except Exception:  # noqa: BLE001 - whatever it is, a scraper waits
                self._log.failure("The metrics could not be told")
                request.setResponseCode(INTERNAL_SERVER_ERROR)
                content_type, body_bytes = _PLAIN, b"The gateway failed; see its log\n"
            if not gone:
                request.setHeader(b"Content-Type", content_type)
                request.setHeader(b"Content-Length", b"%d" % len(body_bytes))
                request.write(b"" if request.method == b"HEAD" else body_bytes)
                request.finish()

        ensureDeferred(answer())
        return NOT_DONE_YET


class _Root(Resource):
    def getChild(self, path: bytes, request: Request) -> Resource:  # noqa: ARG002, N802 - as in the base class
        """Say that there is nothing."""
        return cast("Resource", notFound())


class MetricsSite(Site):
    """Serves nothing but the metrics; who scrapes is not logged."""

    noisy = False

    def __init__(self, expose: Expose) -> None:
        """Serve what a function gives."""
        root = _Root()
        root.putChild(b"metrics", _MetricsResource(expose))
        super().__init__(root)

    def log(self, request: Any) -> None:  # noqa: ANN401 - as in the base class
        """Write nothing."""


class Exporter(Service):
    """Owns the port of the metrics."""

    def __init__(self, endpoint: IStreamServerEndpoint, listen: str, expose: Expose) -> None:
        """
        Prepare to serve the metrics.

        :param listen: the endpoint's description, for whoever has to mend it.
        """
        self._listener = Listener(endpoint, "PROXY_METRICS_LISTEN", listen)
        self._site = MetricsSite(expose)
        self.ready: Deferred[IAddress] = Deferred()
        """Fires with the address once it listens; fails with StartError if that turns out late."""

    @property
    def port(self) -> IListeningPort | None:
        """Where it listens; None before and after that."""
        return self._listener.port

    def privilegedStartService(self) -> None:
        """
        Listen; a port below 1024 may still be bound.

        :raises StartError: the port cannot be listened on.
        """
        self._listener.start(self._site, self._listens).addErrback(self.ready.errback)

    def startService(self) -> None:
        """Be running."""
        if not self._listener.has_started:
            self.privilegedStartService()
        super().startService()

    def _listens(self, port: IListeningPort) -> None:
        self.ready.callback(port.getHost())

    def stopService(self) -> Deferred[None]:
        """Listen no more."""
        super().stopService()
        return self._listener.stop()
