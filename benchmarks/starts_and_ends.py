"""Which start, rates, teaching and end? Many short trainings on a GPU, beside one another, in plain timm and torch.

    python benchmarks/starts_and_ends.py --data DIR --weights DIR --out OUT --jobs 12 --minutes 6

``DIR`` holds ``<set>.npz`` (``targets`` ``[N]``, ``split0..2`` ``[N]`` 0 train, 1 validation, 2 test, -1 neither, and
``pixels`` or ``jpeg`` with ``ends``) and, where cut students are asked for, ``mobilenetv2_035_cut.safetensors``. Each
training logs the validation and test logits of every epoch, of averaged weights and of re-estimated batch norm, so that
every rule for the weights that are kept is judged on the same trainings (``starts_and_ends_rules.py``). Nothing of
Stillroom is imported: these are the experiments that its rules were chosen by, not a test of them.
"""

from __future__ import annotations

import argparse
import copy
import io
import json
import multiprocessing
import os
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

SIDE, TEACHER_SIDE = 96, 160
FOLDERS, SMALL_IMAGES = ("otoscopy", "brain_mri", "breast_ultrasound"), ("breastmnist", "retinamnist", "pneumoniamnist")


@dataclass(frozen=True)
class Job:
    """One training, or (``kind`` other than student) one teacher that trainings wait for."""

    data: str
    seed: int
    labels: float = 1.0
    kind: str = "student"
    network: str = "mobilenetv2_100"
    start: str = "pretrained"  # pretrained, cut or random
    head: str = "normal"  # timm, normal or probe
    lr: float = 2e-3
    share: float = 0.3  # of the rate, for pretrained weights
    epochs: int = 20
    views: str = "light"  # light, mix, crop, crop+mix
    teacher: str = ""  # names of teachers, joined by +; their probabilities are averaged
    alpha: float = 1.0  # weight of the labels
    temperature: float = 2.0
    decay: float = 0.05
    smoothing: float = 0.0

    @property
    def needs(self) -> list[str]:
        names = self.teacher.split("+") if self.teacher else []
        return names + (["probe_student"] if self.head == "probe" else [])

    def teacher_file(self, name: str) -> str:
        network = f"-{self.network}-{self.start}" if name == "probe_student" else ""
        return f"{self.data}-{self.seed}-{self.labels}-{name}{network}.pt"


# ---- data ----------------------------------------------------------------------------------------------------------
@lru_cache
def read_set(folder: Path, name: str, device: str) -> tuple[Tensor, dict[str, np.ndarray]]:
    """Pixels, and all else that the file holds."""
    with np.load(folder / f"{name}.npz") as file:
        content = {key: file[key] for key in file.files}
    if "jpeg" in content:
        ends, blob = content["ends"], content.pop("jpeg").tobytes()
        starts = [0, *ends[:-1]]
        images = [
            np.asarray(Image.open(io.BytesIO(blob[a:b])).convert("RGB")) for a, b in zip(starts, ends, strict=True)
        ]
        pixels = torch.from_numpy(np.stack(images).transpose(0, 3, 1, 2).copy())
    else:
        raw = content.pop("pixels")
        raw = raw[:, None].repeat(3, 1) if raw.ndim == 3 else raw.transpose(0, 3, 1, 2)
        small = torch.from_numpy(raw.copy())
        parts = [functional.interpolate(part.float(), SIDE, mode="bilinear") for part in small.split(512)]
        pixels = torch.cat([part.round().to(torch.uint8) for part in parts])
    return pixels.to(device), content


