"""Which teachers, weighed how? Many short trainings on a GPU, beside one another, in plain timm and torch.

    python benchmarks/which_teaching.py --data DIR --weights DIR --out OUT --jobs 15 --minutes 4
    python benchmarks/which_teaching.py --read OUT

``DIR`` holds the files that starts_and_ends.py describes. Students are pretrained ``mobilenetv2_100``, at 96 px (64 px for
images of 28 px); teachers are asked once about sixteen fixed views of every training image, as Stillroom's bank is, and the
students see the same views. A panel answers with the mean of its members' probabilities, or (``auto``) with a mixture whose
weights are those under which the validation labels are likeliest. Nothing of Stillroom is imported: these are experiments
that its rules were chosen by.
"""

from __future__ import annotations

import argparse
import json
import os
import time
import traceback
from collections import defaultdict
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from scipy.stats import t as student_t
from starts_and_ends import FOLDERS, Normalised, Pictures, at_side, auc, beside_one_another, build, groups, rate
from starts_and_ends import Job as Rates
from torch import Tensor
from torch.nn import functional

SETS = (*FOLDERS, "breastmnist", "retinamnist", "pneumoniamnist")
VIEWS, BATCH = 16, 32
GRAPHS = os.environ.get("NO_GRAPHS") is None
PRIOR = 4.0
"""Pseudo-observations of each member of an ``auto`` panel."""
TEACHERS = {  # name: network, fine-tuned, luck
    "F": ("mobilenet_edgetpu_100", False, 0),
    "G": ("mobilenetv2_100", False, 0),
    "E": ("mobilenet_edgetpu_100", True, 1),
    "M": ("mobilenetv2_100", True, 1),
    "N": ("mobilenetv2_100", True, 2),
}


@dataclass(frozen=True)
class Job:
    data: str
    seed: int
    labels: float = 1.0
    kind: str = "student"  # or the name of a teacher
    teacher: str = ""  # names of the members
    auto: bool = False
    alpha: float = 0.2
    temperature: float = 2.0
    steps: int = 300
    lr: float = 1e-3
    share: float = 1.0  # of the rate, for pretrained weights
    crop: float = 0.84  # smallest part of the side that a view may show; 1: shifts and scales alone
    views: int = VIEWS
    luck: int = 0

    def answers(self, name: str) -> str:
        return f"{self.data}-{self.seed}-{self.labels}-{name}.npz"


def student_side(data: str) -> int:
    return 96 if data in FOLDERS else 64


def teacher_side(data: str, name: str) -> int:
    if TEACHERS[name][1]:
        return student_side(data)
    return 160 if data in FOLDERS else 128


def draws_of(pictures: Pictures, views: int, seed: int) -> Tensor:
    """``[N, views, 10]`` uniform numbers that fix every view of every image."""
    generator = torch.Generator(device=pictures.device).manual_seed(1000 + seed)
    return torch.rand(len(pictures.targets), views, 10, generator=generator, device=pictures.device)


def view(images: Tensor, draws: Tensor, crop: float) -> Tensor:
    """The view of each image that its ten numbers fix."""
    signed = 2 * draws - 1
    angle, scale = signed[:, 0] * 8 * np.pi / 180, torch.exp(signed[:, 1] * 0.08)
    shift_x, shift_y = 0.12 * signed[:, 2], 0.12 * signed[:, 3]
    if crop < 1:
        part = crop + (1 - crop) * draws[:, 7]
        scale = 1 / part
        shift_x, shift_y = (1 - part) * signed[:, 2], (1 - part) * signed[:, 3]
    mirror = torch.where(draws[:, 4] < 0.5, -1.0, 1.0)
    cosine, sine = angle.cos() / scale, angle.sin() / scale
    rows = [torch.stack([cosine * mirror, -sine, shift_x], 1), torch.stack([sine * mirror, cosine, shift_y], 1)]
    grid = functional.affine_grid(torch.stack(rows, 1), list(images.shape), align_corners=False)
    images = functional.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
    gain, contrast = (1 + 0.1 * signed[:, 5])[:, None, None, None], (1 + 0.15 * signed[:, 6])[:, None, None, None]
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    return (mean * gain * (1 - contrast) + images * gain * contrast).clamp(0, 1)


