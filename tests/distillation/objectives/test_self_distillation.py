"""Self-distillation: its losses against closed forms, what is trained and what only follows, and resuming."""

import copy
import math

import pytest
import torch

from stillroom.distillation.objectives.byol import ByolLoss, direction_distance
from stillroom.distillation.objectives.dino import DinoLoss
from stillroom.distillation.objectives.momentum import follow, frozen_copy, momentum_at
from stillroom.distillation.objectives.self_distillation import mlp
from stillroom.distillation.objectives.self_logits import BatchEnsembling, LogitSelfDistillation, ensembled
from stillroom.distillation.step import Step
from stillroom.errors import UsageError
from stillroom.models.taps import Outputs
from stillroom.models.zoo import create
from stillroom.settings.sections import TrainingSettings
from stillroom.task import MultiClass, MultiLabel
from stillroom.training.loop import fit

TASKS = (MultiClass(("a", "b")), MultiClass(("a", "b", "c"), ordinal=True), MultiLabel(("a", "b", "c")))
SMALL = {"width": 16, "projection": 8}


def network(classes=2, seed=0):
    return create("test_resnet", classes=classes, size=32, seed=seed)


def objectives(classes=2):
    """One of each, their auxiliary network other than the student of seed 0."""
    return [
        ByolLoss(network(classes, 1), **SMALL),
        DinoLoss(network(classes, 1), **SMALL),
        LogitSelfDistillation(network(classes, 1)),
        BatchEnsembling(network(classes, 1)),
    ]


