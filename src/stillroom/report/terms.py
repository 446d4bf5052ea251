"""What the page's terms mean: one table, from which the glossary is made and what each term says when it is pointed at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stillroom.evaluation.roles import SIMPLEST

if TYPE_CHECKING:
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
    present |= {"alike"} if any(grid.rows for grid in (parts.get("pairs") or {}).values()) else set()
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
        "auc", "AUC",
        "The chance that a random image with the finding scores higher than one without it: the area under the ROC curve. "
        "0.5 is guessing, 1 is perfect.",
        ("validation auc", "auc"),
    ),
    Term(
        "roc", "ROC",
        "The curve that shows the sensitivity at every specificity, as the threshold moves.",
        ("roc",),
    ),
    Term(
        "sensitivity", "Sensitivity",
        "The share of the images with the finding that were found. It is also called recall.",
        ("sensitivity", "recall"),
    ),
    Term(
        "specificity", "Specificity",
        "The share of the images without the finding that were rightly cleared.",
        ("specificity",),
    ),
    Term(
        "precision", "Precision",
        "The share of the raised findings that were true.",
        ("precision",),
    ),
    Term(
        "f1", "F1",
        "The harmonic mean of precision and sensitivity: high only where both are.",
        ("f1",),
    ),
    Term(
        "average-precision", "Average precision",
        "Precision averaged over all thresholds. Guessing scores the share of images with the finding.",
        ("average precision",),
    ),
    Term(
        "accuracy", "Accuracy",
        "The share of decisions that are right.",
        ("accuracy",),
    ),
    Term(
        "balanced-accuracy", "Balanced accuracy",
        "The share of right decisions by class, averaged over classes, so that a common class does not hide a rare one. "
        "Balanced error is what it lacks of 1.",
        ("balanced accuracy", "balanced error"),
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
        "calibration-error", "Calibration error",
        "The gap between stated confidence and the share that came true: its root mean square over bins of equal count, "
        "without what chance adds. 0 is perfect.",
        ("calibration error", "reliability"),
    ),
    Term(
        "ece", "ECE",
        "The expected calibration error that is usually given: the mean gap between stated confidence and the share that "
        "came true. Chance alone keeps it above zero.",
        ("ece",),
    ),
    Term(
        "temperature", "Temperature",
        "One number by which a network's outputs are divided so that stated confidence comes true, fitted on validation. "
        "Above 1 the network was too sure of itself. It changes no decision.",
        ("temperature",),
    ),
    Term(
        "brier", "Brier score",
        "The mean squared error of the probabilities. Being sure and wrong costs most; 0 is perfect.",
        ("brier score", "brier"),
    ),
    Term(
        "miscalibration", "Miscalibration",
        "The part of the Brier score that comes of stated probabilities which do not come true: lower is better.",
        ("miscalibration",),
    ),
    Term(
        "discrimination", "Discrimination",
        "What telling cases apart takes off the Brier score: higher is better.",
        ("discrimination",),
    ),
    Term(
        "brier-uncertainty", "Uncertainty",
        "The part of the Brier score that lies in how often answers are right, and not in how sure they are: largest where "
        "half are right, 0 where all are or none.",
        ("uncertainty",), "calibration",
    ),
    Term(
        "log-loss", "Log loss",
        "The mean of minus the logarithm of the probability that the truth was given. Being sure and wrong costs without "
        "limit; 0 is perfect.",
        ("log loss",),
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
        "network's answer on the masked image speaks for the class.",
        ("score-cam",), "explanation",
    ),
    Term(
        "grad-cam", "Grad-CAM",
        "A heat map that weighs each channel of a feature map by the gradients of the answer.",
        ("grad-cam",), "explanation",
    ),
    Term(
        "insertion-deletion", "Insertion minus deletion",
        "The area under the probability while pixels are restored in the map's order, minus that while they are taken "
        "away. About 0 for an order that says nothing.",
        ("insertion − deletion", "own map is better by"), "explanation",
    ),
    Term(
        "insertion", "Insertion",
        "The area under the probability while pixels are restored in the map's order to an image that is blurred or greyed; "
        "the mean of both. Higher is better.",
        ("insertion",), "explanation",
    ),
    Term(
        "deletion", "Deletion",
        "The area under the probability while pixels are blurred or greyed in the map's order; the mean of both. Lower is "
        "better.",
        ("deletion",), "explanation",
    ),
    Term(
        "drop", "Drop",
        "The share of its probability that the class loses when the image is multiplied by its map.",
        ("drop",), "explanation",
    ),
    Term(
        "increase", "Increase",
        "The share of images on which the class gains when the image is multiplied by its map.",
        ("increase",), "explanation",
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
        "heat-on-mark", "Heat on the marked region",
        "The share of the map's sum that lies inside the mask that came with the image (energy).",
        ("heat on the marked region",), "explanation",
    ),
    Term(
        "peak-on-mark", "Peak on the marked region",
        "The share of images whose hottest place lies on the mask that came with the image, or within 2 % of the image's "
        "side of it (pointing game).",
        ("peak on the marked region",), "explanation",
    ),
    Term(
        "ssim", "SSIM",
        "The structural similarity of two maps, at most 1.",
        ("ssim",), "explanation",
    ),
    Term(
        "overlap", "Overlap of the top 20 %",
        "The shared part of the hottest 20 % of two maps: intersection over union (IoU).",
        ("overlap of the top 20 %",), "explanation",
    ),
    Term(
        "correlation", "Correlation",
        "Of two maps, pixel by pixel: 1 where they rise and fall together, 0 where they have nothing to do with each other.",
        ("correlation",), "explanation",
    ),
    Term(
        "sets", "Prediction set",
        "The answers that the model cannot rule out (split-conformal prediction).",
        ("prediction sets", "mean size"), "uncertainty",
    ),
    Term(
        "coverage", "Coverage",
        "The share of prediction sets that hold the truth. What is promised holds on average, for images drawn as the "
        "validation images were.",
        ("coverage", "holds the truth"), "uncertainty",
    ),
    Term(
        "auroc", "AUROC of refusals",
        "The chance that a foreign image looks more foreign to the rule than a test image. 0.5 is guessing, 1 is perfect.",
        ("auroc",), "uncertainty",
    ),
    Term(
        "refused", "Share refused",
        "The share of the images that the model does not answer because they look to be of another kind than those it "
        "learnt from. Low is good of the right kind, high of any other.",
        ("share refused",), "uncertainty",
    ),
    Term(
        "operating-point", "Operating point",
        "A threshold on the calibrated probability from which images are flagged, chosen on validation for a wanted "
        "sensitivity or specificity.",
        ("threshold", "operating point"), "thresholds",
    ),
    Term(
        "ppv", "PPV",
        "The share of the flagged images that have the finding, among images where it is as common as here.",
        ("ppv",), "thresholds",
    ),
    Term(
        "npv", "NPV",
        "The share of the images that are not flagged that lack the finding, among images where it is as common as here.",
        ("npv",), "thresholds",
    ),
    Term(
        "net-benefit", "Net benefit",
        "Found cases per image, less false alarms at the price that the threshold probability puts on them (decision "
        "curve). Flagging none has 0.",
        ("net benefit",), "thresholds",
    ),
    Term(
        "largest-gap", "Largest gap",
        "A figure in the subgroup of a column where it is highest, less that in the one where it is lowest. Chance alone "
        "makes some gap.",
        ("largest gap",), "subgroups",
    ),
    Term(
        "surely-there", "Surely there",
        "Whether the figure differs between two subgroups of the column by more than chance: the interval of their "
        "difference, held together with those of all other pairs, leaves out 0.",
        ("surely there",), "subgroups",
    ),
    Term(
        "be", "BE",
        "Balanced error on corrupted images as a multiple of the reference network's: a mean over those corruptions under "
        "which the reference's is surely above .01, given where these are half or more.",
        ("be",), "robustness",
    ),
    Term(
        "rbe", "rBE",
        "What corruption adds to the balanced error on clean images, as a multiple of what it adds to the reference "
        "network's: a mean over the same corruptions as BE. The difference of the rises is always given.",
        ("rbe",), "robustness",
    ),
    Term(
        "on-validation", "On validation",
        "The mean over validation images of the logarithm of the probability that a candidate gives the truth. Higher is "
        "better, and 0 is perfect.",
        ("on validation",), "kept",
    ),
    Term(
        "similarity", "Similarity",
        "How far two images, made small, rise and fall together in what sets them apart from the others. 1 is the same "
        "picture.",
        ("similarity",), "alike",
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
        "parameters", "Parameters",
        "How many numbers the network holds.",
        ("parameters",), "efficiency",
    ),
    Term(
        "macs", "Multiply-adds",
        "How many multiplications with an addition one image costs.",
        ("multiply-adds",), "efficiency",
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
