"""The table of contents of a run: what it is begun with, its stages in order, and the pages at its end."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from stillroom.data.answers import digest_of
from stillroom.data.load import Dataset, open_source
from stillroom.errors import RunError, StillroomError, StorageError, UsageError
from stillroom.files.atomic import write_json
from stillroom.models.efficiency import machine
from stillroom.planning.plan_file import FILE as PLAN_FILE
from stillroom.planning.plan_file import read_plan
from stillroom.planning.sheet import Plan
from stillroom.progress import journey
from stillroom.run import repeats, selection
from stillroom.run.begun_with import facts_of_store, same_data, write_images
from stillroom.run.claims import LOCK, alone_in, claimed, numbered, require_vacant
from stillroom.run.epochs import require_every_epoch
from stillroom.run.folder import Run
from stillroom.run.forecast import foreseen, stage_of
from stillroom.run.preparing import check_settings, data_set
from stillroom.run.same_settings import require_same_settings
from stillroom.run.stage import Evidence, Stage, carry_out
from stillroom.run.stages import (
    choice,
    corruptions,
    efficiency,
    evaluation,
    explanation,
    export,
    int8,
    subgroups,
    thresholds,
    training,
    uncertainty,
)
from stillroom.run.workbench import Workbench
from stillroom.settings.whole import Settings, anchored

STAGES: tuple[Stage, ...] = (
    training.STAGE,
    evaluation.STAGE,
    choice.STAGE,
    subgroups.STAGE,
    uncertainty.STAGE,
    thresholds.STAGE,
    explanation.STAGE,
    export.STAGE,
    int8.STAGE,
    efficiency.STAGE,
    corruptions.STAGE,
)
"""In order; one more is a file in stages/ and a line here (docs/how-to.md, "Add a stage of your own")."""


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
    chosen = settings.settings if isinstance(settings, Plan) else settings
    return distill_at(settings, Path(out) if out else numbered(_default_folder(chosen)), show_progress=show_progress)


def distill_at(settings: Settings | Plan, places: Path | Iterable[Path], *, show_progress: bool = True) -> Run:
    """Like :func:`distill`, in the one place given, or the first of several where nothing stands and nobody makes a run."""
    plan = settings if isinstance(settings, Plan) else None
    settings = anchored(settings.settings if isinstance(settings, Plan) else settings)
    if isinstance(places, Path):
        require_vacant(places)
    table = open_source(settings.source, settings.student_data, seed=settings.seed)
    check_settings(settings, table)  # what can be refused is refused before anything takes long
    with claimed(places) as claim:
        with _noting("No run was begun yet: give the same command again."):
            dataset = data_set(table, settings, show_progress)
        run = Run.create(claim, settings, plan)
        try:
            return _carry_out(run, dataset, show_progress)
        except StorageError:
            raise
        except StillroomError:
            run.discard()
            raise


def resume(
    path: Path | str,
    *,
    source: str | Path | None = None,
    unlabelled: Path | str | None = None,
    teacher_answers: Path | str | None = None,
    show_progress: bool = True,
) -> Run:
    """Go on with a run that was stopped; finished stages are not done again.

    Args:
        path: the run folder.
        source: where its images are now, if they were moved. Default: where they were last; the same of what follows.
        unlabelled: where the images without labels are now.
        teacher_answers: where the table of answers is now.
        show_progress: show bars with the time left.

    Raises:
        UsageError: ``path`` is not a run folder, its settings were changed, another process is at work in it, or its data
            are not where they were.
        RunError: the data changed since the run began; the message says which.
    """
    run = Run.open(path)
    if run.finished and not (run.path / LOCK).exists():
        return run
    with alone_in(run.path):
        if run.finished:  # by the process that was at work until now
            return run
        require_same_settings(run)
        require_every_epoch(run.path)
        with _noting(run.how_to_resume):
            run, dataset = same_data(
                run, source=source, unlabelled=unlabelled, teacher_answers=teacher_answers, show_progress=show_progress
            )
        return _carry_out(run, dataset, show_progress)


def _carry_out(run: Run, dataset: Dataset, show_progress: bool) -> Run:
    run.history()  # what is damaged in it is said before lines are added to it
    plan = run.path / PLAN_FILE
    expected = read_plan(plan).expected_s if plan.exists() else None
    done = [stage_of(name) for name in run.manifest["durations_s"]]
    afterwards = dict.fromkeys(stage.name for stage in STAGES if stage.name and stage.wanted(run.settings))
    try:
        with (
            _noting(run.how_to_resume),
            journey(foreseen(run.settings, afterwards, expected), done, enabled=show_progress),
        ):
            return _stages(run, dataset, show_progress)
    except torch.OutOfMemoryError as error:
        raise RunError("The accelerator's memory is full. Lower --batch-size, or give --device cpu.") from error


def _stages(run: Run, dataset: Dataset, show_progress: bool) -> Run:
    table, recipe = dataset.table, run.settings.recipe
    answers = run.settings.teacher.teacher_answers if recipe.has_teacher else None
    bench = Workbench(run, dataset, show_progress=show_progress)
    write_images(run, dataset)  # before the manifest names them: from then on nothing else will do
    run.note(
        data=table.source,
        data_fingerprint=dataset.fingerprint,
        answers_digest=answers and digest_of(answers),
        synthetic=table.synthetic,
        task=bench.task.describe(),
        machine=machine(),
        device=str(bench.data.images.device),
        unlabelled=dataset.unlabelled and dataset.unlabelled.to_dict(),
        store=facts_of_store(dataset),
        dicom={"shown": table.shown, "window": table.window} if table.shown else None,
    )
    write_json(run.path / "audit.json", dataset.audit.to_dict())

    evidence = Evidence(bench)
    for stage in STAGES:
        if stage.wanted(run.settings):
            carry_out(stage, evidence)
    write_json(run.path / "metrics.json", evidence.figures)
    run.finish()  # first, so that the report can say when
    write_pages(run)
    return run


def reopen(
    run: Run, *, source: str | Path | None = None, show_progress: bool = True
) -> tuple[Workbench, dict[str, nn.Module]]:
    """A finished run's workbench and networks by role, for measurements that come later.

    Finished moves return at once, so nothing is trained; a frozen teacher needs its pretrained weights.

    Args:
        run: a finished run.
        source: where its images are now, if they were moved.
        show_progress: show bars.

    Raises:
        UsageError: the run has not finished, or weights or images are not there any more.
        RunError: the data changed since; the message says which.
    """
    if not run.finished:
        raise UsageError(f"{run.path} has not finished. {run.how_to_resume}")
    run, dataset = same_data(run, source=source, show_progress=show_progress)
    as_made = run.manifest
    bench = Workbench(run, dataset, show_progress=show_progress)
    try:
        every = repeats.repeat(repeats.train(bench))
        networks = selection.join(every).networks if len(every) > 1 else every[0].networks
    finally:
        write_json(run.path / "manifest.json", as_made)  # its durations are those of the run
    teacher = bench.teacher_network()
    return bench, networks | ({"teacher": teacher} if teacher else {})


def write_pages(run: Run) -> None:
    """The model card and the report, from what stands in the run folder."""
    from stillroom.report import write_model_card, write_report

    write_model_card(run.path)
    write_report(run.path)  # last: a run is whole when its report is there


def _default_folder(settings: Settings) -> Path:
    path = Path(settings.source).expanduser()
    name = path.resolve().name if path.is_dir() else path.stem if path.is_file() else settings.source
    name = re.sub(r"[^\w.-]+", "-", name).strip("-.") or "data"
    return Path("runs") / f"{name}-{settings.recipe.name}"


@contextmanager
def _noting(how_to_go_on: str) -> Iterator[None]:
    """Add to what ends the block early, but can be gone on with, how that is done."""
    try:
        yield
    except (StorageError, KeyboardInterrupt) as stop:
        stop.add_note(how_to_go_on)
        raise
