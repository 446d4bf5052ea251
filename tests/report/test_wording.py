import json
import re

import numpy as np
import pytest

from stillroom.report import write_model_card, write_report
from stillroom.report.calibration import temperature_notes
from stillroom.report.citations import HINTON, citations
from stillroom.report.curves import _pr, _roc, learning_curves
from stillroom.report.numbers import count, duration, estimate, fixed, p_value, ratio
from stillroom.report.record import load
from stillroom.report.style import colour_name, dashes, glyph, marker
from stillroom.report.tables import confusion, decisions
from stillroom.report.verdict import LUCK, against_control, against_teacher
from stillroom.report.wording import findings, notes, reading


def comparison(low, high, margin=0.02):
    """A paired comparison whose claims follow from its interval."""
    difference = {"value": (low + high) / 2, "low": low, "high": high}
    return {
        "metric": "auc", "difference": difference, "margin": margin, "non_inferior": low > -margin, "superior": low > 0,
        "p_value": 0.04, "statement": "Stated.",
    }  # fmt: skip


def test_size_and_speed_are_of_what_is_handed_over(make_run):
    record = load(make_run())
    said = {finding.headline: finding for finding in findings(record)}
    assert not any(finding.aside for finding in said.values())
    record.metrics["kept"] = {"role": "control"}
    record.metrics["efficiency"]["control"] = {**record.efficiency["teacher"], "parameters": 42_900_000, "macs": 2.3e9}
    (size,) = (finding for finding in findings(record) if finding.headline.startswith("Size"))
    assert (size.headline, size.aside) == (
        "Size: 2.0× fewer parameters, 2.0× fewer multiply-adds than the teacher.",
        False,
    )
    del record.metrics["efficiency"]["control"]
    (size,) = (finding for finding in findings(record) if finding.headline.startswith("Size"))
    assert size.headline in said
    assert size.aside


def test_the_teachers_of_several_look_unlike_each_other_and_all_else():
    roles = (
        "student",
        "control",
        "teacher",
        "teacher_1",
        "teacher_2",
        "teacher_3",
        "probe_of_teacher",
        "probe_of_student",
    )
    for look in (glyph, marker, colour_name, lambda role: str(dashes(role))):
        assert len({look(role) for role in roles}) == len(roles)
    assert (glyph("teacher_4"), colour_name("teacher_0x")) == (glyph("teacher_1"), "muted")


def headlines(run, **comparisons):
    record = load(run)
    record.metrics["comparison"] = comparisons
    return " ".join(finding.headline for finding in findings(record))


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.01, 0.05, "does better than its teacher"),
        (-0.01, 0.03, "as good as its teacher, to within the margin of 0.02"),
        (-0.015, -0.005, "a little worse than its teacher, by less than the margin"),
        (-0.04, 0.02, "not shown to be as good as its teacher"),
        (-0.04, -0.01, "worse than its teacher; whether by more than the margin is open"),
        (-0.09, -0.03, "worse than its teacher by more than the margin of 0.02"),
    ],
)
def test_verdict_against_the_teacher(make_run, low, high, expected):
    assert expected in headlines(make_run(), student_vs_teacher=comparison(low, high))


def lucky(record, **comparisons):
    """The same comparisons as if they came from five trainings."""
    record.metrics["luck"] = {"count": 5, "kind": "repeats", "comparison": comparisons}


@pytest.mark.parametrize(
    ("low", "high", "alone", "several", "tone"),
    [
        (0.01, 0.05, f"The student is ahead; whether the teacher helped is open. {LUCK}", "The teacher helped.", "good"),
        (-0.01, 0.03, "The teacher did not measurably help.", "The teacher did not measurably help.", "neutral"),
        (
            -0.05, -0.01, f"The control is ahead; whether the teacher did harm is open. {LUCK}",
            "The teacher did harm: the control is better.", "bad",
        ),
    ],
)  # fmt: skip
def test_verdict_on_the_teacher_s_help_needs_several_trainings_to_praise(make_run, low, high, alone, several, tone):
    record = load(make_run())
    record.metrics["comparison"] = {"student_vs_control": comparison(low, high)}
    finding = against_control(record)
    assert finding.headline == alone
    assert finding.tone == ("bad" if tone == "bad" else "neutral")
    assert "--repeats or --folds" in finding.evidence
    lucky(record, student_vs_control=comparison(low, high))
    finding = against_control(record)
    assert (finding.headline, finding.tone) == (several, tone)
    assert "luck of training" not in finding.evidence


