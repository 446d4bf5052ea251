"""What several readers, or several teachers of whom only answers are there, say of an image with one voice."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stillroom.settings.sections import ReaderWeights
from stillroom.task import Task
from stillroom.task.numerics import log_clipped


@dataclass(frozen=True)
class Opinions:
    """Answers, one a reader and image. A reader need not have seen every image.

    Attributes:
        images: ``[m]`` row number of the image.
        readers: ``[m]`` number of the reader.
        said: ``[m, K]`` float64 probabilities; of a vote 0 and 1.
        votes: whether they are votes.
    """

    images: np.ndarray
    readers: np.ndarray
    said: np.ndarray
    votes: bool


@dataclass(frozen=True)
class OneVoice:
    """The readers together.

    Attributes:
        probabilities: ``[N, K]`` the weighted mean of what they said; NaN for an image that nobody answered.
        weights: ``[R]`` each reader's mean weight, where 1 is that of a reader among equals.
    """

    probabilities: np.ndarray
    weights: np.ndarray


def one_voice(
    task: Task, opinions: Opinions, targets: np.ndarray, labelled: np.ndarray, how: ReaderWeights = "equal"
) -> OneVoice:
    """The readers' soft target of every image: of votes with equal weights, the share of readers who said so.

    ``confidence`` weighs the R readers of an image as CA-MKD (2022) weighs teachers:
    ``w_r = (1 - softmax_r(loss)) / (R - 1)``, where ``loss_r`` is the reader's cross-entropy on the image's label. A vote is
    no probability: its cross-entropy is 0 or infinite. So a vote counts as what it has been worth:
    ``loss_r = -log p(label | vote)``, the share of the *other* labelled images with this vote of this reader that have this
    label, by Laplace's rule: ``n(vote, label) / (n(vote) + K - 1)``, where both n count the image itself too (for labels of
    their own K is 2, and the loss is the mean over labels). Images without a label that may be used, validation and test
    among them, take each reader's mean weight over those with one.

    Args:
        task: what the answers mean.
        opinions: who said what.
        targets: of all ``N`` images; those of rows outside ``labelled`` are not read.
        labelled: row numbers of the training images whose labels may be used.
        how: ``equal`` or ``confidence``.
    """
    count, number = len(targets), int(opinions.readers.max()) + 1
    weights, means = np.ones(len(opinions.images)), np.ones(number)
    if how == "confidence" and number > 1:
        weights, means = _confidences(task, opinions, targets, labelled, number)
    weights = weights / _sums(weights, opinions.images, count)[opinions.images]
    found = np.zeros((count, len(task.classes)))
    np.add.at(found, opinions.images, weights[:, None] * opinions.said)
    found[np.bincount(opinions.images, minlength=count) == 0] = np.nan
    return OneVoice(found, means)


def logits_of(task: Task, probabilities: np.ndarray) -> np.ndarray:
    """``[N, K]`` logits whose probabilities these are; none nearer to 0 (for labels of their own, or 1) than 1e-7."""
    logs = log_clipped(probabilities)
    return logs if task.exclusive else logs - log_clipped(1 - probabilities)


def _confidences(
    task: Task, opinions: Opinions, targets: np.ndarray, labelled: np.ndarray, number: int
) -> tuple[np.ndarray, np.ndarray]:
    """``[m]`` weight of each answer and ``[R]`` of each reader in the mean, 1 being an equal's."""
    known = np.isin(opinions.images, labelled)
    images, readers = opinions.images[known], opinions.readers[known]
    truth = task.one_hot(targets[images])
    losses = (
        _losses_of_votes(task, opinions.said[known], truth, readers, number)
        if opinions.votes
        else (task.log_loss(opinions.said[known], targets[images]))
    )
    surprise = np.exp(losses)
    size = _sums(np.ones(len(images)), images, len(targets))[images]
    share = surprise / _sums(surprise, images, len(targets))[images]
    relative = np.where(size > 1, size * (1 - share) / np.maximum(size - 1, 1), 1.0)
    answered = _sums(np.ones(len(readers)), readers, number)
    means = np.where(answered > 0, _sums(relative, readers, number) / np.maximum(answered, 1), 1.0)
    weights = means[opinions.readers]
    weights[known] = relative
    return weights, means


def _losses_of_votes(task: Task, said: np.ndarray, truth: np.ndarray, readers: np.ndarray, number: int) -> np.ndarray:
    """``[m]`` in nats: how surprising the label is after this vote of this reader."""
    if task.exclusive:
        return _surprise(said.argmax(axis=1), truth.argmax(axis=1), readers, number, len(task.classes))
    by_label = [
        _surprise(said[:, k].astype(int), truth[:, k].astype(int), readers, number, 2) for k in range(said.shape[1])
    ]
    return np.mean(by_label, axis=0)


def _surprise(votes: np.ndarray, truth: np.ndarray, readers: np.ndarray, number: int, classes: int) -> np.ndarray:
    counts = np.zeros((number, classes, classes))
    np.add.at(counts, (readers, votes, truth), 1)
    return np.log(counts.sum(axis=2)[readers, votes] + classes - 1) - np.log(counts[readers, votes, truth])


def _sums(values: np.ndarray, places: np.ndarray, length: int) -> np.ndarray:
    """``[length]``: the sum of the values at each place."""
    return np.bincount(places, weights=values, minlength=length)
