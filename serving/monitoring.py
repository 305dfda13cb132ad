"""What Prometheus reads at /metrics."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

# Seconds; an image takes a few milliseconds on a fast machine, and a deadline is seconds.
LATENCIES = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128)


class Monitor:
    """Counters of one server, in a registry of their own."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self):
        self.registry = own = CollectorRegistry()
        self.requests = Counter("requests", "Requests answered", ["path", "code"], namespace="serve", registry=own)
        self.latency = Histogram(
            "request_seconds",
            "From a request's head to its answer",
            ["path"],
            buckets=LATENCIES,
            namespace="serve",
            registry=own,
        )
        self.batch = Histogram(
            "batch_pictures", "Images judged at once", buckets=BATCHES, namespace="serve", registry=own
        )
        self.queue = Gauge("queue_pictures", "Images that wait for a worker", namespace="serve", registry=own)
        self.uploads = Gauge("upload_bytes", "Bodies held in memory", namespace="serve", registry=own)
        self.restarts = Counter(
            "worker_restarts", "Workers started in place of dead ones", namespace="serve", registry=own
        )
        self.reloads = Counter("reloads", "New exports taken up", namespace="serve", registry=own)

    def page(self) -> bytes:
        """The text that Prometheus reads."""
        return generate_latest(self.registry)
