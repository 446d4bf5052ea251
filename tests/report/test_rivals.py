"""What is simpler, and what makes the figures doubtful, is said on top; several trainings and the plan have sections."""

import json
import re

import pytest

from stillroom.evaluation.roles import SIMPLEST
from stillroom.report import write_model_card
from stillroom.report.doubts import doubts
from stillroom.report.record import load
from stillroom.report.rivals import beaten, instead, wins
from stillroom.report.verdict import absolute
from stillroom.report.wording import findings, notes

ROLES = ("student", "control", "teacher", *SIMPLEST)


def between(value, low, high):
    return {"value": value, "low": low, "high": high}


@pytest.fixture
def record(make_run):
    """All rivals, and the student better than each of them, on validation too."""
    found = load(make_run(roles=ROLES, leaks=0, featured=16))
    for role in ROLES:
        value = {"student": 0.95, "majority": 0.5}.get(role, 0.90)
        for figures in (found.metrics["test"], found.metrics["validation"]):
            figures[role]["auc"] = between(value, value - 0.04, value + 0.04)
            figures[role]["images"], figures[role]["patients"] = 160, 80
        if role != "student":
            against(found, role, 0.05, 0.01, 0.09)
    return found


def against(record, role, value, low, high, accuracy=(0.05, 0.01, 0.09)):
    found = record.metrics["comparison"][f"student_vs_{role}"]
    found.update(difference=between(value, low, high), accuracy_difference=between(*accuracy))
    found.update(non_inferior=low > -0.02, superior=low > 0)


def on_validation(record, role, value):
    record.metrics["validation"][role]["auc"]["value"] = value


def test_where_none_wins_one_neutral_line_says_what_was_beaten(record):
    assert instead(record) == []
    finding = beaten(record)
    assert (finding.tone, finding.headline) == ("neutral", "The student beats what is simpler.")
    assert "Student − linear probe on the frozen teacher: AUC +0.050 (+0.010 to +0.090), accuracy" in finding.evidence
    assert "Student − majority class: AUC" in finding.evidence
    against(record, "probe_of_teacher", 0.01, -0.02, 0.04)
    assert beaten(record).headline == "Nothing simpler is shown to be better than the student."


@pytest.mark.parametrize(
    ("difference", "accuracy", "validation", "expected"),
    [
        ((-0.05, -0.09, -0.01), (0.0, -0.1, 0.1), 0.80, True),  # beyond the interval
        ((-0.02, -0.06, 0.02), (0.0, -0.1, 0.1), 0.96, True),  # ahead on validation and on test
        ((-0.02, -0.06, 0.02), (0.0, -0.1, 0.1), 0.94, False),  # ahead on test alone
        ((0.02, -0.02, 0.06), (0.0, -0.1, 0.1), 0.96, False),  # ahead on validation alone
        ((-0.001, -0.02, 0.02), (-0.2, -0.3, -0.1), 0.80, True),  # decides better, ranks no worse
        ((0.03, 0.01, 0.05), (-0.2, -0.3, -0.1), 0.80, False),  # decides better, ranks worse
    ],
)
def test_a_rival_wins_beyond_luck_or_twice(record, difference, accuracy, validation, expected):
    against(record, "probe_of_student", *difference, accuracy)
    on_validation(record, "probe_of_student", validation)
    assert wins(record, "probe_of_student") == expected


def test_the_first_finding_says_what_to_use_instead(record):
    against(record, "probe_of_teacher", -0.05, -0.09, -0.01)
    record.metrics["test"]["probe_of_teacher"]["auc"]["value"] = 0.99
    on_validation(record, "probe_of_teacher", 0.99)
    first = findings(record)[0]
    assert first.tone == "bad"
    assert first.headline == (
        "Use the linear probe on the frozen teacher instead, unless 343.2 MB instead of 6.1 are too many: "
        "AUC 0.990 against the student's 0.950."
    )
    assert "On validation: 0.990 against the student's 0.950." in first.evidence
    assert "--keep best" in first.evidence
    assert beaten(record) is None


