"""Run folders as a finished run leaves them, for every kind of task, with parts to leave out."""

from __future__ import annotations

import json
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from stillroom.data.table import Table
from stillroom.evaluation.assess import assess, predictions_frame
from stillroom.evaluation.conformal import coverage_report, fit_conformal
from stillroom.evaluation.density import fit_density
from stillroom.evaluation.luck import Training, luck
from stillroom.evaluation.net_benefit import curves_report
from stillroom.evaluation.ood import energy, fit_foreign_rule, foreign_report, refusal_report
from stillroom.evaluation.operating_points import fit_points, points_report, wishes
from stillroom.explanation.evidence import Explained, gather
from stillroom.report import write_report
from stillroom.settings.evaluation import EvaluationSettings
from stillroom.task import MultiClass, MultiLabel, Task

VOID = {"meta", "img", "br", "hr", "link", "input", "wbr"}
CHEST = (
    "atelectasis", "cardiomegaly", "effusion", "infiltration", "mass", "nodule", "pneumonia", "pneumothorax",
    "consolidation", "edema", "emphysema", "fibrosis", "pleural thickening", "hernia",
)  # fmt: skip
TASKS: dict[str, Task] = {
    "binary": MultiClass(("normal", "pneumonia")),
    "multiclass": MultiClass(("glioma", "meningioma", "no tumour", "pituitary")),
    "ordinal": MultiClass(("none", "mild", "moderate", "severe", "proliferative"), ordinal=True),
    "multilabel": MultiLabel(CHEST),
}
SKILL = {"student": 2.2, "control": 1.9, "teacher": 2.4, "probe_of_teacher": 2.0, "probe_of_student": 1.4}
NETWORKS = ("student", "control", "teacher")
PLAN = {
    "source": "fixture", "budget": {"minutes": 20, "max_mb": 10, "max_ms": None},
    "facts": {"images": 480, "classes": {"normal": 300, "pneumonia": 180}, "colour": False},
    "expected_s": {"teach": 60.0, "student": 300.0, "evaluate": 20.0},
    "choices": {
        "data.size": {"value": 96, "why": "The images are 224 px wide; <96> is what 20 minutes allow."},
        "student.student": {"value": "mobilenetv2_100", "why": "The best that 10 MB allow."},
    },
}  # fmt: skip


