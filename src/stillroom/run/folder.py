"""The run folder: each stage reads what stands in it and adds its own part. What is there need not be done again."""

from __future__ import annotations

import shlex
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stillroom.errors import RunError, UsageError
from stillroom.files.atomic import append_line, write_atomically, write_json
from stillroom.files.digests import (
    KEPT,
    LEDGER,
    begin_ledger,
    read_lines,
    require_whole,
    say_if_changed,
    sha256_of,
    signed,
)
from stillroom.files.frames import read_frame
from stillroom.files.reading import read_json
from stillroom.planning.plan_file import FILE as PLAN_FILE
from stillroom.planning.plan_file import read_plan, write_plan
from stillroom.progress import enter, remark
from stillroom.run.claims import MANIFEST, SETTINGS, Claim, claimed, cut_off, digests_lost, require_run, unlisted
from stillroom.run.epochs import HISTORY, in_words, lost_epochs, parts_of
from stillroom.run.forecast import stage_of
from stillroom.settings.whole import Settings, read_settings, to_dict
from stillroom.task import Task, from_description

if TYPE_CHECKING:
    import pandas as pd
    from torch import nn

    from stillroom.deployment.predictor import Predictor
    from stillroom.planning.sheet import Plan

FOREIGN_SCORES = "foreign_scores.npz"
"""Energy and feature distance of a run's test images, which foreign ones are compared with."""

_PACKAGES = ("torch", "timm", "lightning-fabric", "numpy", "scikit-learn", "onnx", "onnxruntime", "pillow")