def test_a_larger_rival_must_be_better_by_more_than_the_margin_and_fit(record):
    # Not worse than the rival by more than the margin, and a fraction of its size: that is what a student is for.
    against(record, "probe_of_teacher", -0.01, -0.015, -0.005)
    assert not wins(record, "probe_of_teacher")
    against(record, "control", -0.01, -0.015, -0.005)  # as large as the student
    assert wins(record, "control")
    against(record, "probe_of_teacher", -0.05, -0.09, -0.03)
    assert wins(record, "probe_of_teacher")
    assert beaten(record) is None
    record.settings["evaluation"]["max_mb"] = 10
    assert not wins(record, "probe_of_teacher")
    against(record, "control", 0.05, 0.01, 0.09)
    assert beaten(record).headline == (
        "The linear probe on the frozen teacher is better, but larger; nothing simpler of the student's size is."
    )


def test_a_frozen_teacher_is_its_own_probe(record):
    for part in ("test", "comparison"):
        record.metrics[part] = {k: v for k, v in record.metrics[part].items() if "probe_of_teacher" not in k}
    against(record, "teacher", -0.05, -0.09, -0.01)
    assert instead(record) == []
    record.settings["teacher"] = {"teacher_mode": "frozen"}
    assert instead(record)[0].headline.startswith("Use the frozen teacher with its linear head instead")


def test_a_better_control_on_validation_is_said_first_and_keep_best_named(record):
    on_validation(record, "control", 0.97)
    first = findings(record)[0]
    assert first.headline == "On validation the control is better than the student."
    assert first.evidence == "AUC 0.970 against 0.950. --keep best hands over what is best there."
    record.metrics["kept"] = {"role": "control", "why": "It is the likeliest.", "candidates": []}
    first = findings(record)[0]
    assert (first.headline, first.evidence) == (
        "This run hands over the control, not the student.",
        "It is the likeliest.",
    )


def test_decisions_must_beat_the_majority_too(record):
    assert absolute(record).headline == "The student is better than guessing."
    against(record, "majority", 0.45, 0.4, 0.5, accuracy=(0.0, -0.05, 0.05))
    finding = absolute(record)
    assert finding.tone == "bad"
    assert (
        finding.headline
        == "The student's decisions are not shown to be better than always answering the commonest class."
    )
    assert "difference 0.000 (−0.050 to +0.050)" in finding.evidence


def test_the_verdict_names_the_worst_class(record):
    classes = record.metrics["test"]["student"]["per_class"]
    classes["normal"] |= {"sensitivity": between(0.6, 0.5, 0.7), "support": 41, "patients": 30}
    classes["pneumonia"] |= {"sensitivity": between(0.9, 0.8, 1.0)}
    said = "Worst class: normal, found in 0.600 (0.500 to 0.700) of 41 images of 30 patients (sensitivity)."
    assert said in absolute(record).evidence
    classes["normal"]["sensitivity"] = between(0.0, 0.0, 0.1)
    finding = absolute(record)
    assert (finding.tone, finding.headline) == (
        "bad",
        "The student ranks better than guessing, but never finds normal.",
    )


@pytest.mark.parametrize(
    ("validation", "test", "images", "expected"),
    [
        (between(0.976, 0.95, 1.0), between(0.606, 0.45, 0.75), (60, 100), True),
        (between(0.95, 0.91, 0.99), between(0.90, 0.86, 0.94), (160, 160), False),
        # 30 images that are all told apart show no error of their own, but have one.
        (between(1.0, 1.0, 1.0), between(0.94, 0.90, 0.98), (30, 120), False),
        (between(1.0, 1.0, 1.0), between(0.70, 0.60, 0.80), (30, 120), True),
        (between(1.0, None, None), between(0.70, 0.60, 0.80), (30, 120), False),
    ],
)
def test_validation_and_test_that_disagree_beyond_luck(record, validation, test, images, expected):
    for part, figure, count in zip(("validation", "test"), (validation, test), images, strict=True):
        record.metrics[part]["student"] |= {"auc": figure, "images": count, "patients": None}
    found = [finding for finding in doubts(record) if "disagree beyond luck" in finding.headline]
    assert len(found) == expected
    assert all(finding.tone == "bad" for finding in found)


def test_one_in_a_hundred_runs_is_told_that_its_splits_disagree_by_luck_at_most(record):
    """By simulation: the same accuracy in truth, 60 validation and 150 test images."""
    import numpy as np

    rng, alarms = np.random.default_rng(0), 0
    for _ in range(2000):
        for part, count in (("validation", 60), ("test", 150)):
            share = rng.binomial(count, 0.85) / count
            half = 1.96 * np.sqrt(share * (1 - share) / count)
            figure = between(share, share - half, share + half)
            record.metrics[part]["student"] |= {"auc": figure, "images": count, "patients": None}
        alarms += any("disagree" in finding.headline for finding in doubts(record))
    assert alarms / 2000 <= 0.015


