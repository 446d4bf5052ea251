"""The way through the house: data, teacher, student, control, evaluation, export, report. Each stage adds to the folder."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from stillroom.data.inference import run_over
from stillroom.data.load import Dataset, open_source, prepare
from stillroom.data.table import Table
from stillroom.data.unlabelled import list_unlabelled, load_unlabelled
from stillroom.deployment.predictor import MODEL_FILE
from stillroom.distillation.cutting import cut_out
from stillroom.distillation.teachers import Panel
from stillroom.errors import RunError, StillroomError, StorageError, UsageError
from stillroom.evaluation.assess import STUDENT, Assessment, assess, worst_mistakes
from stillroom.files.atomic import write_arrays, write_json
from stillroom.models.device import pick_device
from stillroom.models.efficiency import machine, profile, profile_onnx
from stillroom.models.network import Network
from stillroom.models.zoo import create, locate_weights, resolve_size
from stillroom.planning.plan_file import FILE as PLAN_FILE
from stillroom.planning.plan_file import read_plan, write_plan
from stillroom.planning.sheet import Plan
from stillroom.progress import journey
from stillroom.run import probes, repeats, selection
from stillroom.run.exported import save_exported
from stillroom.run.folder import Run, require_vacant
from stillroom.run.forecast import foreseen, stage_of
from stillroom.run.stages import corruptions, explanation, uncertainty
from stillroom.run.stages.export import PARITY_IMAGES, export_at_once, export_network
from stillroom.run.workbench import Workbench
from stillroom.settings.whole import Settings, anchored
from stillroom.task import Task

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
    table = open_source(settings.source, settings.student_data, seed=settings.seed)
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
    table = open_source(settings.source, settings.student_data, seed=settings.seed)
    dataset = _prepare(table, settings, show_progress)
    if run.manifest.get("data_fingerprint", dataset.fingerprint) != dataset.fingerprint:
        raise RunError(
            f"The images, labels, splits or patients of {settings.source} changed since {run.path} began: start a new run."
        )
    return dataset


def _fold(settings: Settings, show_progress: bool, number: int) -> Dataset:
    table = open_source(settings.source, settings.student_data, seed=settings.seed)
    return _prepare(table, settings, show_progress, number)


def _prepare(table: Table, settings: Settings, show_progress: bool, number: int = 1) -> Dataset:
    """The data set; with folds, that of the fold with this number."""
    fold = (number, settings.evaluation.folds) if settings.evaluation.folds > 1 else None
    dataset = prepare(table, settings.student_data, seed=settings.seed, fold=fold, show_progress=show_progress)
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
    for name, size in settings.recipe.teacher_inputs(settings):
        resolve_size(name, size, side)
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
    _check_keep(settings, task)
    if settings.evaluation.explain_layer not in ("auto", "last"):
        drawn = create(student.student, classes=len(task.classes), size=student.student_size or side)
        explanation.check_layer(drawn, settings)


def _check_keep(settings: Settings, task: Task) -> None:
    """Raises UsageError where what is to be kept cannot be."""
    wanted, student = settings.evaluation, settings.student
    if wanted.keep == "average" and not settings.recipe.has_start(settings):
        raise UsageError(
            "--keep average joins weights, which says nothing of trainings that start from different random ones: give "
            "--student-pretrained, or --keep ensemble."
        )
    if wanted.keep == "best" and wanted.max_mb is not None:
        size = student.student_size or settings.data.size
        megabytes = selection.megabytes(create(student.student, classes=len(task.classes), size=size))
        if megabytes > wanted.max_mb:
            raise UsageError(
                f"The student {student.student} has {megabytes:.1f} MB, more than --max-mb {wanted.max_mb:g}: choose a "
                "smaller --student; `stillroom models --max-mb` lists some."
            )


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

    wanted = run.settings.evaluation
    first = repeats.train(bench, partial(export_at_once, bench))
    every = repeats.repeat(first)
    joined = selection.join(every) if len(every) > 1 else None
    networks = dict(joined.networks if joined else first.networks)
    simpler = probes.make(bench) if wanted.rivals else {}
    with run.stage("evaluate"):
        found, logits = _evaluate(run, bench, networks, simpler)
    figures = {"task": bench.task.describe()} | found.figures
    networks |= {role: rival.network for role, rival in simpler.items() if rival.network}
    if teacher := _teacher(bench):
        networks["teacher"] = teacher

    role = STUDENT
    if joined:
        figures["kept"] = joined.figures
        figures["luck"] = repeats.luck_of(bench, repeats.of_repeats(every, found.probabilities))
        figures["luck"]["exported"] = joined.number
    if wanted.folds > 1:
        figures["luck"] = repeats.luck_of(bench, repeats.of_folds(bench, partial(_fold, run.settings, show_progress)))
    if wanted.keep == "best":
        role, figures["kept"] = selection.best_of(bench, networks, logits)
        if joined and role != STUDENT:
            figures["luck"]["exported"] = None
    if (exported := networks[role]) is not first.networks[STUDENT]:
        save_exported(run.path, exported)
    side = bench.seen_by(exported).images.store.size
    run.note(exported_role=role, exported_side=side, passes=repeats.passes(run))

    with run.stage("evaluate"):
        uncertain = uncertainty.measure(bench, exported, logits[role])  # type: ignore[arg-type]
    figures |= uncertain.figures
    with run.stage("explain"):
        explained = explanation.make(bench, networks, found.probabilities[role], found.temperatures, exported=role)
        figures["explanation"] = explained.figures
    with run.stage("export"):
        onnx, figures["export"] = export_network(
            exported,
            run.path / MODEL_FILE,
            run,
            figures=figures,
            images=bench.seen_by(exported).images.batch(bench.data.val[:PARITY_IMAGES]).cpu().numpy(),
            layer=explained.layer,
            density=uncertain.rules.density,
            role=role,
        )
    with run.stage("profile"):
        figures["efficiency"] = _profile(bench, networks, role, onnx)
    if wanted.corruptions:
        with run.stage("corrupt"):
            figures["robustness"] = corruptions.measure(bench, networks, found.temperatures)
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
        every = repeats.repeat(repeats.train(bench))
        networks = selection.join(every).networks if len(every) > 1 else every[0].networks
    finally:
        write_json(run.path / "manifest.json", as_made)  # its durations are those of the run
    teacher = _teacher(bench)
    return bench, networks | ({"teacher": teacher} if teacher else {})


def write_pages(run: Run) -> None:
    """The model card and the report, from what stands in the run folder."""
    from stillroom.report import write_model_card, write_report

    write_model_card(run.path)
    write_report(run.path)  # last: a run is whole when its report is there


def _teacher(bench: Workbench) -> nn.Module | None:
    """The teacher's network; of several, the mean of their logits."""
    found = [teacher.network for teacher in bench.teachers]
    return Panel(found) if len(found) > 1 else found[0] if found else None


