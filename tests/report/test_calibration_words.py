"""A test that excludes chance beside an interval that touches zero: the page says why both can be."""

from dataclasses import replace

import pytest

from stillroom.evaluation.calibration_error import NEEDED, NOT_SHOWN
from stillroom.report.calibration import calibration_sentences
from stillroom.report.record import load


@pytest.mark.parametrize(("p", "low", "both"), [(0.027, 0.0, True), (0.027, 0.01, False), (0.3, 0.0, False)])
def test_why_an_error_that_may_be_zero_stands_beside_a_small_p(make_run, p, low, both):
    record = load(make_run(roles=("student",)))
    after = {
        "error": {"value": 0.078, "low": low, "high": 0.17}, "stated": 0.97, "true": 0.94, "p_value": p,
        "verdict": NEEDED if p < 0.05 else NOT_SHOWN,
    }  # fmt: skip
    metrics = record.metrics | {"calibration": {"student": {"after": after}}}
    (said,) = calibration_sentences(replace(record, metrics=metrics))
    assert ("do not contradict each other" in said) == both