def test_a_poor_teacher_is_said(record):
    assert not any("teacher" in finding.headline for finding in doubts(record))
    record.metrics["test"]["teacher"]["auc"] = between(0.85, 0.8, 0.9)  # below the control's interval
    (finding,) = [finding for finding in doubts(record) if "teacher" in finding.headline]
    assert (finding.tone, finding.headline) == ("bad", "The teacher is worse than the control.")
    assert "linear probe on the frozen teacher 0.900" in finding.evidence
    record.metrics["test"]["teacher"]["auc"] = between(0.89, 0.8, 0.9)  # within it, and not on validation
    assert not any("teacher" in finding.headline for finding in doubts(record))
    on_validation(record, "teacher", 0.89)
    (finding,) = [finding for finding in doubts(record) if "teacher" in finding.headline]
    assert (finding.tone, finding.headline) == ("neutral", "The teacher is no better than the control.")
    assert "on validation too" in finding.evidence
    probe = record.metrics["test"]["probe_of_teacher"]
    record.metrics["test"]["probe_of_teacher"] = probe | {"auc": between(0.95, 0.92, 0.98)}  # alone beyond its interval
    (finding,) = [finding for finding in doubts(record) if "teacher" in finding.headline]
    assert (finding.tone, finding.headline) == ("bad", "The teacher is worse than its own linear probe.")


@pytest.mark.parametrize(
    ("support", "patients", "said"),
    [(9, None, "9"), (40, 4, "40 images of 4 patients"), (3, 1, "3 images of 1 patient"), (10, 5, "")],
)
def test_classes_with_few_test_images_are_named(record, support, patients, said):
    record.metrics["test"]["student"]["per_class"]["pneumonia"] |= {"support": support, "patients": patients}
    found = [finding.headline for finding in doubts(record) if "too few" in finding.headline]
    assert found == ([f"The AUC rests on too few test images of pneumonia ({said})."] if said else [])


def test_remarks_on_the_majority_class_are_left_out(record):
    record.metrics["test"]["majority"]["notes"] = ["No image was predicted as pneumonia."]
    record.metrics["test"]["student"]["notes"] = ["Mine."]
    assert "Student: Mine." in notes(record)
    assert not any("Majority" in note or "predicted as" in note for note in notes(record))


@pytest.mark.parametrize("kind", ["multiclass", "multilabel"])
def test_the_page_shows_rivals_where_they_make_sense(make_run, kind, page_of):
    run = make_run(kind, roles=ROLES, images=600, featured=16, explained=4, several=3, planned=True)
    page = page_of(run)
    for title in ("Linear probe on the teacher", "Linear probe on the student's start", "Majority class"):
        assert title in page.words
    drawings = [attributes["aria-label"] for tag, attributes in page.elements if tag == "svg"]
    shown = {label.split()[0]: label for label in drawings}
    assert not any("majority" in label.lower() for label in drawings)
    assert "linear probe on the frozen teacher" in shown["Test"]
    assert "linear probe" not in " ".join(
        label for label in drawings if label.startswith(("Reliability", "Learning", "t-SNE"))
    )
    ids = [attributes.get("id") for _, attributes in page.elements]
    assert {"luck", "plan"} <= set(ids)


def test_several_trainings_have_a_section(make_run, page_of, change):
    run = make_run(roles=ROLES, featured=16, several=4)
    metrics = json.loads((run / "metrics.json").read_text())["luck"]
    page = page_of(run)
    assert metrics["statement"] in page.words
    for single in metrics["runs"]:
        assert f"{single['student']:.3f}" in page.words
    assert f"Training {metrics['exported']} (handed over)" in page.words
    for comparison in metrics["comparison"].values():
        assert comparison["statement"].replace("-0", "−0") in page.words
    card = write_model_card(run).read_text(encoding="utf-8")
    assert "One training run:" not in card
    assert "trained 4 times on one split" in card


