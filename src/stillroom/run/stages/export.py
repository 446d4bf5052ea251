"""Export a run's student, and let it pass only when it agrees with torch on real validation images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from stillroom.data.inference import run_over
from stillroom.deployment.half import FP16_FILE
from stillroom.deployment.int8 import INT8_FILE
from stillroom.deployment.metadata import ModelMetadata
from stillroom.deployment.onnx import check_parity, export_onnx, require_parity
from stillroom.deployment.predictor import MODEL_FILE
from stillroom.distillation.teachers import Panel
from stillroom.errors import UsageError
from stillroom.evaluation.calibration import fit_temperature
from stillroom.evaluation.density import FeatureDensity
from stillroom.evaluation.operating_points import OperatingPoint
from stillroom.explanation.heat_maps import hidden_value
from stillroom.explanation.layers import Layer
from stillroom.files.digests import record, stands
from stillroom.files.own_digest import is_exported, own_state
from stillroom.files.places import require_file_place
from stillroom.models.network import Network
from stillroom.run.begun_with import same_data
from stillroom.run.claims import alone_where, run_of
from stillroom.run.folder import Run
from stillroom.run.stage import Evidence, Stage
from stillroom.run.stages.explanation import exported_layer, exported_note
from stillroom.run.stages.thresholds import points_of
from stillroom.run.stages.uncertainty import DENSITY_FILE, fit_rules, read_density

if TYPE_CHECKING:
    from stillroom.run.workbench import Workbench

PARITY_IMAGES = 64


def export_network(
    network: nn.Module,
    path: Path,
    run: Run,
    *,
    figures: dict[str, Any],
    images: np.ndarray,
    layer: Layer | None,
    density: FeatureDensity | None,
    role: str = "student",
) -> tuple[Path, dict[str, Any]]:
    """Write the ONNX file of a network trained in ``run``, and compare it with torch.

    Args:
        network: images in [0, 1] to logits; held in float32 afterwards.
        path: the file to write.
        run: its manifest says what the file must know of the data.
        figures: the run's metrics: the network's temperature under ``calibration``, and where they are there, its rules
            under ``conformal`` and ``ood``, its thresholds under ``operating_points``, and what its heat maps are worth under
            ``explanation``.
        images: ``[N, C, S, S]`` float32 in [0, 1], real validation images to compare on, at the side that the file takes.
        layer: of which heat maps are made.
        density: of training features, for the distance that the rule under ``ood`` asks for.
        role: what the network is in that run.

    Returns:
        The path and the comparison's figures.

    Raises:
        RunError: the network cannot be exported, or the file does not agree with it.
    """
    if isinstance(network, Network):
        network.float()  # of a teacher that is held in half precision: what is handed over is the same everywhere
    metadata = noted(network, run, figures=figures, images=images, layer=layer, density=density, role=role)
    untried = export_onnx(network, path.with_name(f".{path.name}.untried.tmp"), metadata, layer=layer, density=density)
    try:
        parity = check_parity(untried, network, images, layer=layer, density=density)
        require_parity(parity, path)
        record(path, untried)
        untried.replace(path)  # only now: what stood there before is good
    finally:
        untried.unlink(missing_ok=True)
    return path, parity


def noted(
    network: nn.Module,
    run: Run,
    *,
    figures: dict[str, Any],
    images: np.ndarray,
    layer: Layer | None,
    density: FeatureDensity | None,
    role: str,
) -> ModelMetadata:
    """What an exported file says of itself; takes what :func:`export_network` does."""
    manifest = run.manifest
    store, display = manifest["store"], manifest.get("dicom") or {}  # of a run of before it was noted, nothing is known
    return ModelMetadata(
        task=run.task,
        size=images.shape[-1],
        channels=store["channels"],
        white=store["white"],
        fit=store["fit"],
        temperature=figures["calibration"][role]["temperature"],
        name=getattr(network, "name", manifest["student"]),  # an ensemble is of students
        synthetic=manifest["synthetic"],
        layer=layer.name if layer else None,
        hidden=tuple(hidden_value(network, torch.from_numpy(images[:1])).flatten().tolist()),
        explanation=exported_note(figures.get("explanation"), role),
        conformal=(figures.get("conformal") or {}).get("rule"),
        foreign=(figures.get("ood") or {}).get("rule") if density else None,
        window=run.settings.data.window or display.get("window", ""),
        shown=tuple(display.get("shown", ())),
        points=tuple(map(_point, (figures.get("operating_points") or {}).get("points", ()))),
        details={"data": manifest["data"], "recipe": manifest["recipe"], "role": role} | _members(network),
    )


def _point(stored: dict[str, Any]) -> dict[str, Any]:
    """A threshold as the file carries it, without its figures on the test."""
    return OperatingPoint.from_dict(stored).to_dict()


def _members(network: nn.Module) -> dict[str, str]:
    return {"members": str(len(network.networks))} if isinstance(network, Panel) else {}


def export_at_once(bench: Workbench, student: Network) -> None:
    """Write student.onnx as soon as the student is trained, so that a run that is stopped later on can be used.

    The temperature and the rules are those that the finished run gives it; of its heat maps nothing is known yet. Where the
    file is there already, or no training is to come, nothing is done.
    """
    run, task, table = bench.run, bench.task, bench.dataset.table
    path, wanted = run.path / MODEL_FILE, bench.settings.evaluation
    more = max(wanted.repeats, wanted.folds) > 1 or (wanted.control and bench.settings.recipe.has_control)
    if not more or (own_state(path) != "damaged" and stands(path)):
        return
    val = table.indices("val")
    with run.stage("first export"):
        logits = run_over(student, bench.data.images, np.arange(len(table)))
        rules = fit_rules(bench, student, logits)
        temperature = fit_temperature(task, logits[val], table.targets[val])
        points = [point.to_dict() for point in points_of(bench, task.probabilities(logits[val], temperature))]
        images = bench.data.images.batch(val[:PARITY_IMAGES]).cpu()
        export_network(
            student,
            path,
            run,
            figures={"calibration": {"student": {"temperature": temperature}}, "operating_points": {"points": points}}
            | rules.figures(),
            images=images.numpy(),
            layer=exported_layer(student, "student", wanted.explain_layer, images.to(bench.data.images.device)),
            density=rules.density,
        )


def export_student(
    run: Run, out: Path | None = None, *, source: str | Path | None = None
) -> tuple[Path, dict[str, Any]]:
    """Export a finished run's network once more, from its stored weights, temperature and rules.

    Args:
        run: a finished run.
        out: the file to write. Default: ``student.onnx`` in the run folder.
        source: where its images are now, if they were moved.

    Raises:
        UsageError: nothing can be written there, something else than an exported model stands there, the place is in another
            run's folder or another file's of this one, the run has not finished, or its data are not there any more.
        RunError: the data changed since, or the file does not agree with torch.
    """
    path = out or run.path / MODEL_FILE
    require_file_place(path)
    if out is not None and out.exists() and out.stat().st_size and not is_exported(out):
        raise UsageError(
            f"{out} is there already and is no exported model: it is not overwritten. Choose another --out."
        )
    if out is not None:
        _require_own_place(run, out)
    with alone_where(path.parent if source is None else run.path):  # which notes the new place
        return _exported_again(run, path, source)


def _require_own_place(run: Run, out: Path) -> None:
    """Refuse a place where another model is looked for: in another run, or under the name of this run's int8 or fp16 file."""
    place = out.resolve()
    owner = run_of(place.parent)
    if owner is None or place == run.path.resolve() / MODEL_FILE:
        return
    if owner != run.path.resolve():
        raise UsageError(f"{out} is in the folder of another run, {owner}. Choose another --out.")
    if place.name in (INT8_FILE, FP16_FILE):
        raise UsageError(
            f"{out} is the name of another file of this run: a float32 model is not written there. Choose another --out."
        )


