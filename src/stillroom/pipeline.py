"""The way through the house: data, teacher, student, control, evaluation, export, report. Each stage adds to the folder."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from stillroom import corrupted_images, explain_run, rivals, uncertainty
from stillroom.data.load import Dataset, open_source, prepare
from stillroom.data.table import Table
from stillroom.data.unlabelled import list_unlabelled, load_unlabelled
from stillroom.deployment.predictor import MODEL_FILE
from stillroom.distillation.cutting import cut_out
from stillroom.distillation.teachers import Panel
from stillroom.errors import RunError, StillroomError, StorageError, UsageError
from stillroom.evaluation.assess import STUDENT, Assessment, assess, predictions_frame, worst_mistakes
from stillroom.evaluation.efficiency import machine, profile, profile_onnx
from stillroom.export import PARITY_IMAGES, export_at_once, export_network
from stillroom.files import write_arrays, write_atomically, write_json
from stillroom.inference import run_over
from stillroom.models.network import Network
from stillroom.models.zoo import create, locate_weights, resolve_size
from stillroom.planning.plan_file import FILE as PLAN_FILE
from stillroom.planning.plan_file import read_plan, write_plan
from stillroom.planning.sheet import Plan
from stillroom.progress import journey
from stillroom.run import Run, require_vacant
from stillroom.settings import Settings, anchored
from stillroom.stages import foreseen, stage_of
from stillroom.task import Task
from stillroom.workbench import Workbench, pick_device

_FEATURE_IMAGES = 2000
_GALLERY_IMAGES = 24


def distill(settings: Settings | Plan, out: Path | str | None = None, *, show_progress: bool = True) -> Run:
    """Distil a student and leave a run folder with the evidence.

    Args:
        settings: what to run on what, or the plan of it, which then stands in the folder as plan.yaml.
        out: the run folder; default ``runs/<source>-<recipe>``, numbered where that exists.
        show_progress: show bars with the time left.

    Raises:
        UsageError: something asked for is wrong; nothing was trained, and no folder is left.
        StorageError: the disk is full; what was done stands in the folder, and :func:`resume` goes on from it.
        RunError: the run failed in another way, such as a loss that diverged.
    """
    planned = settings if isinstance(settings, Plan) else None
    settings = anchored(settings.settings if isinstance(settings, Plan) else settings)
    path = Path(out) if out else _free_folder(settings)
    require_vacant(path)
    table = open_source(settings.source, settings.data, seed=settings.seed)
    check_settings(settings, table.task)  # what can be refused is refused before anything takes long
    dataset = _prepare(table, settings, show_progress)
    run = Run.create(path, settings)
    try:
        if planned:
            write_plan(planned, run.path / PLAN_FILE)
        return _carry_out(run, dataset, show_progress)
    except StorageError:
        raise
    except StillroomError:
        run.discard()
        raise


def resume(path: Path | str, *, show_progress: bool = True) -> Run:
    """Go on with a run that was stopped; finished stages are not done again.

    Raises:
        UsageError: ``path`` is not a run folder.
        RunError: the data changed since the run began.
    """
    run = Run.open(path)
    if run.finished:
        return run
    return _carry_out(run, _same_data(run, show_progress), show_progress)


def _same_data(run: Run, show_progress: bool) -> Dataset:
    """The run's data set. Raises RunError where it is another one by now."""
    settings = run.settings
    table = open_source(settings.source, settings.data, seed=settings.seed)
    dataset = _prepare(table, settings, show_progress)
    if run.manifest.get("data_fingerprint", dataset.fingerprint) != dataset.fingerprint:
        raise RunError(
            f"The images, labels, splits or patients of {settings.source} changed since {run.path} began: start a new run."
        )
    return dataset


def _prepare(table: Table, settings: Settings, show_progress: bool) -> Dataset:
    dataset = prepare(table, settings.data, seed=settings.seed, show_progress=show_progress)
    folder = settings.training.unlabelled
    if folder is None:
        return dataset
    unlabelled = load_unlabelled(folder, dataset.table, dataset.store, show_progress=show_progress)
    return replace(dataset, unlabelled=unlabelled)