@pytest.mark.parametrize(("low", "high"), [(0.01, 0.05), (-0.01, 0.03), (-0.015, -0.005)])
def test_being_as_good_as_the_teacher_is_praised_after_several_trainings_alone(make_run, low, high):
    record = load(make_run())
    record.metrics["comparison"] = {"student_vs_teacher": comparison(low, high)}
    alone = against_teacher(record)
    lucky(record, student_vs_teacher=comparison(low, high))
    several = against_teacher(record)
    assert (alone.tone, several.tone) == ("neutral", "good")
    assert alone.headline == several.headline
    assert "not the luck of training" in alone.evidence


def test_a_claim_that_accuracy_contradicts_says_so(make_run):
    worse = {"value": -0.17, "low": -0.31, "high": -0.02}
    record = load(make_run())
    record.metrics["comparison"] = {
        "student_vs_teacher": comparison(-0.01, 0.03) | {"accuracy_difference": worse},
        "student_vs_control": comparison(-0.01, 0.03) | {"accuracy_difference": worse},
    }
    teacher, control = against_teacher(record), against_control(record)
    assert (teacher.tone, control.tone) == ("neutral", "bad")
    assert teacher.headline.endswith("But the student's accuracy is lower.")
    assert "did not measurably help. But" in control.headline


def test_the_p_value_beside_an_interval_is_that_of_the_interval(make_run):
    record = load(make_run())
    accuracy = {
        "accuracy_difference": {"value": 0.05, "low": 0.002, "high": 0.098},
        "accuracy_p": 0.041,
        "mcnemar_p": 0.053,
    }
    record.metrics["comparison"] = {"student_vs_teacher": comparison(-0.01, 0.03) | accuracy}
    evidence = against_teacher(record).evidence
    assert "accuracy +0.050 (+0.002 to +0.098), p\u00a0=\u00a00.041." in evidence
    assert "0.053" not in evidence


@pytest.mark.parametrize("asked", ["page", "card"])
def test_what_a_mask_marks_is_called_a_marked_region(make_run, asked):
    run = make_run(images=120, explained=6, lesions=True, featured=16)
    text = (write_report if asked == "page" else write_model_card)(run).read_text(encoding="utf-8")
    assert "marked region" in text
    assert "lesion" not in re.sub(r'id="[^"]*"', "", text).lower()


def test_no_claim_without_an_interval(make_run):
    bare = comparison(0.01, 0.05) | {"difference": {"value": 0.03, "low": None, "high": None}}
    found = headlines(make_run(), student_vs_control=bare)
    assert "Whether the teacher helped is not known." in found


def test_failed_export_is_said(make_run):
    record = load(make_run())
    record.metrics["export"]["passed"] = False
    assert any(finding.tone == "bad" and "ONNX" in finding.headline for finding in findings(record))


def test_numbers():
    assert fixed(-0.0001) == "0.000"
    assert fixed(-0.02, signed=True) == "−0.020"
    assert fixed(None) == fixed(float("nan")) == "n/a"
    assert count(1_519_906) == "1.52 M"
    assert count(998_000_000_000) == "998 G"
    assert count(1234) == "1,234"
    assert ratio(61, 2.1) == "29×"
    assert ratio(3, 2) == "1.5×"
    assert ratio(3, 0) is None
    assert duration(7) == "7.0 s"
    assert duration(3 * 3600 + 300) == "3 h 05 min"
    assert p_value(0.0001) == "p\u00a0<\u00a00.001"
    assert p_value(None) == ""
    assert estimate({"value": 0.5, "low": 0.4, "high": None}).text() == "0.500"
    assert estimate({"value": -0.5, "low": -0.6, "high": -0.4}).text() == "−0.500 (−0.600 to −0.400)"
    assert estimate(None) is None
    assert estimate({"value": float("nan")}) is None