class Pictures:
    """One set on the device: uint8 ``[N, 3, S, S]`` at the teacher's side, targets, and the rows of one split."""

    def __init__(self, folder: Path, job: Job, device: str) -> None:
        self.pixels, content = read_set(folder, job.data, device)
        self.device = device
        self.targets = torch.from_numpy(content["targets"]).long().to(device)
        self.classes = int(content["targets"].max()) + 1
        split = content[f"split{job.seed}"]
        self.train, self.val, self.test = (np.flatnonzero(split == number) for number in range(3))
        if job.labels < 1:
            chance = np.random.default_rng([job.seed, 7])
            kept = []
            for label in range(self.classes):
                rows = self.train[content["targets"][self.train] == label]
                kept.append(chance.permutation(rows)[: max(2, round(job.labels * len(rows)))])
            self.labelled = np.sort(np.concatenate(kept))
        else:
            self.labelled = self.train
        self.has_label = torch.zeros(len(self.targets), dtype=torch.bool, device=device)
        self.has_label[torch.from_numpy(self.labelled).to(device)] = True

    def get(self, rows: np.ndarray | Tensor) -> Tensor:
        """``[B, 3, S, S]`` in [0, 1] at the store's side."""
        rows = torch.as_tensor(rows, device=self.device)
        return self.pixels[rows].float() / 255


def at_side(images: Tensor, side: int) -> Tensor:
    if images.shape[-1] == side:
        return images
    if images.shape[-1] > side:
        return functional.interpolate(images, side, mode="bilinear", antialias=True)
    return functional.interpolate(images, side, mode="bilinear")


def view(images: Tensor, how: str, generator: torch.Generator) -> Tensor:
    """Light augmentation as Stillroom's; with ``crop`` also a random part of 35 to 100 % of the area."""
    count, device = len(images), images.device
    draws = torch.rand(count, 10, generator=generator, device=device)
    signed = 2 * draws - 1
    angle, scale = signed[:, 0] * 8 * np.pi / 180, torch.exp(signed[:, 1] * 0.08)
    shift_x, shift_y = 0.12 * signed[:, 2], 0.12 * signed[:, 3]
    if "crop" in how:
        part = (0.35 + 0.65 * draws[:, 7]).sqrt()
        scale = 1 / part
        shift_x, shift_y = (1 - part) * signed[:, 2], (1 - part) * signed[:, 3]
    mirror = torch.where(draws[:, 4] < 0.5, -1.0, 1.0)
    cosine, sine = angle.cos() / scale, angle.sin() / scale
    rows = [torch.stack([cosine * mirror, -sine, shift_x], 1), torch.stack([sine * mirror, cosine, shift_y], 1)]
    grid = functional.affine_grid(torch.stack(rows, 1), list(images.shape), align_corners=False)
    images = functional.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
    gain = (1 + 0.1 * signed[:, 5])[:, None, None, None]
    contrast = (1 + 0.15 * signed[:, 6])[:, None, None, None]
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    return (mean * gain * (1 - contrast) + images * gain * contrast).clamp(0, 1)


def mixed(images: Tensor, chance: np.random.Generator) -> tuple[Tensor, Tensor, float]:
    """Mixup or cutmix with the batch in another order: images, that order, share of the first."""
    order = torch.from_numpy(chance.permutation(len(images))).to(images.device)
    share = float(chance.beta(1, 1))
    if chance.random() < 0.5:
        return share * images + (1 - share) * images[order], order, share
    side = images.shape[-1]
    cut = round(side * (1 - share) ** 0.5)
    top, left = chance.integers(0, side - cut + 1, 2)
    images = images.clone()
    images[:, :, top : top + cut, left : left + cut] = images[order][:, :, top : top + cut, left : left + cut]
    return images, order, 1 - cut * cut / side / side


# ---- networks ------------------------------------------------------------------------------------------------------
class Normalised(nn.Module):
    def __init__(self, backbone: nn.Module, side: int) -> None:
        super().__init__()
        self.backbone, self.side = backbone, side

    def features(self, images: Tensor) -> Tensor:
        found = self.backbone.forward_features((at_side(images, self.side) - 0.5) / 0.5)
        return self.backbone.forward_head(found, pre_logits=True)

    def forward(self, images: Tensor) -> Tensor:
        return self.backbone.get_classifier()(self.features(images))


