"""The numbers behind the heat maps: are they faithful, do they lie on what was marked, do they agree between networks?"""

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
from stillroom.explanation.claims import notes, statement
from stillroom.explanation.controls import trivial_maps
from stillroom.explanation.faithfulness import Probability
from stillroom.explanation.heat_maps import Method, heat_maps
from stillroom.explanation.judging import (
    BY_IMAGE,
    ROAD_SIDE,
    Explained,
    Figure,
    Mean,
    as_numpy,
    check_against_random,
    judged_by,
    mean_curves,
    measure,
    sanity_images,
    spread_evenly,
    varied,
)
from stillroom.explanation.lesions import mask_energy, mask_share, pointing
from stillroom.explanation.means import CORRELATION, SHARE, count_units, mean_with_interval
from stillroom.progress import progress

_FAST_IMAGES = 16  # fast maps beside exact ones that are drawn anyway
_EXACT_IMAGES = 4  # exact maps beside fast ones, for six times the price
COMPARED = {"score_cam": _FAST_IMAGES, "score_cam_fast": _EXACT_IMAGES}
_PAIRS = (("student", "teacher"), ("student", "control"), ("control", "teacher"))


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
    seed: int,
    show_progress: bool,
    judged: Container[str] | None = None,
    of: str = "student",
    heat_maps: Callable[..., Tensor] = heat_maps,
) -> Evidence:
    """Draw every network's maps and measure them.

    Beside its maps and those of its random twin, a network that is judged is asked about 210 times an image; how often in all
    says :func:`stillroom.explanation.effort.passes`.

    Args:
        networks: role to network: ``student`` and, where there are, ``control`` and ``teacher``.
        explained: the images.
        probability: role to the function that gives that network's probabilities.
        methods: role to the kind of heat map.
        layers: role to the layer, None for the network's last feature map.
        seed: of everything random.
        show_progress: on standard error.
        judged: the roles whose maps' faithfulness is measured; the others' are drawn and compared only. Default: all.
        of: the role of the network whose decision is explained, for every network.
        heat_maps: draws the maps.

    Returns:
        Figures ready for JSON, each ``{"value", "low", "high"}``, None where not defined:

        - ``images``, ``patients`` (number, or None), ``interval``, ``of``, ``method`` and ``layer`` by role.
        - ``fast`` by judged role: mean correlation ``pearson`` of fast and exact Score-CAM on so many ``images``; for roles
          whose method is one of them, but for the teacher.
        - ``faithfulness`` by judged role: areas and gaps of deletion and insertion on both baselines, ``gap`` (their mean,
          the primary figure), ``drop``, ``increase``, ``road``; the trivial maps' under ``controls``; the map's ``advantage``
          over each in ``gap`` (t-intervals); ``reach``, what hiding everything takes from the answer; ``sanity``, agreement
          with maps of the network's random twin; ``verdict`` (see :mod:`stillroom.explanation.claims`), ``faithful`` (whether
          it is that), the ``reasons`` if not, and how many ``units`` (images, or patients: ``unit``) were judged and are
          ``needed`` for a verdict. All of these over the images decided positive.
        - ``lesions``: ``energy`` and ``pointing`` by role and trivial map, ``share`` (what a flat map scores in ``energy``)
          and ``images``; None without masks.
        - ``agreement`` by pair of roles: over ``all`` images and those where the network explained is ``right`` and
          ``wrong``, with their numbers under ``images``.
        - ``guidance``: student minus control in agreement with the teacher and in energy on marked regions; None where there
          is no control.
        - ``curves`` by judged role: mean deletion and insertion on the blurred baseline, the trivial maps' too.
        - ``statement`` by judged role, ``notes``.

    Raises:
        UsageError: no images, no student, or arrays that do not fit together.
    """
    explained = _checked(networks, explained)
    count, patients = len(explained.images), explained.patients
    units, side = count_units(patients, np.ones(count, dtype=bool)), max(explained.images.shape[-2:])
    unit = "image" if patients is None else "patient"
    mean = partial(mean_with_interval, patients=patients)
    trivial = trivial_maps(explained.images, seed=seed)
    found = np.arange(count) if explained.positive is None else np.flatnonzero(explained.positive)
    ground = found if len(found) else np.arange(count)
    judged_are = "" if explained.positive is None else "decided positive"
    aims = explained.part(ground)
    ground_mean = partial(mean_with_interval, patients=aims.patients)
    chosen = spread_evenly(len(ground), sanity_images(len(ground)))

    maps: dict[str, Tensor] = {}
    faithfulness, curves, fast = {}, {}, {}
    for role, network in networks.items():
        draw = partial(heat_maps, method=methods[role], layer=layers[role])
        if judged is not None and role not in judged:
            with progress(f"explain {role}", count, enabled=show_progress) as advance:
                maps[role] = draw(network, explained.images, explained.classes.tolist(), advance=advance)
            continue
        # A teacher is large: exact maps of it would cost more than all else.
        compared = spread_evenly(count, 0 if role == "teacher" else COMPARED.get(methods[role], 0))
        total = count + len(ground) + len(chosen) + len(compared)
        with progress(f"explain {role}", total, enabled=show_progress) as advance:
            maps[role] = draw(network, explained.images, explained.classes.tolist(), advance=advance)
            if len(compared):
                other: Method = "score_cam" if methods[role] == "score_cam_fast" else "score_cam_fast"
                images, classes = explained.images[compared], explained.classes[compared].tolist()
                others = draw(network, images, classes, method=other, advance=advance)
                pearson = np.full(count, np.nan)
                pearson[compared] = as_numpy(agreement(maps[role][compared], others))["pearson"]
                fast[role] = {"pearson": mean(pearson, ends=CORRELATION), "images": len(compared)}
            stack = torch.stack([maps[role], *trivial.values()])[:, ground]
            sanity = check_against_random(network, aims, stack[0], draw=partial(draw, advance=advance), seed=seed)
            with evaluating(network):
                measured = measure(probability(role), aims, stack, seed=seed, advance=advance)
        faithfulness[role] = judged_by(
            measured, sanity, ground_mean, aims.patients, nothing=not len(found), judged=judged_are
        )
        curves[role] = mean_curves(measured["blur"])

    agreements = {
        (first, second): as_numpy(agreement(maps[first], maps[second]))
        for first, second in _PAIRS
        if first in maps and second in maps
    }
    energies, lesions = _lesions(explained, maps | trivial, mean)
    figures = {
        "images": count,
        "patients": None if patients is None else units,
        "interval": {
            "method": "Student's t; of what lies between two ends t of its log odds, of hits and misses that of a share",
            "level": 0.95,
            "unit": unit,
        },
        "of": of,
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
        "statement": {role: statement(role, found, judged_are) for role, found in faithfulness.items()},
        "notes": notes(
            count,
            of=of,
            flat={role: int((~varied(heat)).sum()) for role, heat in maps.items()},
            judged=len(ground),
            checked=len(chosen),
            without_road=(side, ROAD_SIDE) if side > ROAD_SIDE else None,
            undrawn=explained.masks is not None and lesions is None,
            patients=None if patients is None else units,
            unknown=0 if patients is None else int((patients == "").sum()),
        ),
    }
    return Evidence(figures, {role: heat.cpu().numpy().astype(np.float16) for role, heat in maps.items()})


