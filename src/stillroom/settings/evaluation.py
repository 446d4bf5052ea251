"""What is measured of a run, and how; see settings/sections.py for the other sections.

Light on purpose: importing this module imports neither torch nor pandas.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from stillroom.errors import UsageError
from stillroom.ranges import MOST_OFTEN, at_least, between, positive
from stillroom.settings.methods import Method
from stillroom.settings.wishes import wanted_shares


@dataclass(frozen=True)
class EvaluationSettings:
    """What is measured.

    Attributes:
        control: also train the same student on the same budget without a teacher.
        rivals: also measure what is simpler: a linear probe on the frozen teacher and on the student's pretrained start,
            and always answering the commonest class.
        repeats: trainings of student and control, which differ in luck alone; bank and teacher are shared. With one, no
            claim is made that the luck of training could explain.
        folds: cuts of the data, each with a training of its own, so that every image is tested once; for small sets. Never
            through a patient or near-identical images. A split that the source gives is set aside.
        keep: which network is exported: `student`, of several repeats the one that validation finds best; `best` of student,
            control, teacher and linear probes, chosen on validation, within `max_mb`; `average` of the repeats' students in
            weights, or `ensemble`, in answers.
        max_mb: largest size in MB of float32 parameters that `--keep best` may hand over.
        margin: non-inferiority margin on the selection metric: how much worse the student may be.
        resamples: bootstrap resamples for the figures on corrupted images. No other interval needs any.
        latency: time the networks on this machine.
        coverage: how often the set of classes that the model names should hold the true one (split-conformal prediction).
        class_conditional: keep that promise for each class apart, not for all images together. With several labels per
            image it is always kept for each label, present and absent apart.
        refusals: share of images like the validation's that the model may refuse as foreign.
        sensitivity: for what shares of the images with a finding that are found thresholds are chosen on validation: `0.95`
            for every class, `melanoma=0.99` for one (a grade: that or above), or `none`. `auto` is 0.95 for binary and
            multi-label tasks, none for others.
        specificity: for what shares of the images without a finding that are cleared; written likewise.
        explain: number of test images that get heat maps, by which the maps are judged; 0 makes none. Default: 32, or
            fewer and with less to compare, so that explaining takes no longer than training the student did.
        explain_method: the heat map. `auto` is `rise`, and for `explainable_kd` its paper's Score-CAM (the fast one for a
            layer of more than 256 channels). `score_cam_fast` estimates Score-CAM from a sixth of its passes; the teacher's
            is the fast one where the student's is Score-CAM.
        explain_layer: the student's layer that heat maps are made of; RISE needs none. `auto` is the last whose map has four
            places a side, `last` the one that the head reads, or a name such as `layer3`.
        corruptions: also test student, control and teacher on corrupted test images, as
            `stillroom evaluate RUN --corruptions` does later.
        int8: also export the student in eight-bit integers, as `stillroom export RUN --int8` does later: smaller, and
            faster on CPUs with instructions for it. It is handed over only where it answers alike.
    """

    control: bool = True
    rivals: bool = True
    repeats: int = 1
    folds: int = 1
    keep: Literal["student", "best", "average", "ensemble"] = "student"
    max_mb: float | None = None
    margin: float = 0.02
    resamples: int = 1000
    latency: bool = True
    coverage: float = 0.9
    class_conditional: bool = False
    refusals: float = 0.05
    sensitivity: tuple[str, ...] = ("auto",)
    specificity: tuple[str, ...] = ()
    explain: int | None = None
    explain_method: Literal["auto", Method] = "auto"
    explain_layer: str = "auto"
    corruptions: bool = False
    int8: bool = False

    def __post_init__(self) -> None:
        at_least("repeats", self.repeats, 1, MOST_OFTEN)
        at_least("folds", self.folds, 1, MOST_OFTEN)
        if self.repeats > 1 and self.folds > 1:
            raise UsageError(
                "--folds trains once for every cut of the data already: give --folds or --repeats, not both."
            )
        if self.keep in ("average", "ensemble") and self.repeats < 2:
            raise UsageError(f"--keep {self.keep} joins several trainings of one student: give --repeats 2 or more.")
        if self.int8 and self.keep == "ensemble":
            raise UsageError(
                "--int8 makes a file of one network, and --keep ensemble hands over several: give one of them."
            )
        if self.max_mb is not None:
            positive("max_mb", self.max_mb)
        between("margin", self.margin)
        at_least("resamples", self.resamples, 100, 100_000)
        between("coverage", self.coverage)
        between("refusals", self.refusals)
        for name in ("sensitivity", "specificity"):
            wanted_shares(name, getattr(self, name))
            object.__setattr__(self, name, tuple(map(str, getattr(self, name))))  # numbers will do in Python
        if self.explain is not None:
            at_least("explain", self.explain, 0)
