"""The heat maps of a run: which images, which layers, which networks; what they are worth is measured in explanation/."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from stillroom.distillation.teachers import Panel
from stillroom.errors import UsageError
from stillroom.explanation.evidence import Explained, gather
from stillroom.explanation.faithfulness import randomised
from stillroom.explanation.heat_maps import BY_GRADIENT, Method, heat_maps
from stillroom.explanation.layers import Layer, find_layer
from stillroom.files import write_arrays, write_json
from stillroom.models.network import Network
from stillroom.settings import Settings
from stillroom.workbench import Workbench

FOLDER = "explanations"
_FIGURES, _MAPS = "explanation.json", "maps.npz"
_MOST_CHANNELS = 256
"""A layer of more is explained by the fast Score-CAM, where nothing else is asked for."""

_ROLES = ("student", "control", "teacher")


@dataclass(frozen=True)
class Explanations:
    """What the bundle and metrics.json need of them.

    Attributes:
        figures: the part ``explanation`` of metrics.json; None where none were wanted.
        layer: the student's, of whose output the bundle makes heat maps; None where no layer gives a map.
    """

    figures: dict[str, Any] | None
    layer: Layer | None


def exported_note(figures: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """What the bundle says of its maps, out of metrics.json; None where they were not tested.

    ``faithful``, ``statement`` and ``method`` of the student's maps, and ``fast``: how fast and exact Score-CAM agree, None
    where that was not tested.
    """
    tested = ((figures or {}).get("faithfulness") or {}).get("student")
    if not figures or not tested:
        return None
    return {
        "faithful": tested["faithful"],
        "statement": in_a_sentence(figures),
        "method": figures["method"]["student"],
        "fast": figures["fast"].get("student"),
    }


def in_a_sentence(figures: Mapping[str, Any]) -> str:
    """What is said of the student's maps, and where they are not faithful, the first reason."""
    return " ".join([figures["statement"]["student"], *figures["faithfulness"]["student"]["reasons"][:1]])


def student_layer(student: Network, name: str, images: Tensor) -> Layer | None:
    """The layer for the student's heat maps; None where ``auto`` or ``last`` finds no map of more than one place.

    Raises:
        UsageError: a layer that was asked for by its name is not there, or gives no map.
    """
    try:
        return find_layer(student, name, images[:1])
    except UsageError:
        if name not in ("auto", "last"):
            raise
        return None


def check_layer(student: Network, settings: Settings) -> None:
    """Raises UsageError, before anything is trained, where the layer that was asked for by its name cannot be explained."""
    name, side = settings.evaluation.explain_layer, settings.data.size
    image = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    student_layer(student, name, image)
    if settings.evaluation.explain_method in BY_GRADIENT and name not in ("auto", "last"):
        # Some untrained heads are all 0 and hand on no gradient.
        find_layer(randomised(student, image), name, image, by_gradient=True)


