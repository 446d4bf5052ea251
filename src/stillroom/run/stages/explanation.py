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
from stillroom.explanation.claims import verdict_of
from stillroom.explanation.effort import PASSES_OF_A_STEP, Effort, affordable, efforts, passes, spared
from stillroom.explanation.evidence import Explained, gather
from stillroom.explanation.faithfulness import randomised
from stillroom.explanation.heat_maps import BY_GRADIENT, Method, heat_maps
from stillroom.explanation.layers import Layer, find_layer
from stillroom.explanation.means import count_units
from stillroom.explanation.sampling import sampling_order
from stillroom.files.atomic import write_arrays, write_json
from stillroom.files.digests import stands
from stillroom.models.multiply_adds import count_macs
from stillroom.models.network import Network
from stillroom.run.stage import Evidence, Stage
from stillroom.run.workbench import Workbench
from stillroom.settings.whole import Settings

FOLDER = "explanations"
_FIGURES, _MAPS = "explanation.json", "maps.npz"
_MOST_CHANNELS = 256
"""A layer of more is explained by the fast Score-CAM, where a recipe's is Score-CAM and nothing else is asked for."""

_MOST_IMAGES = 32
_AT_LEAST = 16
"""Images decided positive, or their patients, which a run explains however short its training was."""

_ROLES = ("student", "control", "teacher")
_OTHER_NETWORKS = ("teacher", "probe_of_teacher")
"""Those that are not of the student's architecture."""


@dataclass(frozen=True)
class Explanations:
    """What the bundle and metrics.json need of them.

    Attributes:
        figures: the part ``explanation`` of metrics.json; None where none were wanted.
        layer: the student's, of whose output the bundle makes heat maps; None where no layer gives a map.
    """

    figures: dict[str, Any] | None
    layer: Layer | None


def exported_note(figures: Mapping[str, Any] | None, role: str = "student") -> dict[str, Any] | None:
    """What the bundle says of its maps, out of metrics.json; None where they were not tested.

    ``verdict``, ``faithful``, ``statement`` and ``method`` of the maps of the network that is exported, whose role this is,
    and ``fast``: how fast and exact Score-CAM agree, None where that was not tested.
    """
    tested = ((figures or {}).get("faithfulness") or {}).get(role)
    if not figures or not tested:
        return None
    return {
        "verdict": verdict_of(tested),
        "faithful": tested["faithful"],
        "statement": in_a_sentence(figures, role),
        "method": figures["method"][role],
        "fast": figures["fast"].get(role),
    }


def in_a_sentence(figures: Mapping[str, Any], role: str = "student") -> str:
    """What is said of a network's maps, and where they are not called faithful, the first reason."""
    return " ".join([figures["statement"][role], *figures["faithfulness"][role]["reasons"][:1]])


def exported_layer(network: nn.Module, role: str, name: str, images: Tensor) -> Layer | None:
    """The layer for the heat maps of the network that is exported.

    Args:
        network: None is found in an ensemble, whose members have maps of their own.
        role: the layer that was asked for by its name is the student's; another network's is found as by ``auto``.
        name: what was asked for.
        images: ``[B, C, S, S]``, at least one.
    """
    if isinstance(network, Panel):
        return None
    return student_layer(network, "auto" if role in _OTHER_NETWORKS else name, images)  # type: ignore[arg-type]


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
    name, side = settings.evaluation.explain_layer, settings.student_data.size
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
    *,
    exported: str = "student",
) -> Explanations:
    """Draw and judge the heat maps of a sample of test images; kept in the run folder, and taken from there when done.

    Args:
        bench: the run.
        networks: by role; of them student, control, teacher and what is exported are explained.
        probabilities: ``[N, K]`` of every row, of what is exported.
        temperatures: by role.
        exported: the role of what is exported.
    """
    run, wanted, table = bench.run, bench.settings.evaluation, bench.dataset.table
    most = _MOST_IMAGES if wanted.explain is None else wanted.explain
    drawn = _drawn(bench, probabilities)[:most]
    image = bench.data.images.batch(table.indices("test")[:1])
    layer = exported_layer(networks[exported], exported, wanted.explain_layer, image)
    method = wanted.explain_method
    if method == "auto":
        method = bench.settings.recipe.default_map
        if method == "score_cam" and layer is not None and layer.channels > _MOST_CHANNELS:
            method = "score_cam_fast"
    if isinstance(networks[exported], Panel):
        reason = "An ensemble is handed over without heat maps: each of its members has a map of its own."
        return Explanations({"images": 0, "reason": reason}, None)
    if layer is None and method != "rise":
        reason = f"The {exported} has no feature map of more than one place, so no heat maps were judged."
        return Explanations({"images": 0, "reason": reason}, None)
    if not len(drawn):
        return Explanations(None, layer)
    folder = run.path / FOLDER
    if stands(folder / _FIGURES) and stands(folder / _MAPS):  # the former is written last
        return Explanations(json.loads((folder / _FIGURES).read_text(encoding="utf-8")), layer)

    asked = {role: networks[role] for role in dict.fromkeys((exported, *_ROLES)) if role in networks}
    name = layer.name if layer is not None and exported not in _OTHER_NETWORKS else wanted.explain_layer
    methods, layers, without = _how(asked, method, name, image)
    needed = tuple(dict.fromkeys((exported, "student")))
    if not set(needed) <= layers.keys():
        return Explanations({"images": 0, "reason": without[0]}, layer)
    possible = {role: network for role, network in asked.items() if role in layers}
    effort = _effort(bench, possible, needed, methods, layers, drawn, probabilities)
    shown = {role: possible[role] for role in effort.drawn}
    rows = np.sort(drawn[: effort.images])
    explained = _explained(bench, rows, probabilities)

    def probability(role: str) -> Callable[[Tensor], Tensor]:
        return lambda images: bench.task.torch_probabilities(shown[role](images), temperatures[role])

    found = gather(
        shown,
        explained,
        probability=probability,
        methods=methods,
        layers=layers,
        seed=bench.settings.seed,
        show_progress=bench.show_progress,
        judged=effort.judged,
        of=exported,
        heat_maps=_of_a_panel_too,
    )
    spares = spared(effort, Effort(len(drawn), tuple(possible), tuple(possible)))
    found.figures["notes"] += [*without, *(bench.side_notes() if "teacher" in shown else []), *spares]
    index = {"index": rows, "classes": explained.classes}
    pictures = {"images": np.round(explained.images.cpu().numpy() * 255).astype(np.uint8)}
    masks = {} if explained.masks is None else {"masks": explained.masks}
    write_arrays(folder / _MAPS, index | pictures | masks | {f"map_{role}": maps for role, maps in found.maps.items()})
    write_json(folder / _FIGURES, found.figures)
    return Explanations(found.figures, layer)


