"""The loop: it learns, it selects on validation, it stops where told, and a killed run goes on to the same weights."""

import dataclasses
import json
from itertools import pairwise

import numpy as np
import pytest
import torch

from stillroom.data.images import Images, batches, endless, shuffled
from stillroom.data.inference import run_over
from stillroom.distillation.objectives.labels import LabelLoss
from stillroom.distillation.step import Objective
from stillroom.errors import RunError
from stillroom.models.adapters import adapt
from stillroom.models.zoo import create
from stillroom.settings.sections import TrainingSettings, ViewSettings
from stillroom.task import MultiClass, MultiLabel
from stillroom.training.feeding import Feed
from stillroom.training.learning_rates import learning_rate
from stillroom.training.loop import fit

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
    assert [line["kept"] for line in lines if "kept" in line] == [8]
    assert sum(line["images"] for line in lines) == 8 * len(data.train)
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


def test_a_stopped_run_loses_no_more_than_a_minute_where_it_looks_at_validation_now_and_then(
    toy, tmp_path, monkeypatch
):
    data, settings, minutes = toy(count=24), TrainingSettings(epochs=120, batch_size=16), iter(range(0, 100_000, 61))
    monkeypatch.setattr("stillroom.training.loop.time.monotonic", lambda: float(next(minutes)))  # every epoch takes one

    def die(line):
        if line["epoch"] == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(data, tmp_path / "parts", settings, die)
    seen = []
    resumed = train(data, tmp_path / "parts", settings, seen.append)
    assert seen[0]["epoch"] == 7
    assert next(line["epoch"] for line in seen if line["val"]) == 8
    monkeypatch.undo()
    assert same_weights(train(data, tmp_path / "whole", settings), resumed)