@pytest.mark.parametrize("epochs", [1, 2, 9])
def test_every_part_of_the_loss_is_marked_however_few_epochs_there_are(make_run, epochs):
    drawings = dict(learning_curves(load(make_run(epochs=epochs))))
    marks = re.findall(r"<use [^>]*var\(--class-\d\)", drawings["Parts of the student's loss"])
    assert len(marks) >= 2 + 2 * min(epochs, 2)  # those of the legend, and of two parts
    if epochs == 1:
        for role in ("student", "control", "teacher"):
            assert re.search(rf"<use [^>]*var\(--{role}\)", drawings["Training loss"]), role


def test_curves_have_the_areas_that_scikit_learn_gives():
    from sklearn.metrics import average_precision_score, roc_auc_score

    rng = np.random.default_rng(0)
    truth = (rng.random(4000) < 0.3).astype(int)
    scores = truth + rng.normal(size=4000)
    grid = np.linspace(0, 1, 101)
    assert np.trapezoid(_roc(truth, scores), grid) == pytest.approx(roc_auc_score(truth, scores), abs=0.005)
    assert np.trapezoid(_pr(truth, scores), grid) == pytest.approx(average_precision_score(truth, scores), abs=0.01)


def test_confusion_counts_every_test_image(make_run):
    from sklearn.metrics import confusion_matrix

    record = load(make_run("multiclass"))
    found = confusion(record, "student")
    test = record.predictions.test
    said = record.predictions.probabilities["student"][test].argmax(axis=1)
    assert found.counts == confusion_matrix(record.predictions.targets[test], said, labels=range(4)).tolist()
    assert np.allclose(np.sum(found.shares, axis=1), 1)
    assert decisions(record, "student") is None


def test_decisions_count_every_label(make_run):
    record = load(make_run("multilabel", images=300))
    rows = decisions(record, "student").rows
    assert len(rows) == 14
    assert all(sum(int(cell) for cell in row[1:]) == 100 for row in rows)
    assert confusion(record, "student") is None


def test_history_counts_a_repeated_epoch_once_and_leaves_damaged_lines_out(make_run):
    run = make_run(epochs=3)
    path = run / "history.jsonl"
    text = path.read_text()
    path.write_text('{"role\n' + text + "[1]\n" + text.splitlines()[0] + '\n{"role": "stu')
    assert len(load(run).history) == 9


def test_citations():
    assert [paper.text.split()[0] for paper in citations("medalmighty")] == ["Ren", "Hinton"]
    assert citations("baseline") == [HINTON]


def guess(record, *roles):
    """Let the interval of the selection metric of these roles hold what guessing scores."""
    chance = {"auc": 0.5, "quadratic_kappa": 0.0}
    for role in roles:
        for metric, value in chance.items():
            record.test[role][metric] = {"value": value + 0.02, "low": value - 0.05, "high": value + 0.09}


@pytest.mark.parametrize("kind", ["binary", "ordinal"])
def test_a_student_that_may_be_guessing_is_said_first_and_never_praised(make_run, kind):
    record = load(make_run(kind))
    assert findings(record)[0].headline == "The student is better than guessing."
    both = {"student_vs_teacher": comparison(-0.01, 0.01), "student_vs_control": comparison(0.01, 0.05)}
    record.metrics["comparison"] = both
    guess(record, "student", "teacher")
    lucky(record, **both)
    first, teacher, control = findings(record)[0], against_teacher(record), against_control(record)
    assert (first.tone, first.headline) == ("bad", "The student is not shown to be better than guessing.")
    assert (teacher.tone, control.tone) == ("neutral", "neutral")
    assert teacher.headline.endswith("But neither is shown to be better than guessing.")
    assert control.headline == "The teacher helped. But the student is not shown to be better than guessing."


