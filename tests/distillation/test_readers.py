"""Readers' votes as one soft target, against shares counted by hand and against CA-MKD's own weights."""

import numpy as np
import pytest
import torch

from stillroom.distillation.objectives.ca_mkd import confidences
from stillroom.distillation.readers import Opinions, logits_of, one_voice
from stillroom.task import MultiClass, MultiLabel

TASK = MultiClass(("a", "b", "c"))


def votes(task, lines):
    """Of (image, reader, class) each."""
    images, readers, said = (np.array(part) for part in zip(*lines, strict=True))
    return Opinions(images, readers, task.one_hot(said).astype(float), votes=True)


def test_equal_readers_are_a_share_of_votes_however_many_answered():
    said = votes(TASK, [(0, 0, 1), (0, 1, 1), (0, 2, 2), (2, 1, 0)])
    found = one_voice(TASK, said, np.array([0, 0, 0]), np.array([0]))
    np.testing.assert_allclose(found.probabilities[[0, 2]], [[0, 2 / 3, 1 / 3], [1, 0, 0]])
    assert np.isnan(found.probabilities[1]).all()  # nobody answered
    np.testing.assert_array_equal(found.weights, [1, 1, 1])


def test_stated_probabilities_are_weighed_as_ca_mkd_weighs_teachers():
    rng = np.random.default_rng(0)
    said, targets = rng.dirichlet(np.ones(3), (4, 6)), rng.integers(0, 3, 6)  # [readers, images, classes]
    readers, images = (part.ravel() for part in np.meshgrid(np.arange(4), np.arange(6), indexing="ij"))
    opinions = Opinions(images, readers, said.reshape(-1, 3), votes=False)
    found = one_voice(TASK, opinions, targets, np.arange(6), "confidence")
    losses = torch.stack([TASK.hard_loss(torch.tensor(one).log(), torch.tensor(targets)) for one in said])
    weights = confidences(losses).numpy()
    np.testing.assert_allclose(found.probabilities, (weights[..., None] * said).sum(axis=0), atol=1e-6)
    np.testing.assert_allclose(found.weights, 4 * weights.mean(axis=1), atol=1e-6)


def test_a_vote_counts_as_what_it_has_been_worth_on_the_other_images():
    """Leaving the image out and counting by hand."""
    rng = np.random.default_rng(1)
    targets, count = rng.integers(0, 3, 40), 40
    said = np.stack([np.where(rng.random(count) < skill, targets, rng.integers(0, 3, count)) for skill in (0.9, 0.3)])
    opinions = votes(TASK, [(i, r, said[r, i]) for i in range(count) for r in range(2)])
    labelled = np.arange(30)
    found = one_voice(TASK, opinions, targets, labelled, "confidence")
    losses = np.zeros((2, 30))
    for i in labelled:
        for r in range(2):
            others = [j for j in labelled if j != i and said[r, j] == said[r, i]]
            right = sum(targets[j] == targets[i] for j in others)
            losses[r, i] = -np.log((right + 1) / (len(others) + 3))
    weights = confidences(torch.tensor(losses)).numpy()
    expected = np.zeros((30, 3))
    for r in range(2):
        expected[labelled, said[r, :30]] += weights[r]
    np.testing.assert_allclose(found.probabilities[:30], expected, atol=1e-9)
    means = 2 * weights.mean(axis=1)
    np.testing.assert_allclose(found.weights, means)
    assert means[0] > 1.2 > 0.8 > means[1]
    last = np.zeros((10, 3))
    for r in range(2):
        last[np.arange(10), said[r, 30:]] += means[r] / means.sum()
    np.testing.assert_allclose(found.probabilities[30:], last)


def test_labels_that_may_not_be_used_are_not_read():
    rng = np.random.default_rng(2)
    opinions = votes(TASK, [(i, r, rng.integers(0, 3)) for i in range(20) for r in range(3)])
    targets = rng.integers(0, 3, 20)
    other = np.concatenate([targets[:12], (targets[12:] + 1) % 3])
    first, second = (one_voice(TASK, opinions, t, np.arange(12), "confidence") for t in (targets, other))
    np.testing.assert_array_equal(first.probabilities, second.probabilities)


def test_readers_who_saw_no_label_and_images_with_one_reader_count_as_equals():
    said = votes(TASK, [(0, 0, 0), (0, 1, 1), (1, 0, 0), (2, 2, 1), (2, 0, 0)])
    found = one_voice(TASK, said, np.array([0, 0, 0]), np.array([0, 1]), "confidence")
    assert found.weights[2] == 1
    np.testing.assert_allclose(found.probabilities[1], [1, 0, 0])
    assert np.isfinite(found.probabilities).all()


def test_several_labels_are_each_weighed_by_their_own_counts():
    task, rng = MultiLabel(("x", "y")), np.random.default_rng(3)
    targets = rng.integers(0, 2, (50, 2)).astype(np.uint8)
    good, bad = targets.copy(), rng.integers(0, 2, (50, 2))
    images = np.tile(np.arange(50), 2)
    opinions = Opinions(images, np.repeat([0, 1], 50), np.concatenate([good, bad]).astype(float), votes=True)
    equal = one_voice(task, opinions, targets, np.arange(50))
    np.testing.assert_allclose(equal.probabilities, (good + bad) / 2)
    weighed = one_voice(task, opinions, targets, np.arange(50), "confidence")
    assert np.abs(weighed.probabilities - targets).mean() < np.abs(equal.probabilities - targets).mean()


@pytest.mark.parametrize("task", [TASK, MultiLabel(("x", "y", "z"))], ids=["one class", "several labels"])
def test_logits_are_those_of_the_probabilities(task):
    said = np.random.default_rng(0).dirichlet(np.ones(3), 20)
    np.testing.assert_allclose(task.probabilities(logits_of(task, said)), said, atol=1e-9)
    sure = np.array([[1.0, 0.0, 0.0]])
    assert np.isfinite(logits_of(task, sure)).all()
    np.testing.assert_allclose(task.probabilities(logits_of(task, sure)), sure, atol=1e-6)
