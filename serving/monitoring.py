"""Prometheus metrics of the server, served at /metrics."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.metrics_core import GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

# Seconds: an image takes a few milliseconds on a fast machine, a deadline is seconds.
LATENCY_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128)
PROBABILITY_BUCKETS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.2, 0.3, 0.5, 0.7, 1)
# What a worker reports of each batch.
STAGES = ("decode", "inference")


class Pool(Protocol):
    """What is shown of a pool of workers."""

    count: int
    model_info: dict[str, Any]

    @property
    def pids(self) -> list[int]:
        """Process ids of the workers that are alive; 0 in the place of one that is being replaced."""


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
        self.waits = self._seconds("serve_queue_seconds", "Time that an image waited for a worker")
        self.stages = {
            stage: self._seconds(f"serve_{stage}_seconds", f"Time of a batch's {stage} in a worker") for stage in STAGES
        }
        self.restarts = Counter("serve_worker_restarts", "Worker processes replaced", registry=self.registry)
        self.lost_lines = Counter(
            "serve_access_log_lost", "Lines of the access log not written", registry=self.registry
        )
        self.reloads = Counter("serve_reloads", "New exports loaded", registry=self.registry)
        self.failed_reloads = Counter(
            "serve_reload_failures", "Attempts to load a new export that failed", registry=self.registry
        )
        self.is_reload_failing = Gauge(
            "serve_reload_failing", "1 while the folder holds an export that cannot be loaded", registry=self.registry
        )
        self._add_shadow()
        # The process that speaks HTTP: memory, processor time, open files.
        ProcessCollector(registry=self.registry)

    def _add_shadow(self) -> None:
        def counter(name: str, meaning: str) -> Counter:
            return Counter(f"serve_shadow_{name}", meaning, registry=self.registry)

        self.shadow_compared = counter("compared", "Images classified by both models")
        self.shadow_classes = counter("class_differences", "Images with another most likely class")
        self.shadow_rejections = counter("rejection_differences", "Images rejected by one model only")
        self.shadow_failed = counter("failed", "Images that only the shadow refused")
        self.shadow_dropped = counter("dropped", "Images not compared for want of room")
        self.shadow_difference = Histogram(
            "serve_shadow_probability_difference", "Largest difference of a probability, per image",
            buckets=PROBABILITY_BUCKETS, registry=self.registry,
        )  # fmt: skip

    def _seconds(self, name: str, meaning: str) -> Histogram:
        return Histogram(name, meaning, buckets=LATENCY_BUCKETS, registry=self.registry)

    def watch(self, pools: Mapping[str, Pool]) -> None:
        """Shows the workers of these pools, by name, and the model that the first of them serves."""
        self.registry.register(_Workers(pools))

    def exposition(self) -> bytes:
        """The metrics in Prometheus's text format."""
        return generate_latest(self.registry)


class _Workers(Collector):
    """Workers as they are when Prometheus asks."""

    def __init__(self, pools: Mapping[str, Pool]):
        self.pools = pools

    def collect(self) -> Iterable[Metric]:
        """Yields numbers of workers, their memory, and the model."""
        live = GaugeMetricFamily("serve_workers_live", "Workers that are ready", labels=["pool"])
        wanted = GaugeMetricFamily("serve_workers_configured", "Workers that there should be", labels=["pool"])
        memory = GaugeMetricFamily("serve_worker_memory_bytes", "Resident memory", labels=["pool", "worker"])
        model = InfoMetricFamily("serve_model", "The model served")
        for name, pool in self.pools.items():
            pids = pool.pids
            live.add_metric([name], sum(map(bool, pids)))
            wanted.add_metric([name], pool.count)
            for number, pid in enumerate(pids):
                if size := _resident_bytes(pid):
                    memory.add_metric([name, str(number)], size)
        if info := next(iter(self.pools.values())).model_info:
            model.add_metric([], {key: str(info.get(key, "")) for key in ("name", "digest", "engine", "loaded")})
        return [live, wanted, memory, model]


def _resident_bytes(pid: int) -> int:
    """Resident memory of a process; 0 where the system does not tell."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) if pid else 0
        return pages * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, AttributeError):
        return 0
