"""Counts for Prometheus: of requests, refusals, seconds, who waits, and answers by kind. None tells of a single image."""

from __future__ import annotations

import os

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram, generate_latest, multiprocess
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from stillroom.deployment.prediction import Prediction
from stillroom.serving.settings import COUNTS_VARIABLE

_SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)

REQUESTS = Counter("stillroom_requests", "Requests, by route and status.", ["route", "status"])
REFUSALS = Counter("stillroom_refusals", "Requests that were refused, by reason.", ["reason"])
SECONDS = Histogram("stillroom_request_seconds", "From a request's head to its answer.", ["route"], buckets=_SECONDS)
WAITING = Gauge("stillroom_waiting", "Images that wait or are being computed.", ["line"], multiprocess_mode="livesum")
BATCHES = Histogram("stillroom_batch_images", "Images computed together.", ["line"], buckets=(1, 2, 4, 8))
ANSWERS = Counter("stillroom_answers", "Images answered, by model and kind of answer.", ["model", "kind"])


def kind_of(prediction: Prediction) -> str:
    """What an answer is like, whatever it says: ``one`` class, ``several``, ``foreign`` or ``unreadable``."""
    if prediction.error is not None:
        return "unreadable"
    if prediction.foreign:
        return "foreign"
    if prediction.unsure or (len(prediction.possible or ()) > 1 and len(prediction.decision) == 1):
        return "several"
    return "one"


def exposition() -> tuple[bytes, str]:
    """All counts, of all processes, as Prometheus reads them, and the type of that text."""
    registry = REGISTRY
    if os.environ.get(COUNTS_VARIABLE):
        registry = CollectorRegistry()
        multiprocess.MultiProcessCollector(registry)
    return generate_latest(registry), CONTENT_TYPE_LATEST
