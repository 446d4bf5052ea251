"""Every objective, for every kind of task: finite, not negative, differentiable in the student and its own parameters."""

import importlib
import inspect
import pkgutil
from dataclasses import replace
from functools import cache

import pytest
import torch
import torch.nn.functional as F

from stillroom.distillation import objectives
from stillroom.distillation.objectives.attention_guided import AttentionGuidedLoss
from stillroom.distillation.objectives.attention_transfer import AttentionTransferLoss
from stillroom.distillation.objectives.byol import ByolLoss
from stillroom.distillation.objectives.ca_mkd import CAMKDLoss
from stillroom.distillation.objectives.chain import ChainLoss
from stillroom.distillation.objectives.dino import DinoLoss
from stillroom.distillation.objectives.dist import DISTLoss
from stillroom.distillation.objectives.dkd import DKDLoss
from stillroom.distillation.objectives.hints import HintLoss
from stillroom.distillation.objectives.hybrid import HybridLoss
from stillroom.distillation.objectives.imbalance import FocalKD, FocalLoss
from stillroom.distillation.objectives.labels import LabelLoss
from stillroom.distillation.objectives.panel import PanelLoss
from stillroom.distillation.objectives.rkd import RKDLoss
from stillroom.distillation.objectives.self_logits import BatchEnsembling, LogitSelfDistillation
from stillroom.distillation.step import Objective
from stillroom.errors import UsageError
from stillroom.models.zoo import create
from stillroom.task import MultiClass, MultiLabel

TASKS = (
    MultiClass(("a", "b")),
    MultiClass(("a", "b", "c")),
    MultiClass(("a", "b", "c"), ordinal=True),
    MultiLabel(("a", "b", "c")),
    MultiLabel(("a", "b", "c"), paper_softmax=True),
)
STUDENT_MAP = (5, 4, 4)


@cache
def network(task, name="test_resnet", seed=0):
    return create(name, classes=len(task.classes), size=32, seed=seed)


def two_teachers(task):
    return [network(task), network(task, "test_vit")]


OBJECTIVES = {
    "labels": lambda task: LabelLoss(),
    "hybrid": lambda task: HybridLoss(),
    "hybrid, reversed": lambda task: HybridLoss(0.5, 4.0, "teacher", "reverse"),
    "focal": lambda task: FocalLoss(),
    "focal below 1": lambda task: FocalLoss(0.5),
    "focal kd": lambda task: FocalKD(gamma=2.0),
    "focal kd by mse": lambda task: FocalKD(kd="mse"),
    "panel": lambda task: PanelLoss(),
    "panel with features": lambda task: PanelLoss(
        feature_weight=1.0, student=96, features=[torch.randn(9, 3), torch.randn(9, 4)]
    ),
    "chain": lambda task: ChainLoss(),
    "dkd": lambda task: DKDLoss(),
    "dist": lambda task: DISTLoss(),
    "attention transfer": lambda task: AttentionTransferLoss(),
    "attention guided by energy": lambda task: AttentionGuidedLoss(None, [None, None]),
    "attention guided by class": lambda task: AttentionGuidedLoss(
        torch.nn.Linear(STUDENT_MAP[0], len(task.classes)), [net.classifier() for net in two_teachers(task)]
    ),
    "hints": lambda task: HintLoss(STUDENT_MAP, [net.map_shape for net in two_teachers(task)]),
    "rkd": lambda task: RKDLoss(),
    "ca-mkd": lambda task: CAMKDLoss(STUDENT_MAP, two_teachers(task)),
    "ca-mkd, as its authors'": lambda task: CAMKDLoss(
        STUDENT_MAP, two_teachers(task), extra_division=True, learnt_weights=True
    ),
    "ca-mkd, equal": lambda task: CAMKDLoss(STUDENT_MAP, two_teachers(task), weighting="equal"),
    "byol": lambda task: ByolLoss(network(task), width=16, projection=8),
    "dino": lambda task: DinoLoss(network(task), width=16, projection=8),
    "logit self-distillation": lambda task: LogitSelfDistillation(network(task)),
    "batch ensembling": lambda task: BatchEnsembling(network(task)),
}
ABSTRACT = {"Transfer", "SelfDistillation", "ProjectedSelfDistillation"}
MAPS = [network(TASKS[0]).map_shape, network(TASKS[0], "test_vit").map_shape]

WITHOUT_TEACHERS = ["labels", "focal", "focal below 1"]
TWO_VIEWS = ["byol", "dino", "logit self-distillation", "batch ensembling"]  # no teachers either
TAUGHT = [name for name in OBJECTIVES if name not in WITHOUT_TEACHERS + TWO_VIEWS]
# Batches of training never have one image; those that normalise over the batch rely on it.
SIZES = [(name, batch) for name in OBJECTIVES for batch in (6, 1) if batch > 1 or name not in TWO_VIEWS]
every_task = pytest.mark.parametrize("task", TASKS, ids=lambda t: t.kind + " softmax" * getattr(t, "paper_softmax", 0))


