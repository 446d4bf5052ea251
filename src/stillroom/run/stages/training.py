"""Train what the recipe trains, as often as was asked for, and the simple rivals beside it."""

from __future__ import annotations

from functools import partial
from typing import Any

from stillroom.run import probes, repeats, selection
from stillroom.run.stage import Evidence, Stage
from stillroom.run.stages.export import export_at_once


def work(evidence: Evidence) -> dict[str, Any]:
    bench = evidence.bench
    first = repeats.train(bench, partial(export_at_once, bench))
    evidence.trained = repeats.repeat(first)
    evidence.joined = selection.join(evidence.trained) if len(evidence.trained) > 1 else None
    evidence.networks = dict(evidence.joined.networks if evidence.joined else first.networks)
    evidence.simpler = probes.make(bench) if bench.settings.evaluation.rivals else {}
    return {"task": bench.task.describe()}


STAGE = Stage("", work)
