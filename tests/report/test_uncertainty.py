"""The report's part on sets and refusals, from what the evaluation really writes."""

import json
import re

import pytest

from stillroom.report import write_model_card
from stillroom.report.numbers import Estimate
from stillroom.report.record import load
from stillroom.report.uncertainty import MAX_ROWS, uncertainty_section
from stillroom.report.wording import findings


def figure(low, high):
    return {"value": (low + high) / 2, "low": low, "high": high}


@pytest.mark.parametrize("kind", ["binary", "ordinal", "multilabel"])
def test_the_page_shows_what_was_measured(make_run, page_of, kind):
    run = make_run(kind, images=600 if kind == "multilabel" else 240, featured=16, uncertain=True)
    page, card = page_of(run), write_model_card(run).read_text(encoding="utf-8")
    metrics = json.loads((run / "metrics.json").read_text())
    conformal, ood = metrics["conformal"], metrics["ood"]
    assert ("a", {"href": "#uncertainty"}) in page.elements
    for text in (conformal["statement"], ood["statement"], *conformal["notes"], *ood["notes"]):
        assert text in page.words
    for value in (conformal["coverage"], conformal["mean_size"], ood["refused"], ood["made_up"][1]["auroc"]):
        assert "{value:.3f} {low:.3f} to {high:.3f}".format(**value) in page.words
        assert "{value:.3f} ({low:.3f} to {high:.3f})".format(**value) in card
    for values in conformal["per_class"].values():
        assert "{value:.3f} {low:.3f} to {high:.3f}".format(**values["coverage"]) in page.words
    assert ("For each label the model can state a set" in page.words) == (kind == "multilabel")
    assert ("Where present" in page.words) == (kind == "multilabel")
    assert "other <clinic>" in page.words
    assert "other <clinic>: 2 images could not be read." in page.words
    assert "Prediction set The answers" in page.words
    assert "Coverage The share of prediction sets" in page.words
    assert not re.search(r"\b(nan|None|undefined)\b", page.words)
    assert "\n\n\n" not in card


def test_tables_are_whole(make_run):
    section = uncertainty_section(load(make_run("multiclass", images=240, uncertain=True)))
    for table in (section.sets.table, section.sets.per_class, section.refusals.table):
        assert all(len(row) == len(table.columns) for row in table.rows)
    assert section.sets.table.rows[0][1] == Estimate(0.9)
    assert [row[0] for row in section.refusals.table.rows] == [
        "Test images (right kind)", "Noise", "Shuffled tiles", "Inverted", "other <clinic>",
    ]  # fmt: skip
    assert "glioma 0." in section.sets.drawing or "glioma 1." in section.sets.drawing
    assert "90 % promised" in section.sets.drawing


def test_of_many_classes_those_covered_least_are_drawn(make_run, change):
    run = make_run("multiclass", images=240, uncertain=True)

    def edit(metrics):
        one = metrics["conformal"]["per_class"]["glioma"]
        classes = {f"class-{k}": one | {"coverage": figure(k / 100, k / 100 + 0.1)} for k in range(MAX_ROWS + 5)}
        metrics["conformal"]["per_class"] = classes | {"gone": one | {"coverage": None, "size": None, "support": 0}}

    change(run, "metrics.json", edit)
    sets = uncertainty_section(load(run)).sets
    assert f"class-{MAX_ROWS - 1} " in sets.drawing
    assert f"class-{MAX_ROWS} " not in sets.drawing
    assert len(sets.per_class.rows) == MAX_ROWS + 6
    assert sets.per_class.rows[-1] == ("gone", "0", "n/a", "n/a")


def test_an_older_run_has_no_such_part(make_run, page_of):
    run = make_run(images=120, featured=16)
    assert uncertainty_section(load(run)) is None
    words = page_of(run).words
    assert "What it does not know" not in words
    assert "AUROC" not in words
    assert not any("sets" in finding.headline or "refused" in finding.headline for finding in findings(load(run)))
    assert "Prediction sets" not in write_model_card(run).read_text(encoding="utf-8")


def test_without_a_rule_the_page_says_why(make_run, page_of, change):
    run = make_run(images=120, featured=16, uncertain=True)
    reason = "Foreign images are not refused: no class with two images."
    change(run, "metrics.json", lambda metrics: metrics.update(ood={"rule": None, "statement": reason}))
    words = page_of(run).words
    assert f"Foreign images {reason}" in words
    assert "Test images (right kind)" not in words
    card = write_model_card(run).read_text(encoding="utf-8")
    assert f"## Foreign images\n\n{reason}\n" in card
    assert 'the model cannot say "something else"' in card
    assert "\n\n\n" not in card
    (finding,) = [finding for finding in findings(load(run)) if finding.evidence == reason]
    assert (finding.tone, finding.headline) == ("neutral", "Foreign images are not refused.")


