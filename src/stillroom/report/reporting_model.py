"""What a run says of its model, its evaluation and their limits, for the items of TRIPOD+AI and CLAIM, which name it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from stillroom.evaluation.roles import STUDENT
from stillroom.report.external import external_tests
from stillroom.report.numbers import METRICS, count, plain
from stillroom.report.reporting_facts import Answer, Facts
from stillroom.report.subgroups import HEADINGS
from stillroom.report.wording import network
from stillroom.shown import counted


def title(facts: Facts) -> Answer:
    student, teacher = network(facts.record.manifest.get("student")), network(facts.record.manifest.get("teacher"))
    taught = f" distilled from {teacher}" if teacher else ""
    return Answer(
        f"Development and internal evaluation of {student}{taught}, by deep learning.",
        "verdict",
        "A title that also names the people and the outcome.",
    )


def purpose(facts: Facts) -> Answer:
    return Answer(
        "Making a model for research. It is no medical device.",
        "verdict",
        "Intended users, and the place in their work.",
    )


def aims(facts: Facts) -> Answer:
    tested = facts.other_data
    what = f"Development and evaluation{f', also on {_data_sets(tested)}' if tested else ''}"
    margin = facts.set_to("evaluation", "margin")
    claim = f"; the student is to be no worse than its teacher by more than {margin}" if margin is not None else ""
    return Answer(f"{what}{claim}.", "verdict", "Aims and hypotheses as they were set before.")


def _data_sets(number: int) -> str:
    return counted(number, "other data set", "other data sets")


def model(facts: Facts) -> Answer:
    manifest = facts.record.manifest
    name = network(manifest.get("exported_network") or manifest.get("student"))
    size = (facts.record.efficiency.get(facts.exported) or {}).get("parameters")
    many = f", {count(size)} parameters" if size else ""
    side = manifest.get("exported_side")
    view = f", input {side} × {side}" if side else ""
    return Answer(
        f"{name}{many}{view}; recipe {facts.record.recipe}; {len(facts.record.task.classes)} outputs. Settings are listed.",
        "making",
    )


def software(facts: Facts) -> Answer:
    versions = facts.record.manifest.get("versions") or {}
    return Answer(", ".join(f"{name} {version}" for name, version in versions.items()) or "Not recorded", "making")


def initial(facts: Facts) -> Answer:
    start = facts.set_to("student", "student_from") or facts.set_to("student", "student_weights")
    pretrained = facts.set_to("student", "student_pretrained")
    said = (
        f"pretrained weights ({_named(start)})" if start else "pretrained weights" if pretrained else "random weights"
    )
    teachers = facts.record.manifest.get("taught_by") or []
    of = [f"{network(one.get('name'))} from {_named(one.get('source') or 'a place not known')}" for one in teachers]
    taught = f" {'Teacher' if len(of) == 1 else 'Teachers'}: {', '.join(of)}." if of else ""
    return Answer(f"Student: {said}.{taught}", "taught" if teachers else "making")


def _named(place: Any) -> str:
    """Where weights come from; of a path on the machine that made the run the last part alone."""
    text = plain(place)
    return Path(text).name if Path(text).is_absolute() else text


def training(facts: Facts) -> Answer:
    names = ("optimizer", "lr", "schedule", "weight_decay", "epochs", "steps", "batch_size", "precision")
    return Answer(f"{facts.listed('training', *names).capitalize()}. Curves and all settings are shown.", "making")


def selection(facts: Facts) -> Answer:
    kept = facts.record.metrics.get("kept") or {}
    chosen = f" Handed over: the {facts.exported.replace('_', ' ')}." if kept else ""
    return Answer(
        f"The epoch, and the network, that were likeliest on validation.{chosen}", "kept" if kept else "learning"
    )


def ensemble(facts: Facts) -> Answer:
    keep = facts.set_to("evaluation", "keep")
    return Answer("Several trainings answer with one voice." if keep == "ensemble" else "No ensemble.", "kept")


def output(facts: Facts) -> Answer:
    sets = " Sets of classes that cannot be ruled out." if facts.record.metrics.get("conformal") else ""
    points = " Thresholds for a wanted sensitivity." if facts.record.metrics.get("operating_points") else ""
    refused = " Refusals of foreign images." if (facts.record.metrics.get("ood") or {}).get("rule") else ""
    return Answer(
        f"Calibrated probabilities; decision: {facts.record.task.decision_rule}.{sets}{refused}{points}",
        "thresholds" if points else "uncertainty" if sets or refused else "calibration",
        "Why this threshold fits the use.",
    )


def predictions(facts: Facts) -> Answer:
    return Answer(
        "By the trained network; student.onnx gives the same (checked), `stillroom predict` runs it.", "making"
    )


def specification(facts: Facts) -> Answer:
    digest = str((facts.record.manifest.get("sha256") or {}).get("student.onnx", ""))
    known = f", SHA-256 {digest[:16]}…" if digest else ""
    return Answer(
        f"student.onnx{known}: the whole model with its preprocessing, in an open format.",
        "efficiency",
        "Where others get it, and under which licence.",
    )


def measures(facts: Facts) -> Answer:
    tested = facts.record.test[STUDENT]
    names = [name for key, name in METRICS.items() if key in tested]
    return Answer(f"{', '.join(names)}; ROC and reliability curves; paired comparisons.", "results", "Why these.")


def uncertainty(facts: Facts) -> Answer:
    luck = facts.record.luck
    over = "the choice of test images and the luck of training" if luck else "the choice of test images"
    return Answer(f"95 % intervals over {over}; paired tests.", "luck" if luck else "results")


def clusters(facts: Facts) -> Answer:
    if not facts.groups:
        return Answer("", "", "Figures by site: the run has none.")
    if not facts.compared:
        return Answer(
            f"Figures by group are given. {_NOT_COMPARED}", facts.groups, "Figures of sites, from more images."
        )
    return Answer("Figures by group are given.", facts.groups, "Which groups are sites, and what explains the gaps.")


def fairness(facts: Facts) -> Answer:
    if not facts.groups:
        return Answer("", "", "What was done for fairness: the run has no figures by group.")
    if not facts.compared:
        return Answer(f"Figures by group. {_NOT_COMPARED}", facts.groups, "What was done for fairness.")
    return Answer("Figures by group with the largest gap.", facts.groups, "What the gaps mean, and what was done.")


_NOT_COMPARED = "No two groups are large enough to be compared, so nothing is known of gaps."


def updating(facts: Facts) -> Answer:
    return Answer(
        "Nothing after the evaluation: probabilities were calibrated on validation, before the test.", "calibration"
    )


def differences(facts: Facts) -> Answer:
    tests = facts.other_data
    same = "Internal evaluation: training and test are of one source."
    return Answer(f"{same}{f' Also tested on {_data_sets(tests)}.' if tests else ''}", "data", "How other data differ.")


def performance(facts: Facts) -> Answer:
    first = " in the first cut" if facts.record.cuts else ""
    said = f"{facts.main_figure}; {count(facts.tested.get('images'))} test images{first}."
    if (facts.record.metrics.get("by_patient") or {}).get("figures"):
        said += f" Also by patient{first}."
    place = "luck" if facts.record.cuts else "results"
    if not facts.groups:
        return Answer(said, place, "Figures of groups of people: the run has none.")
    if not facts.compared:
        return Answer(f"{said} {_NOT_COMPARED}", place, "Figures of groups, from more images.")
    gaps = f", with the largest gaps: {facts.largest_gaps}" if facts.largest_gaps else ""
    return Answer(f"{said} By group{first}{gaps} (see {HEADINGS['groups']}).", place)


def accuracy(facts: Facts) -> Answer:
    return Answer("Every figure with its 95 % interval, also class by class.", "results")


def robustness(facts: Facts) -> Answer:
    if facts.record.metrics.get("robustness"):
        return Answer("Tested on synthetic corruptions of the test images.", "robustness")
    return Answer("", "", "The run has none: `stillroom evaluate RUN --corruptions` makes one.")


def explanation(facts: Facts) -> Answer:
    said = ((facts.record.metrics.get("explanation") or {}).get("statement") or {}).get(facts.exported)
    if not said:
        return Answer("", "", "The run tested no heat maps.")
    return Answer(f"Heat maps, tested for whether they are faithful. {said}", "explanation")


def external(facts: Facts) -> Answer:
    if tests := external_tests(facts.record):
        mixed = "" if facts.other_data else " A test on images that the run never saw."
        return Answer(f"Tested on {'; '.join(test.text for test in tests)}.", "", f"Where these data come from.{mixed}")
    return Answer("", "", "Not yet: `stillroom evaluate RUN SOURCE`; else say why there is none.")


def errors(facts: Facts) -> Answer:
    return Answer("Confusion matrix and the worst mistakes as pictures.", "errors", "What the mistakes have in common.")


def interpretation(facts: Facts) -> Answer:
    return Answer(
        f"{facts.main_figure} on the test split; see the verdict.", "verdict", "What it means, beside other studies."
    )


def limits(facts: Facts) -> Answer:
    said = [str(one.get("text")) for one in facts.audit.get("warnings") or []][:3]
    return Answer(
        " ".join(["One source of images.", *said]),
        "warnings",
        "Limits of the data and the design, and which way they err.",
    )


def poor_input(facts: Facts) -> Answer:
    rule = (facts.record.metrics.get("ood") or {}).get("rule")
    if not rule:
        return Answer("", "", "What is to be done with poor images: the model refuses none.")
    return Answer("The model refuses images unlike its own.", "uncertainty", "What is to be done with a refused image.")


def users(facts: Facts) -> Answer:
    return Answer("The image is read as it is; nothing is entered or marked by hand.", "", "What users must know.")


def practice(facts: Facts) -> Answer:
    readers = next((key for key in sorted(facts.declared) if key.startswith("readers-")), "")
    said = "A test with readers says what help does to them." if readers else ""
    return Answer(said, readers, "What would change in practice, and what stands in the way.")


def code_sharing(facts: Facts) -> Answer:
    return Answer(
        f"Stillroom {facts.record.version} (Apache-2.0) with the run's settings.yaml repeats the run.",
        "making",
        "Where the settings, and code of your own, can be had.",
    )


def availability(facts: Facts) -> Answer:
    bound = [
        f"{network(one.get('name'))}: {plain(one['licence'])}"
        for one in facts.record.manifest.get("taught_by") or []
        if one.get("licence")
    ]
    teachers = f" Licence of the teacher's weights: {'; '.join(bound)}." if bound else ""
    return Answer(
        f"Stillroom {facts.record.version} (Apache-2.0); the model is student.onnx.{teachers}",
        "making",
        "Where model and data can be had, and under which licences.",
    )


ANSWERS: dict[str, Callable[[Facts], Answer]] = {
    answer.__name__: answer
    for answer in (
        title,
        purpose,
        aims,
        model,
        software,
        initial,
        training,
        selection,
        ensemble,
        output,
        predictions,
        specification,
        measures,
        uncertainty,
        clusters,
        fairness,
        updating,
        differences,
        performance,
        accuracy,
        robustness,
        explanation,
        external,
        errors,
        interpretation,
        limits,
        poor_input,
        users,
        practice,
        code_sharing,
        availability,
    )
}
