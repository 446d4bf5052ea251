"""Which network a run hands over: one of several trainings, all of them joined, or the best of all, by validation alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from stillroom.data.images import batches, shuffled
from stillroom.data.inference import run_over
from stillroom.data.views import view_of_epoch
from stillroom.distillation.teachers import Panel
from stillroom.evaluation.intervals import group_indices
from stillroom.evaluation.likelihood import FEWEST_IMAGES, calibrated_losses, standard_error
from stillroom.evaluation.roles import CONTROL, PROBE_OF_STUDENT, PROBE_OF_TEACHER, STUDENT, TEACHER, noun
from stillroom.models.network import Network
from stillroom.models.saving import load_network
from stillroom.run import networks as kept
from stillroom.run.repeats import Trained
from stillroom.run.workbench import Workbench
from stillroom.shown import counted
from stillroom.training.averaging import average

_STATISTICS_IMAGES = 2000
"""Training images by which the statistics of averaged weights are taken."""

_ALL = {"ensemble": "answer is", "average": "weights are"}
_CANDIDATES = (STUDENT, CONTROL, TEACHER, PROBE_OF_STUDENT, PROBE_OF_TEACHER)


@dataclass(frozen=True)
class Joined:
    """Several trainings as one.

    Attributes:
        networks: by role; student and control are one of the trainings' each, or all of them joined.
        number: which training's student that is, from 1; None where they are joined.
        figures: the part ``kept`` of metrics.json.
    """

    networks: dict[str, nn.Module]
    number: int | None
    figures: dict[str, Any]


def join(trainings: Sequence[Trained]) -> Joined:
    """One student of several trainings as ``keep`` says, and one control in the same way, so that they compare.

    ``ensemble`` gives the mean of their answers, ``average`` that of their weights (of the controls only where they start
    alike; else the first), and all else the one that validation finds best, which is the first unless another is better
    beyond its luck.
    """
    bench, keep = trainings[0].bench, trainings[0].bench.settings.evaluation.keep
    alike = bench.settings.student.starts_pretrained
    networks, number = dict(trainings[0].networks), None
    losses: dict[str, np.ndarray] = {}
    for role in (STUDENT, CONTROL):
        members = [training.networks[role] for training in trainings if role in training.networks]
        if not members:
            continue
        asked = {f"{role}_{place}": network for place, network in enumerate(members, start=1)}
        if keep == "ensemble":
            networks[role] = Panel(members)  # type: ignore[arg-type]
        elif keep == "average":
            networks[role] = _averaged(bench, members, role) if role == STUDENT or alike else members[0]
        found = _losses_of(bench, asked | ({keep: networks[role]} if keep in _ALL else {}))
        if keep not in _ALL:
            order = [f"{role}_1", *sorted(found, key=lambda name: float(found[name].mean()))]
            place = list(asked).index(pick(found, order, validation_groups(bench)))
            networks[role] = members[place]
            number = place + 1 if role == STUDENT else number
        losses = found if role == STUDENT else losses
    candidates = [
        {
            "role": name,
            "mb": megabytes(networks[STUDENT] if name in _ALL else trainings[0].networks[STUDENT]),
            "validation": -float(of.mean()),
            "within": True,
        }
        for name, of in losses.items()
    ]
    why = _why_joined(keep, number, losses, validation_groups(bench))
    return Joined(networks, number, {"role": STUDENT, "why": why, "candidates": candidates})


def best_of(
    bench: Workbench, networks: Mapping[str, nn.Module], logits: Mapping[str, np.ndarray]
) -> tuple[str, dict[str, Any]]:
    """The role of the best network within ``max_mb`` on validation, and the part ``kept`` of metrics.json.

    The best is the likeliest to be right, calibrated. Those that validation cannot tell from it, by one standard error of
    the paired difference, count as equal: of them the student is taken, else the smallest.

    Args:
        bench: its settings say how large it may be.
        networks: by role; of ``student``, ``control``, ``teacher`` and the probes those are looked at that one file can hold.
        logits: by role, ``[N, K]`` of every row.
    """
    limit = bench.settings.evaluation.max_mb
    found = [role for role in _CANDIDATES if role in networks and _can_be_handed_over(networks[role])]
    sizes = {role: megabytes(networks[role]) for role in found}
    losses = validation_losses(bench, {role: logits[role] for role in sizes})
    within = [role for role in sizes if limit is None or sizes[role] <= limit]
    order = sorted(within, key=lambda role: (role != STUDENT, sizes[role]))
    role = pick({role: losses[role] for role in order}, order, validation_groups(bench))
    return role, {
        "role": role,
        "why": _why(role, order, losses, limit),
        "candidates": [
            {"role": other, "mb": sizes[other], "validation": -float(losses[other].mean()), "within": other in within}
            for other in sizes
        ],
    }


def pick(losses: Mapping[str, np.ndarray], order: Sequence[str], groups: np.ndarray) -> str:
    """The first of ``order`` that is not worse than the best beyond its luck; the first of all with too few images.

    Args:
        losses: by name, ``[n]`` of the same validation images.
        order: the names, the preferred one first.
        groups: ``[n]`` whole numbers, equal for images of one patient.
    """
    if len(groups) < FEWEST_IMAGES:
        return order[0]
    best = min(order, key=lambda name: float(losses[name].mean()))
    return next(name for name in order if not _worse(losses[name], losses[best], groups))


def validation_losses(bench: Workbench, logits: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Negative log-likelihood of each validation image at each network's own temperature, ``[n]`` in nats."""
    val, targets = bench.data.val, bench.data.targets
    return {name: calibrated_losses(bench.task, said[val], targets[val]) for name, said in logits.items()}


