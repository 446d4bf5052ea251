"""Which network is handed over, and how far luck reaches where it was measured."""

from __future__ import annotations

from functools import partial
from typing import Any

from stillroom.evaluation.assess import STUDENT
from stillroom.run import repeats, selection
from stillroom.run.exported import save_exported
from stillroom.run.preparing import data_set
from stillroom.run.stage import Evidence, Stage


def work(evidence: Evidence) -> dict[str, Any]:
    bench, joined, found = evidence.bench, evidence.joined, evidence.assessment
    assert found is not None
    run, wanted, parts = bench.run, bench.settings.evaluation, {}
    if joined:
        parts["kept"] = joined.figures
        parts["luck"] = repeats.luck_of(bench, repeats.of_repeats(evidence.trained, found.probabilities))
        parts["luck"]["exported"] = joined.number
    if wanted.folds > 1:
        folds = repeats.of_folds(bench, partial(data_set, bench.dataset.origin, bench.settings, bench.show_progress))
        parts["luck"] = repeats.luck_of(bench, folds)
    if wanted.keep == "best":
        evidence.exported, parts["kept"] = selection.best_of(bench, evidence.networks, evidence.logits)
        if joined and evidence.exported != STUDENT:
            parts["luck"]["exported"] = None
    exported = evidence.networks[evidence.exported]
    if exported is not evidence.trained[0].networks[STUDENT]:
        save_exported(run.path, exported)
    side = bench.seen_by(exported).images.store.size
    name = getattr(exported, "name", run.manifest["student"])  # an ensemble is of students
    run.note(exported_network=name)
    run.note(exported_role=evidence.exported, exported_side=side, passes=repeats.passes(run))
    return parts


STAGE = Stage("", work)