def test_every_objective_is_held_to_the_contract():
    modules = [
        importlib.import_module(f"{objectives.__name__}.{m.name}") for m in pkgutil.iter_modules(objectives.__path__)
    ]
    found = {
        name
        for module in modules
        for name, cls in inspect.getmembers(module, inspect.isclass)
        if issubclass(cls, Objective) and cls.__module__ == module.__name__
    }
    assert found - ABSTRACT == {type(make(TASKS[1])).__name__ for make in OBJECTIVES.values()}


@pytest.mark.parametrize(("name", "batch"), SIZES)
@every_task
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_contract(make_step, name, task, batch, dtype):
    objective = OBJECTIVES[name](task).train()
    step = make_step(task, batch, dtype=dtype, shapes=MAPS)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
        losses = objective(step)
    assert losses
    assert all(value.ndim == 0 and torch.isfinite(value) and value >= 0 for value in losses.values()), losses
    torch.stack(list(losses.values())).sum().backward()
    inputs = [value for outputs in (step.student, step.other) for value in outputs]
    reached = [value.grad for value in inputs if value.grad is not None]
    assert reached
    assert all(torch.isfinite(gradient).all() for gradient in reached)
    assert any(gradient.abs().sum() > 0 for gradient in reached)
    for parameter in objective.parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None
            assert torch.isfinite(parameter.grad).all()
        else:
            assert parameter.grad is None


@pytest.mark.parametrize("name", TAUGHT)
@every_task
def test_images_without_labels(make_step, name, task):
    """Everything but the labels' term is defined without labels."""
    objective = OBJECTIVES[name](task).train()
    step = make_step(task, shapes=MAPS)
    free = replace(step, targets=step.targets[:0])
    losses = objective.on_unlabelled(free)
    assert all(value.ndim == 0 and torch.isfinite(value) and value >= 0 for value in losses.values())
    torch.stack(list(losses.values())).sum().backward()
    assert any(value.grad is not None and value.grad.abs().sum() > 0 for value in step.student)


def mixed(step, task, share):
    """The step with its images mixed with others: by ``share`` ``[B]``."""
    generator = torch.Generator().manual_seed(9)
    high = len(task.classes) if task.exclusive else 2
    others = torch.randint(0, high, step.targets.shape, generator=generator)
    return replace(step, other_targets=others, share=share)


@every_task
def test_the_loss_on_a_mixtures_labels_is_that_on_their_mean(make_step, task):
    """The losses on labels are linear in the targets: two labels by their shares are one soft label."""
    share = torch.tensor([1.0, 0.5, 0.9, 0.75, 0.6, 0.8])
    step = mixed(make_step(task), task, share)
    logits, weight = step.student.logits, torch.rand(6, 3)
    hot = [torch.from_numpy(task.one_hot(found.numpy())).float() for found in (step.targets, step.other_targets)]
    if not task.exclusive and getattr(task, "paper_softmax", False):
        hot = [found / found.sum(dim=1, keepdim=True).clamp(min=1) for found in hot]
    soft = share[:, None] * hot[0] + (1 - share)[:, None] * hot[1]
    if task.exclusive or task.paper_softmax:
        expected = -(soft * logits.log_softmax(dim=1)).sum(dim=1)
    else:
        expected = F.binary_cross_entropy_with_logits(logits, soft, reduction="none").mean(dim=1)
    assert torch.allclose(step.label_loss(), expected, atol=1e-6)
    assert torch.allclose(LabelLoss()(step)["label"], expected.mean(), atol=1e-6)
    if task.exclusive:
        weight = torch.linspace(0.5, 2, len(task.classes))
        expected = -(weight * soft * logits.log_softmax(dim=1)).sum(dim=1)
        assert torch.allclose(replace(step, class_weights=weight).label_loss(), expected, atol=1e-6)


@pytest.mark.parametrize("name", [name for name in OBJECTIVES if name not in TWO_VIEWS])
@every_task
def test_mixtures_count_both_labels(make_step, name, task):
    """With a share of 1 the other label is nothing, with 0 it is all; in between, every loss on labels lies between."""
    objective = OBJECTIVES[name](task).eval()
    step = make_step(task, shapes=MAPS)
    half = mixed(step, task, torch.full((6,), 0.5))
    alone, other = objective(step), objective(replace(step, targets=half.other_targets))
    for share, expected in ((torch.ones(6), alone), (torch.zeros(6), other)):
        found = objective(replace(half, share=share))
        assert all(torch.allclose(found[part], value, atol=1e-5) for part, value in expected.items())
    between = objective(half)["label"] if "label" in alone else None
    if between is not None:
        assert torch.allclose(between, (alone["label"] + other["label"]) / 2, atol=1e-5)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_what_it_reads_is_what_it_says_it_needs(make_step, name):
    task = TASKS[1]
    objective = OBJECTIVES[name](task).train()
    fields = {"pooled": "pooled", "map": "maps", "attention": "attentions"}
    missing = {field: [] for need, field in fields.items() if need not in objective.needs}
    if not objective.needs:
        missing["logits"] = torch.zeros(0, 6, 3)
    assert objective(make_step(task, shapes=MAPS, **missing))
    assert bool(objective.needs) == (name in TAUGHT)
    assert objective.two_views == (name in TWO_VIEWS)