def test_a_stopped_training_of_adapters_goes_on_to_the_same_weights(toy, tmp_path):
    pytest.importorskip("peft")
    data, settings = toy(), TrainingSettings(epochs=3, batch_size=16, lr=1e-2)

    def go(folder, log=lambda line: None):
        net = create("test_vit", classes=2, size=32, seed=0)
        net.start = "pretrained"
        adapt(net, 2, seed=0)
        return fit(net, LabelLoss(), data, settings, folder=folder, role="teacher", log=log, show_progress=False)

    def die(line):
        if line["epoch"] == 2:
            raise KeyboardInterrupt

    whole = go(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        go(tmp_path / "parts", die)
    plain = create("test_vit", classes=2, size=32, seed=0)
    full = sum(value.numel() * 4 for value in plain.state_dict().values())
    assert (tmp_path / "parts" / "checkpoint-1.pt").stat().st_size < full / 2
    assert same_weights(whole, go(tmp_path / "parts"))
    assert same_weights(whole, go(tmp_path / "parts"))  # all epochs are done
    assert list(whole.state_dict()) == list(plain.state_dict())
    still = [name for name in plain.state_dict() if ".attn.qkv." not in name and ".attn.proj." not in name]
    moved = {name for name in still if not torch.equal(plain.state_dict()[name], whole.state_dict()[name])}
    assert moved == {"backbone.head.weight", "backbone.head.bias"}


def test_the_seed_decides(toy, tmp_path):
    data = toy()
    settings = TrainingSettings(epochs=1, batch_size=16)
    first, second = train(data, tmp_path / "a", settings), train(data, tmp_path / "b", settings)
    other = train(data, tmp_path / "c", settings, seed=1)
    assert same_weights(first, second)
    assert not same_weights(first, other)


def losses_by_epoch(monkeypatch, *means, noise=0.01):
    """Let validation find these mean losses in turn, of 40 images each."""
    spread = noise * np.random.default_rng(0).standard_normal((len(means), 40))
    found = iter(np.array(means)[:, None] + spread)
    monkeypatch.setattr("stillroom.training.loop.calibrated_losses", lambda *_: next(found))


def weights_by_epoch(data, folder, settings):
    """The weights handed over, those at the end of every epoch, and the lines of the log."""
    states, lines, net = [], [], network()
    state = lambda: {k: v.clone() for k, v in net.state_dict().items() if "running" not in k and "num_b" not in k}  # noqa: E731

    def log(line):
        states.append(state())
        lines.append(line)

    fit(net, LabelLoss(), data, settings, folder=folder, role="student", log=log, show_progress=False)
    return state(), states, lines


def equal(first, second):
    return all(torch.equal(value, second[key]) for key, value in first.items())


def test_the_end_is_kept_where_an_earlier_epoch_was_better_by_luck(toy, tmp_path, monkeypatch):
    losses_by_epoch(monkeypatch, 0.6, 0.300, 0.301, 0.302)
    kept, states, lines = weights_by_epoch(toy(), tmp_path, QUICK)
    assert equal(kept, states[3])
    assert not equal(kept, states[1])
    assert lines[-1]["kept"] == 4


def test_an_epoch_that_was_clearly_better_is_kept(toy, tmp_path, monkeypatch):
    losses_by_epoch(monkeypatch, 0.6, 0.3, 0.5, 0.7)
    kept, states, lines = weights_by_epoch(toy(), tmp_path, QUICK)
    assert equal(kept, states[1])
    assert lines[-1]["kept"] == 2


def test_patience_waits_while_validation_is_clearly_worse(toy, tmp_path, monkeypatch):
    losses_by_epoch(monkeypatch, 0.3, 0.5, 0.301, 0.5, 0.5, 0.3)
    settings = TrainingSettings(epochs=6, batch_size=16, patience=2)
    kept, states, lines = weights_by_epoch(toy(), tmp_path, settings)
    assert len(lines) == 5
    assert lines[-1]["kept"] == 1
    assert equal(kept, states[0])


def test_patience_is_endless_where_validation_is_too_small_to_say(toy, tmp_path):
    lines = []  # 16 validation images
    train(toy(), tmp_path, TrainingSettings(epochs=6, batch_size=16, patience=1, lr=1e-5), lines.append)
    assert len(lines) == 6


def test_steps_are_whole_epochs(toy, tmp_path):
    for steps, epochs in ((9, 2), (1, 1), (16, 4)):  # 64 images: 4 steps an epoch
        lines = []
        settings = TrainingSettings(epochs=99, steps=steps, batch_size=16)
        train(toy(), tmp_path / str(steps), settings, lines.append)
        assert [line["epochs"] for line in lines] == [epochs] * epochs


def test_a_long_training_of_short_epochs_looks_at_validation_now_and_then(toy, tmp_path):
    lines = []
    train(toy(count=24), tmp_path, TrainingSettings(epochs=90, batch_size=16), lines.append)
    looks = [line["epoch"] for line in lines if line["val"]]
    assert looks == list(range(3, 91, 3))


def test_batch_norm_describes_the_weights_that_are_handed_over(toy, tmp_path):
    data = toy()
    net = train(data, tmp_path, TrainingSettings(epochs=1, batch_size=64, lr=1e-2))
    first = next(m for m in net.modules() if isinstance(m, torch.nn.BatchNorm2d))
    seen = []
    first.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].detach()))
    net(data.images.batch(data.train))
    assert torch.allclose(first.running_mean, seen[0].mean(dim=(0, 2, 3)), atol=1e-4)
    assert torch.allclose(first.running_var, seen[0].var(dim=(0, 2, 3)), rtol=1e-3)


def test_divergence_is_said_in_one_line(toy, tmp_path):
    class Broken(Objective):
        def forward(self, step):
            return {"label": step.student.logits.sum() * float("nan")}

    with pytest.raises(RunError, match=r"student's label loss became nan in epoch 1: .* --lr"):
        train(toy(), tmp_path, objective=Broken())


def test_divergence_that_only_validation_shows_is_said_in_one_line(toy, tmp_path):
    class Late(Objective):
        def forward(self, step):
            return {"label": step.student.logits.sum() * 0}

        def after_step(self, network, progress):
            with torch.no_grad():
                for parameter in network.parameters():
                    parameter.fill_(float("inf") if progress == 1 else 1)

    with pytest.raises(RunError, match=r"student's answers to validation images .* after epoch \d+: .* --lr"):
        train(toy(), tmp_path, objective=Late())


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


