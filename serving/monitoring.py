"""Prometheus metrics of the server, served at /metrics."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

# Seconds: an image takes a few milliseconds on a fast machine, a deadline is seconds.
LATENCY_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128)


class Monitor:
    """Metrics of one server, in a registry of their own."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter("serve_requests", "Responses sent", ["path", "code"], registry=self.registry)
        self.latency = Histogram(
            "serve_request_seconds", "Time from the head of a request to its response", ["path"],
            buckets=LATENCY_BUCKETS, registry=self.registry,
        )  # fmt: skip
        self.batch = Histogram(
            "serve_batch_pictures", "Images per batch", buckets=BATCH_BUCKETS, registry=self.registry
        )
        self.queue = Gauge("serve_queue_pictures", "Images waiting for a worker", registry=self.registry)
        self.uploads = Gauge("serve_upload_bytes", "Bytes of request bodies held in memory", registry=self.registry)
        self.restarts = Counter("serve_worker_restarts", "Worker processes replaced", registry=self.registry)
        self.lost_lines = Counter(
            "serve_access_log_lost", "Lines of the access log not written", registry=self.registry
        )
        self.reloads = Counter("serve_reloads", "New exports loaded", registry=self.registry)

    def exposition(self) -> bytes:
        """The metrics in Prometheus's text format."""
        return generate_latest(self.registry)