def _evaluate(
    run: Run, bench: Workbench, networks: dict[str, nn.Module], simpler: dict[str, probes.Rival]
) -> tuple[Assessment, dict[str, np.ndarray]]:
    """Figures, and logits ``[N, K]`` by role. Writes predictions.parquet, features.npz and gallery.npz."""
    images, table, task = bench.data.images, bench.dataset.table, bench.task
    test = table.indices("test")
    logits = repeats.logits_of(bench, networks, simpler)
    found = assess(task, table, logits, run.settings.evaluation, run.settings.seed)
    repeats.write_predictions(run, bench, found.probabilities)

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


def _profile(bench: Workbench, networks: dict[str, nn.Module], exported: str, onnx: Path) -> dict[str, Any]:
    latency, channels = bench.settings.evaluation.latency, bench.dataset.store.pixels.shape[1]

    def shape(network: nn.Module) -> dict[str, Any]:
        side = bench.seen_by(network).images.store.size
        return {"channels": channels, "size": side, "latency": latency}

    measured = {
        role: profile(network, **shape(network))
        for role, network in networks.items()
        if role in (STUDENT, "teacher", exported)  # the others are the student's twins
    }
    threads = torch.get_num_threads()
    return measured | {"onnx": profile_onnx(onnx, threads=threads, **shape(networks[exported]))}


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
