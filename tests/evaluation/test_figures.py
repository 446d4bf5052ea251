import numpy as np
import pytest

from stillroom.evaluation.effective import Basis
from stillroom.evaluation.figures import Tally, derivatives, weighted
from stillroom.task import MultiClass, MultiLabel

BINARY = MultiClass(("healthy", "ill"))
TASKS = (
    BINARY,
    MultiClass(("a", "b", "c", "d")),
    MultiClass(("none", "mild", "severe"), ordinal=True),
    MultiLabel(("x", "y")),
)


def predictions(task, images, decimals):
    """Probabilities that know something about their targets, with ties where there are few decimals."""
    generator = np.random.default_rng(0)
    classes = len(task.classes)
    if task.exclusive:
        targets = generator.permutation(np.arange(images) % classes)
    else:
        targets = (generator.random((images, classes)) < 0.3).astype(np.uint8)
    logits = generator.normal(size=(images, classes)) + 1.5 * task.one_hot(targets)
    return np.round(task.probabilities(logits), decimals), targets


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.kind)
def test_an_image_moves_a_figure_by_what_its_weight_changes(task):
    tally = Tally.of(task, *predictions(task, images=40, decimals=1))
    found = derivatives(tally, weighted(tally, np.ones((1, 40))))
    step = 1e-4 * np.eye(40)
    up, down = weighted(tally, 1 + step), weighted(tally, 1 - step)
    for name, slope in found.overall.items():
        assert slope == pytest.approx((up.overall[name] - down.overall[name]) / 2e-4, abs=1e-8), name
        assert slope.sum() == pytest.approx(0, abs=1e-8), name
    for name, slope in found.per_class.items():
        assert slope == pytest.approx((up.per_class[name] - down.per_class[name]) / 2e-4, abs=1e-8), name


@pytest.mark.parametrize("decimals", [1, 8])
def test_squares_of_the_auc_s_moves_are_delong_s_variance(decimals):
    probabilities, targets = predictions(BINARY, images=70, decimals=decimals)
    tally = Tally.of(BINARY, probabilities, targets)
    slope = derivatives(tally, weighted(tally, np.ones((1, 70)))).overall["auc"]
    scores = probabilities[:, 1]
    pairs = scores[targets == 1][:, None] - scores[targets == 0]
    wins = (pairs > 0) + (pairs == 0) / 2
    variance = [np.var(wins.mean(axis=axis)) / wins.shape[1 - axis] for axis in (0, 1)]
    assert (slope**2).sum() == pytest.approx(sum(variance))


def test_a_figure_rests_on_its_own_images_and_patients():
    targets = np.array([1] * 4 + [0] * 12)
    probabilities = BINARY.one_hot(targets).astype(float)
    tally = Tally.of(BINARY, probabilities, targets)
    images, patients = Basis.of(tally), Basis.of(tally, np.repeat(np.arange(8), 2))
    for basis, each in ((images, 1), (patients, 2)):
        assert basis.overall["sensitivity"] == 4 / each
        assert basis.overall["specificity"] == 12 / each
        assert basis.overall["accuracy"] == 16 / each
        assert basis.overall["f1"] == 4 / each
        assert basis.overall["auc"] == 6 / each  # the harmonic mean of 4 and 12
        assert basis.overall["balanced_accuracy"] == 8 / each  # twice the rarer side
        assert basis.overall["mcc"] == 12 / each  # 4 x 4 x 12 / 16
    labels = MultiLabel(("x", "y"))
    targets = np.zeros((20, 2), dtype=np.uint8)
    targets[:10, 0] = targets[:2, 1] = 1
    assert (
        Basis.of(Tally.of(labels, targets.astype(float), targets)).overall["sensitivity"] == 4
    )  # twice the worst label's
