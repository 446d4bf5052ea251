import json

import numpy as np
import pytest
from scipy.stats import norm
from scipy.stats import t as student
from sklearn.metrics import accuracy_score, roc_auc_score

from stillroom.errors import UsageError
from stillroom.evaluation import comparison
from stillroom.evaluation.comparison import compare, delong, mcnemar, rarest
from stillroom.task import MultiClass, MultiLabel

BINARY = MultiClass(("healthy", "ill"))


def models(images, skill=(1.5, 1.5), shared=0.9, seed=0):
    """Two correlated binary classifiers and their targets; skill is the distance between the classes' scores."""
    generator = np.random.default_rng(seed)
    targets = np.arange(images) % 2
    common = generator.normal(size=images)
    outputs = []
    for distance in skill:
        noise = shared * common + np.sqrt(1 - shared**2) * generator.normal(size=images)
        logit = noise + distance * (targets - 0.5)
        outputs.append(BINARY.probabilities(np.stack([-logit, logit], axis=1)))
    return outputs[0], outputs[1], targets


def test_differences_are_first_minus_second():
    first, second, targets = models(200, skill=(2.0, 1.0))
    result = compare(BINARY, first, second, targets, resamples=200)
    auc = [roc_auc_score(targets, p[:, 1]) for p in (first, second)]
    accuracy = [accuracy_score(targets, p[:, 1] > 0.5) for p in (first, second)]
    assert result["metric"] == "auc"
    assert result["first"] == {"name": "student", "value": pytest.approx(auc[0])}
    assert result["difference"]["value"] == pytest.approx(auc[0] - auc[1])
    assert result["accuracy_difference"]["value"] == pytest.approx(accuracy[0] - accuracy[1])
    assert result["difference"]["low"] < result["difference"]["value"] < result["difference"]["high"]
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_pairing_narrows_the_interval():
    width = {}
    for shared in (0.0, 0.98):
        first, second, targets = models(300, shared=shared)
        difference = compare(BINARY, first, second, targets, resamples=300)["difference"]
        width[shared] = difference["high"] - difference["low"]
    assert width[0.98] < width[0.0] / 3