@every_task
def test_hybrid_weights_its_two_terms(make_step, task):
    step = make_step(task, teachers=1)
    label = LabelLoss()(step)["label"]
    soft = task.soft_loss(step.student.logits, step.teachers.logits[0], 2.0).mean()
    paper = HybridLoss(alpha=0.2, temperature=2.0)(step)
    assert torch.allclose(paper["label"], 0.2 * label)
    assert torch.allclose(paper["teacher"], 0.8 * soft)
    swapped = HybridLoss(alpha=0.2, temperature=2.0, alpha_role="teacher")(step)
    assert torch.allclose(swapped["label"], 0.8 * label)
    assert torch.allclose(swapped["teacher"], 0.2 * soft)


@every_task
@pytest.mark.parametrize("objective", [HybridLoss(), FocalKD(), FocalKD(kd="mse")], ids=["hybrid", "kl", "mse"])
def test_a_student_that_says_what_the_teacher_says_satisfies(make_step, task, objective):
    logits = make_step(task).student.logits.detach()
    assert objective(make_step(task, logits=logits[None]))["teacher"].abs() < 1e-5


def test_several_teachers_are_averaged(make_step):
    task = TASKS[1]
    step = make_step(task, teachers=3)
    soft = [task.soft_loss(step.student.logits, teacher, 2.0).mean() for teacher in step.teachers.logits]
    assert torch.allclose(HybridLoss()(step)["teacher"], 0.8 * sum(soft) / 3)


REFUSED = {
    "alpha": (
        lambda: HybridLoss(alpha=1.2),
        lambda: FocalKD(alpha=-0.1),
        lambda: DKDLoss(alpha=-1),
    ),
    "temperature must be": (
        lambda: HybridLoss(temperature=0),
        lambda: FocalKD(temperature=0),
        lambda: DKDLoss(temperature=float("inf")),
        lambda: DISTLoss(temperature=-1),
        lambda: HintLoss(STUDENT_MAP, [STUDENT_MAP], temperature=0),
        lambda: CAMKDLoss(STUDENT_MAP, two_teachers(TASKS[0]), temperature=0),
    ),
    "gamma": (lambda: FocalLoss(-1), lambda: FocalLoss(float("nan")), lambda: DISTLoss(gamma=-1)),
    "beta": (
        lambda: DKDLoss(beta=-1),
        lambda: DISTLoss(beta=float("nan")),
        lambda: AttentionGuidedLoss(None, [None], beta=-1),
    ),
    "warm_up": (lambda: DKDLoss(warm_up=2),),
    "weight must be": (
        lambda: AttentionTransferLoss(-1),
        lambda: HintLoss(STUDENT_MAP, [STUDENT_MAP], weight=-1),
        lambda: HintLoss(STUDENT_MAP, [STUDENT_MAP], soft_weight=-1),
        lambda: RKDLoss(distance_weight=-1),
        lambda: RKDLoss(angle_weight=-1),
        lambda: CAMKDLoss(STUDENT_MAP, two_teachers(TASKS[0]), feature_weight=-1),
    ),
    "at least one teacher": (lambda: CAMKDLoss(STUDENT_MAP, []),),
}


@pytest.mark.parametrize("message", REFUSED)
def test_settings_out_of_range_are_refused(message):
    for make in REFUSED[message]:
        with pytest.raises(UsageError, match=message):
            make()


def test_defaults_are_the_published_ones():
    """As the table "standard_kd" of docs/recipes.md has them from the papers and their authors' code."""
    maps = (STUDENT_MAP, [STUDENT_MAP])
    for objective, published in (
        (AttentionTransferLoss(), {"weight": 1000}),
        (HintLoss(*maps), {"weight": 100, "teacher_weight": 1, "temperature": 3}),
        (RKDLoss(), {"distance_weight": 25, "angle_weight": 50}),
        (DKDLoss(), {"teacher_weight": 1, "beta": 8, "temperature": 4, "warm_up": 20 / 240}),
        (
            CAMKDLoss(STUDENT_MAP, two_teachers(TASKS[0])),
            {"temperature": 4, "feature_weight": 50, "teacher_weight": 1 / 2, "learnt_weights": False},
        ),
    ):
        assert {name: getattr(objective, name) for name in published} == published