def build_run(
    folder: Path,
    kind: str = "binary",
    *,
    task: Task | None = None,
    roles: tuple[str, ...] = ("student", "control", "teacher"),
    images: int = 480,
    patients: bool = True,
    synthetic: bool = False,
    epochs: int = 12,
    leaks: int = 3,
    featured: int = 60,
    side: int = 28,
    channels: int = 1,
    resamples: int = 100,
    explained: int = 0,
    explains: str = "student",
    lesions: bool = False,
    uncertain: bool = False,
    several: int = 0,
    planned: bool = False,
) -> Path:
    """Write a run folder; two thirds of the images are training and validation, a third is test.

    ``explained`` is how many test images have heat maps, of what ``explains`` decides for; 0 leaves the part out, as
    ``uncertain`` does with sets and refusals.
    ``several`` is how many trainings luck was measured by; a ``planned`` run has a plan.yaml.
    """
    rng = np.random.default_rng(7)
    task = task or TASKS[kind]
    classes, count = task.classes, len(task.classes)
    folder.mkdir(parents=True, exist_ok=True)
    if task.exclusive:
        targets = rng.choice(count, images, p=np.linspace(2, 1, count) / np.linspace(2, 1, count).sum())
    else:
        targets = (rng.random((images, count)) < np.linspace(0.3, 0.06, count)).astype(np.uint8)
    splits = np.array(["train", "test", "val"])[np.arange(images) % 3]
    table = Table(
        name="fixture",
        source="Fixture images, 28 px",
        task=task,
        ids=np.array([f"images/case_{number:04d}.png" for number in range(images)]),
        targets=targets,
        splits=splits,
        rows=np.arange(images),
        reader=None,  # type: ignore[arg-type]
        patients=np.array([f"p{number // 2}" for number in range(images)]) if patients else None,
    )
    signal = task.one_hot(targets).astype(float)
    shared = rng.normal(size=signal.shape)
    offset = 0.0 if task.exclusive else -2.2
    logits = {
        role: 1.6 * (SKILL[role] * signal + shared + 0.6 * rng.normal(size=signal.shape) + offset)
        for role in roles
        if role != "majority"
    }
    if "majority" in roles:
        logits["majority"] = np.tile(np.log(signal[splits == "train"].mean(axis=0) + 1e-3), (images, 1))
    found = assess(task, table, logits, EvaluationSettings(resamples=resamples), seed=0)
    roles = tuple(role for role in roles if role in NETWORKS)
    digests = np.array([f"{number:032x}" for number in range(images)])
    frame = predictions_frame(task, table, digests, found.probabilities)
    frame.to_parquet(folder / "predictions.parquet", index=False)

    test = table.indices("test")[:featured]
    centres = rng.normal(size=(count, 64)) * 2
    features = {role: signal[test] @ centres + rng.normal(size=(len(test), 64)) for role in ("student", "teacher")}
    kept = {role: values for role, values in features.items() if role in roles}
    np.savez(folder / "features.npz", index=test, **kept)
    wrong = test[task.correct(found.probabilities["student"][test], targets[test]) < 1][:12]
    np.savez(folder / "gallery.npz", images=_pictures(rng, len(wrong), side, channels), index=wrong)

    teacher = "vit_base_patch14_dinov2" if "teacher" in roles else None
    profile = {
        "student": _profile(1_519_906, 5.6e6, 2.1),
        "teacher": _profile(85_800_000, 4.6e9, 61.0),
        "onnx": {"size_mb": 6.0, "latency_ms": {"batch_1": {"median": 0.8, "p95": 0.9}, "batch_32": None}},
    }
    metrics = {"task": task.describe()} | found.figures
    metrics["efficiency"] = {name: values for name, values in profile.items() if name in (*roles, "onnx")}
    metrics["export"] = {
        "images": 64, "max_logit_difference": 3.1e-6, "max_probability_difference": 4.7e-7, "tolerance": 1e-4,
        "passed": True,
    }  # fmt: skip
    if explained:
        rows = table.indices("test")[:explained]
        metrics["explanation"] = _explain(
            folder, table, found.probabilities, rows, roles, side, channels, lesions, explains
        )
    if several:
        metrics["luck"] = _luck(table, found.probabilities, several)
    if planned:
        (folder / "plan.yaml").write_text(yaml.safe_dump(PLAN), encoding="utf-8")
    if uncertain:
        metrics |= _uncertain(table, logits["student"])
        metrics |= _thresholds(table, found.probabilities)
    _json(folder / "metrics.json", metrics)
    _json(folder / "manifest.json", _manifest(task, teacher, synthetic))
    _json(folder / "audit.json", _audit(task, table, leaks))
    settings = {
        "source": "fixture", "seed": 0, "recipe": {"name": "medalmighty", "alpha": 0.2, "temperature": 2.0},
        "data": {"size": 64, "classes": list(classes)}, "training": {"epochs": epochs, "lr": 0.001},
        "evaluation": {"margin": 0.02},
    }  # fmt: skip
    (folder / "settings.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    lines = [json.dumps(line) for role in roles for line in _history(role, epochs)]
    (folder / "history.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def _luck(table: Table, probabilities: dict[str, np.ndarray], count: int) -> dict[str, Any]:
    """Trainings whose student and control differ by a little noise."""
    rng, test = np.random.default_rng(9), table.indices("test")
    trainings = []
    for _ in range(count):
        said = {role: values[test].copy() for role, values in probabilities.items()}
        for role in {"student", "control"} & set(said):
            said[role] = np.clip(said[role] + rng.normal(0, 0.08, said[role].shape), 0, 1)
        patients = None if table.patients is None else table.patients[test]
        seen = {"student": float(rng.uniform(0.9, 1))}
        trainings.append(Training(said, table.targets[test], patients, table.ids[test], len(table) // 3, seen))
    return luck(table.task, "repeats", trainings, margin=0.02)


def _explain(
    folder: Path, table: Table, probabilities: dict[str, np.ndarray], rows: np.ndarray, roles: tuple[str, ...],
    side: int, channels: int, lesions: bool, of: str,
) -> dict[str, Any]:  # fmt: skip
    """Real evidence about the maps of small random networks, and the file of pictures."""
    task, rng = table.task, np.random.default_rng(3)
    pictures = _pictures(rng, len(rows), side, channels)
    said = probabilities[of][rows]
    classes, own = said.argmax(axis=1), (np.arange(len(rows)), said.argmax(axis=1))
    right = task.one_hot(task.decide(said))[own] == task.one_hot(table.targets[rows])[own]
    masks = pictures[:, 0] > 150 if lesions else None
    if masks is not None:
        masks[0] = False
    networks = {role: _network(seed, channels, len(task.classes)) for seed, role in enumerate(roles)}
    evidence = gather(
        networks,
        Explained(
            images=torch.from_numpy(pictures).float() / 255,
            rows=rows,
            classes=classes,
            right=right,
            masks=masks,
            has_mask=np.zeros(len(rows), dtype=bool) if masks is None else masks.any(axis=(1, 2)),
            patients=None if table.patients is None else table.patients[rows],
        ),
        probability=lambda role: lambda batch: task.torch_probabilities(networks[role](batch), 1.0),
        methods=dict.fromkeys(roles, "score_cam"),
        layers=dict.fromkeys(roles, "1"),
        seed=0,
        show_progress=False,
        of=of,
    )
    (folder / "explanations").mkdir(exist_ok=True)
    drawn = {f"map_{role}": maps for role, maps in evidence.maps.items()} | ({} if masks is None else {"masks": masks})
    np.savez(folder / "explanations" / "maps.npz", index=rows, classes=classes, images=pictures, **drawn)
    return evidence.figures


def _network(seed: int, channels: int, classes: int) -> torch.nn.Sequential:
    torch.manual_seed(seed)
    last = (torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(6, classes))
    return torch.nn.Sequential(torch.nn.Conv2d(channels, 6, 5, stride=4), torch.nn.ReLU(), *last)


def _thresholds(table: Table, probabilities: dict[str, np.ndarray]) -> dict[str, Any]:
    """Operating points and decision curves as a run measures them."""
    task, val, test = table.task, table.indices("val"), table.indices("test")
    groups = {
        name: None if table.patients is None else table.patients[rows] for name, rows in (("val", val), ("test", test))
    }
    wanted = wishes(task, ("0.9",), (f"{task.classes[-1]}=0.9",))
    points = fit_points(task, probabilities["student"][val], table.targets[val], groups["val"], wanted)
    said = {role: probabilities[role][test] for role in NETWORKS if role in probabilities}
    targets = table.targets[test]
    return {
        "operating_points": points_report(task, points, said["student"], targets, groups["test"]),
        "decision_curves": curves_report(task, said, targets, groups["test"], role="student"),
    }


def _uncertain(table: Table, logits: np.ndarray) -> dict[str, Any]:
    """Sets and refusals as a run measures them; the logits are the features too."""
    task, val, test = table.task, table.indices("val"), table.indices("test")
    how: dict[str, Any] = {"patients": None if table.patients is None else table.patients[test]}
    rule = fit_conformal(task, logits[val], table.targets[val], coverage=0.9, class_conditional=False)
    covered = coverage_report(task, rule, logits[test], table.targets[test], **how)
    density = fit_density(task, logits[table.indices("train")], table.targets[table.indices("train")])

    def scores(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return energy(task, values), density.distances(values)

    foreign, inside = fit_foreign_rule(*scores(logits[val]), 0.05), scores(logits[test])
    shifted = {"noise": -9.0, "shuffled": 9.0, "inverted": 0.0}
    made_up = [foreign_report(foreign, inside, scores(logits[test] + by), name, **how) for name, by in shifted.items()]
    other = foreign_report(foreign, inside, scores(logits[test] - 4), "other <clinic>", **how)
    against = [other | {"source": "/somewhere", "quarantined": [], "notes": ["2 images could not be read."]}]
    return {
        "conformal": covered | {"rule": rule.to_dict()},
        "ood": refusal_report(foreign, *inside, **how)
        | {"rule": foreign.to_dict(), "made_up": made_up, "against": against},
    }


def _pictures(rng: np.random.Generator, number: int, side: int, channels: int) -> np.ndarray:
    y, x = np.mgrid[:side, :side] / side
    blobs = [np.exp(-((x - a) ** 2 + (y - b) ** 2) * 14) for a, b in rng.uniform(0.2, 0.8, (number, 2))]
    noisy = np.array(blobs).reshape(number, 1, side, side) * 170 + rng.normal(45, 12, (number, channels, side, side))
    return np.clip(noisy, 0, 255).astype(np.uint8)


def _profile(parameters: int, macs: float, milliseconds: float) -> dict[str, Any]:
    latency = {
        f"batch_{size}": {"median": milliseconds * size**0.8, "p95": milliseconds * size**0.8 * 1.2} for size in (1, 32)
    }
    size_mb = parameters * 4 / 1e6
    return {
        "parameters": parameters, "macs": macs, "size_mb": size_mb, "latency_ms": latency, "threads": 2,
        "machine": "Some CPU",
    }  # fmt: skip


def _manifest(task: Task, teacher: str | None, synthetic: bool) -> dict[str, Any]:
    return {
        "created": "2026-11-21T03:00:00+00:00", "finished": "2026-11-21T03:12:00+00:00", "source": "fixture",
        "data": "Phantoms, 3 kinds" if synthetic else "Fixture images, 28 px", "synthetic": synthetic, "seed": 0,
        "claim": teacher and {
            "adds": "the teacher",
            "control": "the same student, on the same budget, without a teacher",
            "origin": f"Distilled from {teacher}",
        },
        "recipe": "medalmighty", "task": task.describe(), "student": "mobilenetv3_small_100", "teacher": teacher,
        "versions": {"stillroom": "0.1.0", "torch": "2.15.0"}, "machine": {"cpu": "Some CPU", "cores": 2},
        "store": {"size": 64, "channels": 1, "white": False, "fit": "pad"},
        "durations_s": {"teacher": 41.0, "student": 350.2, "evaluate": 12.5},
    }  # fmt: skip


def _audit(task: Task, table: Table, leaks: int) -> dict[str, Any]:
    truth = task.one_hot(table.targets)
    counts = {
        split: dict(zip(task.classes, truth[table.splits == split].sum(axis=0).tolist(), strict=True))
        for split in ("train", "val", "test")
    }
    pairs = [
        {"first": f"images/case_{number:04d}.png", "first_split": "train", "similarity": 0.987}
        | {"second": f"images/case_{number + 1:04d}.png", "second_split": "test"}
        | {"first_label": task.classes[0], "second_label": task.classes[0]}
        | {"kind": "exact" if number % 2 else "near"}
        for number in range(leaks)
    ]
    text = f"{leaks} images of the test split stand in the training split too."
    smallest = {"split": "test", "name": task.classes[-1], "images": 3}
    return {
        "source": table.source,
        "images": len(table),
        "leaked": {"test": {"exact": 1, "images": leaks}} if leaks else {},
        "cross_split_duplicates": pairs,
        "label_conflicts": [],
        "patients_on_two_sides": [],
        "quarantined": [{"path": "images/broken.png", "reason": "the file is cut short"}] if leaks else [],
        "class_counts": counts,
        "small_classes": [smallest] if leaks else [],
        "missing_classes": [],
        "warnings": [{"level": "warning", "code": "duplicates", "text": text}] if leaks else [],
    }


def _history(role: str, epochs: int) -> list[dict[str, Any]]:
    start = {"student": 1.4, "control": 1.0, "teacher": 0.8}[role]
    top = {"student": 0.93, "control": 0.91, "teacher": 0.95}[role]
    best = max(1, epochs - 2)
    return [
        {
            "role": role, "epoch": epoch, "epochs": epochs, "loss": start / epoch**0.5,
            "losses": {"hard": 0.3 * start / epoch**0.5, "soft": 0.7 * start / epoch**0.5} if role == "student" else {},
            "val": {"metric": "auc", "value": top - 0.3 / epoch - 0.02 * (epoch > best)}, "lr": 1e-3, "seconds": 4.0,
            "best": epoch == best,
        }
        for epoch in range(1, epochs + 1)
    ]  # fmt: skip


def _json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    """Builds a run folder below ``tmp_path``; see :func:`build_run` for what can vary."""

    def make(kind: str = "binary", **parts: Any) -> Path:
        return build_run(tmp_path / "first run", kind, **parts)

    return make


class Page(HTMLParser):
    """Collects what the tests ask for and checks that every element is closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.source = text
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "wbr":
            self.text.append("\0")

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] not in ("style", "script"):
            self.text.append(data)

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).replace(" \0 ", "").split())


@pytest.fixture
def page_of() -> Callable[[Path], Page]:
    """Writes a run's report and reads it."""
    return lambda run: Page(write_report(run).read_text(encoding="utf-8"))


@pytest.fixture
def change() -> Callable[[Path, str, Callable[[Any], Any]], None]:
    """Edits a JSON file of a run in place."""

    def edited(run: Path, name: str, edit: Callable[[Any], Any]) -> None:
        path = run / name
        content = json.loads(path.read_text())
        edit(content)
        path.write_text(json.dumps(content))

    return edited
