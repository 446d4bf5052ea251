"""The numbers behind the heat maps: are they faithful, do they lie on the lesion, do they agree between networks?"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from stillroom.data.inference import evaluating
from stillroom.errors import UsageError
from stillroom.explanation.agreement import agreement
from stillroom.explanation.claims import FEWEST_CHECKED, doubts, notes, statement
from stillroom.explanation.controls import TRIVIAL, trivial_maps
from stillroom.explanation.faithfulness import (
    Baseline,
    Curves,
    Probability,
    deletion_insertion,
    drop_and_increase,
    joined_curves,
    randomised,
    road,
)
from stillroom.explanation.heat_maps import Method, heat_maps
from stillroom.explanation.lesions import mask_energy, mask_share, pointing
from stillroom.explanation.means import count_units, mean_with_interval, mean_with_t_interval
from stillroom.progress import Advance, progress

BASELINES: tuple[Baseline, ...] = ("blur", "mean")
_BLOCK = 16  # images whose changed versions are made together
SANITY_IMAGES = 16  # enough for a mean that is compared with a limit; maps may cost thousands of passes each
_FAST_IMAGES = 16  # fast maps beside exact ones that are drawn anyway
_EXACT_IMAGES = 4  # exact maps beside fast ones, for six times the price
COMPARED = {"score_cam": _FAST_IMAGES, "score_cam_fast": _EXACT_IMAGES}
ROAD_SIDE = 224  # px: there ROAD's linear systems take a second per map, and four times that at twice the side
_PAIRS = (("student", "teacher"), ("student", "control"), ("control", "teacher"))

Figure = dict[str, float | None]
Mean = Callable[..., Figure]


@dataclass(frozen=True)
class Explained:
    """What is explained.

    Attributes:
        images: ``[n, C, S, S]`` float in [0, 1], on the networks' device.
        rows: ``[n]`` their rows in the table.
        classes: ``[n]`` the class explained: the student's decision.
        right: ``[n]`` bool, whether the student is right.
        masks: ``[n, S, S]`` bool of lesions, or None where the data has none.
        has_mask: ``[n]`` bool, whether an image has a mask.
        patients: ``[n]`` str, ``""`` where unknown, or None.
    """

    images: Tensor
    rows: np.ndarray
    classes: np.ndarray
    right: np.ndarray
    masks: np.ndarray | None
    has_mask: np.ndarray
    patients: np.ndarray | None


@dataclass(frozen=True)
class Evidence:
    """What the maps are worth.

    Attributes:
        figures: the part ``explanation`` of metrics.json, see :func:`gather`.
        maps: role to ``[n, S, S]`` float16 in [0, 1].
    """

    figures: dict[str, Any]
    maps: dict[str, np.ndarray]


def gather(
    networks: Mapping[str, nn.Module],
    explained: Explained,
    *,
    probability: Callable[[str], Probability],
    methods: Mapping[str, Method],
    layers: Mapping[str, str | None],
    resamples: int,
    seed: int,
    show_progress: bool,
    judged: Container[str] | None = None,
    heat_maps: Callable[..., Tensor] = heat_maps,
) -> Evidence:
    """Draw every network's maps and measure them.

    Beside its maps and those of its random twin, a network that is judged is asked about 160 times an image; how often in all
    says :func:`stillroom.explanation.effort.passes`.

    Args:
        networks: role to network: ``student`` and, where there are, ``control`` and ``teacher``.
        explained: the images.
        probability: role to the function that gives that network's probabilities.
        methods: role to the kind of heat map.
        layers: role to the layer, None for the network's last feature map.
        resamples: of the bootstrap; 0 gives no intervals, and nothing is then called faithful.
        seed: of everything random.
        show_progress: on standard error.
        judged: the roles whose maps' faithfulness is measured; the others' are drawn and compared only. Default: all.
        heat_maps: draws the maps.

    Returns:
        Figures ready for JSON, each ``{"value", "low", "high"}``, None where not defined:

        - ``images``, ``patients`` (number, or None), ``interval``, ``method`` and ``layer`` by role.
        - ``fast`` by judged role: mean correlation ``pearson`` of fast and exact Score-CAM on so many ``images``; for roles
          whose method is one of them, but for the teacher.
        - ``faithfulness`` by judged role: areas and gaps of deletion and insertion on both baselines, ``gap`` (their mean,
          the primary figure), ``drop``, ``increase``, ``road``; the trivial maps' under ``controls``; the map's ``advantage``
          over each in ``gap`` (t-intervals); ``sanity``, agreement with maps of the network's random twin; ``faithful`` and,
          if it is not, the ``reasons``.
        - ``lesions``: ``energy`` and ``pointing`` by role and trivial map, ``share`` (what a flat map scores in ``energy``)
          and ``images``; None without masks.
        - ``agreement`` by pair of roles: over ``all`` images and those where the student is ``right`` and ``wrong``, with
          their numbers under ``images``.
        - ``guidance``: student minus control in agreement with the teacher and in lesion energy; None where there is no
          control.
        - ``curves`` by judged role: mean deletion and insertion on the blurred baseline, the trivial maps' too.
        - ``statement`` by judged role, ``notes``.

    Raises:
        UsageError: no images, no student, or arrays that do not fit together.
    """
    explained = _checked(networks, explained)
    count, patients = len(explained.images), explained.patients
    units, side = count_units(patients, np.ones(count, dtype=bool)), max(explained.images.shape[-2:])
    unit = "image" if patients is None else "patient"
    mean = partial(mean_with_interval, patients=patients, resamples=resamples, seed=seed)
    trivial = trivial_maps(explained.images, seed=seed)
    chosen = _spread(count, SANITY_IMAGES)

    maps: dict[str, Tensor] = {}
    faithfulness, curves, fast = {}, {}, {}
    for role, network in networks.items():
        draw = partial(heat_maps, method=methods[role], layer=layers[role])
        if judged is not None and role not in judged:
            with progress(f"explain {role}", count, enabled=show_progress) as advance:
                maps[role] = draw(network, explained.images, explained.classes.tolist(), advance=advance)
            continue
        # A teacher is large: exact maps of it would cost more than all else.
        compared = _spread(count, 0 if role == "teacher" else COMPARED.get(methods[role], 0))
        total = 2 * count + len(chosen) + len(compared)
        with progress(f"explain {role}", total, enabled=show_progress) as advance:
            maps[role] = draw(network, explained.images, explained.classes.tolist(), advance=advance)
            if len(compared):
                other: Method = "score_cam" if methods[role] == "score_cam_fast" else "score_cam_fast"
                images, classes = explained.images[compared], explained.classes[compared].tolist()
                others = draw(network, images, classes, method=other, advance=advance)
                pearson = np.full(count, np.nan)
                pearson[compared] = _numpy(agreement(maps[role][compared], others))["pearson"]
                fast[role] = {"pearson": mean(pearson), "images": len(compared)}
            sanity = _sanity(network, explained, maps[role], chosen, draw=partial(draw, advance=advance), seed=seed)
            stack = torch.stack([maps[role], *trivial.values()])
            with evaluating(network):
                measured = _measured(probability(role), explained, stack, seed=seed, advance=advance)
        faithfulness[role] = _faithfulness(measured, sanity, mean, patients, units, unit)
        curves[role] = _mean_curves(measured["blur"])

    agreements = {
        (first, second): _numpy(agreement(maps[first], maps[second]))
        for first, second in _PAIRS
        if first in maps and second in maps
    }
    energies, lesions = _lesions(explained, maps | trivial, mean)
    figures = {
        "images": count,
        "patients": None if patients is None else units,
        "interval": {
            "method": "percentile bootstrap (shares on which all resamples agree: Wilson)",
            "level": 0.95,
            "resamples": resamples,
            "unit": unit,
        },
        "method": {role: methods[role] for role in networks},
        "layer": {role: layers[role] for role in networks},
        "fast": fast,
        "faithfulness": faithfulness,
        "lesions": lesions,
        "agreement": {
            f"{first}_vs_{second}": _agreement(values, explained.right, mean)
            for (first, second), values in agreements.items()
        },
        "guidance": _guidance(agreements, energies, mean) if "control" in networks else None,
        "curves": curves,
        "statement": {role: statement(role, found) for role, found in faithfulness.items()},
        "notes": notes(
            count,
            flat={role: int((~_varied(found)).sum()) for role, found in maps.items()},
            checked=len(chosen),
            without_road=(side, ROAD_SIDE) if side > ROAD_SIDE else None,
            undrawn=explained.masks is not None and lesions is None,
            patients=None if patients is None else units,
            unknown=0 if patients is None else int((patients == "").sum()),
        ),
    }
    return Evidence(figures, {role: found.cpu().numpy().astype(np.float16) for role, found in maps.items()})


def _spread(count: int, most: int) -> np.ndarray:
    """At most so many of ``count`` images, spread evenly."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(np.int64))