def step_of(student, task=TASKS[0], batch=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    first, second = torch.rand(2, batch, 1, 32, 32, generator=generator)
    shape = (batch,) if task.exclusive else (batch, len(task.classes))
    targets = torch.randint(0, 2, shape, generator=generator)
    outputs = student.outputs(first), student.outputs(second)
    return Step(first, targets, outputs[0], None, task, 0.5, None, second, outputs[1])


def total(losses):
    return torch.stack(list(losses.values())).sum()


def numbers(module):
    return [value.clone() for value in module.parameters()]


def equal(first, second):
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("task", TASKS, ids=lambda t: t.kind)
def test_losses_are_finite_and_train_all_but_the_auxiliary_network(task):
    for objective in objectives(len(task.classes)):
        if task.kind not in objective.kinds:
            continue
        student = network(len(task.classes))
        losses = objective(step_of(student, task))
        assert all(value.ndim == 0 and torch.isfinite(value) and value >= 0 for value in losses.values())
        total(losses).backward()
        labelled = not objective.label_free
        for name, parameter in student.named_parameters():
            assert (parameter.grad is not None) == (labelled or not name.startswith("backbone.fc.")), name
        assert any(parameter.grad.abs().sum() > 0 for parameter in student.backbone.conv1.parameters())
        for name, parameter in objective.named_parameters():
            assert parameter.requires_grad == (not name.startswith("auxiliary")), name
            assert (parameter.grad is not None) == parameter.requires_grad, name


def test_the_optimiser_trains_the_projectors_and_leaves_the_auxiliary_network(toy, tmp_path):
    for number, objective in enumerate(objectives()):
        objective.after_step = lambda student, progress: None
        before = dict(copy.deepcopy(objective).named_parameters())
        budget = TrainingSettings(epochs=1, batch_size=16)
        fit(network(), objective, toy(count=48), budget, folder=tmp_path / str(number), role="skd", show_progress=False)
        for name, parameter in objective.named_parameters():
            assert torch.equal(parameter, before[name]) == name.startswith("auxiliary"), name


# -- moving averages ------------------------------------------------------------------------------------------------


def test_a_follower_forgets_its_start_as_m_to_the_n():
    start, leader = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    follower = frozen_copy(start)
    for _ in range(50):
        follow(follower, leader, 0.9)
    for slow, first, fast in zip(follower.parameters(), start.parameters(), leader.parameters(), strict=True):
        assert torch.allclose(slow, 0.9**50 * first + (1 - 0.9**50) * fast, atol=1e-6)
        assert not slow.requires_grad


def test_momentum_of_one_never_moves_and_of_zero_copies():
    leader, follower = torch.nn.Linear(3, 2), frozen_copy(torch.nn.Linear(3, 2))
    before = numbers(follower)
    follow(follower, leader, 1.0)
    assert equal(before, numbers(follower))
    follow(follower, leader, 0.0)
    assert equal(numbers(leader), numbers(follower))


def test_network_and_projector_follow_but_batch_norms_averages_do_not():
    for objective in objectives():
        student = network()
        if objective.label_free:
            with torch.no_grad():
                objective.projector[0].weight.add_(1.0)  # as if it had been trained
        starts = {name: value.clone() for name, value in objective.named_parameters()}
        buffers = [value.clone() for value in objective.auxiliary.buffers()]
        objective.after_step(student, 0.5)
        leaders = {f"auxiliary.{name}": value for name, value in student.named_parameters()}
        if objective.label_free:
            inside = objective.projector.named_parameters()
            leaders |= {f"auxiliary_projector.{name}": value for name, value in inside}
        followers = {name: value for name, value in objective.named_parameters() if name.startswith("auxiliary")}
        assert leaders.keys() == followers.keys()
        for name, value in followers.items():
            assert torch.allclose(value, 0.99 * starts[name] + 0.01 * leaders[name], atol=1e-6), name
        assert equal(buffers, list(objective.auxiliary.buffers()))


def test_momentum_is_constant_or_climbs_to_one():
    assert [momentum_at(share, 0.9, "constant") for share in (0.0, 0.5, 1.0)] == [0.9] * 3
    assert [momentum_at(share, 0.9, "cosine") for share in (0.0, 0.5, 1.0)] == pytest.approx([0.9, 0.95, 1.0])


# -- BYOL -----------------------------------------------------------------------------------------------------------


def test_distance_of_directions_is_0_when_alike_2_at_right_angles_and_4_when_opposite():
    vectors = torch.tensor([[3.0, 4.0], [3.0, 4.0], [3.0, 4.0]])
    others = torch.tensor([[6.0, 8.0], [-4.0, 3.0], [-0.3, -0.4]])
    assert torch.allclose(direction_distance(vectors, others), torch.tensor([0.0, 2.0, 4.0]), atol=1e-6)


@pytest.mark.parametrize(("scale", "expected"), [(2.0, 0.0), (-2.0, 8.0)])
def test_byol_is_0_where_the_prediction_points_alike_and_8_where_it_points_away(scale, expected):
    student = network()
    objective = ByolLoss(frozen_copy(student), **SMALL)

    class Scale(torch.nn.Module):
        def forward(self, values):
            return scale * values

    objective.predictor = Scale()
    step = step_of(student)
    same = Step(step.images, step.targets, step.student, None, step.task, 0.5, None, step.images, step.student)
    assert objective(same)["self"].item() == pytest.approx(expected, abs=1e-4)


def test_byol_compares_each_view_with_the_other():
    student = network()
    objective, step = ByolLoss(network(seed=1), **SMALL), step_of(student)
    with torch.no_grad():
        keys = [
            objective.auxiliary_projector(objective.auxiliary.outputs(view).pooled)
            for view in (step.images, step.other_images)
        ]
        queries = [objective.predictor(objective.projector(said.pooled)) for said in (step.student, step.other)]
        by_hand = 0.0
        for query, key in zip(queries, reversed(keys), strict=True):
            unit = [value / value.norm(dim=1, keepdim=True) for value in (query, key)]
            by_hand += (unit[0] - unit[1]).square().sum(dim=1).mean().item()
    assert objective(step)["self"].item() == pytest.approx(by_hand, rel=1e-4)


def test_projectors_come_from_their_seed_alone():
    before = torch.random.get_rng_state()
    first, again, other = mlp(5, 4, 3, seed=0), mlp(5, 4, 3, seed=0), mlp(5, 4, 3, seed=1)
    assert torch.equal(before, torch.random.get_rng_state())
    assert equal(numbers(first), numbers(again))
    assert not equal(numbers(first), numbers(other))


# -- DINO -----------------------------------------------------------------------------------------------------------


def test_dino_is_the_cross_entropy_of_the_sharpened_target_and_its_centre_follows():
    student = network()
    objective = DinoLoss(network(seed=1), **SMALL, temperature=0.2, auxiliary_temperature=0.1, centre_momentum=0.7)
    objective.centre.copy_(torch.linspace(-0.1, 0.1, 8))
    step, centre = step_of(student), objective.centre.double()
    with torch.no_grad():
        keys = [
            objective.auxiliary_projector(objective.auxiliary.outputs(view).pooled).double()
            for view in (step.images, step.other_images)
        ]
        said = [objective.projector(outputs.pooled).double() for outputs in (step.student, step.other)]
    by_hand = 0.0
    for key, answer in ((keys[1], said[0]), (keys[0], said[1])):
        for row in range(6):
            target = [math.exp((key[row, d] - centre[d]) / 0.1) for d in range(8)]
            scores = [math.exp(answer[row, d] / 0.2) for d in range(8)]
            by_hand -= sum(t / sum(target) * math.log(s / sum(scores)) for t, s in zip(target, scores, strict=True)) / (
                2 * 6
            )
    assert objective(step)["self"].item() == pytest.approx(by_hand, rel=1e-4)
    moved = 0.7 * centre + 0.3 * torch.cat(keys).mean(dim=0)
    assert torch.allclose(objective.centre.double(), moved, atol=1e-5)
    assert "centre" in objective.state_dict()


# -- with labels ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", TASKS, ids=lambda t: t.kind)
def test_logits_are_compared_across_views_by_the_tasks_own_losses(task):
    student = network(len(task.classes))
    objective = LogitSelfDistillation(network(len(task.classes), 1), temperature=3.0, weight=0.7)
    step = step_of(student, task)
    losses = objective(step)
    with torch.no_grad():
        first, second = (objective.auxiliary(view) for view in (step.images, step.other_images))
    hard = [task.hard_loss(said.logits, step.targets).mean() for said in (step.student, step.other)]
    soft = [
        task.soft_loss(step.student.logits, second, 3.0).mean(),
        task.soft_loss(step.other.logits, first, 3.0).mean(),
    ]
    assert losses["label"].item() == pytest.approx(sum(hard).item() / 2, rel=1e-5)
    assert losses["self"].item() == pytest.approx(0.7 * sum(soft).item() / 2, rel=1e-4)


def test_ensembled_answers_are_the_sum_of_the_series():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(5, 4, generator=generator, dtype=torch.float64)
    answers = torch.rand(5, 3, generator=generator, dtype=torch.float64)
    answers = answers / answers.sum(dim=1, keepdim=True)
    affinity = torch.zeros(5, 5, dtype=torch.float64)
    for i in range(5):
        alike = [math.exp(torch.cosine_similarity(features[i], features[j], dim=0)) * (i != j) for j in range(5)]
        affinity[i] = torch.tensor(alike) / sum(alike)
    series, power = torch.zeros(5, 3, dtype=torch.float64), torch.eye(5, dtype=torch.float64)
    for _ in range(200):  # (I - w A)^-1 = sum of (w A)^n
        series, power = series + 0.6 * power @ answers, 0.4 * affinity @ power
    found = ensembled(features.float(), answers.float(), 0.4)
    assert torch.allclose(found.double(), series, atol=1e-5)
    assert torch.allclose(found.sum(dim=1), torch.ones(5), atol=1e-5)
    assert torch.allclose(ensembled(features.float(), answers.float(), 0.0), answers.float(), atol=1e-6)


def test_ensembling_learns_the_ensemble_and_asks_nobody_in_a_batch_of_one():
    student = network(3)
    task, outputs = MultiClass(("a", "b", "c")), student.outputs(torch.rand(5, 1, 32, 32))
    objective = BatchEnsembling(network(3, 1), temperature=2.0)
    wanted = ensembled(outputs.pooled, (outputs.logits / 2).softmax(dim=1), 0.5)
    targets = objective.soft_targets(outputs)
    assert torch.allclose((targets / 2).softmax(dim=1), wanted, atol=1e-6)
    kl = (wanted * (wanted.log() - (outputs.logits / 2).log_softmax(dim=1))).sum(dim=1)
    assert torch.allclose(task.soft_loss(outputs.logits, targets, 2.0), 4 * kl, atol=1e-5)
    alone = Outputs(*(None if value is None else value[:1] for value in outputs))
    assert torch.allclose(objective.soft_targets(alone).softmax(dim=1), alone.logits.softmax(dim=1), atol=1e-6)


# -- in the loop ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", range(4), ids=["byol", "dino", "logits", "bake"])
def test_a_killed_run_goes_on_to_the_same_weights_and_the_same_auxiliary_network(toy, tmp_path, kind):
    data = toy(count=48)

    class KilledError(Exception):
        pass

    def die(line):
        if line["epoch"] == 2:
            raise KilledError  # after the epoch was trained, before its checkpoint was written

    def train(folder, log=lambda line: None):
        student, objective = network(), objectives()[kind]
        budget = TrainingSettings(epochs=3, batch_size=16)
        fit(student, objective, data, budget, folder=tmp_path / folder, role="skd", log=log, show_progress=False)
        return student, objective

    whole = train("whole")
    with pytest.raises(KilledError):
        train("parts", die)
    seen = []
    resumed = train("parts", seen.append)
    assert [line["epoch"] for line in seen] == [2, 3]
    for first, second in zip(whole, resumed, strict=True):
        assert equal(first.state_dict().values(), second.state_dict().values())


def test_label_free_training_keeps_the_last_epoch_and_reads_no_label(toy, tmp_path):
    def train(data, folder):
        student, objective = network(), ByolLoss(network(seed=1), **SMALL)
        lines, budget = [], TrainingSettings(epochs=2, batch_size=16)
        job = {"folder": tmp_path / folder, "role": "skd", "log": lines.append, "show_progress": False}
        fit(student, objective, data, budget, **job)
        return student, lines

    data = toy(count=48)
    student, lines = train(data, "right")
    data.targets[:] = 0
    other, _ = train(data, "wrong")
    assert equal(student.state_dict().values(), other.state_dict().values())
    assert lines[-1]["kept"] == 2
    assert all(line["val"] is None for line in lines)


def test_bfloat16_works(toy, tmp_path):
    for number, objective in enumerate(objectives()):
        budget = TrainingSettings(epochs=1, batch_size=16, precision="bf16")
        folder = tmp_path / str(number)
        student = fit(network(), objective, toy(count=48), budget, folder=folder, role="skd", show_progress=False)
        assert all(torch.isfinite(value).all() for value in student.parameters())


def test_settings_out_of_range_are_refused():
    for message, make in {
        "momentum": lambda: ByolLoss(network(), 1.1, **SMALL),
        "projector's width": lambda: ByolLoss(network(), width=0),
        "auxiliary_temperature": lambda: DinoLoss(network(), **SMALL, auxiliary_temperature=0),
        "centre_momentum": lambda: DinoLoss(network(), **SMALL, centre_momentum=2),
        "temperature": lambda: LogitSelfDistillation(network(), temperature=0),
        "weight": lambda: LogitSelfDistillation(network(), weight=-1),
        "omega": lambda: BatchEnsembling(network(), omega=1),
    }.items():
        with pytest.raises(UsageError, match=message):
            make()


def test_the_auxiliary_network_norms_by_its_batch_and_drops_nothing():
    auxiliary = network()
    auxiliary.backbone.add_module("dropped", torch.nn.Dropout(0.5))
    loss = ByolLoss(auxiliary, **SMALL).train()
    training = {type(module).__name__ for module in auxiliary.modules() if module.training}
    assert training
    assert all("BatchNorm" in name for name in training)
    x = torch.rand(4, 1, 32, 32)
    assert torch.equal(auxiliary(x), auxiliary(x))
    assert not any(module.training for module in loss.eval().modules())
