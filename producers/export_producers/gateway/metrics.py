"""Counts and durations, by the template of a route: what clients make up never becomes a label."""

import asyncio

from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
"""Any other is counted as `other`."""
UNMATCHED = "unmatched"


class Metrics:
    """What one gateway tells Prometheus."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        labels = ["method", "route"]
        self._requests = Counter(
            "export_gateway_requests", "Requests answered.", [*labels, "status"], registry=self._registry
        )
        self._seconds = Histogram(
            "export_gateway_request_seconds",
            "From the headers of a request to the end of its answer; streams are left out.",
            labels,
            registry=self._registry,
        )
        self.streams = Gauge("export_gateway_streams", "Event streams that are open.", registry=self._registry)

        self._up = Gauge("export_gateway_redis_up", "Whether Redis answered this scrape.", registry=self._registry)

    def names(self) -> set[str]:
        """Every metric, as the text form names its kind."""
        return {family.name for family in self._registry.collect()}

    def served(self, method: str, route: str, status: int, seconds: float, *, stream: bool) -> None:
        """Count one request."""
        method = method if method in METHODS else "other"
        self._requests.labels(method, route, str(status)).inc()
        if not stream:
            self._seconds.labels(method, route).observe(seconds)

    async def answer(self, *, redis_up: bool) -> web.Response:
        """Everything, in Prometheus's text format."""
        self._up.set(redis_up)
        # The process's own numbers come from /proc, and files are not read on the loop.
        text = await asyncio.to_thread(generate_latest, self._registry)
        return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE_LATEST})


def route_of(request: web.Request) -> str:
    """The template of a route, such as `/v1/exports/{export_id}`."""
    resource = request.match_info.route.resource
    return UNMATCHED if resource is None else resource.canonical