def check_settings(settings: Settings, task: Task) -> None:
    """Raises UsageError for what is known to fail later: the recipe's task, the device, names, sizes and weights."""
    settings.recipe.adapt(task)
    settings.recipe.check(settings)
    pick_device(settings.device)
    side, student, teacher = settings.data.size, settings.student, settings.teacher
    resolve_size(student.student, student.student_size or side, side)
    taught_by = settings.recipe.teacher_names(settings)
    if teacher.pretrained and teacher.weights and teacher.weights.is_file() and len(set(taught_by)) > 1:
        raise UsageError(
            f"{teacher.weights} is one file, but {', '.join(dict.fromkeys(taught_by))} need weights: give a folder that "
            "holds a file for each."
        )
    for name in taught_by:
        resolve_size(name, teacher.teacher_size, side)
        if teacher.pretrained:
            locate_weights(name, teacher.weights)
    if settings.training.unlabelled:
        list_unlabelled(settings.training.unlabelled)
    if student.starts_pretrained:
        locate_weights(student.student_from or student.student, student.student_weights or teacher.weights)
    if student.student_from:
        pair = [
            create(name, classes=2, size=student.student_size or side)
            for name in (student.student, student.student_from)
        ]
        cut_out(*pair, layers="first", elements="uniform", seed=0)
    if settings.evaluation.explain_layer not in ("auto", "last"):
        drawn = create(student.student, classes=len(task.classes), size=student.student_size or side)
        explain_run.check_layer(drawn, settings)


def _carry_out(run: Run, dataset: Dataset, show_progress: bool) -> Run:
    plan = run.path / PLAN_FILE
    expected = read_plan(plan).expected_s if plan.exists() else None
    done = [stage for name in run.manifest["durations_s"] if (stage := stage_of(name))]
    try:
        with journey(foreseen(run.settings, expected), done, enabled=show_progress):
            return _stages(run, dataset, show_progress)
    except (StorageError, KeyboardInterrupt) as stop:
        stop.add_note(run.how_to_resume)
        raise
    except torch.OutOfMemoryError as error:
        raise RunError("The accelerator's memory is full. Lower --batch-size, or give --device cpu.") from error


def _stages(run: Run, dataset: Dataset, show_progress: bool) -> Run:
    table, store = dataset.table, dataset.store
    bench = Workbench(run, dataset, show_progress=show_progress)
    run.note(
        data=table.source,
        data_fingerprint=dataset.fingerprint,
        synthetic=table.synthetic,
        task=bench.task.describe(),
        machine=machine(),
        device=str(bench.data.images.device),
        unlabelled=dataset.unlabelled and dataset.unlabelled.to_dict(),
        store={
            "size": store.size,
            "channels": store.pixels.shape[1],
            "white": store.white,
            "fit": store.fit,
            "fingerprint": store.fingerprint,
        },
    )
    write_json(run.path / "audit.json", dataset.audit.to_dict())

    networks = _trained(bench)
    student: Network = networks[STUDENT]  # type: ignore[assignment]
    wanted = run.settings.evaluation
    simpler = rivals.make(bench) if wanted.rivals else {}
    with run.stage("evaluate"):
        found, logits = _evaluate(run, bench, networks, simpler)
        uncertain = uncertainty.measure(bench, student, logits[STUDENT])
    figures = {"task": bench.task.describe()} | found.figures | uncertain.figures
    if teacher := _teacher(bench):
        networks["teacher"] = teacher
    with run.stage("explain"):
        explained = explain_run.make(bench, networks, found.probabilities[STUDENT], found.temperatures)
        figures["explanation"] = explained.figures
    with run.stage("export"):
        onnx, figures["export"] = export_network(
            student,
            run.path / MODEL_FILE,
            run,
            figures=figures,
            images=bench.data.images.batch(bench.data.val[:PARITY_IMAGES]).cpu().numpy(),
            layer=explained.layer,
            density=uncertain.rules.density,
        )
    with run.stage("profile"):
        figures["efficiency"] = _profile(bench, networks, onnx)
    if wanted.corruptions:
        with run.stage("corrupt"):
            figures["robustness"] = corrupted_images.measure(bench, networks, found.temperatures)
    write_json(run.path / "metrics.json", figures)
    run.finish()  # first, so that the report can say when
    write_pages(run)
    return run


def reopen(run: Run, *, show_progress: bool = True) -> tuple[Workbench, dict[str, nn.Module]]:
    """A finished run's workbench and networks by role, for measurements that come later.

    Finished moves return at once, so nothing is trained; a frozen teacher needs its pretrained weights.

    Raises:
        UsageError: the run has not finished, or weights are not there any more.
        RunError: the data changed since.
    """
    if not run.finished:
        raise UsageError(f"{run.path} has not finished. {run.how_to_resume}")
    as_made = run.manifest
    bench = Workbench(run, _same_data(run, show_progress), show_progress=show_progress)
    try:
        networks = _trained(bench)
    finally:
        write_json(run.path / "manifest.json", as_made)  # its durations are those of the run
    teacher = _teacher(bench)
    return bench, networks | ({"teacher": teacher} if teacher else {})