def test_beating_a_teacher_that_guesses_is_no_praise_either(make_run):
    record = load(make_run())
    lucky(record, student_vs_teacher=comparison(0.2, 0.4), student_vs_control=comparison(0.01, 0.05))
    guess(record, "teacher")
    first, teacher, control = findings(record)[0], against_teacher(record), against_control(record)
    assert first.headline == "The student is better than guessing."
    assert teacher.tone == "neutral"
    assert teacher.headline.endswith("But the teacher is not shown to be better than guessing.")
    assert control.tone == "good"


def test_a_temperature_at_its_bound_is_a_finding(make_run):
    record = load(make_run())
    assert not any("usable information" in finding.headline for finding in findings(record))
    record.calibration["student"].update(temperature=19.99998, ece_before=0.4, ece_after=0.1)
    (finding,) = [finding for finding in findings(record) if "usable information" in finding.headline]
    assert finding.tone == "bad"
    assert "the student carry" in finding.headline
    assert any(
        note.startswith("Student: The fitted temperature is at its bound of 20") for note in temperature_notes(record)
    )


def test_notes_name_their_role_where_roles_differ(make_run):
    record = load(make_run())
    for role, remarks in {
        "student": ["All.", "Mine."],
        "control": ["All.", "Two."],
        "teacher": ["All.", "Two."],
    }.items():
        record.test[role]["notes"] = remarks
    assert notes(record) == ["All.", "Student: Mine.", "Control, Teacher: Two."]


def test_the_positive_class_or_the_mean_is_named(make_run):
    assert reading(load(make_run())) == "positive class: pneumonia"
    assert reading(load(make_run("multiclass"))).endswith("are means over classes")
    assert reading(load(make_run("multilabel", images=300))).endswith("are means over labels")


def test_the_control_is_named_as_the_recipe_names_it():
    from stillroom.recipes import CAMKD, DualModelSKD, LinearProbe, WeCKD
    from stillroom.settings.whole import Settings

    def said(recipe):
        return recipe.claim(Settings("phantoms", recipe))

    assert said(WeCKD()).adds == "the chain"
    assert "all slices together" in said(WeCKD()).control
    assert said(WeCKD(one_step=True)).origin == "The last of a chain of 2, trained"
    assert said(DualModelSKD()).adds == "weight selection and self-distillation"
    assert said(DualModelSKD(teach=True)).adds == (
        "weight selection, self-distillation and the large network's teaching"
    )
    assert said(DualModelSKD(initial="scratch", skd="none", teach=True)).adds == "the large network's teaching"
    assert said(DualModelSKD()).origin == "Cut out of vit_small_patch16_224"
    assert said(CAMKD(teachers=("resnet18", "resnet34"))).origin == "Distilled from resnet18 + resnet34"
    assert said(LinearProbe()).adds == "pretraining"


def test_the_report_says_how_many_labels_were_read(make_run):
    from stillroom.files.atomic import write_json
    from stillroom.report import write_model_card, write_report

    run = make_run()
    manifest = json.loads((run / "manifest.json").read_text())
    more = {"images": 1500, "left_out_because_held_out": ["a.png", "b.png"]}
    write_json(run / "manifest.json", manifest | {"labels_read": 120, "training_images": 1240, "unlabelled": more})
    said = "The labels of 120 of the 1,240 training images were used. 1,500 images without labels were learnt from too."
    for file in (write_report(run), write_model_card(run)):
        text = " ".join(file.read_text(encoding="utf-8").split())
        assert said in text
        assert "2 more were left out, because validation or test show them again." in text
    write_json(run / "manifest.json", manifest | {"labels_read": 1240, "training_images": 1240})
    assert "The labels of" not in write_report(run).read_text(encoding="utf-8")


def test_networks_that_see_other_sides_are_told_apart(make_run):
    record = load(make_run())
    record.manifest["sides"] = {"student": 96, "teachers": [224, 96]}
    assert "Each network sees the images at its own side: the teacher 224 px, the student 96 px." in notes(record)
    record.manifest["sides"] = {"student": 96, "teachers": [96]}
    assert not any("own side" in note for note in notes(record))