# ---- teachers ------------------------------------------------------------------------------------------------------
def fit_probe(features: Tensor, targets: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """L2 logistic regression on ``[n, D]`` float64 features; the penalty by threefold cross-validation."""

    def fit(x: Tensor, y: Tensor, penalty: float) -> Tensor:
        weight = torch.zeros(classes, x.shape[1] + 1, dtype=x.dtype, device=x.device, requires_grad=True)
        solver = torch.optim.LBFGS([weight], max_iter=60, line_search_fn="strong_wolfe")

        def loss() -> Tensor:
            solver.zero_grad()
            value = functional.cross_entropy(x @ weight[:, :-1].T + weight[:, -1], y)
            value = value + penalty * weight[:, :-1].square().sum() / 2
            value.backward()
            return value

        solver.step(loss)
        return weight.detach()

    folds = torch.arange(len(targets), device=features.device)[torch.argsort(targets, stable=True).argsort()] % 3
    penalties, losses = np.logspace(-3, 1, 6), []
    for penalty in penalties:
        missed = 0.0
        for fold in range(3):
            weight = fit(features[folds != fold], targets[folds != fold], penalty)
            found = features[folds == fold] @ weight[:, :-1].T + weight[:, -1]
            missed += float(functional.cross_entropy(found, targets[folds == fold], reduction="sum"))
        losses.append(missed)
    weight = fit(features, targets, float(penalties[int(np.argmin(losses))]))
    return weight[:, :-1], weight[:, -1]


@torch.no_grad()
def features_of(network: Normalised, images: Tensor) -> Tensor:
    return torch.cat([network.features(part) for part in images.split(400)])


def make_teacher(job: Job, pictures: Pictures, weights: Path, data: Path, out: Path) -> dict[str, np.ndarray]:
    """Train one member and write its logits: ``bank [V, N, K]``, ``val`` and ``test``."""
    name, tuned, luck = TEACHERS[job.kind]
    side = teacher_side(job.data, job.kind)
    network = build(name, "pretrained", "normal", pictures.classes, side, weights, data, job.seed + 100 * luck)
    network.to(pictures.device)
    if tuned:
        train(network, replace(job, luck=luck), pictures, None)
    else:
        network.eval()
        rows = torch.from_numpy(pictures.labelled).to(pictures.device)
        found = torch.cat([features_of(network, pictures.get(part)) for part in rows.split(400)]).double()
        mean, std = found.mean(0), found.std(0) + 1e-6
        weight, bias = fit_probe((found - mean) / std, pictures.targets[rows], pictures.classes)
        head = network.backbone.get_classifier()
        with torch.no_grad():
            head.weight.copy_(weight / std)
            head.bias.copy_(bias - (weight * mean / std).sum(1))
    network.eval()
    draws = draws_of(pictures, VIEWS, job.seed)
    bank = torch.zeros(VIEWS, len(pictures.targets), pictures.classes)
    with torch.no_grad():
        for part in torch.from_numpy(pictures.train).split(256):
            rows = part.to(pictures.device)
            for number in range(VIEWS):
                bank[number, part] = network(view(pictures.get(rows), draws[rows, number], job.crop)).float().cpu()
    found = {"bank": bank.half().numpy()} | answers_to(network, pictures)
    path = out / "teachers" / job.answers(job.kind)
    with path.with_suffix(".part").open("wb") as file:
        np.savez(file, **found)
    path.with_suffix(".part").replace(path)
    return found


@torch.no_grad()
def answers_to(network: Normalised, pictures: Pictures) -> dict[str, np.ndarray]:
    network.eval()
    found = {}
    for name in ("val", "test"):
        parts = torch.from_numpy(getattr(pictures, name)).to(pictures.device).split(400)
        found[name] = torch.cat([network(pictures.get(part)) for part in parts]).float().cpu().numpy()
    return found


def softmax(logits: np.ndarray) -> np.ndarray:
    shares = np.exp(logits - logits.max(-1, keepdims=True))
    return shares / shares.sum(-1, keepdims=True)


def panel(job: Job, pictures: Pictures, out: Path) -> tuple[Tensor, dict[str, np.ndarray], list[float]]:
    """Log of the panel's probabilities ``[V, N, K]``, its answers on validation and test, and the members' weights."""
    members = [dict(np.load(out / "teachers" / job.answers(name))) for name in job.teacher]
    mixture = np.full(len(members), 1 / len(members))
    if job.auto:
        targets = pictures.targets[pictures.val].cpu().numpy()
        right = []
        for member in members:
            logits = member["val"].astype(np.float64)
            warm = min(
                np.geomspace(0.5, 4, 13), key=lambda t: -np.log(softmax(logits / t)[range(len(targets)), targets]).sum()
            )
            for key in member:
                member[key] = member[key] / warm
            right.append(softmax(logits / warm)[range(len(targets)), targets])
        likely = np.stack(right)
        for _ in range(200):
            taken = mixture[:, None] * likely
            taken /= taken.sum(0)
            mixture = (PRIOR + taken.sum(1)) / (PRIOR * len(members) + len(targets))

    def together(key: str) -> np.ndarray:
        shares = [w * softmax(member[key].astype(np.float32)) for w, member in zip(mixture, members, strict=True)]
        return np.log(np.sum(shares, axis=0) + 1e-8)

    return (
        torch.from_numpy(together("bank")).to(pictures.device),
        {key: together(key) for key in ("val", "test")},
        mixture.round(3).tolist(),
    )


# ---- training ------------------------------------------------------------------------------------------------------
def train(network: Normalised, job: Job, pictures: Pictures, bank: Tensor | None) -> None:
    device, classes = pictures.device, pictures.classes
    rows = pictures.train if bank is not None else pictures.labelled
    chance = np.random.default_rng([job.seed, 3, job.luck])
    passes = -(-job.steps * BATCH // len(rows))
    order = np.concatenate([chance.permutation(rows) for _ in range(passes)])[: job.steps * BATCH]
    order = torch.from_numpy(order).to(device).view(job.steps, BATCH)
    which = torch.from_numpy(chance.integers(0, job.views, (job.steps, BATCH))).to(device)
    draws = draws_of(pictures, job.views, job.seed if job.luck == 0 else 77 * job.luck)
    network.train()
    one = Step(network, job, classes)
    for step in range(job.steps):
        chosen = order[step]
        one.images.copy_(view(at_side(pictures.get(chosen), network.side), draws[chosen, which[step]], job.crop))
        one.targets.copy_(pictures.targets[chosen])
        if bank is not None:
            labelled = pictures.has_label[chosen].float()
            one.said.copy_((bank[which[step], chosen] / job.temperature).log_softmax(1))
            one.hard.copy_(labelled * job.alpha)
            one.soft.copy_(1 - labelled * job.alpha)
        one.take(rate(step / job.steps))


class Step:
    """A step of training from fixed buffers; on a GPU one CUDA graph, so that the processes do not wait for launches."""

    def __init__(self, network: Normalised, job: Job, classes: int) -> None:
        device, side = next(network.parameters()).device, network.side
        self.network, self.job = network, job
        self.images = torch.rand(BATCH, 3, side, side, device=device)
        self.targets = torch.zeros(BATCH, dtype=torch.long, device=device)
        self.said = torch.full((BATCH, classes), 1 / classes, device=device).log()
        self.hard, self.soft = torch.ones(BATCH, device=device), torch.zeros(BATCH, device=device)
        found = groups(network, Rates(job.data, 0, share=job.share))
        for group in found:
            group["lr"] = torch.tensor(job.lr * group["scale"], device=device)
        graphed = GRAPHS and device.type == "cuda"
        self.optimizer = torch.optim.AdamW(found, fused=True, capturable=graphed)
        self.graph = None
        if graphed:
            self._capture()

    def _forward_and_back(self) -> None:
        found, temperature = self.network(self.images), self.job.temperature
        hard = functional.cross_entropy(found, self.targets, reduction="none")
        own = (found / temperature).log_softmax(1)
        soft = (self.said.exp() * (self.said - own)).sum(1) * temperature**2
        (self.hard * hard + self.soft * soft).mean().backward()
        self.optimizer.step()

    def _capture(self) -> None:
        state = {key: value.clone() for key, value in self.network.state_dict().items()}
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                self.optimizer.zero_grad()
                self._forward_and_back()
        torch.cuda.current_stream().wait_stream(stream)
        self.optimizer.zero_grad()
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self._forward_and_back()
        with torch.no_grad():  # the warm-up never was
            for key, value in self.network.state_dict().items():
                value.copy_(state[key])
            for moments in self.optimizer.state.values():
                for value in moments.values():
                    value.zero_()

    def take(self, share: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"].fill_(self.job.lr * group["scale"] * share)
        if self.graph is not None:
            self.graph.replay()
        else:
            self.optimizer.zero_grad()
            self._forward_and_back()


def run(job: Job, arguments: argparse.Namespace, cache: dict) -> dict:
    key = (job.data, job.seed, job.labels)
    if key not in cache:
        cache[key] = Pictures(arguments.data, Rates(job.data, job.seed, job.labels), arguments.device)
    pictures, started = cache[key], time.time()
    line = asdict(job)
    if job.kind != "student":
        found = make_teacher(job, pictures, arguments.weights, arguments.data, arguments.out)
    else:
        side = student_side(job.data)
        network = build(
            "mobilenetv2_100",
            "pretrained",
            "normal",
            pictures.classes,
            side,
            arguments.weights,
            arguments.data,
            job.seed,
        )
        network.to(arguments.device)
        bank = None
        if job.teacher:
            bank, answers, line["mixture"] = panel(job, pictures, arguments.out)
            line["teacher_auc"] = auc(answers["test"], pictures.targets[pictures.test].cpu().numpy())
        train(network, job, pictures, bank)
        found = answers_to(network, pictures)
    targets = pictures.targets[pictures.test].cpu().numpy()
    line["auc"] = auc(found["test"], targets)
    line["accuracy"] = float((found["test"].argmax(1) == targets).mean())
    line["loss"] = float(-np.log(softmax(found["test"])[range(len(targets)), targets] + 1e-6).mean())
    line["seconds"] = round(time.time() - started, 2)
    return line


# ---- the list ------------------------------------------------------------------------------------------------------
def variants() -> list[tuple[tuple[str, ...], list[dict]]]:
    """Sets and variants in tiers, most important first."""
    teachers = [{"kind": name} for name in TEACHERS]
    auto, three, long = {"teacher": "FGEMN", "auto": True}, {"teacher": "EMN"}, {"steps": 500, "views": 64}
    open_ones = tuple(name for name in SETS if name != "otoscopy")  # every training ends there at .997 or more
    first = [*teachers, {}, long, three, auto, {"views": 64}, {"teacher": "MN"}, {"teacher": "FG", "alpha": 0.5}]
    tenth = [*teachers, {}, long, three, auto, {"teacher": "FG"}]
    second = [three | {"alpha": 0.5}, {"teacher": "M"}, three | {"alpha": 0.0}, {"lr": 2e-3, "share": 0.3}]
    second += [{"crop": 1.0}, {"crop": 0.6, "views": 64}, {"lr": 2e-3}, three | {"temperature": 1.0}, {"lr": 5e-4}]
    second += [three | {"temperature": 4.0}]
    more = [{"teacher": "MN"}, three | {"alpha": 0.0}, {"teacher": "FGEMN"}]
    few = {"labels": 0.1}
    return [
        (open_ones, first),
        (SETS, [one | few for one in tenth]),
        (open_ones, second),
        (SETS, [one | few for one in more]),
    ]


def job_list(seeds: list[int]) -> list[Job]:
    return [
        Job(data=name, seed=seed, **variant)
        for sets, tier in variants()
        for seed in seeds
        for variant in tier
        for name in sets
    ]


def worker(_number: int, jobs: list[Job], taken: list, lock, arguments: argparse.Namespace, deadline: float) -> None:
    torch.set_num_threads(1)
    cache: dict = {}
    while time.time() < deadline:
        with lock:
            ready = [n for n, job in enumerate(jobs) if not taken[n] and has_teachers(job, arguments.out)][:12]
            same = [n for n in ready if (jobs[n].data, jobs[n].seed, jobs[n].labels) in cache]
            chosen = (same or ready or [None])[0]
            if chosen is not None:
                taken[chosen] = 1
        if chosen is None:
            if all(taken):
                return
            time.sleep(0.2)
            continue
        try:
            line = run(jobs[chosen], arguments, cache)
        except Exception:
            print(jobs[chosen], traceback.format_exc()[-1500:], flush=True)
            continue
        with lock, (arguments.out / "results.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")


def has_teachers(job: Job, out: Path) -> bool:
    return all((out / "teachers" / job.answers(name)).exists() for name in job.teacher)


# ---- reading -------------------------------------------------------------------------------------------------------
def read(out: Path) -> None:
    """Each variant against the control of as many steps on the same split, and each teacher and panel alone."""
    lines = [json.loads(text) for text in (out / "results.jsonl").read_text().splitlines()]
    found: dict[tuple, dict[tuple, dict]] = defaultdict(dict)
    for line in lines:
        shown = {
            k: line[k] for k in ("kind", "teacher", "auto", "alpha", "temperature", "steps", "lr", "share", "crop")
        }
        shown["views"] = line["views"]
        found[line["labels"], tuple(shown.items())][line["data"], line["seed"]] = line
    usual = asdict(Job("", 0))
    for labels in sorted({key[0] for key in found}, reverse=True):
        print(f"\n## {labels:.0%} of the labels\n")
        bare = next(cells for (share, key), cells in found.items() if share == labels and _changed(key, usual) == "")
        print(
            "| training | cells | AUC | accuracy | loss | over control: AUC | accuracy | loss | "
            + " | ".join(SETS)
            + " |"
        )
        print("|---" * (8 + len(SETS)) + "|")
        for (share, key), cells in found.items():
            if share != labels:
                continue
            both = [cell for cell in cells if cell in bare]
            texts = [f"{np.mean([line[f] for line in cells.values()]):.3f}" for f in ("auc", "accuracy", "loss")]
            texts += [_difference(both, cells, bare, figure) for figure in ("auc", "accuracy", "loss")]
            for name in SETS:
                of_set = [cells[cell]["auc"] - bare[cell]["auc"] for cell in both if cell[0] == name]
                texts.append(f"{np.mean(of_set):+.3f}" if of_set else "")
            print(f"| {_changed(key, usual) or 'control'} | {len(cells)} | " + " | ".join(texts) + " |")


def _changed(key: tuple, usual: dict) -> str:
    return " ".join(f"{name}={value}" for name, value in key if value != usual[name])


def _difference(both: list[tuple], cells: dict, bare: dict, figure: str) -> str:
    """Mean over sets of the mean over seeds; the spread is that of cells within sets."""
    by_set = defaultdict(list)
    for cell in both:
        by_set[cell[0]].append(cells[cell][figure] - bare[cell][figure])
    means, count = [np.mean(values) for values in by_set.values()], len(by_set)
    if not count:
        return ""
    freedom = sum(len(values) - 1 for values in by_set.values())
    if not freedom:
        return f"{np.mean(means):+.3f}"
    spread = sum((np.array(values) - np.mean(values)).__pow__(2).sum() for values in by_set.values()) / freedom
    half = student_t.ppf(0.975, freedom) * (spread * sum(1 / len(values) for values in by_set.values())) ** 0.5 / count
    return f"{np.mean(means):+.3f} ±{half:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--read", type=Path, help="only print the tables of a finished folder")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--jobs", type=int, default=15)
    parser.add_argument("--minutes", type=float, default=4)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments = parser.parse_args()
    if arguments.read:
        read(arguments.read)
        return
    deadline = time.time() + 60 * arguments.minutes
    (arguments.out / "teachers").mkdir(parents=True, exist_ok=True)
    jobs = job_list(arguments.seeds)
    beside_one_another(worker, jobs, arguments, deadline)
    done = len((arguments.out / "results.jsonl").read_text().splitlines())
    print(f"{done} of {len(jobs)} trainings in {arguments.minutes:g} minutes")


if __name__ == "__main__":
    main()
