"""Is this image of the kind that the model was made for? Two scores, higher for what is more foreign, and a limit.

The energy asks the logits: a model made of certain classes answers foreign images with small logits. The feature
distance asks the layer before: how far is the image from what was seen in training? Each misses what the other
finds, so an image counts as foreign where either is unusual for validation images.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from math import ceil, isfinite
from typing import Any

import numpy as np

from stillroom.errors import UsageError
from stillroom.evaluation.conformal import APPROXIMATE, conformal_quantile, in_percent, known_patients, share
from stillroom.evaluation.density import finite
from stillroom.evaluation.estimates import Estimate, number_of, share_ends
from stillroom.evaluation.intervals import Ranking, group_indices
from stillroom.shown import counted
from stillroom.task import Task

# Images whose slopes are compared in pairs: half a million of them.
_IN_A_LINE = 1000
# The median absolute deviation of a normal distribution times this is its standard deviation.
MAD_TO_STD = 1.4826


def energy(task: Task, logits: np.ndarray) -> np.ndarray:
    """Free energy per image, ``[N]`` float64, higher for what is more foreign.

    Exclusive classes: ``-log sum_k exp(logit_k)`` (Liu et al., NeurIPS 2020, at temperature 1). Multi-label:
    the joint energy ``-sum_k log(1 + exp(logit_k))`` (Wang et al., NeurIPS 2021).

    Args:
        task: what the logits mean.
        logits: ``[N, K]``, before any temperature.

    Raises:
        RunError: a logit that is not a number.
    """
    logits = finite(logits, "logits").astype(np.float64)
    if task.exclusive:
        return -np.logaddexp.reduce(logits, axis=1)
    return -np.logaddexp(0.0, logits).sum(axis=1)


@dataclass(frozen=True)
class ForeignRule:
    """When an image is foreign: where the larger of its two standardised scores is above what validation showed.

    Attributes:
        energy_location: median energy of the validation images.
        energy_scale: their spread, above 0.
        distance_location: median feature distance of the validation images.
        distance_scale: their spread, above 0.
        threshold: the highest combined score that is not foreign; ``inf`` where there were too few images to say.
        refusals: share of images of the right kind that may be refused, in (0, 1).
        images: number of validation images.
    """

    energy_location: float
    energy_scale: float
    distance_location: float
    distance_scale: float
    threshold: float
    refusals: float
    images: int

    def scores(self, energy: np.ndarray, distance: np.ndarray) -> np.ndarray:
        """The combined score, ``[N]``: the larger of both, each in spreads above its median.

        Args:
            energy: ``[N]`` from :func:`energy`.
            distance: ``[N]`` from :meth:`FeatureDensity.distances`.

        Raises:
            UsageError: different numbers of images.
            RunError: a score that is not a number.
        """
        energy, distance = finite(energy, "energies"), finite(distance, "feature distances")
        if energy.shape != distance.shape:
            raise UsageError(f"Got {len(energy)} energies but {len(distance)} feature distances.")
        return np.maximum(
            (energy - self.energy_location) / self.energy_scale,
            (distance - self.distance_location) / self.distance_scale,
        )

    def foreign(self, energy: np.ndarray, distance: np.ndarray) -> np.ndarray:
        """Which images are foreign, ``[N]`` bool; takes and raises what :meth:`scores` does."""
        return self.scores(energy, distance) > self.threshold

    def carried(self, before: tuple[np.ndarray, np.ndarray], after: tuple[np.ndarray, np.ndarray]) -> ForeignRule:
        """This rule for a network that answers nearly as the one it was fitted to; the threshold stays.

        A rule fitted anew hangs on the few images that score highest, which rounding exchanges. So each score's median and
        spread go along a line through the two networks' scores, by the median of all slopes between two images (Theil and
        Sen), which a few images that moved far do not turn.

        Args:
            before: energies and feature distances ``[n]`` of validation images, n >= 1, by the network it was fitted to.
            after: those of the same images by the other network.

        Raises:
            RunError: a score that is not a number.
        """
        (energy, energy_slope), (distance, distance_slope) = (
            _line(finite(known, "scores"), finite(found, "scores")) for known, found in zip(before, after, strict=True)
        )
        return replace(
            self,
            energy_location=energy + energy_slope * self.energy_location,
            energy_scale=energy_slope * self.energy_scale,
            distance_location=distance + distance_slope * self.distance_location,
            distance_scale=distance_slope * self.distance_scale,
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON form; an infinite threshold is None."""
        return asdict(self) | {"threshold": self.threshold if isfinite(self.threshold) else None}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> ForeignRule:
        """The rule that :meth:`to_dict` wrote."""
        return cls(**{**stored, "threshold": float("inf") if stored["threshold"] is None else stored["threshold"]})


