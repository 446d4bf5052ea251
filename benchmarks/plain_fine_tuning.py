"""The simple rivals of a run, as a good engineer would write them: fine-tuning in timm and torch, and a linear probe.

    python benchmarks/plain_fine_tuning.py RUN --minutes 2 --threads 2

For a finished run of Stillroom: the student's network from the same start at the same side, fine-tuned on the same labels for
the given minutes, and a logistic regression on the features of the run's teacher as it was before any training. Both are
tested on the run's test images and written to ``RUN/../<name of RUN>-rivals.parquet``. Stillroom gives pixels, splits and the
cut start of a student without weights of its own; all else is timm, torch and scikit-learn.
"""

from __future__ import annotations

import argparse
import math
import time
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import timm
import torch
from sklearn.linear_model import LogisticRegressionCV
from torch import Tensor, nn
from torch.nn import functional
from torchvision.transforms import v2

from stillroom import Run
from stillroom.data.load import load_data
from stillroom.data.slices import stratified_slices
from stillroom.models.weight_selection import select_weights
from stillroom.models.weights import find_weights
from stillroom.models.zoo import create, specification

LR, DECAY, BATCH, WARM_UP = 1e-3, 0.05, 32, 0.05
MOST_EPOCHS = 60
STEPS_TIMED = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    make_rivals(arguments.run, minutes=arguments.minutes)


def make_rivals(path: Path, *, minutes: float = math.inf, steps: int | None = None, device: str = "cpu") -> None:
    """Train both rivals of the run at ``path`` and write their answers beside it.

    Args:
        path: a finished run.
        minutes: for fine-tuning.
        steps: of fine-tuning instead, where another machine's minutes are followed.
        device: of fine-tuning.
    """
    run = Run.open(path)
    predictions = run.predictions()
    classes = list(run.task.classes)
    splits, targets = predictions["split"].to_numpy(), predictions["target"].map(classes.index).to_numpy()
    test, seed = np.flatnonzero(splits == "test"), run.settings.seed
    train = labelled(np.flatnonzero(splits == "train"), targets, len(classes), run)

    student, side = run.settings.student, run.settings.student.student_size or run.settings.data.size
    torch.manual_seed(seed)
    network, mean, std = started(run, len(classes), side)
    pixels = pictures(run, side, predictions["id"])
    begun = time.monotonic()
    images = tuple(tensor.to(device) for tensor in (pixels, mean, std))
    fine_tune(network.to(device), images, targets, train, (60 * minutes, steps), seed)
    tuned_s = time.monotonic() - begun
    with torch.inference_mode():
        shown = [network(normalised(images[0][rows], *images[1:])).softmax(dim=1) for rows in np.array_split(test, 8)]
    fine_tuned = torch.cat(shown).cpu().numpy()

    begun = time.monotonic()
    probed = probe(run, predictions["id"], targets, train, test)
    probed_s = time.monotonic() - begun
    frame = predictions.loc[test, ["id", "target"]].assign(
        **{f"fine-tuned:{name}": fine_tuned[:, k] for k, name in enumerate(classes)},
        **{f"probe:{name}": probed[:, k] for k, name in enumerate(classes)},
    )
    target = path.with_name(f"{path.name}-rivals.parquet")
    frame.to_parquet(target.with_suffix(".part"), index=False)
    target.with_suffix(".part").replace(target)
    print(f"{student.student} at {side} px fine-tuned in {tuned_s:.0f} s, a linear probe in {probed_s:.0f} s: {target}")


def labelled(train: np.ndarray, targets: np.ndarray, classes: int, run: Run) -> np.ndarray:
    """The training rows whose labels the run used."""
    fraction = run.settings.training.label_fraction
    return stratified_slices(np.eye(classes)[targets[train]], train, 1, fraction, (run.settings.seed, 0))[0]


def pictures(run: Run, side: int, ids: pd.Series) -> Tensor:
    """``[N, 3, side, side]`` uint8, one for each id."""
    settings = replace(run.settings.data, size=side, drop_leaks=False)
    dataset = load_data(run.settings.source, settings, seed=run.settings.seed, show_progress=False)
    place = {name: row for row, name in enumerate(dataset.table.ids)}
    pixels = torch.from_numpy(np.asarray(dataset.store.batch(np.array([place[name] for name in ids]))))
    if dataset.store.white != 255:
        pixels = (pixels.float() * 255 / dataset.store.white).round().to(torch.uint8)
    return pixels.expand(-1, 3, -1, -1)


