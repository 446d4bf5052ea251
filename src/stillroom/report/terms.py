"""What the page's terms mean: one table, from which the glossary is made and what each term says when it is pointed at."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stillroom.evaluation.roles import SIMPLEST

if TYPE_CHECKING:
    from markupsafe import Markup

    from stillroom.report.record import Record


@dataclass(frozen=True)
class Term:
    """An entry of the glossary.

    Attributes:
        key: of its place on the page.
        title: its heading.
        text: what it means.
        names: how it is called in tables and over drawings, in lower case.
        needs: the part of the page without which it does not occur; empty where it always may.
    """

    key: str
    title: str
    text: str
    names: tuple[str, ...]
    needs: str = ""


def terms(record: Record, parts: dict[str, Any]) -> list[Term]:
    """Those that this page may hold; ``parts`` by name, None or empty where the page has none."""
    control = str((record.manifest.get("claim") or {}).get("control") or "")
    luck = "; under Luck it covers both" if record.luck else ""
    present = {name for name, part in parts.items() if part and not getattr(part, "reason", None)}
    present |= {"ordinal"} if record.task.kind == "ordinal" else set()
    present |= {"rivals"} if set(record.test) & set(SIMPLEST) else set()
    return [
        Term(
            term.key,
            term.title,
            term.text.format(luck=luck, control=f"Here {control}" if control else _TWIN),
            term.names,
        )
        for term in _TERMS
        if not term.needs or term.needs in present
    ]


_TWIN = "The same student without what a method adds"
_TERMS = (
    Term(
        "interval", "Interval",
        "The range in which 95 % of the figures fall when the test images are drawn again at random, whole patients at a "
        "time where patients are known. It covers the choice of test images, not the luck of training{luck}.",
        ("95 % intervals", "95 % interval", "intervals", "interval"),
    ),
    Term(
        "auc", "AUC, ROC",
        "The chance that a random image with the finding scores higher than one without it: the area under the ROC curve, "
        "which shows sensitivity at every specificity. 0.5 is guessing, 1 is perfect.",
        ("validation auc", "auc", "roc"),
    ),
    Term(
        "sensitivity", "Sensitivity, specificity",
        "The share of images with the finding that were found, and of those without it that were rightly cleared.",
        ("sensitivity", "specificity"),
    ),
    Term(
        "precision", "Precision, F1",
        "The share of raised findings that were true; its harmonic mean with sensitivity.",
        ("precision and recall", "precision", "f1"),
    ),
    Term(
        "average-precision", "Average precision",
        "Precision averaged over all thresholds. Guessing scores the share of images with the finding.",
        ("average precision",),
    ),
    Term(
        "accuracy", "Accuracy, balanced accuracy",
        "The share of right decisions; the same averaged over classes, so that a common class does not hide a rare one. "
        "Balanced error is what it lacks of 1.",
        ("balanced accuracy", "accuracy", "balanced error"),
    ),
    Term(
        "mcc", "MCC",
        "Matthews's correlation coefficient: correlation of decisions with the truth, from −1 to 1. 0 is guessing, "
        "whatever the class sizes.",
        ("mcc",),
    ),
    Term(
        "kappa", "Quadratic kappa",
        "Agreement of grades beyond chance; a mistake by two grades weighs four times one by a single grade.",
        ("quadratic kappa", "validation quadratic kappa"), "ordinal",
    ),
    Term(
        "calibration-error", "Calibration error, ECE",
        "The gap between stated confidence and the share that came true: its root mean square over bins of equal count, "
        "without what chance adds; and the usual expected calibration error, which chance alone keeps above zero.",
        ("calibration error", "ece", "reliability"),
    ),
    Term(
        "temperature", "Temperature",
        "One number by which a network's outputs are divided so that stated confidence comes true, fitted on validation. "
        "Above 1 the network was too sure of itself. It changes no decision.",
        ("temperature",),
    ),
    Term(
        "brier", "Brier score, log loss",
        "Errors of the probabilities themselves; both punish being sure and wrong.",
        ("brier score", "brier", "log loss", "miscalibration", "discrimination"),
    ),
    Term(
        "loss", "Training loss",
        "What training makes small: how far the network's answers are from labels and teacher. It has meaning only beside "
        "that of another epoch of the same network.",
        ("training loss", "parts of the student's loss"),
    ),
    Term(
        "features", "Features",
        "The numbers that a network makes of an image before it answers. t-SNE draws similar ones near each other.",
        ("features",),
    ),
    Term(
        "rise", "RISE",
        "A heat map made without gradients: parts of the image are hidden at random, 160 times, and a place counts as "
        "much as the network's answer goes with its being shown.",
        ("rise",), "explanation",
    ),
    Term(
        "score-cam", "Score-CAM",
        "A heat map made without gradients: each channel of a feature map masks the image, and counts as much as the "
        "network's answer on the masked image speaks for the class. Grad-CAM weighs channels by gradients instead.",
        ("score-cam", "grad-cam"), "explanation",
    ),
    Term(
        "insertion", "Insertion minus deletion",
        "The area under the probability while pixels are restored in the map's order, minus that while they are blurred "
        "or greyed; the mean of both. About 0 for an order that says nothing.",
        ("insertion − deletion", "insertion", "deletion", "own map is better by"), "explanation",
    ),
    Term(
        "drop", "Drop, increase",
        "When the image is multiplied by its map: the share of its probability that the class loses, and the share of "
        "images on which it gains.",
        ("drop", "increase"), "explanation",
    ),
    Term(
        "road", "ROAD",
        "Like insertion minus deletion, but removed pixels are filled in from their neighbours, so that the shape of the "
        "hole tells nothing.",
        ("road",), "explanation",
    ),
    Term(
        "random-weights", "With random weights",
        "Agreement of a map with that of the same network before it learnt anything. A map that stays the same shows the "
        "image, not what was learnt.",
        ("with random weights",), "explanation",
    ),
    Term(
        "marked", "Heat and peak on the marked region",
        "The share of the map's sum that lies inside the mask that came with the image (energy), and the share of images "
        "whose hottest place lies on it or within 2 % of the image's side (pointing game).",
        ("heat on the marked region", "peak on the marked region"), "explanation",
    ),
    Term(
        "ssim", "SSIM, overlap",
        "Structural similarity of two maps, at most 1; the shared part of their hottest 20 %: intersection over union "
        "(IoU).",
        ("ssim", "overlap of the top 20 %", "correlation"), "explanation",
    ),
    Term(
        "sets", "Prediction set, coverage",
        "The answers that the model cannot rule out (split-conformal prediction), and the share of sets that hold the "
        "truth. The promise holds on average, for images drawn as the validation images were.",
        ("coverage", "prediction sets", "mean size", "holds the truth"), "uncertainty",
    ),
    Term(
        "auroc", "AUROC of refusals",
        "The chance that a foreign image looks more foreign to the rule than a test image. 0.5 is guessing, 1 is perfect.",
        ("auroc",), "uncertainty",
    ),
    Term(
        "operating-point", "Operating point",
        "A threshold on the calibrated probability from which images are flagged, chosen on validation for a wanted "
        "sensitivity or specificity.",
        ("threshold", "operating point"), "thresholds",
    ),
    Term(
        "ppv", "PPV, NPV",
        "The share of the flagged images that have the finding, and of the others that lack it. Both are of images "
        "among which the finding is as common as here.",
        ("ppv", "npv"), "thresholds",
    ),
    Term(
        "net-benefit", "Net benefit",
        "Found cases per image, less false alarms at the price that the threshold probability puts on them (decision "
        "curve). Flagging none has 0.",
        ("net benefit",), "thresholds",
    ),
    Term(
        "rbe", "BE, rBE",
        "Balanced error on corrupted images as a multiple of the reference network's, and the same of what corruption "
        "adds to the error on clean images. Both are means over those corruptions under which the reference's is surely "
        "above .01, and given where these are half or more; the difference of the rises is always given.",
        ("rbe", "be"), "robustness",
    ),
    Term(
        "non-inferior", "Non-inferior",
        "Shown to be worse by no more than a margin that was set beforehand: the whole interval lies above minus the "
        "margin.",
        ("non-inferior",),
    ),
    Term(
        "latency", "Time per batch",
        "Milliseconds that the network takes for so many images at once: the median of several tries, and in brackets "
        "what 95 % of them stay below.",
        ("ms",), "efficiency",
    ),
    Term(
        "macs", "Parameters, multiply-adds",
        "How many numbers the network holds, and how many multiplications with an addition one image costs.",
        ("parameters", "multiply-adds"), "efficiency",
    ),
    Term(
        "probe", "Linear probe",
        "A linear classifier on the features of a network that is not trained any further: seconds of work, and often "
        "hard to beat.",
        ("linear probe on the teacher", "linear probe on the student's start", "linear probe"), "rivals",
    ),
    Term(
        "majority", "Majority class",
        "Always the same answer: the class that is commonest in training, with the classes' shares as probabilities.",
        ("majority class",), "rivals",
    ),
    Term(
        "control", "Control",
        "{control}. The difference from it is what the method gave.",
        ("control",),
    ),
)  # fmt: skip


def explained(found: list[Term], text: object) -> Markup:
    """``text`` for HTML, in which every term, where it comes first, is a button that says what it means.

    It opens a text by mouse, touch and keyboard without a script, and shows it where a mouse rests on it.
    """
    from markupsafe import Markup, escape

    by_name = {name: term for term in found for name in term.names}
    button = Markup('<button type="button" class="term" popovertarget="term-{}" title="{}">{}</button>')
    shown, end, told, said = str(text), 0, set(), Markup("")
    for match in _pattern(tuple(sorted(by_name, key=len, reverse=True))).finditer(shown) if by_name else ():
        term = by_name[match[0].lower()]
        if term.key not in told:
            told.add(term.key)
            said += escape(shown[end : match.start()]) + button.format(term.key, term.text, match[0])
            end = match.end()
    return said + escape(shown[end:])


def _pattern(names: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile(rf"(?<![\w-])(?:{'|'.join(map(re.escape, names))})(?![\w-])", re.IGNORECASE)