def fit_foreign_rule(energy: np.ndarray, distance: np.ndarray, refusals: float) -> ForeignRule:
    """The rule that refuses a new image of the right kind with a chance of at most ``refusals``.

    Spread is the scaled median absolute deviation; the standard deviation where that is 0 and 1 where nothing
    varies. The threshold is a conformal quantile, so at most a share ``refusals`` of the validation images lies
    above it. The chance is approximate in that both scores are standardised on the same images.

    Args:
        energy: ``[n]`` of the validation images.
        distance: ``[n]`` of the same images.
        refusals: in (0, 1), e.g. 0.05.

    Raises:
        UsageError: no images, different numbers of them, or refusals out of range.
        RunError: a score that is not a number.
    """
    if not 0 < refusals < 1:
        raise UsageError(f"refusals must lie between 0 and 1, got {refusals}.")
    if len(energy) == 0:
        raise UsageError("There is no validation image to fit the rule for foreign images on.")
    places = (*_location_and_scale(energy), *_location_and_scale(distance))
    open_rule = ForeignRule(*places, threshold=float("inf"), refusals=refusals, images=len(energy))
    return replace(open_rule, threshold=conformal_quantile(open_rule.scores(energy, distance), 1 - refusals))


def auroc(
    inside: np.ndarray,
    outside: np.ndarray,
    *,
    groups: np.ndarray | None = None,
    outside_groups: np.ndarray | None = None,
) -> Estimate:
    """The chance that a foreign image scores higher than one of the right kind, ties counting half.

    The 95 % interval is that of an AUC (:mod:`~stillroom.evaluation.effective`).

    Args:
        inside: ``[n]`` scores of images of the right kind.
        outside: ``[m]`` scores of foreign ones.
        groups: ``[n]`` str patients of the inside images; whole patients then count.
        outside_groups: ``[m]`` likewise of the foreign ones. That both sides may be the same patients is not used.

    Raises:
        UsageError: no image on one side.
        RunError: a score that is not a number.
    """
    scores = [finite(inside, "scores"), finite(outside, "scores")]
    if not len(inside) or not len(outside):
        raise UsageError("There is no image to evaluate: the split is empty.")
    members = [
        np.arange(len(side)) if of is None else group_indices(of)
        for side, of in zip(scores, (groups, outside_groups), strict=True)
    ]
    images, units = [len(side) for side in scores], [len(np.unique(side)) for side in members]
    ranking = Ranking.of(np.concatenate(scores), np.repeat([0, 1], images))
    value = float(ranking.auc_and_ap(np.ones((1, sum(images))))[0][0])
    moves = ranking.derivatives()[0]
    by_unit = np.bincount(np.concatenate([members[0], members[1] + len(inside)]), weights=moves)
    rests_on = [2 * first * second / (first + second) for first, second in (images, units)]
    low, high = share_ends(value, by_unit, moves, *rests_on) if min(units) > 1 else (np.nan, np.nan)
    return {"value": value, "low": number_of(low), "high": number_of(high)}


def refusal_report(
    rule: ForeignRule,
    energy: np.ndarray,
    distance: np.ndarray,
    *,
    patients: np.ndarray | None,
) -> dict[str, Any]:
    """How many images of the right kind (the test split) the rule refuses, ready for JSON.

    Args:
        energy: ``[N]`` of the test images.
        distance: ``[N]`` of the same images.
        patients: ``[N]`` str; whole patients then count. ``""`` where unknown.

    Returns:
        ``refused`` (``{"value", "low", "high"}``; 95 % interval of a share of an effective number of images),
        ``wanted``, ``threshold`` (None where there is none), ``validation_images``, ``statement`` and ``notes``.

    Raises:
        UsageError: no images, or different numbers of them.
        RunError: a score that is not a number.
    """
    refused = share(rule.foreign(energy, distance), patients)
    notes = []
    if not isfinite(rule.threshold):
        enough = ceil(round(1 / rule.refusals - 1, 9))
        notes.append(
            f"With {counted(rule.images, 'validation image')} no limit can promise {100 * rule.refusals:g} % (at least"
            f" {enough} are needed): no image is ever refused."
        )
    return {
        "refused": refused,
        "wanted": rule.refusals,
        "threshold": rule.threshold if isfinite(rule.threshold) else None,
        "validation_images": rule.images,
        "statement": _statement(refused, rule),
        "notes": [*notes, APPROXIMATE],
    }