def build(
    name: str, start: str, head: str, classes: int, side: int, weights: Path, data: Path, seed: int
) -> Normalised:
    torch.manual_seed(seed)
    backbone = timm.create_model(name, num_classes=classes)
    if start != "random":
        file = weights / f"{name}.safetensors" if start == "pretrained" else data / f"{name}_cut.safetensors"
        state = {key: value.float() if value.is_floating_point() else value for key, value in load_file(file).items()}
        state = {key: value for key, value in state.items() if not key.startswith("classifier")}
        missing, unexpected = backbone.load_state_dict(state, strict=False)
        missing = [key for key in missing if "num_batches" not in key and not key.startswith("classifier")]
        assert not missing, missing
        assert not unexpected, unexpected
    if head != "timm":
        classifier = backbone.get_classifier()
        nn.init.normal_(classifier.weight, std=0.1 / classifier.in_features**0.5)
        nn.init.zeros_(classifier.bias)
    return Normalised(backbone, side)


def probe(network: Normalised, pictures: Pictures) -> None:
    """Fit the head as an L2 logistic regression on frozen features of the plain images; the penalty by 3-fold CV."""
    import warnings

    from sklearn.linear_model import LogisticRegressionCV

    warnings.simplefilter("ignore")
    network.eval()
    with torch.no_grad():
        rows = np.array_split(pictures.labelled, -(-len(pictures.labelled) // 256))
        found = torch.cat([network.features(pictures.get(part)) for part in rows]).double().cpu().numpy()
    targets = pictures.targets[torch.from_numpy(pictures.labelled)].cpu().numpy()
    mean, std = found.mean(0), found.std(0) + 1e-6
    folds = int(min(3, np.bincount(targets, minlength=pictures.classes).min()))
    search = LogisticRegressionCV(
        Cs=np.logspace(-5, 0, 6), cv=max(2, folds), scoring="neg_log_loss", max_iter=150, tol=1e-3
    )
    search.fit((found - mean) / std, targets)
    weight, bias = search.coef_ / std, search.intercept_ - (search.coef_ * mean / std).sum(1)
    if len(weight) == 1:
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    classifier = network.backbone.get_classifier()
    with torch.no_grad():
        classifier.weight.copy_(torch.from_numpy(weight))
        classifier.bias.copy_(torch.from_numpy(bias))


def logits(network: nn.Module, pictures: Pictures, rows: np.ndarray) -> np.ndarray:
    network.eval()
    with torch.no_grad():
        parts = np.array_split(rows, -(-len(rows) // 400))
        return torch.cat([network(pictures.get(part)) for part in parts]).float().cpu().numpy().astype(np.float16)


def re_estimated(network: nn.Module, pictures: Pictures, job: Job, chance: np.random.Generator) -> nn.Module:
    """A copy whose batch-norm statistics are those of the final weights on training views."""
    network = copy.deepcopy(network)
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    generator = torch.Generator(device=pictures.device).manual_seed(job.seed)
    network.train()
    rows = pictures.train if job.teacher else pictures.labelled
    with torch.no_grad():
        for _ in range(12):
            images = view(pictures.get(chance.choice(rows, 64)), job.views, generator)
            network(images)
    return network.eval()


def teachers_of(job: Job, pictures: Pictures, weights: Path, data: Path, out: Path) -> list[Normalised]:
    found = []
    for name in job.teacher.split("+") if job.teacher else []:
        network = shell(name, pictures, weights, data, job)
        network.load_state_dict(torch.load(out / "teachers" / job.teacher_file(name), map_location="cpu"))
        found.append(network.to(pictures.device).eval().requires_grad_(False))
    return found


def shell(name: str, pictures: Pictures, weights: Path, data: Path, job: Job) -> Normalised:
    """Teachers: ``edge96`` and ``edge`` are frozen edgetpu, ``mnv2`` frozen mobilenetv2, ``tuned*`` fine-tuned."""
    side = SIDE if name == "edge96" or job.data in SMALL_IMAGES else TEACHER_SIDE
    network = "mobilenetv2_100" if "mnv2" in name else "mobilenet_edgetpu_100"
    return build(network, "pretrained", "normal", pictures.classes, side, weights, data, job.seed + 100)


# ---- training ------------------------------------------------------------------------------------------------------
def groups(network: Normalised, job: Job) -> list[dict]:
    found = {}
    for name, parameter in network.named_parameters():
        new = job.start == "random" or "classifier" in name
        key = (new, parameter.ndim > 1)
        found.setdefault(key, []).append(parameter)
    return [
        {"params": parameters, "scale": 1.0 if new else job.share, "weight_decay": job.decay if matrix else 0.0}
        for (new, matrix), parameters in found.items()
    ]


def rate(share: float) -> float:
    return min(1.0, share / 0.05 + 0.02) if share < 0.05 else (1 + np.cos(np.pi * (share - 0.05) / 0.95)) / 2


def train(network: Normalised, job: Job, pictures: Pictures, teachers: list[Normalised], log: bool, most: int) -> dict:
    """Train in place; the logits of every epoch and of the averaged weights, by name."""
    device = pictures.device
    rows = pictures.train if teachers else pictures.labelled
    passes = min(most, max(1, round(job.epochs * len(pictures.train) / 32)))
    epochs = np.linspace(0, passes, min(job.epochs, passes) + 1).round().astype(int)[1:]
    optimizer = torch.optim.AdamW(groups(network, job), lr=job.lr, fused=True)
    generator = torch.Generator(device=device).manual_seed(1000 * job.seed + 17)
    chance = np.random.default_rng([job.seed, 3])
    order = np.zeros(0, int)
    mean = copy.deepcopy(network).requires_grad_(False)
    late, late_count = copy.deepcopy(network).requires_grad_(False), 0
    state = [t for t in network.state_dict().values() if t.is_floating_point()]
    mean_state = [t for t in mean.state_dict().values() if t.is_floating_point()]
    late_state = [t for t in late.state_dict().values() if t.is_floating_point()]
    decay = 1 - 1 / max(2.0, 0.1 * passes)
    record: dict[str, list] = {"val": [], "test": [], "loss": []}
    weight = job.alpha if teachers else 1.0
    for step in range(passes):
        network.train()
        if len(order) < 32:
            order = np.concatenate([order, *[chance.permutation(rows) for _ in range(1 + 32 // len(rows))]])
        chosen, order = torch.from_numpy(order[:32]).to(device), order[32:]
        images = view(pictures.get(chosen), job.views, generator)
        targets = functional.one_hot(pictures.targets[chosen], pictures.classes).float()
        labelled = pictures.has_label[chosen].float()
        if "mix" in job.views:
            images, other, share = mixed(images, chance)
            targets = share * targets + (1 - share) * targets[other]
            labelled = labelled * labelled[other]
        if job.smoothing:
            targets = targets * (1 - job.smoothing) + job.smoothing / pictures.classes
        found = network(images)
        hard = -(targets * found.log_softmax(1)).sum(1)
        if teachers:
            with torch.no_grad():
                said = torch.stack([teacher(images).log_softmax(1) for teacher in teachers])
                said = said.logsumexp(0)  # log of the mean probability, up to a constant
                said = (said / job.temperature).log_softmax(1)
            log_student = (found / job.temperature).log_softmax(1)
            soft = (said.exp() * (said - log_student)).sum(1) * job.temperature**2
            loss = (labelled * (weight * hard + (1 - weight) * soft) + (1 - labelled) * soft).mean()
        else:
            loss = hard.mean()
        for group in optimizer.param_groups:
            group["lr"] = job.lr * group["scale"] * rate(step / passes)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        torch._foreach_lerp_(mean_state, state, 1 - min(decay, (step + 1) / (step + 10)))
        if log and step + 1 in epochs:
            for name in ("val", "test"):
                record[name].append(logits(network, pictures, getattr(pictures, name)))
            record["loss"].append(float(loss.detach()))
        if step + 1 > 0.75 * passes and step + 1 in epochs:
            late_count += 1
            torch._foreach_lerp_(late_state, state, 1 / late_count)
    if not log:
        return {}
    for name in ("val", "test"):
        record[name] = np.stack(record[name])
        rows = getattr(pictures, name)
        for key, other in (("ema", mean), ("late", late)):
            record[f"{key}_{name}"] = logits(other, pictures, rows)
    for key, other in (("last", network), ("ema", mean), ("late", late)):
        again = re_estimated(other, pictures, job, np.random.default_rng(5))
        for name in ("val", "test"):
            record[f"{key}_bn_{name}"] = logits(again, pictures, getattr(pictures, name))
    record["train_loss"] = np.array(record.pop("loss"), np.float32)
    return record


def run(job: Job, arguments: argparse.Namespace, cache: dict) -> tuple[dict, dict]:
    key = (job.data, job.seed, job.labels)
    if key not in cache:
        cache[key] = Pictures(arguments.data, job, arguments.device)
    pictures, weights, data, out = cache[key], arguments.weights, arguments.data, arguments.out
    started = time.time()
    if job.kind == "student":
        network = build(job.network, job.start, job.head, pictures.classes, SIDE, weights, data, job.seed)
        if job.head == "probe":
            saved = torch.load(out / "teachers" / job.teacher_file("probe_student"), map_location="cpu")
            network.load_state_dict(saved)
        network.to(arguments.device)
        teachers = teachers_of(job, pictures, weights, data, out)
        record = train(network, job, pictures, teachers, True, arguments.most_steps)
    else:
        if job.kind == "probe_student":
            network = build(job.network, job.start, "normal", pictures.classes, SIDE, weights, data, job.seed)
        else:
            network = shell(job.kind, pictures, weights, data, job)
        network.to(arguments.device)
        if job.kind.startswith("tuned"):
            train(network, replace(job, lr=1e-3), pictures, [], False, arguments.most_steps)
        else:
            probe(network, pictures)
        record = {"val": logits(network, pictures, pictures.val)[None]}
        record["test"] = logits(network, pictures, pictures.test)[None]
        path = out / "teachers" / job.teacher_file(job.kind)
        torch.save({key: value.cpu() for key, value in network.state_dict().items()}, path.with_suffix(".part"))
        path.with_suffix(".part").replace(path)
    line = asdict(job) | {"seconds": round(time.time() - started, 2)}
    for name in ("val", "test"):
        last, targets = record[name][-1].astype(np.float32), pictures.targets[getattr(pictures, name)].cpu().numpy()
        record[f"{name}_targets"] = targets.astype(np.int8)
        line[f"{name}_accuracy"] = round(float((last.argmax(1) == targets).mean()), 4)
        line[f"{name}_auc"] = round(auc(last, targets), 4)
    return line, record


def auc(found: np.ndarray, targets: np.ndarray) -> float:
    """Macro one-against-rest."""
    from sklearn.metrics import roc_auc_score

    shares = np.exp(found - found.max(1, keepdims=True))
    shares /= shares.sum(1, keepdims=True)
    present = [label for label in range(found.shape[1]) if 0 < (targets == label).sum() < len(targets)]
    return float(np.mean([roc_auc_score(targets == label, shares[:, label]) for label in present])) if present else 0.5


# ---- the list ------------------------------------------------------------------------------------------------------
PANEL = "edge+mnv2+tuned_edge"


def job_list() -> list[Job]:
    """Most important first; a teacher stands before the first training that waits for it."""
    found: list[Job] = []
    sets = [*FOLDERS, "breastmnist", "retinamnist", "pneumoniamnist"]

    def students(names: list[str], seeds: tuple[int, ...], *variants: dict) -> None:
        for variant in variants:
            for seed in seeds:
                for name in names:
                    found.append(Job(data=name, seed=seed, **variant))

    every, folders, small = list(sets), list(FOLDERS), [*FOLDERS, "breastmnist"]
    mix, crop = {"views": "mix"}, {"views": "crop"}
    taught = {"teacher": PANEL, "alpha": 0.2}
    cut = {"network": "mobilenetv2_035", "start": "cut"}
    random = {"network": "mobilenetv2_050", "start": "random"}
    # Teaching at all labels and at 10 %, beside its controls: on every set before the finer questions.
    students(small, (0,), {}, mix, taught, taught | mix)
    students(small, (0,), *[few | {"labels": 0.1} for few in ({}, mix, taught, taught | mix)])
    students(small, (0,), *[{"lr": lr, "share": share} for lr, share in RATES])
    students(small, (0,), {"epochs": 40}, mix | {"epochs": 40}, taught | mix | {"epochs": 40}, crop, taught | crop)
    students(small, (1,), {}, mix, taught, taught | mix)
    students(small, (1,), *[few | {"labels": 0.1} for few in ({}, mix, taught, taught | mix)])
    students(small, (0,), cut, cut | mix, cut | taught, cut | taught | mix)
    students(small, (0,), {"teacher": "edge", "alpha": 0.2} | mix, {"teacher": "tuned_edge", "alpha": 0.2} | mix)
    students(small, (0,), *[{"teacher": PANEL, "alpha": a, "temperature": t} | mix for a, t in SOFTNESS])
    probed = {"head": "probe"}
    students(small, (0,), probed, probed | mix, probed | taught | mix)
    students(small, (0,), probed | {"labels": 0.1}, probed | taught | mix | {"labels": 0.1})
    students(folders, (0, 1), random, random | {"head": "timm"}, {"head": "timm"})
    students(every[4:], (0,), {}, taught, taught | mix, *[few | {"labels": 0.1} for few in ({}, taught, taught | mix)])
    students(small, (1,), *[{"lr": lr, "share": share} for lr, share in RATES])
    students(small, (2,), {}, mix, taught, taught | mix)
    students(small, (2,), *[few | {"labels": 0.1} for few in ({}, mix, taught, taught | mix)])
    for seed in (1, 2):
        students(
            small, (seed,), {"epochs": 40}, mix | {"epochs": 40}, taught | mix | {"epochs": 40}, crop, taught | crop
        )
        students(small, (seed,), cut, cut | mix, cut | taught, cut | taught | mix)
        students(small, (seed,), {"teacher": "edge", "alpha": 0.2} | mix, probed, probed | taught | mix)
        students(small, (seed,), *[{"teacher": PANEL, "alpha": a, "temperature": t} | mix for a, t in SOFTNESS])
    students(
        small, (0, 1), {"smoothing": 0.1}, {"epochs": 10}, {"decay": 0.0}, {"teacher": "edge96", "alpha": 0.2} | mix
    )
    students(small, (0, 1), {"teacher": "edge+mnv2", "alpha": 0.2} | mix, cut | taught | mix | {"epochs": 40})
    students(folders, (0, 1), random | taught, random | taught | mix)
    students(every[4:], (1, 2), {}, taught, taught | mix, *[{"labels": 0.1}, taught | mix | {"labels": 0.1}])
    unique = list(dict.fromkeys(found))
    done: set[str] = set()
    ordered: list[Job] = []
    for job in unique:
        for name in job.needs:
            if job.teacher_file(name) not in done:
                done.add(job.teacher_file(name))
                bare = Job(job.data, job.seed, job.labels, kind=name)
                if name == "probe_student":
                    bare = replace(bare, network=job.network, start=job.start)
                ordered.append(bare)
        ordered.append(job)
    return ordered


RATES = [(lr, share) for lr in (1e-3, 4e-3) for share in (0.1, 0.3, 1.0)] + [(2e-3, 0.1), (2e-3, 1.0), (5e-4, 1.0)]

SOFTNESS = [(0.0, 2.0), (0.5, 2.0), (0.0, 4.0), (0.0, 1.0), (0.2, 1.0), (0.2, 4.0)]


def worker(number: int, jobs: list[Job], taken: list, lock, arguments: argparse.Namespace, deadline: float) -> None:
    torch.set_num_threads(1)
    cache: dict = {}
    scratch = arguments.out / "scratch"
    while time.time() < deadline:
        with lock:
            ready = next((n for n, job in enumerate(jobs) if not taken[n] and is_ready(job, arguments.out)), None)
            if ready is not None:
                taken[ready] = 1
        if ready is None:
            if all(taken):
                return
            time.sleep(0.3)
            continue
        try:
            line, record = run(jobs[ready], arguments, cache)
        except Exception as error:
            traceback.print_exc()
            line, record = asdict(jobs[ready]) | {"error": repr(error)}, {}
        with (scratch / f"lines-{number}.jsonl").open("a") as file:
            file.write(json.dumps(line | {"id": ready}) + "\n")
        if record:
            np.savez_compressed(scratch / f"{ready}.part.npz", **record)
            (scratch / f"{ready}.part.npz").replace(scratch / f"{ready}.npz")


def is_ready(job: Job, out: Path) -> bool:
    return all((out / "teachers" / job.teacher_file(name)).exists() for name in job.needs)


def pack(scratch: Path, target: Path) -> None:
    """One file of lines and a few of logits, each under 15 MB."""
    lines = [line for file in sorted(scratch.glob("lines-*.jsonl")) for line in file.read_text().splitlines()]
    (target / "results.jsonl").write_text("\n".join(lines) + "\n")
    files, parts, size = sorted(scratch.glob("[0-9]*.npz"), key=lambda file: int(file.stem.split(".")[0])), [[]], 0
    for file in files:
        if file.name.endswith(".part.npz"):
            continue
        if size + file.stat().st_size > 15e6 and len(parts) < 7:
            parts.append([])
            size = 0
        size += file.stat().st_size
        parts[-1].append(file)
    import tarfile

    for number, part in enumerate(parts):
        with tarfile.open(target / f"logits-{number}.tar", "w") as archive:
            for file in part:
                archive.add(file, arcname=file.name)


def beside_one_another(worker: Callable[..., None], jobs: list, arguments: argparse.Namespace, deadline: float) -> None:
    """Call ``worker(number, jobs, taken, lock, arguments, deadline)`` in ``arguments.jobs`` processes, until the deadline."""
    # One thread for each process: also for the BLAS that scikit-learn calls.
    os.environ |= {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL")}
    context = multiprocessing.get_context("spawn")
    lock, taken = context.Lock(), context.Array("b", len(jobs), lock=False)
    processes = [
        context.Process(target=worker, args=(number, jobs, taken, lock, arguments, deadline), daemon=True)
        for number in range(arguments.jobs)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(max(0.0, deadline - time.time()))
    for process in processes:
        if process.is_alive():
            process.terminate()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--scratch", type=Path, default=Path("/tmp/starts_and_ends"))
    parser.add_argument("--jobs", type=int, default=12)
    parser.add_argument("--minutes", type=float, default=6)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--most-steps", type=int, default=500)
    parser.add_argument("--only", nargs="*", default=[], help="sets")
    arguments = parser.parse_args()
    deadline = time.time() + 60 * arguments.minutes
    target, arguments.out = arguments.out, arguments.scratch
    for folder in (target, arguments.out / "teachers", arguments.out / "scratch"):
        folder.mkdir(parents=True, exist_ok=True)
    jobs = [job for job in job_list() if not arguments.only or job.data in arguments.only]
    beside_one_another(worker, jobs, arguments, deadline)
    pack(arguments.out / "scratch", target)
    done = len((target / "results.jsonl").read_text().splitlines())
    print(f"{done} of {len(jobs)} trainings in {arguments.minutes:g} minutes")


if __name__ == "__main__":
    main()