# -- second views, label-free objectives, images without labels ---------------------------------------------------
class Spy(Objective):
    """The mean logit, so that gradients flow; notes what it was shown."""

    def __init__(self, two_views=False, label_free=False, needs=()):
        super().__init__()
        self.two_views, self.label_free, self.needs = two_views, label_free, frozenset(needs)
        self.steps, self.free, self.followed = [], [], []

    def forward(self, step):
        self.steps.append(step)
        return {"mean": step.student.logits.square().mean()}

    def on_unlabelled(self, step):
        self.free.append(step)
        return super().on_unlabelled(step)

    def after_step(self, student, progress):
        self.followed.append(progress)


def test_two_views_of_every_image_are_new_in_every_epoch(toy, tmp_path):
    data, spy = toy(), Spy(two_views=True)
    train(data, tmp_path, TrainingSettings(epochs=3, batch_size=64), objective=spy)
    for epoch, step in enumerate(spy.steps):
        rows = shuffled(data.train, 0, epoch)
        assert torch.equal(step.images, data.images.batch(rows, 2 * epoch))
        assert torch.equal(step.other_images, data.images.batch(rows, 2 * epoch + 1))
        assert step.other.logits.requires_grad
    assert spy.followed == pytest.approx([1 / 3, 2 / 3, 1])


@pytest.mark.parametrize("mix", ["mixup", "cutmix", "both"])
def test_mixtures_come_with_both_labels_and_the_teachers_answer_to_them(toy, tmp_path, mix):
    data = toy(views=ViewSettings(views=2, mix=mix, crop=0.6))
    images = Images(data.images.store, torch.device("cpu"), data.images.views, 0, [data.train])
    data = dataclasses.replace(data, images=images)
    _, teacher = taught(data)
    spy = Spy(needs={"teacher_logits"})
    job = {"folder": tmp_path, "role": "student", "teachers": [teacher], "show_progress": False}
    fit(network(), spy, data, TrainingSettings(epochs=2, batch_size=64), **job)
    for epoch, step in enumerate(spy.steps):
        rows = shuffled(data.train, 0, epoch)
        found = images.mixture(rows, epoch)
        assert not np.array_equal(found.partners, rows)
        assert torch.equal(step.images, images.batch(rows, epoch))
        assert np.array_equal(step.other_targets.numpy(), data.targets[found.partners])
        assert step.share.numpy() == pytest.approx(found.share)
        assert torch.allclose(step.teachers.logits[0], teacher.network(step.images), atol=2e-2)
    assert len(spy.steps) == 2


def test_without_labels_the_last_epoch_is_kept(toy, tmp_path):
    lines, data = [], toy()
    net = train(data, tmp_path, TrainingSettings(epochs=3, batch_size=64), lines.append, Spy(label_free=True))
    assert all(line["val"] is None for line in lines)
    assert lines[-1]["kept"] == 3
    last = torch.load(tmp_path / "checkpoint-3.pt", weights_only=True)["student"]
    assert all(torch.equal(value, last[name]) for name, value in net.named_parameters())


def taught(data, count=20, seed=1):
    """The data with unlabelled images, and a teacher that knows both sets."""
    from stillroom.data.views import view_numbers
    from stillroom.distillation.bank import build_bank
    from stillroom.distillation.teachers import Teacher, question

    more = dataclasses.replace(data, unlabelled=None).images
    rng = np.random.default_rng(seed)
    rows = rng.choice(len(more), count, replace=False)
    extra = Images(more.store.take(np.sort(rows)), torch.device("cpu"), more.views, 0)
    teacher_network = network(seed=7).eval()
    ask, views = question(teacher_network, frozenset({"logits", "pooled"})), view_numbers(more.views, 9)

    def bank(images, views):
        rows = np.arange(len(images))
        return build_bank(
            teacher_network, "seven", images, rows, views, ask, asks="logits", label="t", show_progress=False
        )

    banks = (bank(more, [None]), bank(more, views))
    teacher = Teacher(
        teacher_network, banks, ask, more, unlabelled=Teacher(teacher_network, (bank(extra, views),), ask, extra)
    )
    return dataclasses.replace(data, unlabelled=extra), teacher