def make(
    bench: Workbench,
    networks: Mapping[str, nn.Module],
    probabilities: np.ndarray,
    temperatures: Mapping[str, float],
) -> Explanations:
    """Draw and judge the heat maps of a sample of test images; kept in the run folder, and taken from there when done.

    Args:
        bench: the run.
        networks: by role; of them student, control and teacher are explained.
        probabilities: ``[N, K]`` the student's, of every row.
        temperatures: by role.
    """
    run, wanted, table = bench.run, bench.settings.evaluation, bench.dataset.table
    student: Network = networks["student"]  # type: ignore[assignment]
    rows = np.sort(np.random.default_rng(0).permutation(table.indices("test"))[: wanted.explain])
    layer = student_layer(student, wanted.explain_layer, bench.data.images.batch(table.indices("test")[:1]))
    if layer is None:
        reason = "The student has no feature map of more than one place, so it makes no heat maps."
        return Explanations({"images": 0, "reason": reason}, None)
    if not len(rows):
        return Explanations(None, layer)
    folder = run.path / FOLDER
    if (folder / _FIGURES).exists():  # written last
        return Explanations(json.loads((folder / _FIGURES).read_text(encoding="utf-8")), layer)

    explained = _explained(bench, rows, probabilities)
    asked = {role: networks[role] for role in _ROLES if role in networks}
    method = wanted.explain_method
    if method == "auto":
        method = "score_cam" if layer.channels <= _MOST_CHANNELS else "score_cam_fast"
    methods, layers, without = _how(asked, method, layer, explained.images)
    if "student" not in layers:
        return Explanations({"images": 0, "reason": without[0]}, layer)
    shown = {role: network for role, network in asked.items() if role in layers}

    def probability(role: str) -> Callable[[Tensor], Tensor]:
        return lambda images: bench.task.torch_probabilities(shown[role](images), temperatures[role])

    found = gather(
        shown,
        explained,
        probability=probability,
        methods=methods,
        layers=layers,
        resamples=wanted.resamples,
        seed=bench.settings.seed,
        show_progress=bench.show_progress,
        heat_maps=_of_a_panel_too,
    )
    found.figures["notes"] += without
    index = {"index": rows, "classes": explained.classes}
    pictures = {"images": np.round(explained.images.cpu().numpy() * 255).astype(np.uint8)}
    masks = {} if explained.masks is None else {"masks": explained.masks}
    write_arrays(folder / _MAPS, index | pictures | masks | {f"map_{role}": maps for role, maps in found.maps.items()})
    write_json(folder / _FIGURES, found.figures)
    return Explanations(found.figures, layer)


def _explained(bench: Workbench, rows: np.ndarray, probabilities: np.ndarray) -> Explained:
    table, store, task = bench.dataset.table, bench.dataset.store, bench.task
    classes = probabilities[rows].argmax(axis=1)
    said = task.one_hot(task.decide(probabilities[rows]))
    truth = task.one_hot(table.targets[rows])
    own = np.arange(len(rows)), classes
    masks = None if store.mask_pixels is None else np.asarray(store.mask_pixels[store.rows[rows]]) > 0
    return Explained(
        images=bench.data.images.batch(rows),
        rows=rows,
        classes=classes,
        right=said[own] == truth[own],
        masks=masks,
        has_mask=store.has_mask[rows],
        patients=None if table.patients is None else table.patients[rows],
    )


def _how(
    asked: Mapping[str, nn.Module], method: Method, layer: Layer, images: Tensor
) -> tuple[dict[str, Method], dict[str, str | None], list[str]]:
    """Method and layer of every role, and a note for each that cannot be explained.

    A teacher is large, so its Score-CAM is the fast one.
    """
    by_gradient = method in BY_GRADIENT
    methods: dict[str, Method] = dict.fromkeys(asked, method)
    if "teacher" in asked and method == "score_cam":
        methods["teacher"] = "score_cam_fast"
    layers: dict[str, str | None] = {}
    notes = []
    for role, network in asked.items():
        name = "auto" if role == "teacher" else layer.name
        members = list(network.networks) if isinstance(network, Panel) else [network]
        try:
            found = [find_layer(member, name, images[:1], by_gradient=by_gradient).name for member in members]
        except UsageError as error:
            notes.append(f"The {role} has no heat maps: {error}")
            continue
        layers[role] = found[0] if len(found) == 1 else "auto"
    return methods, layers, notes


def _of_a_panel_too(
    network: nn.Module, images: Tensor, classes: Sequence[int], *, method: Method, **how: Any
) -> Tensor:
    """The heat maps of a network; of several teachers, whose answer is the mean of theirs, the mean of their maps."""
    if not isinstance(network, Panel):
        return heat_maps(network, images, classes, method=method, **how)
    advance = how.pop("advance", None)
    members = [heat_maps(member, images, classes, method=method, **how) for member in network.networks]
    maps = torch.stack(members).mean(dim=0)
    if advance:
        advance(len(images))
    return maps
