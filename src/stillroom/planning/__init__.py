"""The plan of a run: from the images, the weights at hand and the machine to every setting that matters, with reasons.

    from stillroom import distill, plan

    planned = plan("./my_images", minutes=10)
    planned.choices["data.size"].why
    run = distill(planned)

Light to import: torch is loaded when something is planned.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Literal

from stillroom.extras import need
from stillroom.planning.plan_file import FILE, read_plan, to_plain, write_plan
from stillroom.planning.sheet import GIVEN, Choice, Limits, Plan, names_of, value_of
from stillroom.settings.whole import Settings, anchored, from_dict


def plan(
    source: str | Path,
    *,
    minutes: float = 20.0,
    max_mb: float | None = 10.0,
    max_ms: float | None = None,
    weights: Path | None = None,
    given: Settings | None = None,
    fixed: Collection[str] | None = None,
    seed: int = 0,
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto",
) -> Plan:
    """Look at images, weights and machine, and choose what to train on them how.

    Takes some seconds: steps of the networks in question are timed here, a few batches each. Nothing is trained.

    Args:
        source: a MedMNIST name, a folder of class folders, a CSV or Parquet table, or `phantoms`.
        minutes: for teaching and the training of teacher and student.
        max_mb: the student's float32 parameters in 10^6 bytes, at most.
        max_ms: milliseconds that the student takes for one image on one thread, at most.
        weights: a file or folder of pretrained weights. Default: timm's hub, where it answers.
        given: settings that the plan is made around; ``weights``, ``seed`` and ``device`` here are then not read.
        fixed: which of them are fixed, such as ``data.size``. Default: all that differ from what they are by default.
        seed: fixes splits, initial weights, order and views.
        device: `auto` takes an accelerator where there is one.

    Raises:
        UsageError: the source, the weights or the device cannot be used, or no network is within the limits.
    """
    need("torch", "Planning a run")
    limits = Limits(minutes, max_mb, max_ms)
    if given is None:
        given = Settings(str(source), seed=seed, device=device)
        given = replace(given, teacher=replace(given.teacher, weights=weights))
        fixed = [] if weights is None else ["teacher.weights"]
    given = anchored(replace(given, source=str(source)))
    kept = frozenset(_changed(given) if fixed is None else fixed)
    if given.teacher.mode_told:  # by what is given besides
        kept |= {"teacher.teacher_mode"}
    return _planned(given, kept, limits)


def _planned(given: Settings, fixed: frozenset[str], limits: Limits) -> Plan:
    import torch

    from stillroom.planning.choices import SMALL_BATCH, choose
    from stillroom.planning.facts import look
    from stillroom.planning.networks import KNOWN
    from stillroom.planning.stock import Shelf
    from stillroom.planning.timing import Stopwatch

    named = {given.teacher.teacher} if "teacher.teacher" in fixed else set()
    named |= {given.student.student} if "student.student" in fixed else set()
    untrained = {"teacher.pretrained", "student.student_pretrained"} <= fixed and not (
        given.teacher.pretrained or given.student.student_pretrained
    )
    facts = look(given, () if untrained else tuple(dict.fromkeys([*KNOWN, *sorted(named)])))
    classes = len(facts.classes)
    watch = Stopwatch(classes=classes, colour=facts.colour, device=torch.device(facts.device), batch=SMALL_BATCH)
    found = choose(facts, Shelf(classes), watch, limits, given, fixed)
    content: dict[str, dict] = {}
    for name, choice in found.choices.items():
        section, _, field = name.partition(".")
        content.setdefault(section, {})[field] = choice.value
    head = {"source": given.source, "seed": given.seed, "device": given.device}
    settings = from_dict(head | content, "plan")
    settings.recipe.check(settings)
    return Plan(settings, found.choices, facts.to_dict(), limits, found.expected_s)


def _changed(settings: Settings) -> list[str]:
    """Names of the settings that differ from their defaults."""
    kind = type(settings.recipe)
    plain = Settings(settings.source, kind())
    names = [name for name in names_of(kind) if value_of(settings, name) != value_of(plain, name)]
    if settings.teacher.teacher_answers:
        names = [name for name in names if name != "teacher.teacher"]  # it has none then
    return names if kind is type(Settings(settings.source).recipe) else ["recipe.name", *names]


__all__ = ["FILE", "GIVEN", "Choice", "Limits", "Plan", "plan", "read_plan", "to_plain", "write_plan"]
