"""The loop: it learns, it selects on validation, it stops where told, and a killed run goes on to the same weights."""

import json
from itertools import pairwise

import numpy as np
import pytest
import torch

from stillroom.data.images import batches, shuffled
from stillroom.distillation.objectives.labels import LabelLoss
from stillroom.distillation.step import Objective
from stillroom.errors import RunError
from stillroom.inference import run_over
from stillroom.models.zoo import create
from stillroom.settings import TrainingSettings
from stillroom.task import MultiClass, MultiLabel
from stillroom.training import fit, learning_rate

QUICK = TrainingSettings(epochs=4, batch_size=16, lr=3e-3)


def network(classes=2, seed=0):
    return create("test_resnet", classes=classes, size=32, seed=seed)


def train(data, folder, settings=QUICK, log=lambda line: None, objective=None, seed=0):
    net = network(len(data.task.classes))
    job = {"folder": folder, "role": "student", "seed": seed, "log": log, "show_progress": False}
    return fit(net, objective or LabelLoss(), data, settings, **job)


def same_weights(first, second):
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("task", [MultiClass(("l", "r")), MultiLabel(("a", "b", "c", "d"))], ids=lambda t: t.kind)
def test_it_learns(toy, tmp_path, task):
    data, lines = toy(task), []
    before = task.rank(run_over(network(len(task.classes)), data.images, data.val), data.targets[data.val])
    net = train(data, tmp_path, TrainingSettings(epochs=8, batch_size=16, lr=3e-3), lines.append)
    after = task.rank(run_over(net, data.images, data.val), data.targets[data.val])
    assert after > before
    assert lines[-1]["loss"] < 0.7 * lines[0]["loss"]
    assert after[0] == pytest.approx(max(line["val"]["value"] for line in lines))
    assert json.loads(json.dumps(lines)) == lines


@pytest.mark.parametrize("task", [MultiClass(("l", "r")), MultiLabel(("a", "b", "c", "d"))], ids=lambda t: t.kind)
def test_bfloat16_learns_and_leaves_float32_weights(toy, tmp_path, task):
    lines = []
    net = train(toy(task), tmp_path, TrainingSettings(epochs=6, batch_size=16, lr=3e-3, precision="bf16"), lines.append)
    assert lines[-1]["loss"] < 0.9 * lines[0]["loss"]
    assert all(value.dtype != torch.bfloat16 for value in net.state_dict().values())


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_a_stopped_run_goes_on_to_the_same_weights(toy, tmp_path, optimizer):
    data = toy()
    settings = TrainingSettings(epochs=4, batch_size=16, lr=1e-3, optimizer=optimizer)
    whole = train(data, tmp_path / "whole", settings)

    class KilledError(Exception):
        pass

    def die(line):
        if line["epoch"] == 3:
            raise KilledError  # after the epoch was trained, before its checkpoint was written

    with pytest.raises(KilledError):
        train(data, tmp_path / "parts", settings, die)
    seen = []
    resumed = train(data, tmp_path / "parts", settings, seen.append)
    assert [line["epoch"] for line in seen] == [3, 4]
    assert same_weights(whole, resumed)
    again = train(data, tmp_path / "parts", settings, seen.append)
    assert len(seen) == 2
    assert same_weights(whole, again)


def test_the_seed_decides(toy, tmp_path):
    data = toy()
    settings = TrainingSettings(epochs=1, batch_size=16)
    first, second = train(data, tmp_path / "a", settings), train(data, tmp_path / "b", settings)
    other = train(data, tmp_path / "c", settings, seed=1)
    assert same_weights(first, second)
    assert not same_weights(first, other)


def test_the_best_validation_epoch_is_kept(toy, tmp_path, monkeypatch):
    data = toy()
    ranks = iter([(0.6, -1.0), (0.9, -2.0), (0.9, -1.5), (0.7, -0.1)])
    states = []
    monkeypatch.setattr(MultiClass, "rank", lambda self, logits, targets: next(ranks))
    net = network()
    log = lambda line: states.append({k: v.clone() for k, v in net.state_dict().items()})  # noqa: E731
    fit(net, LabelLoss(), data, QUICK, folder=tmp_path, role="student", log=log, show_progress=False)
    assert all(torch.equal(value, states[2][key]) for key, value in net.state_dict().items())


def test_patience_ends_training(toy, tmp_path, monkeypatch):
    data, lines = toy(), []
    monkeypatch.setattr(MultiClass, "rank", lambda self, logits, targets: (0.5, -1.0))
    train(data, tmp_path, TrainingSettings(epochs=20, batch_size=16, patience=2), lines.append)
    assert len(lines) == 3


def test_divergence_is_said_in_one_line(toy, tmp_path):
    class Broken(Objective):
        def forward(self, step):
            return {"label": step.student.logits.sum() * float("nan")}

    with pytest.raises(RunError, match=r"student's label loss became nan in epoch 1: .* --lr"):
        train(toy(), tmp_path, objective=Broken())


def test_a_full_disk_is_said_in_one_line(toy, tmp_path, monkeypatch):
    import errno

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(RunError, match=r"disk is full.*Make room"):
        train(toy(), tmp_path)
    assert not list(tmp_path.glob("*.tmp"))


def test_projectors_of_an_objective_are_trained_too(toy, tmp_path):
    class Projected(Objective):
        def __init__(self):
            super().__init__()
            self.projector = torch.nn.Linear(2, 2)

        def forward(self, step):
            return {"label": step.task.hard_loss(self.projector(step.student.logits), step.targets).mean()}

    objective = Projected()
    before = objective.projector.weight.detach().clone()
    train(toy(), tmp_path, TrainingSettings(epochs=1, batch_size=16), objective=objective)
    assert not torch.equal(before, objective.projector.weight)


def test_schedules():
    cosine = TrainingSettings(lr=1.0, schedule="cosine")
    values = [learning_rate(cosine, step, 100) for step in range(100)]
    assert values[0] < values[4] <= max(values) <= 1.0
    assert values[-1] < 0.01
    assert all(a >= b for a, b in pairwise(values[6:]))
    stepped = TrainingSettings(lr=1.0, schedule="step")
    assert [learning_rate(stepped, step, 100) for step in (0, 49, 50, 74, 75, 99)] == [1, 1, 0.1, 0.1, 0.01, 0.01]
    assert learning_rate(TrainingSettings(lr=0.3, schedule="constant"), 77, 100) == 0.3


def test_a_last_batch_of_one_joins_its_neighbour():
    assert [len(batch) for batch in batches(np.arange(33), 16)] == [16, 17]
    assert [len(batch) for batch in batches(np.arange(34), 16)] == [16, 16, 2]
    assert [len(batch) for batch in batches(np.arange(1), 16)] == [1]
    rows = np.arange(50)
    assert sorted(shuffled(rows, 0, 1)) == rows.tolist()
    assert not np.array_equal(shuffled(rows, 0, 1), shuffled(rows, 0, 2))