def _effort(
    bench: Workbench,
    networks: Mapping[str, nn.Module],
    needed: Sequence[str],
    methods: Mapping[str, Method],
    layers: Mapping[str, str | None],
    drawn: np.ndarray,
    probabilities: np.ndarray,
) -> Effort:
    """What is explained: all that was asked for, or where nothing was, what costs no more than training the student did."""
    roles, training, data = tuple(networks), bench.settings.training, bench.data
    if bench.settings.evaluation.explain is not None:
        return Effort(len(drawn), roles, roles)
    image = data.images.batch(drawn[:1])
    members = {role: list(net.networks) if isinstance(net, Panel) else [net] for role, net in networks.items()}
    macs = {role: [count_macs(member, image) for member in found] for role, found in members.items()}
    channels = {
        role: [
            0 if methods[role] == "rise" else find_layer(member, layers[role], image).channels
            for member in members[role]
        ]
        for role in roles
    }

    def cost(effort: Effort) -> float:
        total = 0
        for role in effort.drawn:
            how = {"judged": role in effort.judged, "compared": role != "teacher"}
            for weight, count in zip(macs[role], channels[role], strict=True):
                total += weight * passes(effort.images, bench.dataset.store.size, methods[role], count, **how)
        return total

    epoch = len(data.train) + data.free
    trained = training.epochs * epoch if training.steps is None else max(epoch, training.steps * training.batch_size)
    choices = efforts(roles, needed, len(drawn), _images_for_a_verdict(bench, drawn, probabilities))
    return affordable(choices, cost, PASSES_OF_A_STEP * trained * sum(macs["student"]))


def _drawn(bench: Workbench, probabilities: np.ndarray) -> np.ndarray:
    """All test images in the order in which they are explained, see :func:`sampling_order`; of equal ones the first."""
    test = bench.dataset.table.indices("test")
    answers = probabilities[test]
    order = test[sampling_order(answers.argmax(axis=1), bench.task.positive(answers), seed=0)]
    _, first = np.unique(bench.dataset.store.digests[order], return_index=True)
    return order[np.sort(first)]


def _images_for_a_verdict(bench: Workbench, drawn: np.ndarray, probabilities: np.ndarray) -> int:
    """How many of the images drawn hold as many decided positive, or their patients where they are known, as a verdict needs;
    at most all."""
    patients = bench.dataset.table.patients
    chosen = None if patients is None or (patients[drawn] == "").all() else patients[drawn]
    positive, place = bench.task.positive(probabilities[drawn]), np.arange(len(drawn))
    counts = (count for count in place[1:] if count_units(chosen, positive & (place < count)) >= _AT_LEAST)
    return int(next(counts, len(drawn)))


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
        positive=None if task.kind == "multiclass" else task.positive(probabilities[rows]),
    )


def _how(
    asked: Mapping[str, nn.Module], method: Method, layer: str, images: Tensor
) -> tuple[dict[str, Method], dict[str, str | None], list[str]]:
    """Method and layer of every role, and a note for each that cannot be explained; ``layer`` is the student's. RISE asks for
    no layer: a network without one has None.

    A teacher is large, so its Score-CAM is the fast one.
    """
    by_gradient = method in BY_GRADIENT
    methods: dict[str, Method] = dict.fromkeys(asked, method)
    if method == "score_cam":
        methods |= {role: "score_cam_fast" for role in asked if role in _OTHER_NETWORKS}
    layers: dict[str, str | None] = {}
    notes = []
    for role, network in asked.items():
        name = "auto" if role in _OTHER_NETWORKS else layer
        members = list(network.networks) if isinstance(network, Panel) else [network]
        try:
            found = [find_layer(member, name, images[:1], by_gradient=by_gradient).name for member in members]
        except UsageError as error:
            if methods[role] == "rise" and name in ("auto", "last"):
                layers[role] = None
                continue
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


def work(evidence: Evidence) -> dict[str, Any]:
    found, role = evidence.assessment, evidence.exported
    assert found is not None
    made = make(evidence.bench, evidence.networks, found.probabilities[role], found.temperatures, exported=role)
    evidence.layer = made.layer
    return {"explanation": made.figures}


STAGE = Stage("explain", work)