def per_class(low, high):
    return {"x": {"coverage": figure(low, high), "size": figure(1, 2), "support": 30}}


def finding_of(run, change, word, **edits):
    """The one finding with ``word`` in its headline, after edits of ``conformal`` or ``ood``."""
    change(run, "metrics.json", lambda metrics: [metrics[part].update(values) for part, values in edits.items()])
    (finding,) = [finding for finding in findings(load(run)) if word in finding.headline]
    return finding


@pytest.mark.parametrize(
    ("coverage", "tone", "headline"),
    [
        (figure(0.80, 0.89), "bad", "less often than promised"),
        (figure(0.85, 0.95), "neutral", "as far as these images can tell"),
        (figure(0.90, 0.99), "good", "at least as often as promised"),
        ({"value": 0.95, "low": None, "high": None}, "neutral", "is not known"),
    ],
)
def test_verdict_on_coverage(make_run, change, coverage, tone, headline):
    conformal = {"coverage": coverage, "mean_size": figure(1.2, 1.4), "per_class": per_class(0.85, 0.95)}
    found = finding_of(make_run("multiclass", images=120, uncertain=True), change, "sets", conformal=conformal)
    assert found.tone == tone
    assert headline in found.headline
    assert "But" not in found.headline
    assert found.evidence.endswith("A set holds 1.30 of 4 classes on average.")


@pytest.mark.parametrize(
    ("kind", "part", "said"),
    [
        ("multiclass", "coverage", "But less often of a, b, c and 1 more."),
        ("multilabel", "coverage_present", "But less often where the label is present: a, b, c and 1 more."),
    ],
)
def test_classes_covered_less_are_named_and_spoil_the_praise(make_run, change, kind, part, said):
    short = {
        name: {"coverage": figure(0.9, 1), "size": figure(1, 1.2), "support": 9} | {part: figure(0.3, 0.6)}
        for name in "abcd"
    }
    conformal = {"coverage": figure(0.92, 0.99), "mean_size": figure(1, 1.2), "per_class": short | per_class(0.8, 1)}
    found = finding_of(make_run(kind, images=300, uncertain=True), change, "sets", conformal=conformal)
    assert found.tone == "neutral"
    assert found.headline == f"The sets hold the truth at least as often as promised. {said}"


def test_sets_of_everything_keep_no_promise_worth_having(make_run, change):
    conformal = {"coverage": figure(1, 1), "mean_size": figure(4, 4)}
    found = finding_of(make_run("multiclass", images=120, uncertain=True), change, "sets", conformal=conformal)
    assert found.tone == "bad"
    assert "say nothing" in found.headline


@pytest.mark.parametrize(
    ("refused", "inverted", "tone", "headline"),
    [
        (figure(0.06, 0.10), 0.9, "bad", "More images of the right kind are refused as foreign than promised."),
        (figure(0.01, 0.10), 0.9, "neutral", "Refusals keep their promise, as far as these images can tell."),
        (figure(0.00, 0.04), 0.9, "good", "No more images of the right kind are refused than promised."),
        (figure(0.00, 0.04), 0.1, "neutral", "refused than promised. But most of these pass: inverted."),
        ({"value": 0.0, "low": None, "high": None}, 0.9, "neutral", "is not known"),
    ],
)
def test_verdict_on_refusals(make_run, change, refused, inverted, tone, headline):
    run = make_run(images=120, uncertain=True)
    made_up = json.loads((run / "metrics.json").read_text())["ood"]["made_up"]
    made_up = [made_up[0] | {"refused": figure(1, 1)}, made_up[2] | {"refused": figure(inverted, inverted)}]
    found = finding_of(run, change, "refus" if "Refus" not in headline else "Refus",
                       ood={"refused": refused, "made_up": made_up, "against": []})  # fmt: skip
    assert found.tone == tone
    assert headline in found.headline
    assert f"Refused of foreign images: noise 100 %, inverted {100 * inverted:.0f} %." in found.evidence


def test_a_rule_that_never_refuses_is_no_success(make_run, change):
    ood = {"threshold": None, "refused": figure(0, 0)}
    found = finding_of(make_run(images=120, uncertain=True), change, "refused", ood=ood)
    assert (found.tone, found.headline) == ("bad", "No image is ever refused as foreign.")
