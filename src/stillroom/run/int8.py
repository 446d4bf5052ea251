"""A run's network in eight-bit integers: made by validation, compared with the float32 file on test, and kept or refused."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from stillroom.data.images import Images, batches
from stillroom.deployment.graph import Graph, copied
from stillroom.deployment.int8 import INT8_FILE, Sensitivity, Trial, asked, asked_of, sensitivities, smallest_good
from stillroom.deployment.likeness import (
    BATCHES,
    LEVELS,
    LIMITS,
    Answers,
    accuracy_apart,
    decisions_alike,
    distance_error,
    downgrades_of,
    levels_alike,
    maps_alike,
    refusals_of,
    refused,
    timed,
)
from stillroom.deployment.metadata import ModelMetadata
from stillroom.deployment.onnx import graph_of, write_graph
from stillroom.deployment.predictor import Predictor
from stillroom.deployment.quantisation import quantised
from stillroom.distillation.rounding import AsBefore, rounding, taken_back
from stillroom.errors import UsageError
from stillroom.evaluation.calibration import fit_temperature
from stillroom.evaluation.comparison import compare_measured
from stillroom.evaluation.conformal import coverage_report, fit_conformal, share
from stillroom.evaluation.density import FeatureDensity
from stillroom.evaluation.estimates import Estimate
from stillroom.evaluation.intervals import draw
from stillroom.evaluation.metrics import measure
from stillroom.evaluation.ood import ForeignRule, energy
from stillroom.evaluation.operating_points import OperatingPoint
from stillroom.explanation.layers import Layer
from stillroom.explanation.sampling import sampling_order
from stillroom.files.digests import record, remove
from stillroom.models.network import Network
from stillroom.run.stages.thresholds import points_of
from stillroom.run.workbench import Workbench
from stillroom.settings.methods import BY_MASKS, DEFAULT, Method
from stillroom.training.loop import fit

_CALIBRATED_BY = 128
_ORDERED_BY = 32
_TRIED_ON = 512
_TESTED_ON = 5000
_MAPS = 8
_STEPS = 150
_LR = 3e-5
_AT_ONCE = 32
ROLE = "int8"


@dataclass(frozen=True)
class Handed:
    """The network that a run hands over, and what belongs to its file.

    Attributes:
        network: it.
        role: what it is in the run.
        noted: what its float32 file says of itself.
        layer: of which heat maps are made.
        density: of training features.
        path: the float32 file.
    """

    network: nn.Module
    role: str
    noted: ModelMetadata
    layer: Layer | None
    density: FeatureDensity | None
    path: Path


def make_int8(bench: Workbench, handed: Handed) -> tuple[Path | None, dict[str, Any]]:
    """Write student.int8.onnx beside the float32 file, if it keeps what that promises.

    Layers are chosen by validation images, and where rounding alone does not do, the network is taught by training images to
    bear it. The rules are fitted anew to the int8 file's own answers, but for that of
    foreign images, which is carried over. Only then are both files shown the test images.

    Args:
        bench: the run.
        handed: the network and its float32 file.

    Returns:
        The file, None where it was refused, and an earlier one is removed; and the part ``int8`` of metrics.json.

    Raises:
        UsageError: an ensemble, or a network with nothing to round.
    """
    if not isinstance(handed.network, Network):
        raise UsageError(
            "An ensemble has no int8 file: its members would each need one. Give --keep average or student."
        )
    path = handed.path.with_name(INT8_FILE)
    hidden = path.with_name(f".{path.name}.untried.tmp")
    found, network, taught = _smallest(bench, handed)
    metadata = _refitted(bench, handed, found)
    # The temperature is a part of the graph: once more, now that it is known. The exporter may give nodes other names then.
    graph = Graph(graph_of(network, metadata, layer=handed.layer, density=handed.density))
    left = [graph.layers[one.layer.number] for one in found.left_float]
    model = quantised(graph, _validation(bench, handed, _CALIBRATED_BY), left, found.weights)
    figures: dict[str, Any] = {
        "layers": len(graph.layers),
        "left_float": [one.reason for one in found.left_float],
        "stored_only": sum(layer.stored_only and layer not in left for layer in graph.layers),
        "taught": taught,
    }
    try:
        write_graph(copied(model), metadata, hidden)
        figures |= compared(bench, handed, hidden, ROLE)
        figures |= {"refused": refusals_of(figures), "downgraded": downgrades_of(figures)}
        if figures["refused"]:
            remove(path)  # an earlier one: what is told is of the one that was refused
            return None, figures
        write_graph(model, replace(metadata, explanation=said_of_maps(handed.noted, figures)), hidden)
        record(path, hidden)
        hidden.replace(path)
    finally:
        hidden.unlink(missing_ok=True)
    return path, figures


def not_made(reason: str) -> dict[str, Any]:
    """The part ``int8`` of a run whose network has no int8 file, so that nothing was compared."""
    return {"images": 0, "refused": [reason], "downgraded": []}


def _smallest(bench: Workbench, handed: Handed) -> tuple[Trial, Network, bool]:
    """The file that validation chooses, the network that it was made of, and whether that one was taught to be rounded."""
    images = _validation(bench, handed, _TRIED_ON)
    assert isinstance(handed.network, Network)
    graph = _graph(handed, handed.network)
    as_float = asked(graph.model, images)

    @cache
    def order() -> list[Sensitivity]:
        return sensitivities(graph, images[:_ORDERED_BY], show_progress=bench.show_progress)

    def smallest(of: Graph) -> Trial:
        calibration = images[:_CALIBRATED_BY]
        return smallest_good(
            bench.task, of, as_float, images, order, calibration=calibration, show_progress=bench.show_progress
        )

    found = smallest(graph)
    if found.good:
        return found, handed.network, False
    learnt = _taught(bench, handed.network, images[:_CALIBRATED_BY])
    again = smallest(_graph(handed, learnt))
    return (again, learnt, True) if again.rank > found.rank or again.good else (found, handed.network, False)


def _taught(bench: Workbench, network: Network, images: np.ndarray) -> Network:
    """The network after a short training in which its weights and activations are rounded, see :class:`AsBefore`."""
    device = bench.device
    parts = [torch.from_numpy(images[start : start + _AT_ONCE]).to(device) for start in range(0, len(images), _AT_ONCE)]
    chosen = bench.settings.training
    settings = replace(
        chosen,
        steps=_STEPS,
        batch_size=min(chosen.batch_size, _AT_ONCE),
        lr=_LR,
        weight_decay=0.0,
        schedule="cosine",
        optimizer="adam",
        class_weights=False,
        patience=0,
    )
    folder = bench.run.path / "checkpoints" / ROLE
    try:
        learner = fit(
            rounding(network, parts),
            AsBefore(network),
            bench.seen_by(network),
            settings,
            folder=folder,
            role=ROLE,
            seed=bench.seed,
            log=bench.run.log,
            show_progress=bench.show_progress,
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(OSError):
            folder.parent.rmdir()  # unless others have checkpoints there
    return taken_back(learner, network)


def _refitted(bench: Workbench, handed: Handed, found: Trial) -> ModelMetadata:
    """What the int8 file says of itself: temperature and rules are of its own answers to validation."""
    data, noted = bench.seen_by(handed.network), handed.noted
    said = asked_of(found.model, _batches(data.images, data.val))
    logits, targets, task = said.logits, data.targets[data.val], bench.task
    foreign = None
    if noted.foreign:
        before = Answers.of(Predictor.load(handed.path, threads=1), _batches(data.images, data.val))
        assert before.distance is not None
        assert said.distance is not None
        foreign = (
            ForeignRule.from_dict(noted.foreign)
            .carried((energy(task, before.logits), before.distance), (energy(task, logits), said.distance))
            .to_dict()
        )
    conformal = None
    if noted.conformal:
        promise = {key: noted.conformal[key] for key in ("coverage", "class_conditional")}
        conformal = fit_conformal(task, logits, targets, **promise).to_dict()
    temperature = fit_temperature(task, logits, targets)
    points: tuple[OperatingPoint, ...] = ()
    if noted.points:
        points = points_of(bench, task.probabilities(logits, temperature))
    return replace(
        noted,
        temperature=temperature,
        conformal=conformal,
        foreign=foreign,
        points=tuple(point.to_dict() for point in points),
        explanation=None,
        details={**noted.details, "precision": ROLE},
    )


def compared(bench: Workbench, handed: Handed, path: Path, precision: str) -> dict[str, Any]:
    """The float32 file and one of another precision on the same test images: what the limits are held to, size and speed."""
    task, table = bench.task, bench.dataset.table
    images = bench.seen_by(handed.network).images
    test = table.indices("test")
    rows = np.sort(np.random.default_rng(0).permutation(test)[:_TESTED_ON])
    files = {"float32": Predictor.load(handed.path, threads=1), precision: Predictor.load(path, threads=1)}
    before, after = (Answers.of(file, _batches(images, rows)) for file in files.values())
    some = images.batch(rows[:_AT_ONCE]).cpu().numpy()
    patients = None if table.patients is None else table.patients[rows]
    targets, drawn = table.targets[rows], draw(len(rows), 0, bench.settings.seed, patients)
    both = list(zip(files.values(), (before, after), strict=True))
    measured = [
        measure(task, task.probabilities(answers.logits, file.metadata.temperature), targets, drawn)
        for file, answers in both
    ]
    difference = compare_measured(
        task,
        measured[1],
        measured[0],
        targets,
        drawn,
        margin=LIMITS.metric,
        names=(f"{precision} file", "float32 file"),
    )
    alike = share(decisions_alike(files["float32"], files[precision], before, after), patients)
    difference["accuracy_difference"] = accuracy_apart(difference["accuracy_difference"], alike)
    shares = [
        None if found is None else share(found, patients)
        for found in (refused(file, answers) for file, answers in both)
    ]
    coverage = [_coverage(bench, file, answers, targets, patients) for file, answers in both]
    speed = (
        {f"batch_{batch}": timed(files, some, batch) for batch in BATCHES} if bench.settings.evaluation.latency else {}
    )
    return {
        "images": len(rows),
        "comparison": difference,
        "accuracy": [found.moved("accuracy").value for found in measured],
        "agreement": alike["value"],
        "distance": distance_error(before, after),
        "refused_share": [None if found is None else found["value"] for found in shares],
        "coverage": [None if found is None else found["value"] for found in coverage],
        "intervals": {"agreement": alike, "refused_share": shares, "coverage": coverage},
        "levels": levels_alike({level: Predictor.load(path, threads=1, level=level) for level in LEVELS}, some),
        "maps": _maps(bench, handed, (files["float32"], files[precision]), before, images, rows),
        "size_mb": [handed.path.stat().st_size / 1e6, path.stat().st_size / 1e6],
        "latency_ms": speed,
    }


def _maps(
    bench: Workbench,
    handed: Handed,
    files: tuple[Predictor, Predictor],
    answers: Answers,
    images: Images,
    rows: np.ndarray,
) -> dict[str, Any] | None:
    """How alike the files' heat maps are; None where the float32 file's were not judged."""
    if not handed.noted.explanation:
        return None
    judged = handed.noted.explanation["method"]
    method: Method = judged if judged in BY_MASKS else DEFAULT
    task = bench.task
    said = task.probabilities(answers.logits)
    chosen = sampling_order(said.argmax(axis=1), task.positive(said), seed=0)[:_MAPS]
    shown = images.batch(rows[chosen]).cpu().numpy()
    found = maps_alike(*files, shown, said[chosen].argmax(axis=1), method)
    if not found:
        return None
    return {"images": len(found), "method": method, "mean": float(np.mean(found)), "least": float(min(found))}


def said_of_maps(noted: ModelMetadata, figures: dict[str, Any]) -> dict[str, Any] | None:
    """What the other file says of its heat maps: what is said of the float32 file's, where they are alike; else nothing."""
    if noted.explanation is None or figures["maps"] is None or not figures["maps"]["mean"] >= LIMITS.maps:
        return None
    alike = f"(Judged on the float32 file, whose maps this file's correlate with by {figures['maps']['mean']:.2f}.)"
    return {**noted.explanation, "statement": f"{noted.explanation['statement']} {alike}"}


def _coverage(
    bench: Workbench, file: Predictor, answers: Answers, targets: np.ndarray, patients: np.ndarray | None
) -> Estimate | None:
    """Share of the file's sets of classes that hold the truth, with its interval; None where it has no rule for them."""
    if file.conformal is None:
        return None
    found: Estimate = coverage_report(bench.task, file.conformal, answers.logits, targets, patients=patients)[
        "coverage"
    ]
    return found


def _graph(handed: Handed, network: Network) -> Graph:
    """The network's float32 graph, at temperature 1: logits and distances do not depend on it."""
    as_is = replace(handed.noted, temperature=1.0)
    return Graph(graph_of(network, as_is, layer=handed.layer, density=handed.density))


def _validation(bench: Workbench, handed: Handed, most: int) -> np.ndarray:
    """A sample of validation images, ``[N, C, S, S]`` float32 in [0, 1]."""
    data = bench.seen_by(handed.network)
    rows = np.sort(np.random.default_rng(0).permutation(data.val)[:most])
    return data.images.batch(rows).cpu().numpy()


def _batches(images: Images, rows: np.ndarray) -> Iterator[np.ndarray]:
    for part in batches(rows, _AT_ONCE):
        yield images.batch(part).cpu().numpy()
