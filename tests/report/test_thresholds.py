"""The report's part on operating points and decision curves, from what the evaluation really writes."""

import json
import re

import pytest

from stillroom.report import write_model_card
from stillroom.report.model_card import escape
from stillroom.report.record import load
from stillroom.report.thresholds import MAX_PANELS, in_words, thresholds_section


@pytest.mark.parametrize("kind", ["binary", "multilabel"])
def test_page_and_card_tell_what_was_measured(make_run, page_of, kind):
    run = make_run(kind, images=480, featured=16, uncertain=True)
    page, card = page_of(run), write_model_card(run).read_text(encoding="utf-8")
    metrics = json.loads((run / "metrics.json").read_text())
    points, curves = metrics["operating_points"], metrics["decision_curves"]["curves"]
    assert ("a", {"href": "#thresholds"}) in page.elements
    for point in points["points"]:
        for figure in point["figures"].values():
            if figure["low"] is not None:
                assert "{value:.3f} {low:.3f} to {high:.3f}".format(**figure) in page.words
                assert "{value:.3f} ({low:.3f} to {high:.3f})".format(**figure) in card
        assert (point["statement"] in page.words) == (kind == "binary")  # of many the table tells
    for note in points["notes"]:
        assert note in page.words
        assert escape(note) in card
    for name, curve in curves.items():
        said = curve["statement"] if kind == "binary" else f"{name} {curve['share']:.3f} {in_words(curve['better'])}"
        assert said in page.words
    assert not re.search(r"\b(nan|None|undefined)\b", page.words)
    assert "\n\n\n" not in card


def test_of_many_questions_the_commonest_are_drawn(make_run):
    record = load(make_run("multilabel", images=240, uncertain=True))
    curves = record.metrics["decision_curves"]["curves"]
    (name, one), *_ = curves.items()
    curves |= {f"rare {number}": one | {"share": 0.001 * number} for number in range(MAX_PANELS)}
    found = thresholds_section(record)
    assert len(found.curves) == MAX_PANELS
    assert found.left_out == len(curves) - MAX_PANELS
    drawn = [heading for heading, _ in found.curves]
    assert name in drawn
    assert "rare 0" not in drawn
    assert all("</svg>" in svg for _, svg in found.curves)


def test_a_run_of_before_has_no_such_part(make_run, page_of):
    run = make_run(images=60)
    assert thresholds_section(load(run)) is None
    assert "#thresholds" not in page_of(run).words


def test_ranges_in_words():
    assert in_words([]) == "none shown"
    assert in_words([[0.05, 0.3], [0.4, 0.4]]) == "0.05 to 0.30, 0.40"
