"""One network's heat maps, measured and judged on the images decided positive."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from stillroom.explanation.agreement import agreement
from stillroom.explanation.claims import FAITHFUL, FEWEST, FEWEST_CHECKED, NOT_SHOWN, Judgement, judge
from stillroom.explanation.controls import TRIVIAL
from stillroom.explanation.faithfulness import (
    SHARES,
    Baseline,
    Curves,
    Probability,
    deletion_insertion,
    drop_and_increase,
    joined_curves,
    randomised,
    road,
)
from stillroom.explanation.means import CORRELATION, SHARE, count_units, mean_with_t_interval
from stillroom.progress import Advance

_SANITY_IMAGES = 16
TWINS = 4  # one alone may look at the same place by luck
BASELINES: tuple[Baseline, ...] = ("blur", "mean")
_BLOCK = 16  # images whose changed versions are made together
ROAD_SIDE = 224  # px: there ROAD's linear systems take a second per map, and four times that at twice the side
BY_IMAGE = ("rows", "classes", "right", "masks", "has_mask", "patients", "positive")

Figure = dict[str, float | None]
Mean = Callable[..., Figure]


@dataclass(frozen=True)
class Explained:
    """What is explained.

    Attributes:
        images: ``[n, C, S, S]`` float in [0, 1], on the networks' device.
        rows: ``[n]`` their rows in the table.
        classes: ``[n]`` the class explained: the decision of the network that is handed over.
        right: ``[n]`` bool, whether that network is right.
        masks: ``[n, S, S]`` bool of lesions, or None where the data has none.
        has_mask: ``[n]`` bool, whether an image has a mask.
        patients: ``[n]`` str, ``""`` where unknown, or None.
        positive: ``[n]`` bool, whether its answer is that something is there: on these the verdict rests, because
            an answer that nothing is there has no place. None where every answer counts as positive.
    """

    images: Tensor
    rows: np.ndarray
    classes: np.ndarray
    right: np.ndarray
    masks: np.ndarray | None
    has_mask: np.ndarray
    patients: np.ndarray | None
    positive: np.ndarray | None = None

    def part(self, chosen: np.ndarray) -> Explained:
        """The images of these numbers alone."""
        images = self.images[torch.from_numpy(chosen).to(self.images.device)]
        parts = {name: getattr(self, name) for name in BY_IMAGE}
        return replace(
            self, images=images, **{name: array[chosen] for name, array in parts.items() if array is not None}
        )


def spread_evenly(count: int, most: int) -> np.ndarray:
    """At most so many of ``count`` images, spread evenly."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(np.int64))


