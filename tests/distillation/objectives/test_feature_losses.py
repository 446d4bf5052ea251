"""Attention transfer, hints and RKD against loops in NumPy."""

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from stillroom.distillation.maps import MapRegressor, to_grid
from stillroom.distillation.objectives.attention_transfer import AttentionTransferLoss
from stillroom.distillation.objectives.hints import HintLoss
from stillroom.distillation.objectives.rkd import RKDLoss
from stillroom.task import MultiClass

TASK = MultiClass(("a", "b", "c"))
STUDENT = (5, 4, 4)


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# -- grids ----------------------------------------------------------------------------------------------------------
def test_maps_shrink_by_averaging_and_grow_by_interpolating():
    found = torch.arange(16.0).view(1, 1, 4, 4)
    assert to_grid(found, (2, 2)).flatten().tolist() == [2.5, 4.5, 10.5, 12.5]
    assert to_grid(found, (1, 1)).item() == 7.5
    assert torch.equal(to_grid(found, (4, 4)), found)
    grown = to_grid(found, (8, 4))
    assert grown.shape == (1, 1, 8, 4)
    assert grown[0, 0, :4, 0].tolist() == [0.0, 1.0, 3.0, 5.0]


def test_regressors_start_from_their_seed_and_leave_the_random_state_alone():
    state = torch.random.get_rng_state()
    first, second, third = (HintLoss(STUDENT, [(3, 2, 2)], seed=seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(first[name], third[name]) for name in first)


def test_a_regressor_of_one_value_per_channel_uses_its_running_statistics():
    regressor = MapRegressor(STUDENT, (3, 1, 1), rectified=True).train()
    regressor.norm.running_mean.fill_(0.5)
    found = random(1, *STUDENT)
    single = regressor(found)
    assert torch.equal(regressor.norm.running_mean, torch.full((3,), 0.5))
    assert torch.allclose(single, regressor.eval()(found))


# -- attention transfer ---------------------------------------------------------------------------------------------
def test_attention_by_loops(make_step):
    step = make_step(TASK, teachers=2, shapes=[(3, 2, 2), (7, 4, 4)])
    student = step.student.map.detach().double().numpy()
    losses = []
    for said in step.teachers.maps:
        energy = (student**2).sum(axis=1)
        if said.shape[-1] == 2:
            energy = energy.reshape(6, 2, 2, 2, 2).mean(axis=(2, 4))
        other = (said.double().numpy() ** 2).sum(axis=1)
        for ours, theirs in zip(energy, other, strict=True):
            losses.append(((ours / np.linalg.norm(ours) - theirs / np.linalg.norm(theirs)) ** 2).mean())
    halves = np.reshape(losses, (2, 6)).mean(axis=1)
    assert AttentionTransferLoss(10.0)(step)["attention"].item() == pytest.approx(10 * halves.mean(), rel=1e-4)


def test_attention_knows_place_and_not_scale(make_step):
    step = make_step(TASK, shapes=[STUDENT])
    for scale in (3.0, 0.01):
        same = make_step(TASK, maps=[scale * step.student.map.detach()])
        assert AttentionTransferLoss()(same)["attention"].item() == pytest.approx(0, abs=1e-6)
    assert AttentionTransferLoss().weight == 1000  # the authors' beta
    turned = make_step(TASK, maps=[step.student.map.detach().flip(2)])
    assert AttentionTransferLoss()(turned)["attention"].item() > 1
    dark = make_step(TASK, shapes=[STUDENT])
    with torch.no_grad():
        dark.student.map.zero_()
    AttentionTransferLoss()(dark)["attention"].backward()
    assert dark.student.map.grad.abs().max() == 0


def test_one_place_says_nothing(make_step):
    assert AttentionTransferLoss()(make_step(TASK, shapes=[(7, 1, 1)]))["attention"].item() == pytest.approx(
        0, abs=1e-6
    )


# -- hints ----------------------------------------------------------------------------------------------------------
def test_hints_by_matrix_products(make_step):
    shapes = [(3, 2, 2), (7, 4, 4)]
    step = make_step(TASK, shapes=shapes)
    objective = HintLoss(STUDENT, shapes, weight=10.0, soft_weight=0.5)
    found = step.student.map.detach()
    pooled = found.view(6, 5, 2, 2, 2, 2).mean(dim=(3, 5))
    gaps = []
    for regressor, ours, theirs in zip(objective.regressors, (pooled, found), step.teachers.maps, strict=True):
        weight, bias = regressor.conv.weight.detach()[:, :, 0, 0], regressor.conv.bias.detach()
        matched = torch.einsum("oc,bchw->bohw", weight, ours) + bias[:, None, None]
        gaps.append(((matched - theirs) ** 2).mean().item())
    losses = objective(step)
    assert losses["hint"].item() == pytest.approx(10 * np.mean(gaps), rel=1e-4)
    kl = [TASK.soft_loss(step.student.logits, said, 3.0).mean().item() for said in step.teachers.logits]
    assert losses["teacher"].item() == pytest.approx(0.5 * np.mean(kl), rel=1e-5)


# -- RKD ------------------------------------------------------------------------------------------------------------
def huber(gap):
    return 0.5 * gap**2 if abs(gap) < 1 else abs(gap) - 0.5


def relations(points):
    """Distances of all pairs over their mean, and the cosine at i between j and k."""
    count = range(len(points))
    distances = {(i, j): np.linalg.norm(points[i] - points[j]) for i, j in itertools.permutations(count, 2)}
    mean = np.mean(list(distances.values()))
    cosines = {
        (i, j, k): (points[j] - points[i]) @ (points[k] - points[i]) / distances[i, j] / distances[i, k]
        for i, j, k in itertools.permutations(count, 3)
    }
    return {pair: distance / mean for pair, distance in distances.items()}, cosines


def test_rkd_by_loops(make_step):
    step = make_step(TASK, teachers=2)
    ours = relations(step.student.pooled.detach().double().numpy())
    expected = np.zeros(2)
    for said in step.teachers.pooled:
        theirs = relations(said.double().numpy())
        expected += [np.mean([huber(a[key] - b[key]) for key in a]) / 2 for a, b in zip(ours, theirs, strict=True)]
    losses = RKDLoss()(step)
    assert losses["distances"].item() == pytest.approx(25 * expected[0], rel=1e-4)
    assert losses["angles"].item() == pytest.approx(50 * expected[1], rel=1e-4)


def test_rkd_knows_no_scale_shift_or_turn(make_step):
    step = make_step(TASK)
    turn = torch.linalg.qr(random(96, 96)).Q
    moved = 3.0 * step.student.pooled.detach() @ turn + 1.0
    losses = RKDLoss()(make_step(TASK, pooled=[moved]))
    assert losses["distances"].item() == pytest.approx(0, abs=1e-5)
    assert losses["angles"].item() == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize(("batch", "zero"), [(1, ["distances", "angles"]), (2, ["distances", "angles"])])
def test_too_few_images_for_relations(make_step, batch, zero):
    """One pair's distance over the mean distance is always 1."""
    losses = RKDLoss()(make_step(TASK, batch=batch))
    assert all(losses[name].item() == pytest.approx(0, abs=1e-10) for name in zero)


def test_images_that_coincide_have_finite_gradients(make_step):
    step = make_step(TASK)
    with torch.no_grad():
        step.student.pooled[:3] = step.student.pooled[3]
    sum(RKDLoss()(step).values()).backward()
    assert torch.isfinite(step.student.pooled.grad).all()
    collapsed = make_step(TASK)
    with torch.no_grad():
        collapsed.student.pooled[:] = 1.0
    sum(RKDLoss()(collapsed).values()).backward()
    assert torch.isfinite(collapsed.student.pooled.grad).all()


def test_relations_are_exact_under_autocast(make_step):
    step = make_step(TASK)
    plain = RKDLoss()(step)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = RKDLoss()(step)
    assert all(torch.equal(plain[name], mixed[name]) for name in ("distances", "angles"))
    assert F.smooth_l1_loss(torch.tensor(3.0), torch.tensor(0.0)).item() == huber(3.0)