def _checked(networks: Mapping[str, nn.Module], explained: Explained) -> Explained:
    """The same, without patients where none is known."""
    count = len(explained.images)
    if not count:
        raise UsageError("There is no image to explain.")
    if "student" not in networks:
        raise UsageError(f"Explanations need the student's network, got {', '.join(networks) or 'none'}.")
    arrays = {name: getattr(explained, name) for name in BY_IMAGE}
    for name, array in arrays.items():
        if array is not None and len(array) != count:
            raise UsageError(f"Expected {name} for every image: {count} images, {len(array)} {name}.")
    if explained.patients is None or (explained.patients != "").any():
        return explained
    return replace(explained, patients=None)


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
        figures[name] = {"energy": mean(energies[name], ends=SHARE), "pointing": mean(hits, ends=SHARE)}
    return energies, figures | {"share": mean(spread(mask_share(masks)), ends=SHARE), "images": int(drawn.sum())}


def _agreement(values: Mapping[str, np.ndarray], right: np.ndarray, mean: Mean) -> dict[str, Any]:
    parts = {"all": np.ones(len(right), dtype=bool), "right": right, "wrong": ~right}
    found: dict[str, Any] = {
        part: {
            name: mean(np.where(inside, value, np.nan), ends=SHARE if name == "iou" else CORRELATION)
            for name, value in values.items()
        }
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