def normalised(pixels: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    return (pixels.float() / 255 - mean) / std


def started(run: Run, classes: int, side: int) -> tuple[nn.Module, Tensor, Tensor]:
    """The student's network as it starts, with a zeroed head; mean and standard deviation of its input."""
    student, weights = run.settings.student, run.settings.student.student_weights or run.settings.teacher.weights
    name = student.student
    network = timm.create_model(name, num_classes=classes)
    statistics = specification(name).normalisation
    if student.student_from:
        large = create(student.student_from, classes=classes, size=side, pretrained=True, weights=weights)
        small = create(name, classes=classes, size=side)
        select_weights(large, small)
        network.load_state_dict(small.backbone.state_dict())
        statistics = large.normalisation
    elif student.student_pretrained:
        statistics = load(network, name, weights)
    head = network.get_classifier()
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (statistics.mean, statistics.std))
    return network, mean, std


def load(network: nn.Module, name: str, weights: Path | None):
    """ImageNet weights without their classifier; the normalisation that their file states."""
    from stillroom.models.weights import read_weights

    assert weights is not None, "Give the run --weights: the rivals start from the same file."
    state, statistics = read_weights(find_weights(weights, name))
    own = network.state_dict()
    fits = {key: value for key, value in state.items() if key in own and own[key].shape == value.shape}
    network.load_state_dict(own | fits)
    return statistics or specification(name).normalisation


def fine_tune(
    network: nn.Module,
    images: tuple[Tensor, Tensor, Tensor],
    targets: np.ndarray,
    train: np.ndarray,
    budget: tuple[float, int | None],
    seed: int,
) -> None:
    """AdamW with warm-up and cosine, light augmentation, as many epochs as the seconds allow; the last weights are kept.

    ``budget`` is seconds, and steps that go before them where they are given.
    """
    pixels, mean, std = images
    seconds, steps = budget
    views = v2.Compose(
        [
            v2.RandomResizedCrop(pixels.shape[-1], scale=(0.7, 1.0), ratio=(0.9, 1.1), antialias=True),
            v2.RandomHorizontalFlip(),
            v2.ColorJitter(brightness=0.1, contrast=0.15),
        ]
    )
    vectors = [p for p in network.parameters() if p.ndim <= 1]
    matrices = [p for p in network.parameters() if p.ndim > 1]
    groups = [{"params": matrices, "weight_decay": DECAY}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=LR, fused=True)
    chance, truth = np.random.default_rng(seed), torch.from_numpy(targets).to(pixels.device)
    most = MOST_EPOCHS * math.ceil(len(train) / BATCH)
    most = most if steps is None else min(most, steps)
    order = np.zeros(0, dtype=np.int64)
    begun, step, total = time.monotonic(), 0, most
    network.train()
    while step < total:
        if len(order) < BATCH:
            order = np.concatenate([order, *(chance.permutation(train) for _ in range(1 + BATCH // len(train)))])
        rows, order = order[:BATCH], order[BATCH:]
        batch = torch.stack([views(pixels[row]) for row in rows])
        share = step / total
        rate = LR * (
            min(1.0, (step + 1) / (WARM_UP * total)) if share < WARM_UP else (1 + math.cos(math.pi * share)) / 2
        )
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss = functional.cross_entropy(network(normalised(batch, mean, std)), truth[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        step += 1
        if step == STEPS_TIMED:
            begun = time.monotonic()  # the first steps warm up
        elif step > 2 * STEPS_TIMED and steps is None:  # the schedule ends when the time does
            per_step = (time.monotonic() - begun) / (step - STEPS_TIMED)
            total = max(step, min(most, int(seconds / per_step)))
    network.eval()


@torch.inference_mode()
def probe(run: Run, ids: pd.Series, targets: np.ndarray, train: np.ndarray, test: np.ndarray) -> np.ndarray:
    """``[n, K]`` of the test images: logistic regression on the frozen teacher's features, penalty by cross-validation."""
    teacher, settings = run.settings.teacher, run.settings
    side = teacher.teacher_size or settings.data.size
    network = timm.create_model(teacher.teacher, num_classes=0).eval()
    statistics = load(network, teacher.teacher, teacher.weights)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (statistics.mean, statistics.std))
    pixels, rows = pictures(run, side, ids), np.concatenate([train, test])
    found = torch.cat(
        [network(normalised(pixels[part], mean, std)) for part in np.array_split(rows, len(rows) // 16 + 1)]
    )
    features = found.double().numpy()
    features = (features - features[: len(train)].mean(axis=0)) / (features[: len(train)].std(axis=0) + 1e-6)
    folds = int(min(5, np.unique(targets[train], return_counts=True)[1].min()))
    warnings.simplefilter("ignore")
    fitted = LogisticRegressionCV(Cs=np.logspace(-5, 0, 6), cv=max(2, folds), scoring="neg_log_loss", max_iter=200)
    fitted.fit(features[: len(train)], targets[train])
    answers = np.zeros((len(test), len(run.task.classes)))
    answers[:, fitted.classes_] = fitted.predict_proba(features[len(train) :])
    return answers


if __name__ == "__main__":
    main()
