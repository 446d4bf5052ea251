"""What the student does not know: sets of classes, and images not of its kind. Fitted on validation, checked on test."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stillroom.data.inference import BATCH, evaluating, run_over
from stillroom.distillation.teachers import Panel
from stillroom.errors import UsageError
from stillroom.evaluation.conformal import ConformalRule, coverage_report, fit_conformal
from stillroom.evaluation.density import FeatureDensity, fit_density
from stillroom.evaluation.ood import ForeignRule, energy, fit_foreign_rule, foreign_report, refusal_report
from stillroom.files.atomic import write_arrays
from stillroom.files.digests import require_whole
from stillroom.files.frames import read_arrays
from stillroom.models.network import Network
from stillroom.run.folder import FOREIGN_SCORES
from stillroom.run.stage import Evidence, Stage
from stillroom.run.workbench import Workbench

Exported = Network | Panel
"""What can be handed over."""

DENSITY_FILE = "density.npz"
_DENSITY_IMAGES = 5000  # training images: more make no better mean and covariance
_FOREIGN_IMAGES = 256
_TILE = 4  # a shuffled image is cut into so many tiles a side


@dataclass(frozen=True)
class Rules:
    """What the exported file decides by, besides its probabilities.

    Attributes:
        conformal: which classes go into an image's set.
        foreign: when an image is foreign; None where it could not be fitted.
        density: of the pooled features of training images; None likewise.
        reason: why those two are None.
    """

    conformal: ConformalRule
    foreign: ForeignRule | None
    density: FeatureDensity | None
    reason: str | None

    def figures(self) -> dict[str, Any]:
        """The rules alone, as they stand in metrics.json."""
        return {
            "conformal": {"rule": self.conformal.to_dict()},
            "ood": {"rule": self.foreign and self.foreign.to_dict()},
        }


@dataclass(frozen=True)
class Uncertainty:
    """The rules, and what they did on the test images: ``figures``, the parts ``conformal`` and ``ood`` of metrics.json."""

    rules: Rules
    figures: dict[str, Any]


def fit_rules(bench: Workbench, student: Exported, logits: np.ndarray) -> Rules:
    """Both rules, from training images without their labels and from validation.

    Args:
        bench: its settings say what is promised.
        student: of which the bundle is made.
        logits: ``[N, K]`` the student's, of every row; those of test rows are not read.
    """
    task, table, wanted = bench.task, bench.dataset.table, bench.settings.evaluation
    val = table.indices("val")
    conformal = fit_conformal(
        task,
        logits[val],
        table.targets[val],
        coverage=wanted.coverage,
        # Most labels are absent from most images: a promise over both states would be kept by the absent ones alone.
        class_conditional=wanted.class_conditional or not task.exclusive,
    )
    train = np.sort(np.random.default_rng(0).permutation(table.indices("train"))[:_DENSITY_IMAGES])
    try:
        # Grouped by what the student says: labels outside the run's budget must not be read.
        said = task.decide(task.probabilities(logits[train]))
        density = fit_density(task, _pooled(bench, student, train), said)
    except UsageError as error:  # no class with two images
        return Rules(conformal, None, None, str(error))
    inside = energy(task, logits[val]), density.distances(_pooled(bench, student, val))
    return Rules(conformal, fit_foreign_rule(*inside, wanted.refusals), density, None)


def measure(bench: Workbench, student: Exported, logits: np.ndarray) -> Uncertainty:
    """Fit both rules and check them on the test split; the density is written to the run folder.

    Args:
        bench: its settings say what is promised.
        student: of which the bundle is made.
        logits: ``[N, K]`` the student's, of every row.
    """
    task, table, _wanted = bench.task, bench.dataset.table, bench.settings.evaluation
    test = table.indices("test")
    patients = None if table.patients is None else table.patients[test]
    rules = fit_rules(bench, student, logits)
    covered = coverage_report(task, rules.conformal, logits[test], table.targets[test], patients=patients)
    figures: dict[str, Any] = {"conformal": covered | {"rule": rules.conformal.to_dict()}}
    if rules.density is None or rules.foreign is None:
        figures["ood"] = {"rule": None, "statement": f"Foreign images are not refused: {rules.reason}"}
        return Uncertainty(rules, figures)
    write_arrays(bench.run.path / DENSITY_FILE, density_arrays(rules.density))

    inside = energy(task, logits[test]), rules.density.distances(_pooled(bench, student, test))
    known = np.array([]) if patients is None else patients
    write_arrays(bench.run.path / FOREIGN_SCORES, {"energy": inside[0], "distance": inside[1], "patients": known})
    report = refusal_report(rules.foreign, *inside, patients=patients)
    chosen = np.sort(np.random.default_rng(0).permutation(test)[:_FOREIGN_IMAGES])
    images = bench.seen_by(student).images.batch(chosen)
    made_up = []
    for name, changed in made_up_images(images, seed=bench.settings.seed).items():
        said, features = _asked(student, changed)
        outside = (energy(task, said), rules.density.distances(features))
        theirs = None if table.patients is None else table.patients[chosen]
        made_up.append(foreign_report(rules.foreign, inside, outside, name, patients=patients, outside_patients=theirs))
    figures["ood"] = report | {"rule": rules.foreign.to_dict(), "made_up": made_up, "against": []}
    return Uncertainty(rules, figures)


def made_up_images(images: Tensor, *, seed: int) -> dict[str, Tensor]:
    """Images of no kind, made of real ones: what a refusal should find whatever else it finds.

    Args:
        images: ``[n, C, S, S]`` in [0, 1].
        seed: of noise and order.

    Returns:
        By name: ``noise`` (every pixel at random, with the images' mean and deviation), ``shuffled`` (16 tiles in another
        order), ``inverted`` (white is black).
    """
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(images.shape, generator=generator).to(images) * images.std() + images.mean()
    side = images.shape[-1] // _TILE
    cut = images[..., : side * _TILE, : side * _TILE].unfold(2, side, side).unfold(3, side, side)
    tiles = cut.flatten(2, 3)
    moved = tiles[:, :, torch.randperm(_TILE**2, generator=generator).to(images.device)].view_as(cut)
    shuffled = images.clone()
    shuffled[..., : side * _TILE, : side * _TILE] = moved.permute(0, 1, 2, 4, 3, 5).reshape(
        *images.shape[:2], side * _TILE, side * _TILE
    )
    return {"noise": noise.clamp(0, 1), "shuffled": shuffled, "inverted": 1 - images}


def density_arrays(density: FeatureDensity) -> dict[str, np.ndarray]:
    """What :func:`read_density` reads."""
    return {
        "centres": density.centres,
        "directions": density.directions,
        "precisions": density.precisions,
        "residual_precision": np.array(density.residual_precision),
    }


def read_density(path: Path) -> FeatureDensity:
    """The density that a run left. Raises UsageError where it is damaged."""
    require_whole(path)
    file = read_arrays(path, "centres", "directions", "precisions", "residual_precision")
    return FeatureDensity(file["centres"], file["directions"], file["precisions"], float(file["residual_precision"]))


def _pooled(bench: Workbench, student: Exported, rows: np.ndarray) -> np.ndarray:
    return run_over(student, bench.seen_by(student).images, rows, ask=lambda images: student.outputs(images).pooled)


def _asked(student: Exported, images: Tensor) -> tuple[np.ndarray, np.ndarray]:
    with evaluating(student):
        outputs = [student.outputs(part) for part in images.split(BATCH)]
    logits, pooled = (torch.cat([getattr(part, name) for part in outputs]) for name in ("logits", "pooled"))
    return logits.float().cpu().numpy(), pooled.float().cpu().numpy()


def work(evidence: Evidence) -> dict[str, Any]:
    role = evidence.exported
    exported: Exported = evidence.networks[role]  # type: ignore[assignment]
    found = measure(evidence.bench, exported, evidence.logits[role])
    evidence.density = found.rules.density
    return found.figures


STAGE = Stage("evaluate", work)
