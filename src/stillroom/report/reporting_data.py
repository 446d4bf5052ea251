"""What a run says of its data, for the items of TRIPOD+AI and CLAIM; each function is named as its items name it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from stillroom.report.numbers import count, plain
from stillroom.report.reporting_facts import Answer, Facts
from stillroom.report.wording import audit_total
from stillroom.shown import counted


def sources(facts: Facts) -> Answer:
    said = str(facts.record.manifest.get("data") or facts.record.manifest.get("source") or "")
    if total := facts.audit.get("images"):
        said += f": {count(total)} images"
    if facts.record.synthetic:
        said += ", synthetic"
    return Answer(f"{said}.", "data", "Kind of study, reasons for these data, links to them, and whom they stand for.")


def eligibility(facts: Facts) -> Answer:
    dropped, merged = facts.set_to("data", "drop_class"), facts.set_to("data", "merge")
    left_out = audit_total(facts.audit, "quarantined")
    parts = [f"classes left out: {plain(dropped)}"] if dropped else []
    parts += [f"classes joined: {plain(merged)}"] if merged else []
    parts.append(f"{left_out} unreadable files left out")
    return Answer(f"{'; '.join(parts).capitalize()}.", "warnings", "Who could take part, and how images were chosen.")


def subsets(facts: Facts) -> Answer:
    share, folds = facts.set_to("training", "label_fraction"), facts.set_to("evaluation", "folds")
    said = (
        "All labels of the training split were used"
        if share in (None, 1, 1.0)
        else f"{share:.0%} of the labels were used"
    )
    more = f"; {folds} folds" if folds and folds > 1 else ""
    return Answer(f"{said}{more}.", "data", "Whether the data are a part of larger ones, and which.")


def preparation(facts: Facts) -> Answer:
    store = facts.record.manifest.get("store") or {}
    found = len(facts.audit.get("warnings") or [])
    looked = f" The audit has {counted(found, 'remark', 'remarks')}." if facts.record.audit is not None else ""
    return Answer(
        f"{_stored(store)}{looked}",
        "warnings" if facts.record.audit is not None else "making",
        "What was done to the images before, and whether it was the same for all groups of people.",
    )


def scaling(facts: Facts) -> Answer:
    store = facts.record.manifest.get("store") or {}
    views = facts.listed("views", "augment", "flips", "crop", "mix")
    white = f" Pixels are divided by {store['white']:g}." if store.get("white") else ""
    windows = "".join(f" {one['text']}" for one in facts.audit.get("warnings") or [] if one.get("code") == "windows")
    return Answer(f"{_stored(store)}{white}{windows}{f' Views in training: {views}.' if views else ''}", "making")


def acquisition(facts: Facts) -> Answer:
    sizes = facts.audit.get("image_sizes") or {}
    said = f"{facts.audit.get('bit_depth')} bits" if facts.audit.get("bit_depth") else ""
    if sizes.get("median"):
        said += f", median size {' × '.join(map(str, sizes['median']))} pixels"
    return Answer(f"{said}." if said else "", "data" if said else "", "Devices, sequences, settings.")


def outcome(facts: Facts) -> Answer:
    names = ", ".join(facts.record.task.classes)
    return Answer(
        f"Labels of the data ({facts.record.task.kind}): {names}.",
        "data",
        "How, when and by what reference standard they were established.",
    )


def assessors(facts: Facts) -> Answer:
    said = (
        "Answers of readers or of another model taught beside the labels."
        if facts.set_to("teacher", "teacher_answers")
        else ""
    )
    return Answer(said, "taught" if said else "", "Who set the labels, and their training.")


def variability(facts: Facts) -> Answer:
    conflicts = audit_total(facts.audit, "label_conflicts")
    said = f"{counted(conflicts, 'pair', 'pairs')} of equal images with different labels." if facts.record.audit else ""
    return Answer(said, "warnings" if said else "", "How annotators differed, and who decided then.")


def predictors(facts: Facts) -> Answer:
    return Answer("The pixels of one image and nothing else; no predictor was chosen or left out.", "data")


def image(facts: Facts) -> Answer:
    return Answer("The pixels of one image.", "data", "When and how the image is taken.")


def measured_by(facts: Facts) -> Answer:
    return Answer("Does not apply: the image is the only predictor, and nobody measures on it.")


def size(facts: Facts) -> Answer:
    joined = "" if facts.record.cuts else "with them "
    width = f"; {joined}{facts.main_figure}" if facts.figure and facts.figure.low is not None else ""
    patients = facts.tested.get("patients")
    people = f" of {counted(int(patients), 'patient', 'patients')}" if patients else ""
    first = " in the first cut" if facts.record.cuts else ""
    return Answer(
        f"{count(facts.tested.get('images'))} test images{people}{first}{width}.",
        "results",
        "Why so many; a calculation, if there was one.",
    )


def missing(facts: Facts) -> Answer:
    left_out = audit_total(facts.audit, "quarantined")
    return Answer(
        f"Left out because they could not be read: {counted(left_out, 'file', 'files')}. Nothing was filled in.",
        "warnings",
        "Images and labels that were missing before.",
    )


def partitions(facts: Facts) -> Answer:
    seed = facts.record.manifest.get("seed")
    how = "as the source gives them or cut by class, never through a patient where patients are known"
    return Answer(
        f"Training, validation and test {how}{f'; seed {seed}' if seed is not None else ''}"
        f"{f': {facts.by_split} images' if facts.by_split else ''}. The test split chose nothing.",
        "data",
    )


def disjoint(facts: Facts) -> Answer:
    if facts.record.audit is None:
        return Answer("", "", "Whether patients or images stand in two partitions: the data were not audited.")
    copies = audit_total(facts.audit, "cross_split_duplicates")
    people = audit_total(facts.audit, "patients_on_two_sides")
    known = facts.audit.get("patients") is not None
    said = f"{counted(copies, 'pair', 'pairs')} of like images in two splits"
    said += f"; {counted(people, 'patient', 'patients')} in two." if known else "; patients are not known."
    return Answer(f"{said}", "warnings", "" if known else "Whether patients stand in two partitions.")


def imbalance(facts: Facts) -> Answer:
    weighed = facts.set_to("training", "class_weights")
    what = "Classes were weighed by how rare they are" if weighed else "Nothing was done about class imbalance"
    return Answer(f"{what}; probabilities were calibrated on validation.", "data")


def flow(facts: Facts) -> Answer:
    total, left_out = facts.audit.get("images"), audit_total(facts.audit, "quarantined")
    return Answer(
        f"{count(total)} images used, {count(left_out)} left out." if total else "",
        "data" if total else "",
        "The way from all who were eligible to these images, as a diagram.",
    )


def characteristics(facts: Facts) -> Answer:
    said = facts.by_class
    return Answer(f"Images: {said}." if said else "", "data" if said else "", "Age, sex and other facts, by partition.")


def compared(facts: Facts) -> Answer:
    said = facts.by_class
    return Answer(f"Images: {said}." if said else "", "data" if said else "", "The same of people's facts.")


def counts(facts: Facts) -> Answer:
    said = facts.by_class
    return Answer(f"Images: {said}." if said else "Listed by label and split.", "data")


def data_sharing(facts: Facts) -> Answer:
    return Answer("", "", "Where the images can be had, or why they cannot.")


def _stored(store: dict[str, Any]) -> str:
    if not store.get("size"):
        return "How images were stored is not recorded."
    colour = "grey" if store.get("channels") == 1 else "colour"
    return f"Images were made {store['size']} × {store['size']} pixels ({plain(store.get('fit'))}), {colour}."


ANSWERS: dict[str, Callable[[Facts], Answer]] = {
    answer.__name__: answer
    for answer in (
        sources,
        eligibility,
        subsets,
        preparation,
        scaling,
        acquisition,
        outcome,
        assessors,
        variability,
        predictors,
        image,
        measured_by,
        size,
        missing,
        partitions,
        disjoint,
        imbalance,
        flow,
        characteristics,
        compared,
        counts,
        data_sharing,
    )
}
