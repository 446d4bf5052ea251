"""The rule for the weights that are kept: what may be said of two epochs on the same validation images."""

import numpy as np
import pytest
import torch

from stillroom.evaluation.likelihood import calibrated_losses, clearly_better, standard_error
from stillroom.task import MultiClass
from stillroom.training.batch_norm import reestimate_statistics, statistics_lag

TASK = MultiClass(("a", "b", "c"))


def test_the_scale_of_the_logits_does_not_matter():
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 3, 200)
    logits = rng.normal(size=(200, 3)) + 2 * np.eye(3)[targets]
    plain = calibrated_losses(TASK, logits, targets)
    assert calibrated_losses(TASK, 7 * logits, targets) == pytest.approx(plain, abs=1e-4)
    assert plain.mean() == pytest.approx(min(TASK.nll(logits, targets, t) for t in np.linspace(0.3, 3, 500)), abs=1e-4)


def test_luck_is_seldom_taken_for_a_difference_and_a_difference_is_found():
    rng = np.random.default_rng(1)
    same = real = 0
    for _ in range(400):
        hard = rng.exponential(0.4, 30)  # what makes an image hard for both
        first, second = (hard + rng.normal(0, 0.1, 30) for _ in range(2))
        same += clearly_better(first, second)
        real += clearly_better(first - 0.12, second)
    assert same < 0.02 * 400
    assert real > 0.9 * 400


def test_few_images_choose_nothing():
    assert not clearly_better(np.zeros(19), np.ones(19))
    assert clearly_better(np.zeros(20), np.ones(20))
    assert not clearly_better(np.ones(20), np.ones(20))


def test_images_of_one_patient_are_one_observation():
    rng = np.random.default_rng(0)
    apart = rng.normal(0, 1, 12)
    apart += 1.2 * apart.std(ddof=1) / np.sqrt(12) - apart.mean()  # 1.2 standard errors over the patients
    patients = np.repeat(np.arange(12), 9)
    first, second = np.zeros(108), np.repeat(apart, 9)
    assert clearly_better(first, second)  # nine copies of each look like 3.6
    assert not clearly_better(first, second, patients)
    assert standard_error(second, patients) == pytest.approx(apart.std(ddof=1) / np.sqrt(12))


def test_statistics_lag_after_few_steps_of_their_own_time():
    fast, slow = torch.nn.BatchNorm2d(3), torch.nn.BatchNorm2d(3, momentum=0.01)
    assert statistics_lag(fast, 99)
    assert not statistics_lag(fast, 100)
    assert statistics_lag(torch.nn.Sequential(fast, slow), 999)
    assert not statistics_lag(torch.nn.Linear(3, 3), 1)


def test_statistics_are_plain_means_over_the_batches():
    network = torch.nn.Sequential(torch.nn.BatchNorm2d(3), torch.nn.Dropout(0.5))
    batches = [torch.randn(8, 3, 4, 4, generator=torch.Generator().manual_seed(n)) + n for n in range(3)]
    network[0].running_mean.fill_(9.0)
    network.train()
    reestimate_statistics(network, batches)
    assert torch.allclose(network[0].running_mean, torch.stack([b.mean(dim=(0, 2, 3)) for b in batches]).mean(dim=0))
    assert network[0].momentum == 0.1
    assert network[1].training


def test_dropout_stays_off_while_statistics_are_taken_and_every_mode_comes_back():
    network = torch.nn.Sequential(torch.nn.Dropout(0.5), torch.nn.BatchNorm2d(1), torch.nn.Dropout(0.5)).train()
    network[2].eval()
    reestimate_statistics(network, [torch.ones(8, 1, 4, 4)])
    assert network[1].running_mean.item() == pytest.approx(1.0)
    assert network[1].running_var.item() == pytest.approx(0.0)
    assert [module.training for module in network] == [True, True, False]
    assert network[1].momentum == 0.1