def _exported_again(run: Run, path: Path, source: str | Path | None) -> tuple[Path, dict[str, Any]]:
    settings, network, role = run.settings, run.student(), run.exported_role
    _, dataset = same_data(run, source=source)
    rows = dataset.table.indices("val")[:PARITY_IMAGES]
    store = dataset.store_at(network.input_size[0]) if isinstance(network, Network) else dataset.store
    images = store.batch(rows).astype(np.float32) / np.float32(store.white)
    density = run.path / DENSITY_FILE
    return export_network(
        network,
        path,
        run,
        figures=run.metrics,
        images=images,
        layer=exported_layer(network, role, settings.evaluation.explain_layer, torch.from_numpy(images[:1])),
        density=read_density(density) if density.exists() else None,
        role=role,
    )


def work(evidence: Evidence) -> dict[str, Any]:
    bench, role = evidence.bench, evidence.exported
    exported = evidence.networks[role]
    evidence.onnx, parity = export_network(
        exported,
        bench.run.path / MODEL_FILE,
        bench.run,
        figures=evidence.figures,
        images=bench.seen_by(exported).images.batch(bench.data.val[:PARITY_IMAGES]).cpu().numpy(),
        layer=evidence.layer,
        density=evidence.density,
        role=role,
    )
    return {"export": parity}


STAGE = Stage("export", work)