def _checked(networks: Mapping[str, nn.Module], explained: Explained) -> Explained:
    """The same, without patients where none is known."""
    count = len(explained.images)
    if not count:
        raise UsageError("There is no image to explain.")
    if "student" not in networks:
        raise UsageError(f"Explanations need the student's network, got {', '.join(networks) or 'none'}.")
    arrays = {name: getattr(explained, name) for name in ("rows", "classes", "right", "masks", "has_mask", "patients")}
    for name, array in arrays.items():
        if array is not None and len(array) != count:
            raise UsageError(f"Expected {name} for every image: {count} images, {len(array)} {name}.")
    if explained.patients is None or (explained.patients != "").any():
        return explained
    return replace(explained, patients=None)


def _sanity(
    network: nn.Module,
    explained: Explained,
    maps: Tensor,
    chosen: np.ndarray,
    *,
    draw: Callable[..., Tensor],
    seed: int,
) -> dict[str, np.ndarray]:
    """Agreement with the random twin's maps, ``[n]`` each, NaN where it was not asked.

    A twin that sees nothing anywhere has kept nothing of a map that does: correlation 0.
    """
    images, own = explained.images[chosen], maps[chosen]
    twins = draw(randomised(network, images, seed=seed), images, explained.classes[chosen].tolist())
    found = _numpy(agreement(own, twins))
    lost = _varied(own) & ~_varied(twins)
    result = {name: np.full(len(maps), np.nan) for name in ("pearson", "ssim")}
    result["pearson"][chosen] = np.where(lost, 0.0, found["pearson"])
    result["ssim"][chosen] = found["ssim"]
    return result