def write_pages(run: Run) -> None:
    """The model card and the report, from what stands in the run folder."""
    from stillroom.report import write_model_card, write_report

    write_model_card(run.path)
    write_report(run.path)  # last: a run is whole when its report is there


def _trained(bench: Workbench) -> dict[str, nn.Module]:
    """The student, its control and the networks on the way, by role."""
    run, recipe = bench.run, bench.settings.recipe
    networks: dict[str, nn.Module] = {STUDENT: recipe.run(bench)}
    run.note(labels_read=len(bench.labels_read), training_images=len(bench.training_rows))
    if recipe.has_control and bench.settings.evaluation.control:
        if not run.finished:
            export_at_once(bench, networks[STUDENT])  # type: ignore[arg-type]
        networks["control"] = recipe.control(bench)
    run.note(teachers=[teacher.network.name for teacher in bench.teachers])
    return networks | bench.milestones


def _teacher(bench: Workbench) -> nn.Module | None:
    """The teacher's network; of several, the mean of their logits."""
    found = [teacher.network for teacher in bench.teachers]
    return Panel(found) if len(found) > 1 else found[0] if found else None


def _evaluate(
    run: Run, bench: Workbench, networks: dict[str, nn.Module], simpler: dict[str, rivals.Rival]
) -> tuple[Assessment, dict[str, np.ndarray]]:
    """Figures, and logits ``[N, K]`` by role. Writes predictions.parquet, features.npz and gallery.npz.

    Several teachers count as one: the mean of their logits.
    """
    images, table, task = bench.data.images, bench.dataset.table, bench.task
    everything, test = np.arange(len(table)), table.indices("test")
    logits = {role: run_over(network, images, everything) for role, network in networks.items()}
    said = [teacher.logits(everything, None).numpy() for teacher in bench.teachers]
    if said:
        logits["teacher"] = np.mean(said, axis=0)
    if len(said) > 1:
        logits |= {f"teacher_{number}": values for number, values in enumerate(said, 1)}
    logits |= {role: rival.logits for role, rival in simpler.items()}
    found = assess(task, table, logits, run.settings.evaluation, run.settings.seed)

    frame = predictions_frame(task, table, bench.dataset.store.digests, found.probabilities)
    write_atomically(run.path / "predictions.parquet", lambda target: frame.to_parquet(target, index=False))

    shown = np.sort(np.random.default_rng(0).permutation(test)[:_FEATURE_IMAGES])
    student: Network = networks[STUDENT]  # type: ignore[assignment]
    features = {
        "student": run_over(student, images, shown, ask=lambda batch: student.outputs(batch).pooled),
        "index": shown,
    }
    if len(bench.teachers) == 1:
        features["teacher"] = bench.teachers[0].output("pooled", shown, None).numpy()
    write_arrays(run.path / "features.npz", features)

    worst = worst_mistakes(task, found.probabilities[STUDENT], table.targets, test, _GALLERY_IMAGES)
    pictures = np.round(images.batch(worst).cpu().numpy() * 255).astype(np.uint8)
    write_arrays(run.path / "gallery.npz", {"images": pictures, "index": worst})
    return found, logits


def _profile(bench: Workbench, networks: dict[str, nn.Module], onnx: Path) -> dict[str, Any]:
    store, latency = bench.dataset.store, bench.settings.evaluation.latency
    shape = {"channels": store.pixels.shape[1], "size": store.size, "latency": latency}
    measured = {
        role: profile(network, **shape)
        for role, network in networks.items()
        if role == "teacher" or role == STUDENT  # the others are the student's twins
    }
    return measured | {"onnx": profile_onnx(onnx, threads=torch.get_num_threads(), **shape)}


def _free_folder(settings: Settings) -> Path:
    path = Path(settings.source).expanduser()
    name = path.resolve().name if path.is_dir() else path.stem if path.is_file() else settings.source
    name = re.sub(r"[^\w.-]+", "-", name).strip("-.") or "data"
    base = Path("runs") / f"{name}-{settings.recipe.name}"
    return next(
        path
        for path in (base, *(base.with_name(f"{base.name}-{number}") for number in range(2, 10_000)))
        if not path.exists()
    )
