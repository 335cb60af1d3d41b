"""Counts and durations, by the template of a route: what clients make up never becomes a label."""

from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
"""Any other is counted as `other`."""
UNMATCHED = "unmatched"


class Metrics:
    """What one gateway tells Prometheus."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
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

    def served(self, method: str, route: str, status: int, seconds: float, *, stream: bool) -> None:
        """Count one request."""
        method = method if method in METHODS else "other"
        self._requests.labels(method, route, str(status)).inc()
        if not stream:
            self._seconds.labels(method, route).observe(seconds)

    def answer(self) -> web.Response:
        """Everything, in Prometheus's text format."""
        return web.Response(body=generate_latest(self._registry), headers={"Content-Type": CONTENT_TYPE_LATEST})


def route_of(request: web.Request) -> str:
    """The template of a route, such as `/v1/exports/{export_id}`."""
    resource = request.match_info.route.resource
    return UNMATCHED if resource is None else resource.canonical