def sanity_images(judged: int) -> int:
    """Of how many of the images judged maps are drawn with random weights too: all of few, half of many. A mean that is
    compared with a limit needs no more, and maps may cost thousands of passes each."""
    return min(judged, max(_SANITY_IMAGES, judged // 2))


def check_against_random(
    network: nn.Module,
    explained: Explained,
    maps: Tensor,
    *,
    draw: Callable[..., Tensor],
    seed: int,
) -> dict[str, np.ndarray]:
    """Agreement with the maps of the network's random twins, ``[n]`` each, NaN where it was not asked.

    A twin that sees nothing anywhere has kept nothing of a map that does: correlation 0.
    """
    chosen = spread_evenly(len(maps), sanity_images(len(maps)))
    images, own, twins = explained.images[chosen], maps[chosen], torch.empty_like(maps[chosen])
    for number in range(min(TWINS, len(chosen))):
        part = slice(number, None, TWINS)
        twin = randomised(network, images, seed=seed + number)
        twins[part] = draw(twin, images[part], explained.classes[chosen][part].tolist())
    found = as_numpy(agreement(own, twins))
    lost = varied(own) & ~varied(twins)
    result = {name: np.full(len(maps), np.nan) for name in ("pearson", "ssim")}
    result["pearson"][chosen] = np.where(lost, 0.0, found["pearson"])
    result["ssim"][chosen] = found["ssim"]
    return result


def measure(
    probability: Probability, explained: Explained, stack: Tensor, *, seed: int, advance: Advance
) -> dict[str, Any]:
    """Of the ``[M, n, S, S]`` maps, the network's own first: :class:`Curves` ``[M, n, steps + 1]`` by baseline, ``drop`` and
    ``increase`` ``[M, n]``, and ``road`` ``[n]`` of the own maps alone, where the images are small enough."""
    curves: dict[str, list[Curves]] = {baseline: [] for baseline in BASELINES}
    drops, increases, roads = [], [], []
    for start in range(0, stack.shape[1], _BLOCK):
        part = slice(start, start + _BLOCK)
        images, maps, classes = explained.images[part], stack[:, part], torch.from_numpy(explained.classes[part])
        for baseline in BASELINES:
            curves[baseline].append(
                deletion_insertion(probability, images, maps, classes, baseline=baseline, seed=seed + start)
            )
        drop, increase = drop_and_increase(probability, images, maps, classes)
        drops.append(drop)
        increases.append(increase)
        if max(images.shape[-2:]) <= ROAD_SIDE:
            roads.append(road(probability, images, maps[0], classes, seed=seed + start))
        advance(len(images))
    joined = {baseline: joined_curves(parts) for baseline, parts in curves.items()}
    values = {"drop": torch.cat(drops, dim=1), "increase": torch.cat(increases, dim=1)}
    return joined | as_numpy(values | ({"road": torch.cat(roads)} if roads else {}))


def judged_by(
    measured: Mapping[str, Any],
    sanity: Mapping[str, np.ndarray],
    mean: Mean,
    patients: np.ndarray | None,
    *,
    nothing: bool,
    judged: str,
) -> dict[str, Any]:
    """``nothing``: none of the images is decided positive, so that they tell nothing of maps. ``judged``: as in
    :func:`stillroom.explanation.claims.judge`."""
    gaps = as_numpy({baseline: measured[baseline].gap for baseline in BASELINES})
    gap = np.mean(list(gaps.values()), axis=0)
    reach = np.mean([measured[baseline].reach[0].cpu().double().numpy() for baseline in BASELINES], axis=0)
    unit, units = "image" if patients is None else "patient", count_units(patients, np.ones(len(reach), dtype=bool))
    result: dict[str, Any] = {}
    for baseline in BASELINES:
        areas = zip(("deletion", "insertion"), measured[baseline].areas, strict=True)
        result |= {f"{name}_{baseline}": mean(area[0], ends=SHARE) for name, area in as_numpy(dict(areas)).items()}
        result[f"gap_{baseline}"] = mean(gaps[baseline][0])
    result["gap"] = mean_with_t_interval(gap[0], patients)
    result["reach"] = mean(reach)
    result["drop"] = mean(measured["drop"][0], ends=SHARE)
    result["increase"] = mean(measured["increase"][0], ends=SHARE)
    if "road" in measured:
        result["road"] = mean(measured["road"])
    result["controls"] = {
        name: {
            "gap": mean(gap[place]),
            "drop": mean(measured["drop"][place], ends=SHARE),
            "increase": mean(measured["increase"][place], ends=SHARE),
        }
        for place, name in enumerate(TRIVIAL, start=1)
    }
    result["advantage"] = {
        name: mean_with_t_interval(gap[0] - gap[place], patients) for place, name in enumerate(TRIVIAL, start=1)
    }
    result["sanity"] = {
        "pearson": mean_with_t_interval(sanity["pearson"], patients),
        "ssim": mean(sanity["ssim"], ends=CORRELATION),
    }
    few = np.isfinite(sanity["pearson"]).sum() < FEWEST_CHECKED
    correlation = None if few else result["sanity"]["pearson"]
    found = judge(result["gap"], float(reach.mean()), result["advantage"], correlation, units, unit, judged)
    if nothing:
        found = Judgement(NOT_SHOWN, ["None of the images is decided positive."], FEWEST)
        units = 0
    return result | {
        "verdict": found.verdict,
        "faithful": found.verdict == FAITHFUL,
        "reasons": found.reasons,
        "unit": unit,
        "units": units,
        "needed": found.needed,
    }


def mean_curves(curves: Curves) -> dict[str, Any]:
    deletion, insertion = (part.cpu().double().mean(dim=1) for part in (curves.deletion, curves.insertion))
    own, *others = (
        {"deletion": gone.tolist(), "insertion": come.tolist()} for gone, come in zip(deletion, insertion, strict=True)
    )
    return {"shares": [0.0, *SHARES, 1.0]} | own | {"controls": dict(zip(TRIVIAL, others, strict=True))}


def varied(maps: Tensor) -> np.ndarray:
    """``[B]`` bool: not flat."""
    return (maps.amax(dim=(1, 2)) > maps.amin(dim=(1, 2))).cpu().numpy()


def as_numpy(values: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    return {name: value.cpu().double().numpy() for name, value in values.items()}