def _measured(
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
    return joined | _numpy(values | ({"road": torch.cat(roads)} if roads else {}))


def _faithfulness(
    measured: Mapping[str, Any],
    sanity: Mapping[str, np.ndarray],
    mean: Mean,
    patients: np.ndarray | None,
    units: int,
    unit: str,
) -> dict[str, Any]:
    gaps = _numpy({baseline: measured[baseline].gap for baseline in BASELINES})
    gap = np.mean(list(gaps.values()), axis=0)
    result: dict[str, Any] = {}
    for baseline in BASELINES:
        areas = zip(("deletion", "insertion"), measured[baseline].areas, strict=True)
        result |= {f"{name}_{baseline}": mean(area[0]) for name, area in _numpy(dict(areas)).items()}
        result[f"gap_{baseline}"] = mean(gaps[baseline][0])
    result["gap"] = mean(gap[0])
    result["drop"] = mean(measured["drop"][0])
    result["increase"] = mean(measured["increase"][0], share=True)
    if "road" in measured:
        result["road"] = mean(measured["road"])
    result["controls"] = {
        name: {
            "gap": mean(gap[place]),
            "drop": mean(measured["drop"][place]),
            "increase": mean(measured["increase"][place], share=True),
        }
        for place, name in enumerate(TRIVIAL, start=1)
    }
    result["advantage"] = {
        name: mean_with_t_interval(gap[0] - gap[place], patients) for place, name in enumerate(TRIVIAL, start=1)
    }
    result["sanity"] = {name: mean(values) for name, values in sanity.items()}
    few = np.isfinite(sanity["pearson"]).sum() < FEWEST_CHECKED
    correlation = None if few else result["sanity"]["pearson"]
    reasons = doubts(result["gap"], result["advantage"], correlation, units, unit)
    return result | {"faithful": not reasons, "reasons": reasons}


def _mean_curves(curves: Curves) -> dict[str, Any]:
    deletion, insertion = (part.cpu().double().mean(dim=1) for part in (curves.deletion, curves.insertion))
    own, *others = (
        {"deletion": gone.tolist(), "insertion": come.tolist()} for gone, come in zip(deletion, insertion, strict=True)
    )
    shares = np.linspace(0, 1, deletion.shape[1]).tolist()
    return {"shares": shares} | own | {"controls": dict(zip(TRIVIAL, others, strict=True))}


def _lesions(
    explained: Explained, maps: Mapping[str, Tensor], mean: Mean
) -> tuple[dict[str, np.ndarray], dict[str, Any] | None]:
    """Energy of every image by map, NaN where there is no mask, and the figures."""
    if explained.masks is None:
        return {}, None
    drawn = explained.has_mask & explained.masks.any(axis=(1, 2))
    if not drawn.any():
        return {}, None

    def spread(values: Tensor) -> np.ndarray:
        result = np.full(len(drawn), np.nan)
        result[drawn] = values.cpu().numpy()
        return result

    masks = torch.from_numpy(explained.masks[drawn])
    energies, figures = {}, {}
    for name, found in maps.items():
        heat = found.cpu()[torch.from_numpy(drawn)]
        energies[name] = spread(mask_energy(heat, masks))
        hits = spread(pointing(heat, masks))
        figures[name] = {"energy": mean(energies[name]), "pointing": mean(hits, share=True)}
    return energies, figures | {"share": mean(spread(mask_share(masks))), "images": int(drawn.sum())}


def _agreement(values: Mapping[str, np.ndarray], right: np.ndarray, mean: Mean) -> dict[str, Any]:
    parts = {"all": np.ones(len(right), dtype=bool), "right": right, "wrong": ~right}
    found: dict[str, Any] = {
        part: {name: mean(np.where(inside, value, np.nan)) for name, value in values.items()}
        for part, inside in parts.items()
    }
    return found | {"images": {part: int(inside.sum()) for part, inside in parts.items()}}


def _guidance(
    agreements: Mapping[tuple[str, str], Mapping[str, np.ndarray]], energies: Mapping[str, np.ndarray], mean: Mean
) -> dict[str, Figure | None]:
    student, control = (agreements.get((role, "teacher")) for role in ("student", "control"))
    found: dict[str, Figure | None] = {"pearson": None, "iou": None, "energy": None}
    if student is not None and control is not None:
        found |= {name: mean(student[name] - control[name]) for name in ("pearson", "iou")}
    if energies:
        found["energy"] = mean(energies["student"] - energies["control"])
    return found


def _varied(maps: Tensor) -> np.ndarray:
    """``[B]`` bool: not flat."""
    return (maps.amax(dim=(1, 2)) > maps.amin(dim=(1, 2))).cpu().numpy()


def _numpy(values: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    return {name: value.cpu().double().numpy() for name, value in values.items()}
