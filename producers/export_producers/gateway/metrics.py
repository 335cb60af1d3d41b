"""Request counts and durations. Their label is the route's template, so clients cannot create new labels."""

import asyncio

from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
"""All other methods are counted as `other`, because a client can invent any number of methods."""
UNMATCHED = "unmatched"


class Metrics:
    """The metrics of one gateway."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        labels = ["method", "route"]
        self._requests = Counter(
            "export_gateway_requests", "Requests answered.", [*labels, "status"], registry=self._registry
        )
        self._seconds = Histogram(
            "export_gateway_request_seconds",
            "Time from the headers of a request to the end of its response, without event streams.",
            labels,
            registry=self._registry,
        )
        self._found: dict[tuple[str, str, int, bool], tuple[Counter, Histogram | None]] = {}
        self.streams = Gauge("export_gateway_streams", "Open event streams.", registry=self._registry)

        self._up = Gauge(
            "export_gateway_redis_up", "Whether Redis accepted a write during this scrape.", registry=self._registry
        )

    def names(self) -> set[str]:
        """Returns the names of all metrics, as the text format's `TYPE` lines have them."""
        return {family.name for family in self._registry.collect()}

    def served(self, method: str, route: str, status: int, seconds: float, *, stream: bool) -> None:
        """Counts one request. The duration of an event stream is not recorded."""
        key = method if method in METHODS else "other", route, status, stream
        # Remembered: prometheus_client takes longer to find them than to count.
        count, duration = self._found.get(key) or self._find(key)
        count.inc()
        if duration is not None:
            duration.observe(seconds)

    def _find(self, key: tuple[str, str, int, bool]) -> tuple[Counter, Histogram | None]:
        method, route, status, stream = key
        duration = None if stream else self._seconds.labels(method, route)
        found = self._found[key] = self._requests.labels(method, route, str(status)), duration
        return found

    async def response(self, *, redis_up: bool) -> web.Response:
        """Returns all metrics in Prometheus's text format."""
        self._up.set(redis_up)
        # The process metrics are read from files in /proc, which must not block the event loop.
        text = await asyncio.to_thread(generate_latest, self._registry)
        return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE_LATEST})


def route_of(request: web.Request) -> str:
    """Returns the template of a request's route, such as `/v1/exports/{export_id}`."""
    resource = request.match_info.route.resource
    return UNMATCHED if resource is None else resource.canonical