def foreign_report(
    rule: ForeignRule,
    inside: tuple[np.ndarray, np.ndarray],
    outside: tuple[np.ndarray, np.ndarray],
    name: str,
    *,
    patients: np.ndarray | None,
    outside_patients: np.ndarray | None = None,
) -> dict[str, Any]:
    """How well one set of foreign images is told from the test images, ready for JSON. Other foreign images may
    be harder or easier.

    Args:
        inside: energies and feature distances of the test images, ``([N], [N])``.
        outside: the same of the foreign images, ``([M], [M])``.
        name: of the foreign set.
        patients: ``[N]`` str, of the test images. ``""`` where unknown.
        outside_patients: ``[M]`` str, of the foreign images; without, they are taken as independent of each other.

    Returns:
        ``name``; ``images`` (the ``M``); ``auroc`` of the combined score, ``auroc_energy``, ``auroc_distance`` and
        ``refused`` (share of the foreign images), each ``{"value", "low", "high"}``.

    Raises:
        UsageError: no image on one side, or different numbers of energies and distances.
        RunError: a score that is not a number.
    """
    sides = {
        "auroc": (rule.scores(*inside), rule.scores(*outside)),
        "auroc_energy": (inside[0], outside[0]),
        "auroc_distance": (inside[1], outside[1]),
    }
    groups, outside_groups = known_patients(patients), known_patients(outside_patients)
    return {
        "name": name,
        "images": len(outside[0]),
        **{key: auroc(*pair, groups=groups, outside_groups=outside_groups) for key, pair in sides.items()},
        "refused": share(rule.foreign(*outside), outside_patients),
    }


def _statement(refused: Estimate, rule: ForeignRule) -> str:
    """One sentence for people; its rounding never contradicts the claim it makes."""
    value, low, high = refused["value"], refused["low"], refused["high"]
    assert value is not None
    if not isfinite(rule.threshold):
        return "No image is ever refused as foreign: there were too few validation images to set a limit."
    measured = f"{in_percent(value, rule.refusals)} % of the images were refused as foreign"
    if low is None or high is None:
        return f"{measured}; no interval could be computed, so nothing can be claimed."
    if low > rule.refusals:
        claim = f"more than the {100 * rule.refusals:g} % that was promised."
    elif high <= rule.refusals:
        claim = f"no more than the {100 * rule.refusals:g} % that was promised."
    else:
        claim = f"which agrees with the promise of at most {100 * rule.refusals:g} %, but does not prove it."
    ends = f"{in_percent(low, rule.refusals)} to {in_percent(high, rule.refusals)} %"
    return f"{measured} (95 % interval {ends}), {claim}"


def _location_and_scale(values: np.ndarray) -> tuple[float, float]:
    values = finite(values, "scores")
    location = float(np.median(values))
    deviation = MAD_TO_STD * float(np.median(np.abs(values - location)))
    if deviation > 0:
        return location, deviation
    return location, float(values.std()) if np.ptp(values) > 0 else 1.0


def _line(known: np.ndarray, found: np.ndarray) -> tuple[float, float]:
    """Where ``found`` is at 0, and by how much it rises with ``known``; it is only moved where one of them does not vary."""
    from scipy.stats import theilslopes

    rows = np.unique(np.linspace(0, len(known) - 1, min(len(known), _IN_A_LINE)).round().astype(int))
    if np.ptp(known[rows]) > 0 and np.ptp(found[rows]) > 0:
        slope, start, *_ = theilslopes(found[rows], known[rows])
        if slope > 0:
            return float(start), float(slope)
    return float(np.median(found - known)), 1.0