class Run:
    """One run's folder. Make it with :meth:`create`, or open one that exists with :meth:`open`.

    Attributes:
        path: the folder.
        settings: fully resolved, as in settings.yaml.
    """

    def __init__(self, path: Path, settings: Settings) -> None:
        self.path, self.settings = path, settings

    @classmethod
    def create(cls, place: Path | Claim, settings: Settings, plan: Plan | None = None) -> Run:
        """A new folder with settings.yaml and manifest.json in it, and plan.yaml where there is a plan: whole, or not at all.

        Args:
            place: where; a path is claimed for as long as this takes, a claim is its owner's.
            settings: of the run.
            plan: which the run follows.

        Raises:
            UsageError: something stands there already.
            StorageError: the disk is full, or the folder cannot be written to.
        """
        import yaml

        if isinstance(place, Path):
            with claimed(place) as claim:
                return cls.create(claim, settings, plan)
        run = cls(place.folder, settings)
        begin_ledger(run.path)
        text = yaml.safe_dump(to_dict(settings), sort_keys=False, allow_unicode=True)
        write_atomically(run.path / SETTINGS, lambda target: target.write_text(text, encoding="utf-8"))
        if plan:
            write_plan(plan, run.path / PLAN_FILE)
        versions = {"stillroom": metadata.version("stillroom")} | {p: metadata.version(p) for p in _PACKAGES}
        run.note(
            created=_now(),
            source=settings.source,
            seed=settings.seed,
            recipe=settings.recipe.name,
            citation=settings.recipe.citation,
            student=settings.student.student,
            teacher=_taught_by(settings),
            claim=asdict(settings.recipe.claim(settings)) if settings.recipe.has_control else None,
            settings=to_dict(settings),
            planned=to_dict(read_plan(run.path / PLAN_FILE).settings) if plan else None,
            versions=versions,
            durations_s={},
            **{KEPT: True},
        )
        place.stand()
        return cls(place.path, settings)

    @classmethod
    def open(cls, path: Path | str) -> Run:
        """A folder that :meth:`create` made. Raises UsageError where it is not one."""
        path = Path(path)
        require_run(path)
        if digests_lost(path):
            remark(
                f"{path / LEDGER} is gone or was emptied: whether the run's files are as they were written is not known."
            )
        elif names := unlisted(path):
            remark(f"{path / LEDGER} {cut_off(names)}: whether they are as they were written is not known.")
        say_if_changed(path / SETTINGS)
        run = cls(path, read_settings(path / SETTINGS))
        if run.finished:  # of one that goes on, more is asked
            for folder in parts_of(path):
                if lost := lost_epochs(folder):
                    remark(f"{in_words(folder, lost)}.")
        return run

    # -- reading ------------------------------------------------------------------------------------------------
    @property
    def finished(self) -> bool:
        """Whether every stage is done: the report is written last."""
        return self.report.exists()

    @property
    def manifest(self) -> dict[str, Any]:
        """What was run, on what, with what: versions, machine, seed, durations."""
        return self._json(MANIFEST)

    @property
    def exported_role(self) -> str:
        """Which of the run's networks student.onnx was made of: ``student``, unless the run was asked to keep the best."""
        return self.manifest.get("exported_role", "student")

    @property
    def metrics(self) -> dict[str, Any]:
        """Every figure of the report (metrics.json)."""
        return self._json("metrics.json")

    @property
    def audit(self) -> dict[str, Any]:
        """What the audit found (audit.json)."""
        return self._json("audit.json")

    @property
    def task(self) -> Task:
        """What the labels mean."""
        return from_description(self.manifest["task"])

    @property
    def report(self) -> Path:
        """The report's path."""
        return self.path / "report.html"

    def history(self) -> list[dict[str, Any]]:
        """One entry per trained epoch; an epoch that a killed run repeated counts once."""
        lines = read_lines(self._history)
        if lines.damaged:
            remark(f"{self._history} is damaged in line {lines.damaged[0]}: what it said of an epoch is lost.")
        epochs: dict[tuple[str, int], dict[str, Any]] = {}
        for line in lines.entries:
            epochs[line["role"], line["epoch"]] = line
        return list(epochs.values())

    def predictions(self) -> pd.DataFrame:
        """One row per image: id, patient, split, target and a probability per model and class."""
        return read_frame(self._existing("predictions.parquet"))

    def student(self) -> nn.Module:
        """The network that student.onnx was made of, as a torch module in evaluation mode.

        The distilled student, unless the run was asked to keep another; of an ensemble, all of it.
        """
        from stillroom.run.exported import load_exported

        self._existing("student")
        return load_exported(self.path)

    def predictor(self) -> Predictor:
        """The exported student, run by ONNX Runtime."""
        from stillroom.deployment.predictor import Predictor

        return Predictor.load(self._existing("student.onnx"))

    @property
    def how_to_resume(self) -> str:
        """The command that goes on with this run, in a sentence."""
        return how_to_resume(self.path)

    def part(self, name: str) -> Run:
        """A part of this run in a folder of its own, such as ``repeats/2``, with a manifest and a history of its own."""
        part = Run(self.path / name, self.settings)
        if not (part.path / MANIFEST).exists():
            part.note(durations_s={})
        return part

    # -- writing ------------------------------------------------------------------------------------------------
    def note(self, **entries: Any) -> None:
        """Add entries to the manifest."""
        path = self.path / MANIFEST
        write_json(path, (self.manifest if path.exists() else {}) | entries)

    def log(self, line: dict[str, Any]) -> None:
        """Append one line to history.jsonl."""
        append_line(self._history, signed(line))

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a stage; the manifest sums its seconds over resumed attempts."""
        enter(stage_of(name))
        start = time.monotonic()
        try:
            yield
        finally:
            durations = self.manifest["durations_s"]
            durations[name] = round(durations.get(name, 0.0) + time.monotonic() - start, 1)
            with suppress(RunError):  # a full disk has its own error
                self.note(durations_s=durations)

    def finish(self) -> None:
        """Mark the run as done and write the hashes of what it leaves behind."""
        for folder in [*self.path.rglob("checkpoints")]:  # a stop may have come before their removal
            shutil.rmtree(folder, ignore_errors=True)
        hashes = {
            str(file.relative_to(self.path).as_posix()): sha256_of(file)
            for file in sorted(self.path.rglob("*"))
            if file.is_file() and file.suffix in {".safetensors", ".onnx", ".parquet"}
        }
        self.note(finished=_now(), sha256=hashes)

    def discard(self) -> None:
        """Remove the folder again, unless something was trained in it."""
        if not any((self.path / name).exists() for name in ("history.jsonl", "teacher", "checkpoints")):
            shutil.rmtree(self.path, ignore_errors=True)

    @property
    def _history(self) -> Path:
        return self.path / HISTORY

    def _json(self, name: str) -> dict[str, Any]:
        path = self._existing(name)
        require_whole(path)
        return read_json(path)

    def _existing(self, name: str) -> Path:
        path = self.path / name
        if not path.exists():
            state = "" if self.finished else f" The run has not finished. {self.how_to_resume}"
            raise UsageError(f"{path} is not there.{state}")
        return path


def how_to_resume(path: Path) -> str:
    """The command that goes on with the run in this folder, in a sentence."""
    return f"Go on with `stillroom distill --resume {shlex.quote(str(path))}`."


def _taught_by(settings: Settings) -> str | None:
    """Who teaches, for people; None where nobody does."""
    table = settings.teacher.teacher_answers
    if settings.recipe.has_teacher and table:
        return f"the answers in {table.name}"
    return ", ".join(dict.fromkeys(settings.recipe.teacher_names(settings))) or None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