CASES = {
    "superior": ({"images": 400, "skill": (3.0, 1.0)}, 0.02, "the student is better."),
    "non-inferior": (
        {"images": 4000, "skill": (2.0, 2.0), "shared": 0.97},
        0.02,
        "the student is non-inferior: if it is worse at all, it is by less than the margin of 0.02.",
    ),
    "non-inferior though worse": (
        {"images": 4000, "skill": (1.9, 2.0), "shared": 0.99},
        0.05,
        "the student is non-inferior: it is worse, but by less than the margin of 0.05.",
    ),
    "inconclusive": (
        {"images": 60, "skill": (1.5, 1.5), "shared": 0.3},
        0.02,
        "neither a difference nor non-inferiority by a margin of 0.02 can be claimed.",
    ),
    "worse": (
        {"images": 4000, "skill": (1.8, 2.0), "shared": 0.95},
        0.022,
        "the student is worse, and non-inferiority by a margin of 0.022 cannot be claimed.",
    ),
    "inferior": (
        {"images": 400, "skill": (0.5, 3.0)},
        0.02,
        "the student is inferior: it is worse by more than the margin of 0.02.",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_verdict_and_sentence_follow_the_interval(case):
    data, margin, claim = CASES[case]
    result = compare(BINARY, *models(**data), margin=margin, resamples=300)
    low, high = result["difference"]["low"], result["difference"]["high"]
    assert result["verdict"] == case.removesuffix(" though worse")
    assert result["superior"] == (low > 0)
    assert result["non_inferior"] == (low > -margin)
    truths = {
        "superior": low > 0,
        "non-inferior": -margin < low <= 0 <= high,
        "non-inferior though worse": -margin < low and high < 0,
        "inconclusive": low <= -margin and high >= 0,
        "worse": low <= -margin <= high < 0,
        "inferior": high < -margin,
    }
    assert [name for name, true in truths.items() if true] == [case]
    assert result["statement"].endswith(claim)
    assert result["statement"].startswith(f"Student AUC {result['first']['value']:.3f} against teacher ")
    assert f"(95 % interval {low:z.3f} to {high:z.3f}); " in result["statement"]


def test_rounding_never_contradicts_the_claim():
    assert comparison._digits((-0.01, 0.01), (0.0, -0.02)) == 3
    assert comparison._digits((-0.01996, 0.01), (0.0, -0.02)) == 5
    assert comparison._digits((0.0001, 0.01), (0.0, -0.02)) == 4


def test_names_stand_in_the_sentence():
    first, second, targets = models(50)
    result = compare(BINARY, first, second, targets, resamples=50, names=("quantized student", "control"))
    assert result["statement"].startswith("Quantized student AUC")
    assert "against control" in result["statement"]


def test_a_model_against_itself():
    first, _, targets = models(100)
    result = compare(BINARY, first, first, targets, resamples=100)
    assert result["difference"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    assert result["p_value"] == result["delong_p"] == result["mcnemar_p"] == 1.0
    assert result["verdict"] == "non-inferior"


@pytest.mark.parametrize(("images", "verdict"), [(40, "inconclusive"), (600, "non-inferior")])
def test_two_perfect_models_are_alike_only_on_enough_images(images, verdict):
    targets = np.arange(images) % 2
    logits = np.stack([1.0 - targets, targets], axis=1)
    first, second = BINARY.probabilities(3 * logits), BINARY.probabilities(2 * logits)
    result = compare(BINARY, first, second, targets, resamples=50)
    assert result["verdict"] == verdict
    # An event never seen in n, the harmonic mean of both sides: t^2 / n.
    assert result["difference"]["high"] == pytest.approx(student.ppf(0.975, images - 1) ** 2 / (images / 2))


def test_one_class_alone_cannot_be_compared():
    first, second, targets = models(40)
    result = compare(BINARY, first, second, np.zeros_like(targets), resamples=20)
    assert result["verdict"] == "undefined"
    assert result["difference"]["value"] is None
    assert result["p_value"] is None
    assert not result["non_inferior"]
    assert result["statement"] == "Student and teacher cannot be compared: AUC is not defined on these images."
    json.dumps(result, allow_nan=False)


def test_resamples_change_nothing():
    data = models(40)
    assert compare(BINARY, *data, resamples=0) == compare(BINARY, *data, resamples=100)


def test_ordinal_tasks_compare_kappa_and_labels_compare_auc():
    generator = np.random.default_rng(0)
    ordinal = MultiClass(("a", "b", "c"), ordinal=True)
    targets = generator.integers(3, size=80)
    first, second = (ordinal.probabilities(generator.normal(size=(80, 3)) + ordinal.one_hot(targets)) for _ in range(2))
    result = compare(ordinal, first, second, targets, resamples=50)
    assert result["metric"] == "quadratic_kappa"
    assert result["statement"].startswith("Student quadratic kappa ")
    assert "delong_p" not in result

    labels = MultiLabel(("x", "y"))
    truth = generator.integers(2, size=(80, 2)).astype(np.uint8)
    first, second = generator.random((80, 2)), generator.random((80, 2))
    result = compare(labels, first, second, truth, resamples=50)
    right = [(labels.decide(p) == truth).all(axis=1) for p in (first, second)]
    assert result["metric"] == "auc"
    assert result["mcnemar_p"] == mcnemar(*right)


def test_patients_widen_the_interval_and_are_remarked():
    first, second, targets = models(60, skill=(2.0, 1.5))
    data = [np.repeat(array, 5, axis=0) for array in (first, second, targets)]
    patients = np.repeat(np.arange(60).astype(str), 5)
    width = {}
    for key, groups in {"image": None, "patient": patients}.items():
        result = compare(BINARY, *data, patients=groups, resamples=300)
        width[key] = result["difference"]["high"] - result["difference"]["low"]
        assert bool(result["notes"]) == (key == "patient")
    assert width["patient"] > 1.6 * width["image"]


def test_a_negative_margin_is_refused():
    with pytest.raises(UsageError, match="margin"):
        compare(BINARY, *models(20), margin=-0.1)


def test_mcnemar_by_hand():
    first = np.array([1] * 1 + [0] * 9 + [1] * 5, dtype=bool)
    second = np.array([0] * 1 + [1] * 9 + [1] * 5, dtype=bool)
    assert mcnemar(first, second) == pytest.approx(2 * (1 + 10) / 2**10)
    assert mcnemar(first, first) == 1.0


def delong_by_definition(first, second, truth):
    """DeLong, DeLong and Clarke-Pearson (1988): structural components from all pairs."""
    components = []
    for scores in (first, second):
        x, y = scores[truth == 1][:, None], scores[truth == 0][None]
        kernel = (x > y) + 0.5 * (x == y)
        components.append((kernel.mean(axis=1), kernel.mean(axis=0)))
    (v10, v01), (w10, w01) = components
    variance = np.var(v10 - w10, ddof=1) / len(v10) + np.var(v01 - w01, ddof=1) / len(v01)
    return 2 * norm.sf(abs(v10.mean() - w10.mean()) / np.sqrt(variance))


@pytest.mark.parametrize("decimals", [1, 8])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_delong_equals_its_definition(decimals, seed):
    first, second, truth = models(70, skill=(2.0, 1.2), shared=0.5, seed=seed)
    first, second = first[:, 1].round(decimals), second[:, 1].round(decimals)
    assert delong(first, second, truth) == pytest.approx(delong_by_definition(first, second, truth), rel=1e-9)


def test_delong_is_level_under_no_difference():
    p = [delong(a[:, 1], b[:, 1], t) for a, b, t in (models(120, shared=0.5, seed=seed) for seed in range(400))]
    assert 0.025 <= np.mean(np.array(p) < 0.05) <= 0.085
    assert 0.43 <= np.mean(p) <= 0.57


def test_the_difference_s_p_value_and_delong_s_agree():
    result = compare(BINARY, *models(300, skill=(1.6, 1.2), shared=0.5), resamples=2000)
    assert result["p_value"] == pytest.approx(result["delong_p"], abs=0.03)


def test_delong_without_variance():
    truth = np.array([0, 0, 1, 1])
    perfect, good = np.array([0.1, 0.2, 0.8, 0.9]), np.array([0.0, 0.4, 0.5, 1.0])
    assert delong(perfect, good, truth) == 1.0
    assert delong(perfect, 1 - perfect, truth) is None
    assert delong(perfect[1:], good[1:], truth[1:]) is None


def test_the_rarest_class_counts_its_rarer_side_and_passes_over_what_has_one_side():
    assert rarest(BINARY, np.array([0, 0, 0, 1])) == 1
    assert rarest(MultiClass(("a", "b", "c")), np.array([0, 0, 0, 1, 1])) == 2  # nobody is of class c
    labels = MultiLabel(("x", "y", "z"))
    assert (
        rarest(labels, np.array([[1, 0, 1], [1, 0, 0], [1, 0, 0], [1, 0, 1], [1, 0, 1]])) == 2
    )  # z; x and y have one side
    assert rarest(labels, np.array([[1, 0, 1], [1, 0, 1]])) == 1


def test_both_p_values_are_below_5_percent_exactly_where_their_intervals_leave_zero_out():
    """McNemar's, exact, is not: so it cannot stand beside the interval of the accuracy."""
    outside, disagreed = 0, 0
    for seed in range(120):
        rng = np.random.default_rng(seed)
        targets = rng.integers(2, size=60)
        first, second = (
            np.stack([1 - p, p], axis=1)
            for p in (1 / (1 + np.exp(-(s * (2 * targets - 1) + rng.normal(0, 1.5, 60)))) for s in (1.6, 0.6))
        )
        found = compare(BINARY, first, second, targets)
        for key, p in (("difference", "p_value"), ("accuracy_difference", "accuracy_p")):
            low, high = found[key]["low"], found[key]["high"]
            assert (found[p] < 0.05) == (low > 0 or high < 0), (seed, key)
        excludes = found["accuracy_difference"]["low"] > 0
        outside += excludes
        disagreed += excludes and found["mcnemar_p"] >= 0.05
    assert 20 < outside < 120
    assert disagreed > 0


def test_no_interval_reaches_beyond_what_a_difference_can_be():
    rng = np.random.default_rng(0)
    first, second = (rng.dirichlet((1, 1), 6) for _ in range(2))
    found = compare(MultiClass(("a", "b")), first, second, np.array([0, 1] * 3), patients=np.array(list("ppqqrr")))
    for name in ("difference", "accuracy_difference"):
        assert -1 <= found[name]["low"] <= found[name]["high"] <= 1
    assert found["difference"]["high"] == 1