def test_images_without_labels_come_beside_the_others(toy, tmp_path):
    data, teacher = taught(toy())
    spy = Spy(needs={"teacher_logits"})
    settings = TrainingSettings(epochs=2, batch_size=16)
    job = {"folder": tmp_path, "role": "student", "teachers": [teacher], "show_progress": False}
    fit(network(), spy, data, settings, **job)
    assert len(spy.free) == len(spy.steps) == 12  # 84 images that teach, 16 at a time
    for number, (labelled, free) in enumerate(zip(spy.steps, spy.free, strict=True)):
        assert len(free.targets) == 0
        assert (len(labelled.images), len(free.images)) == (12, 4)
        rows, view = endless(20, 4, number, 0), number // 6 % 2
        assert torch.equal(free.images, data.unlabelled.batch(rows, view))
        assert torch.equal(free.teachers.logits[0], teacher.unlabelled.logits(rows, view))
        assert torch.allclose(free.teachers.logits[0], teacher.network(free.images), atol=2e-2)


def test_images_whose_labels_are_not_used_are_taught_with_the_others(toy, tmp_path):
    data, teacher = taught(toy())
    few, rest = data.train[:8], data.train[8:]
    data = dataclasses.replace(data, train=few, rest=rest)
    spy, lines = Spy(needs={"teacher_logits"}), []
    job = {"folder": tmp_path, "role": "student", "teachers": [teacher], "log": lines.append, "show_progress": False}
    fit(network(), spy, data, TrainingSettings(epochs=2, batch_size=16), **job)
    sizes = {(len(labelled.images), len(free.images)) for labelled, free in zip(spy.steps, spy.free, strict=True)}
    assert sizes == {(4, 12)}  # a quarter at least has labels
    assert len(spy.steps) == 2 * 7  # 56 + 20 images without, 12 at a time
    assert sum(line["images"] for line in lines) == 14 * 16
    shown = [batch for step in spy.free[:7] for batch in step.images]
    everything = [*data.images.batch(rest, 0), *data.unlabelled.batch(np.arange(20), 0)]
    first = {image.numpy().tobytes() for image in shown}
    assert len({image.numpy().tobytes() for image in everything} - first) == 0  # every one
    for step in spy.free:
        assert torch.allclose(step.teachers.logits[0], teacher.network(step.images), atol=2e-2)


def test_a_stopped_run_with_images_without_labels_goes_on_to_the_same_weights(toy, tmp_path):
    from stillroom.distillation.objectives.hybrid import HybridLoss

    data, teacher = taught(toy())

    def go(folder, log=lambda line: None):
        job = {"folder": folder, "role": "student", "teachers": [teacher], "log": log, "show_progress": False}
        return fit(network(), HybridLoss(), data, QUICK, **job)

    def die(line):
        if line["epoch"] == 2:
            raise KeyboardInterrupt

    whole = go(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        go(tmp_path / "parts", die)
    lines = []
    assert same_weights(whole, go(tmp_path / "parts", lines.append))
    assert set(lines[-1]["losses"]) == {"label", "teacher", "unlabelled"}


def test_label_free_objectives_see_them_like_any_others(toy, tmp_path):
    data, _ = taught(toy())
    spy = Spy(two_views=True, label_free=True)
    train(data, tmp_path, TrainingSettings(epochs=1, batch_size=16), objective=spy)
    first = spy.steps[0]
    assert len(first.images) == len(first.other_images) == 32
    assert torch.equal(first.images[16:], data.unlabelled.batch(endless(20, 16, 0, 0), 0))
    assert not spy.free


@pytest.mark.parametrize("batch_size", [16, 25])
def test_the_loss_that_is_logged_is_the_mean_over_images(toy, tmp_path, batch_size):
    """Of a head that says nothing and a rate at which nothing moves: ln K, whatever the size of the last batch."""
    lines = []
    train(toy(), tmp_path, TrainingSettings(epochs=1, batch_size=batch_size, lr=1e-12), lines.append)
    assert lines[0]["loss"] == pytest.approx(np.log(2), rel=0.05)


def test_every_image_that_goes_through_the_student_counts_as_a_pass():
    images, targets = torch.zeros(5, 1, 4, 4), torch.zeros(5)
    assert Feed(images, targets, None, None, None, None).passes == 5
    assert Feed(images, targets, None, images, None, None).passes == 10
    assert Feed(images, targets, None, images, (images[:3], None), None).passes == 13