def validation_groups(bench: Workbench) -> np.ndarray:
    """``[n]`` number of each validation image's patient; every image its own where none is known."""
    val, patients = bench.data.val, bench.dataset.table.patients
    return np.arange(len(val)) if patients is None else group_indices(patients[val])


def _can_be_handed_over(network: nn.Module) -> bool:
    # A panel's members each see pictures of their own side, which one file cannot give them.
    return not isinstance(network, Panel) and getattr(network, "rebuilds", True)


def megabytes(network: nn.Module) -> float:
    """Of its parameters in float32, 10^6 bytes."""
    return sum(parameter.numel() for parameter in network.parameters()) * 4 / 1e6


def _averaged(bench: Workbench, members: Sequence[nn.Module], role: str) -> Network:
    name = f"average/{role}"
    if kept.stands(bench.run, name):
        return load_network(bench.run.path / name).to(bench.data.images.device)
    rows, view = bench.data.train, view_of_epoch(bench.settings.views, 0)
    taken = shuffled(rows, bench.settings.seed, 0)[:_STATISTICS_IMAGES]
    views = (bench.data.images.batch(part, view) for part in batches(taken, bench.settings.training.batch_size))
    network = average(members, views)  # type: ignore[arg-type]
    kept.save(bench.run, name, network)
    return network


def _losses_of(bench: Workbench, networks: Mapping[str, nn.Module]) -> dict[str, np.ndarray]:
    """As :func:`validation_losses`, asking the networks."""
    val, targets = bench.data.val, bench.data.targets
    return {
        name: calibrated_losses(bench.task, run_over(network, bench.seen_by(network).images, val), targets[val])
        for name, network in networks.items()
    }


def _why_joined(keep: str, number: int | None, losses: Mapping[str, np.ndarray], groups: np.ndarray) -> str:
    count = sum(name not in _ALL for name in losses)
    if number == 1 and len(groups) < FEWEST_IMAGES:
        return f"{_images(len(groups))} too few to choose one of {count} trainings by: the first is handed over."
    if number == 1:
        return f"Of {count} trainings of the student none is better on validation than the first by more than its luck."
    if number is not None:
        return f"Of {count} trainings of the student number {number} is the best on validation."
    best = min((of for name, of in losses.items() if name not in _ALL), key=lambda of: float(of.mean()))
    verdict = "worse than" if _worse(losses[keep], best, groups) else "no worse than"
    return (
        f"The student's {_ALL[keep]} the mean of its {count} trainings', as asked for; on validation it is {verdict} the "
        "best of them."
    )


def _images(number: int) -> str:
    return f"{counted(number, 'validation image')} {'is' if number == 1 else 'are'}"


def _worse(losses: np.ndarray, best: np.ndarray, groups: np.ndarray) -> bool:
    """Whether the mean loss is higher than the best one's by more than a standard error of their difference."""
    apart = losses - best
    return bool(apart.mean() > standard_error(apart, groups))


def _why(role: str, order: Sequence[str], losses: Mapping[str, np.ndarray], limit: float | None) -> str:
    bound = f" of at most {limit:g} MB" if limit is not None else ""
    count = len(losses[role])
    if count < FEWEST_IMAGES:
        return f"{_images(count)} too few to choose by, so the student is handed over."
    best = min(order, key=lambda name: float(losses[name].mean()))
    if role == best:
        return f"On {count} validation images the {noun(role)} is the likeliest to be right of all networks{bound}."
    return (
        f"On {count} validation images no network{bound} is better than the {noun(role)} by more than a standard error."
    )