def test_a_plan_is_shown_with_its_reasons_and_times(make_run, page_of):
    run = make_run(featured=16, planned=True)
    page = page_of(run)
    assert "At most 20 minutes for teaching and training, 10 MB." in page.words
    assert "student.student mobilenetv2_100 The best that 10 MB allow." in page.words
    assert "<96> is what 20 minutes allow" in page.words
    assert "teach 60 s 41 s" in page.words
    assert "student 5 min 6 min" in page.words
    assert "all of these 6 min 7 min" in page.words
    assert "facts" not in page.words.split("TRIPOD")[0]
    assert "Plan: the settings follow plan.yaml. At most 20 minutes" in write_model_card(run).read_text(
        encoding="utf-8"
    )


def test_what_is_handed_over_is_shown_with_its_candidates(make_run, page_of, change):
    kept = {
        "role": "control", "why": "It is the likeliest to be right.",
        "candidates": [
            {"role": "student", "mb": 6.08, "validation": -0.31, "within": True},
            {"role": "control", "mb": 6.08, "validation": -0.21, "within": True},
            {"role": "teacher", "mb": 343.2, "validation": -0.11, "within": False},
        ],
    }  # fmt: skip
    run = make_run(featured=16)
    change(run, "metrics.json", lambda metrics: metrics.update(kept=kept))
    words = page_of(run).words
    assert "The control. It is the likeliest to be right." in words
    assert "Control (handed over) 6.1 −0.210 yes" in words
    assert "Teacher 343.2 −0.110 no" in words
    assert "Handed over: The control." in write_model_card(run).read_text(encoding="utf-8")


def test_title_and_first_screen_are_of_what_is_handed_over(make_run, page_of, change):
    """The student finds nothing of one class: a fact about what teaching did, not about the teacher's file."""
    run = make_run("multiclass", featured=16)
    kept = {"role": "teacher", "why": "On 160 validation images the teacher is the likeliest.", "candidates": []}

    def edit(metrics):
        metrics["kept"] = kept
        metrics["test"]["student"]["per_class"]["glioma"]["sensitivity"] = between(0.0, 0.0, 0.01)

    change(run, "metrics.json", edit)
    change(run, "manifest.json", lambda manifest: manifest.update(exported_network="large", exported_role="teacher"))
    page, test = page_of(run), json.loads((run / "metrics.json").read_text(encoding="utf-8"))["test"]
    lines = re.findall(r"<div><dt>(?:How good|How sure|What not)</dt><dd>(.*?)</dd></div>", page.source)
    good, sure, unfit = (re.sub(r"<[^>]+>", "", line) for line in lines)
    assert good.startswith("Handed over: the teacher, not the student. On 160 validation images")
    assert f"{test['teacher']['auc']['value']:.3f}" in good
    assert f"{test['student']['auc']['value']:.3f}" not in good
    assert f"glioma {test['teacher']['per_class']['glioma']['sensitivity']['value']:.3f}" in good
    assert (
        f"Calibration error, how far stated probabilities are off: {test['teacher']['calibration_error']['value']:.3f}"
        in sure
    )
    assert "student" not in unfit
    handed, aside = re.findall(r'<div class="verdict">(.*?)</div>', page.source, re.S)
    against = int(re.search(r"Not yet: (\d+) things? speaks? against it, marked ! below", unfit)[1])
    assert handed.count(">!</span>") == page.source.count(">!</span>") == against > 0
    assert "student" not in handed.lower()
    assert 'class="mark"' not in aside
    for said in ("The student ranks better", "than the teacher.", "Size: ", "Speed: "):
        assert said in aside
    assert "The student ranks better than guessing, but never finds glioma." in page.words
    assert "<h1>large</h1>" in page.source
    assert "Test figures of the teacher, which is handed over, each class against the rest" in page.words
    card = write_model_card(run).read_text(encoding="utf-8")
    assert card.startswith("# large\n\nThe teacher, handed over instead of the student ")
    assert "| Teacher (handed over) |" in card


def test_a_run_from_before_there_were_rivals_still_opens(make_run, page_of, change):
    run = make_run(featured=16)

    def edit(metrics):
        del metrics["validation"]
        for figures in metrics["test"].values():
            for values in figures["per_class"].values():
                del values["patients"]

    change(run, "metrics.json", edit)
    page = page_of(run)
    assert not {"luck", "plan", "kept"} & {attributes.get("id") for _, attributes in page.elements}
    assert "The student is better than guessing." in page.words
