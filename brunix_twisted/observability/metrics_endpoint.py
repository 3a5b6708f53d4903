"""The separate port on which Prometheus scrapes the metrics."""

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

_log = Logger("brunix.gateway")

Expose = Callable[[str], Deferred[tuple[bytes, bytes]]]
"""Takes a scraper's ``Accept`` header, and fires with the content type and the metrics."""

_PLAIN: Final = b"text/plain; charset=utf-8"


class _MetricsResource(Resource):
    """``/metrics``."""

    isLeaf = True  # noqa: N815 - as in Resource

    def __init__(self, expose: Expose) -> None:
        super().__init__()
        self._expose = expose

    def render_GET(self, request: Request) -> int:  # noqa: N802 - as in Resource
        """Respond once the metrics have been collected."""
        disconnected: list[Failure] = []
        request.notifyFinish().addErrback(disconnected.append)

        async def answer() -> None:
            try:
                content_type, body_bytes = await self._expose(request.getHeader("Accept") or "")
            except Exception:  # noqa: BLE001 - the scraper waits for a response
                _log.failure("Could not collect the metrics")
                request.setResponseCode(INTERNAL_SERVER_ERROR)
                content_type, body_bytes = _PLAIN, b"The gateway failed; see its log\n"
            if not disconnected:
                request.setHeader(b"Content-Type", content_type)
                request.setHeader(b"Content-Length", b"%d" % len(body_bytes))
                request.write(b"" if request.method == b"HEAD" else body_bytes)
                request.finish()

        ensureDeferred(answer())
        return NOT_DONE_YET


class _Root(Resource):
    def getChild(self, path: bytes, request: Request) -> Resource:  # noqa: ARG002, N802 - as in the base class
        """Return 404 for all other paths."""
        return cast("Resource", notFound())


class MetricsSite(Site):
    """Serves only the metrics, without logging its requests."""

    noisy = False

    def __init__(self, expose: Expose) -> None:
        """Serve the metrics that ``expose`` returns."""
        root = _Root()
        root.putChild(b"metrics", _MetricsResource(expose))
        super().__init__(root)

    def log(self, request: Any) -> None:  # noqa: ANN401 - as in the base class
        """Do not log requests."""


class Exporter(Service):
    """The service that owns the port of the metrics."""

    def __init__(self, endpoint: IStreamServerEndpoint, listen: str, expose: Expose) -> None:
        """
        Prepare to serve the metrics.

        :param listen: the endpoint's description, for error messages.
        """
        self._listener = Listener(endpoint, "PROXY_METRICS_LISTEN", listen)
        self._site = MetricsSite(expose)
        self.ready: Deferred[IAddress] = Deferred()
        """Fires with the address once the port is open; fails with StartError if the endpoint fails later."""

    @property
    def port(self) -> IListeningPort | None:
        """The open port; None before it opens and after it closes."""
        return self._listener.port

    def privilegedStartService(self) -> None:
        """
        Listen, before twistd drops privileges, so a port below 1024 can be opened.

        :raises StartError: the endpoint cannot listen.
        """
        self._listener.start(self._site, self._listens).addErrback(self.ready.errback)

    def startService(self) -> None:
        """Start, and listen unless that has been done."""
        if not self._listener.has_started:
            self.privilegedStartService()
        super().startService()

    def _listens(self, port: IListeningPort) -> None:
        self.ready.callback(port.getHost())

    def stopService(self) -> Deferred[None]:
        """Close the port."""
        super().stopService()
        return self._listener.stop()
