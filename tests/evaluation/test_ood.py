import json

import numpy as np
import pytest
from scipy.spatial.distance import mahalanobis
from scipy.special import logsumexp
from scipy.stats import betabinom, binomtest, norm
from sklearn.covariance import ShrunkCovariance
from sklearn.metrics import roc_auc_score

from stillroom.errors import RunError, UsageError
from stillroom.evaluation.density import SHRINKAGE, FeatureDensity, fit_density
from stillroom.evaluation.ood import ForeignRule, auroc, energy, fit_foreign_rule, foreign_report, refusal_report
from stillroom.task import MultiClass, MultiLabel

THREE, LABELS = MultiClass(("a", "b", "c")), MultiLabel(("x", "y", "z"))
DRAWS = {"patients": None}


def clusters(images, width=6, seed=0, centres=((0,), (3,), (-3,))):
    """Features around three centres with one correlated covariance, and their classes."""
    generator = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).normal(size=(width, width)) / np.sqrt(width)
    targets = np.arange(images) % 3
    return generator.normal(size=(images, width)) @ mixing + np.array(centres)[targets], targets


def test_energy_is_minus_logsumexp_or_the_joint_energy():
    logits = np.random.default_rng(0).normal(size=(50, 3)) * 5
    assert energy(THREE, logits) == pytest.approx(-logsumexp(logits, axis=1))
    assert energy(LABELS, logits) == pytest.approx(-np.log(1 + np.exp(logits)).sum(axis=1))
    torch = pytest.importorskip("torch")
    theirs = torch.tensor(logits)
    assert energy(THREE, logits.astype(np.float32)) == pytest.approx(-theirs.logsumexp(1).numpy(), rel=1e-5)
    assert energy(LABELS, logits) == pytest.approx(-torch.nn.functional.softplus(theirs).sum(1).numpy())
    assert np.isfinite(energy(THREE, np.array([[1e4, -1e4, 0]]))).all()
    assert np.isfinite(energy(LABELS, np.array([[1e4, -1e4, 0]]))).all()


@pytest.mark.parametrize("task", [THREE, LABELS], ids=["exclusive", "labels"])
def test_distances_are_mahalanobis_distances_where_no_direction_is_left_out(task):
    features, classes = clusters(400)
    new, _ = clusters(60, seed=1)
    targets = classes if task.exclusive else LABELS.one_hot(np.eye(3, dtype=int)[classes])
    density = fit_density(task, features, targets)
    groups = [features[classes == k] for k in range(3)] if task.exclusive else [features]
    means = [group.mean(axis=0) for group in groups]
    centred = np.concatenate([group - mean for group, mean in zip(groups, means, strict=True)])
    # Scikit-learn divides by n, the pooled covariance by the n - K degrees of freedom.
    pooled = ShrunkCovariance(shrinkage=SHRINKAGE, assume_centered=True).fit(centred).covariance_ * 400
    inverse = np.linalg.inv(pooled / (400 - len(means)))
    expected = [min(mahalanobis(row, mean, inverse) for mean in means) / np.sqrt(6) for row in new]
    assert density.distances(new) == pytest.approx(np.array(expected), rel=1e-4)
    assert density.centres.shape == (len(means), 6)


@pytest.mark.parametrize(("images", "width", "kept"), [(600, 100, 64), (40, 90, 36), (8, 20, 4), (600, 1, 0)])
def test_distances_equal_the_covariance_of_kept_directions_and_one_residual_variance(images, width, kept):
    features, targets = clusters(images, width)
    new, _ = clusters(20, width, seed=1)
    density = fit_density(THREE, features, targets)
    assert density.directions.shape == (width, kept)
    assert density.precisions.shape == (kept,)
    assert density.directions.T @ density.directions == pytest.approx(np.eye(kept), abs=1e-5)
    assert (np.diff(density.precisions) >= 0).all()

    means = np.stack([features[targets == k].mean(axis=0) for k in range(3)])
    centred = features - means[targets]
    _, singular, axes = np.linalg.svd(centred)
    variances = np.zeros(width)
    variances[: len(singular)] = singular**2 / (images - 3)
    variances = (1 - SHRINKAGE) * variances + SHRINKAGE * variances.mean()
    variances[kept:] = variances[kept:].mean()
    covariance = axes.T @ np.diag(variances) @ axes
    expected = []
    for row in new:
        away = row - means
        expected.append(np.sqrt(np.einsum("kd,kd->k", away @ np.linalg.inv(covariance), away).min() / width))
    assert density.distances(new) == pytest.approx(np.array(expected), rel=2e-3)


def test_distances_are_about_one_in_distribution_and_large_far_away():
    features, targets = clusters(3000, 40)
    density = fit_density(THREE, features, targets)
    inside = density.distances(clusters(500, 40, seed=1)[0])
    assert np.mean(inside**2) == pytest.approx(1, abs=0.1)
    far = density.distances(clusters(500, 40, seed=1, centres=((12,), (15,), (-20,)))[0])
    assert far.min() > inside.max()


@pytest.mark.parametrize("alive", [0, 3])
def test_dead_features_stay_finitely_precise(alive):
    features, targets = clusters(200, 8)
    features[:, alive:] = 1.0
    density = fit_density(THREE, features.astype(np.float32), targets)
    distances = density.distances(features)
    assert np.isfinite(distances).all()
    # Rounding of a dead feature is not foreign; its waking up is.
    assert density.distances(features + 1e-7) == pytest.approx(distances, abs=0.3)
    features[:, -1] += 3
    assert (density.distances(features) > distances + 1).all()


def test_classes_of_one_image_are_left_out_and_labels_have_one_centre():
    features, targets = clusters(30)
    targets[targets == 2] = 1
    targets[0] = 2
    density = fit_density(THREE, features, targets)
    assert density.centres == pytest.approx(np.stack([features[targets == k].mean(axis=0) for k in (0, 1)]), rel=1e-6)
    labels = np.random.default_rng(0).integers(2, size=(30, 3)).astype(np.uint8)
    assert fit_density(LABELS, features, labels).centres == pytest.approx(features.mean(axis=0)[None], rel=1e-5)


@pytest.mark.parametrize("refusals", [0.01, 0.05, 0.3])
@pytest.mark.parametrize("images", [120, 99, 19])
def test_threshold_is_the_lowest_that_keeps_the_promise(refusals, images):
    generator = np.random.default_rng(images)
    energies, distances = generator.normal(-5, 3, size=images), generator.gamma(4, 0.2, size=images)
    rule = fit_foreign_rule(energies, distances, refusals)
    standardised = []
    for values in (energies, distances):
        spread = np.median(np.abs(values - np.median(values))) / norm.ppf(0.75)
        standardised.append((values - np.median(values)) / spread)
    combined = np.maximum(*standardised)
    assert rule.scores(energies, distances) == pytest.approx(combined, rel=1e-4, abs=1e-4)
    # One more image, drawn alike, may have any rank: the promise counts it among those above.
    own = rule.scores(energies, distances)
    usable = [score for score in own if (own > score).sum() + 1 <= refusals * (images + 1) + 1e-9]
    assert rule.threshold == (min(usable) if usable else np.inf)
    refused = rule.foreign(energies, distances)
    assert refused.mean() <= refusals
    assert np.array_equal(refused, own > rule.threshold)


def test_spread_falls_back_where_most_or_all_images_agree():
    mostly = np.array([1.0] * 8 + [2.0, 3.0])
    rule = fit_foreign_rule(mostly, np.full(10, 0.1), 0.2)
    assert (rule.energy_location, rule.energy_scale) == (1.0, pytest.approx(mostly.std()))
    assert (rule.distance_location, rule.distance_scale) == (0.1, 1.0)


def test_fresh_images_are_refused_as_rarely_as_promised_and_a_far_cluster_always():
    generator = np.random.default_rng(0)
    refused = []
    for _ in range(300):
        energies, distances = generator.normal(size=(2, 120))
        rule = fit_foreign_rule(energies[:100], distances[:100], 0.1)
        refused.append(rule.foreign(energies[100:], distances[100:]).sum())
    law = betabinom(20, 10, 91)  # rank 91 of 101 leaves 10 places above
    # Standardising on the same images moves the mean a little: allow 5 % of it beside the noise.
    assert abs(np.mean(refused) - law.mean()) < 3.5 * np.sqrt(law.var() / 300) + 0.05 * law.mean()

    features, targets = clusters(900, 20)
    density = fit_density(THREE, features[:600], targets[:600])
    rule = fit_foreign_rule(np.zeros(300), density.distances(features[600:]), 0.05)
    fresh, _ = clusters(1000, 20, seed=1)
    far, _ = clusters(100, 20, seed=2, centres=((9,), (-11,), (15,)))
    assert binomtest(int(rule.foreign(np.zeros(1000), density.distances(fresh)).sum()), 1000, 0.05).pvalue > 0.01
    assert rule.foreign(np.zeros(100), density.distances(far)).all()
    # Either score alone is enough.
    assert rule.foreign(np.full(1000, 1e3), density.distances(fresh)).all()


def test_a_rule_is_carried_to_scores_that_are_shifted_and_stretched():
    generator = np.random.default_rng(0)
    energies, distances = generator.normal(size=(2, 80))
    rule = fit_foreign_rule(energies, distances, 0.1)
    after = (3 * energies - 2, 0.5 * distances + 7)
    carried = rule.carried((energies, distances), after)
    assert carried.scores(*after) == pytest.approx(rule.scores(energies, distances))
    assert (carried.threshold, carried.refusals) == (rule.threshold, rule.refusals)
    after[1][3] = 100.0  # one image that moved far turns nothing
    turned = rule.carried((energies, distances), after)
    assert turned.distance_scale == pytest.approx(carried.distance_scale, rel=0.02)
    still = rule.carried((energies, np.ones(80)), (energies + 1, np.full(80, 1.5)))
    assert (still.energy_scale, still.distance_scale) == (pytest.approx(rule.energy_scale), rule.distance_scale)
    assert still.distance_location == pytest.approx(rule.distance_location + 0.5)


def test_a_carried_rule_refuses_more_nearly_what_the_first_one_did():
    """Scores of 70 validation and 160 new images by a network, and by one that differs from it by a little noise."""
    generator = np.random.default_rng(0)
    apart = {"carried": [], "anew": []}
    rates = {"carried": [], "anew": []}
    for _ in range(300):
        before = generator.gamma(4, 0.25, size=(2, 230))
        after = before + generator.normal(scale=0.03, size=before.shape)
        first = fit_foreign_rule(*before[:, :70], 0.05)
        rules = {
            "carried": first.carried(tuple(before[:, :70]), tuple(after[:, :70])),
            "anew": fit_foreign_rule(*after[:, :70], 0.05),
        }
        for name, rule in rules.items():
            refused = rule.foreign(*after[:, 70:])
            apart[name].append(abs(refused.mean() - first.foreign(*before[:, 70:]).mean()))
            rates[name].append(refused.mean())
    assert np.mean(apart["carried"]) < 0.8 * np.mean(apart["anew"])
    assert np.mean(rates["carried"]) == pytest.approx(np.mean(rates["anew"]), abs=0.004)
    assert np.mean(rates["carried"]) < 0.05


@pytest.mark.parametrize("decimals", [1, 12])
def test_auroc_equals_scikit_learn_and_its_interval_delongs(decimals):
    generator = np.random.default_rng(0)
    inside, outside = generator.normal(size=600).round(decimals), generator.normal(0.8, size=400).round(decimals)
    found = auroc(inside, outside)
    scores, truth = np.concatenate([inside, outside]), np.repeat([0, 1], [600, 400])
    assert found["value"] == pytest.approx(roc_auc_score(truth, scores))
    wins = (outside[:, None] > inside) + (outside[:, None] == inside) / 2
    half = 1.96 * np.sqrt(wins.mean(axis=1).var() / 400 + wins.mean(axis=0).var() / 600)
    ends = found["value"] - half, found["value"] + half
    assert (found["low"], found["high"]) == pytest.approx(ends, abs=0.12 * half)
    # Every image twice, as two images of one patient, is no more than it was.
    pairs = np.repeat(np.arange(600), 2).astype(str), np.repeat(np.arange(400), 2).astype(str)
    twice = auroc(np.repeat(inside, 2), np.repeat(outside, 2), groups=pairs[0], outside_groups=pairs[1])
    assert twice == pytest.approx(found, abs=1e-3)


def test_full_separation_leaves_the_doubt_of_images_or_patients():
    inside, outside = np.zeros(30), np.ones(12)
    patients, theirs = np.repeat(["p", "q", "r"], 10), np.repeat(["t", "u"], 6)
    lows = []
    for groups, others, rests_on in (
        (None, None, 2 * 30 * 12 / 42),
        (patients, None, 24 / 5),
        (patients, theirs, 12 / 5),
    ):
        found = auroc(inside, outside, groups=groups, outside_groups=others)
        assert (found["value"], found["high"]) == (1, 1)
        assert found["low"] < 0.05 ** (1 / rests_on)
        lows.append(found["low"])
    assert lows[0] > 0.025 ** (42 / 720)
    assert lows[0] > lows[1] > lows[2] >= 0
    alone = auroc(inside, outside, groups=np.full(30, "p"))
    assert alone == {"value": 1.0, "low": None, "high": None}


def rule_with(threshold, refusals=0.05, images=400):
    return ForeignRule(0.0, 1.0, 0.0, 1.0, threshold, refusals, images)


@pytest.mark.parametrize(
    ("share", "claim"),
    [
        (0.01, "no more than the 5 % that was promised."),
        (0.05, "which agrees with the promise of at most 5 %, but does not prove it."),
        (0.055, "which agrees with the promise of at most 5 %, but does not prove it."),
        (0.12, "more than the 5 % that was promised."),
    ],
)
def test_refusals_are_counted_and_the_statement_follows_the_interval(share, claim):
    scores = np.where(np.arange(1000) < 1000 * share, 3.0, 1.0)
    report = refusal_report(rule_with(2.0), scores, np.zeros(1000), **DRAWS)
    figure = report["refused"]
    assert figure["value"] == pytest.approx(share)
    truths = [figure["high"] <= 0.05, figure["low"] <= 0.05 < figure["high"], figure["low"] > 0.05]
    assert claim.startswith(("no more", "which agrees", "more than")[truths.index(True)])
    assert report["statement"].startswith(f"{100 * share:.1f} % of the images were refused as foreign (95 % interval ")
    assert report["statement"].endswith(claim)
    assert (report["wanted"], report["threshold"], report["validation_images"]) == (0.05, 2.0, 400)
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    bare = refusal_report(rule_with(2.0), scores, np.zeros(1000), patients=np.full(1000, "one"))
    assert bare["statement"].endswith("nothing can be claimed.")


def test_none_refused_leaves_the_doubt_over_patients():
    patients = np.repeat(np.arange(25).astype(str), 4)
    refused = refusal_report(rule_with(2.0), np.zeros(100), np.zeros(100), patients=patients)["refused"]
    assert (refused["value"], refused["low"]) == (0, 0)
    assert 1 - 0.05 ** (1 / 25) < refused["high"] < 1 - 0.025 ** (1 / 25)


def test_few_validation_images_refuse_nothing_and_say_so():
    generator = np.random.default_rng(0)
    energies, distances = generator.normal(size=(2, 18))
    rule = fit_foreign_rule(energies, distances, 0.05)
    assert rule.threshold == np.inf
    assert not rule.foreign(np.full(5, 1e9), np.full(5, 1e9)).any()
    report = refusal_report(rule, energies, distances, **DRAWS)
    assert report["threshold"] is None
    assert report["statement"].startswith("No image is ever refused")
    assert "at least 19 are needed" in report["notes"][0]
    json.dumps(report, allow_nan=False)
    energies, distances = generator.normal(size=(2, 19))
    assert np.isfinite(fit_foreign_rule(energies, distances, 0.05).threshold)


def test_foreign_images_are_reported_by_every_score():
    generator = np.random.default_rng(0)
    inside = (generator.normal(size=200), generator.normal(size=200))
    outside = (generator.normal(1.0, size=80), generator.normal(3.0, size=80))
    rule = fit_foreign_rule(*inside, 0.05)
    report = foreign_report(rule, inside, outside, "bones", **DRAWS)
    truth = np.repeat([0, 1], [200, 80])
    for key, scores in {
        "auroc": np.concatenate([rule.scores(*inside), rule.scores(*outside)]),
        "auroc_energy": np.concatenate([inside[0], outside[0]]),
        "auroc_distance": np.concatenate([inside[1], outside[1]]),
    }.items():
        assert report[key]["value"] == pytest.approx(roc_auc_score(truth, scores))
        assert report[key]["low"] < report[key]["value"] < report[key]["high"]
    assert report["refused"]["value"] == pytest.approx(np.mean(rule.scores(*outside) > rule.threshold))
    assert (report["name"], report["images"]) == ("bones", 80)
    patients = np.repeat(np.arange(20).astype(str), 10)
    grouped = foreign_report(rule, inside, outside, "bones", patients=patients)
    assert grouped["auroc"]["value"] == report["auroc"]["value"]
    assert grouped["auroc"] != report["auroc"]
    assert json.loads(json.dumps(report, allow_nan=False)) == report


def test_foreign_images_of_a_patient_stand_or_fall_together():
    """Made of test images, foreign ones are of their patients: eight copies of an image are no eight images."""
    generator = np.random.default_rng(0)
    inside = (generator.normal(size=200), generator.normal(size=200))
    outside = tuple(np.repeat(generator.normal(2.5, 1.5, size=(2, 12)), 8, axis=1))
    rule = fit_foreign_rule(*inside, 0.05)
    theirs = np.repeat(np.arange(12).astype(str), 8)
    alone, unknown, together = (
        foreign_report(rule, inside, outside, "made up", outside_patients=chosen, **DRAWS)
        for chosen in (None, np.full(96, ""), theirs)
    )
    assert unknown == alone
    for key in ("auroc", "auroc_energy", "auroc_distance", "refused"):
        widths = [report[key]["high"] - report[key]["low"] for report in (alone, together)]
        assert together[key]["value"] == alone[key]["value"]
        assert widths[1] > 1.5 * widths[0], key


@pytest.mark.parametrize("scale", [1.0, 30.0, 1000.0])
def test_rounding_does_not_show_in_the_distances_of_features_that_hardly_vary(scale):
    """Torch and ONNX Runtime sum in other orders: some last digits of a float32 differ."""
    generator = np.random.default_rng(0)
    level = scale * generator.uniform(0.5, 1.5, size=32)
    digits = np.spacing(level.astype(np.float32))
    features = (level + digits * generator.integers(-2, 3, size=(200, 32))).astype(np.float32)
    density = fit_density(THREE, features, np.arange(200) % 3)
    other = features + (digits * generator.integers(-4, 5, size=features.shape)).astype(np.float32)
    assert (other != features).mean() > 0.5
    assert density.distances(other) == pytest.approx(density.distances(features), abs=2e-3)
    # An image that differs by a hundredth still stands out.
    assert (density.distances(features * 1.01) > density.distances(features) + 1).all()


@pytest.mark.parametrize("threshold", [2.5, np.inf])
def test_a_rule_survives_json(threshold):
    rule = ForeignRule(-4.2, 1.3, 0.9, 0.1, threshold, 0.05, 321)
    assert ForeignRule.from_dict(json.loads(json.dumps(rule.to_dict(), allow_nan=False))) == rule


def test_what_is_not_a_number_is_named():
    features, targets = clusters(30)
    density = fit_density(THREE, features, targets)
    rule = rule_with(2.0)
    features[4, 2] = np.nan
    scores = np.array([0.0, np.inf])
    for failing, image in (
        (lambda: fit_density(THREE, features, targets), 4),
        (lambda: density.distances(features), 4),
        (lambda: energy(THREE, features), 4),
        (lambda: fit_foreign_rule(scores, np.zeros(2), 0.1), 1),
        (lambda: rule.foreign(np.zeros(2), scores), 1),
        (lambda: auroc(scores, np.zeros(2)), 1),
    ):
        with pytest.raises(RunError, match=f"image {image} "):
            failing()


def test_what_does_not_fit_is_refused():
    features, targets = clusters(30)
    density = fit_density(THREE, features, targets)
    assert isinstance(density, FeatureDensity)
    for failing, reason in (
        (lambda: density.distances(features[:, :4]), "same layer"),
        (lambda: fit_density(THREE, features, targets[:9]), "do not fit 9 targets"),
        (lambda: fit_density(THREE, features[:3], targets[:3]), "at least two training images"),
        (lambda: fit_foreign_rule(np.zeros(3), np.zeros(3), 0.0), "refusals"),
        (lambda: fit_foreign_rule(np.zeros(3), np.zeros(3), 1.0), "refusals"),
        (lambda: fit_foreign_rule(np.zeros(0), np.zeros(0), 0.1), "no validation image"),
        (lambda: fit_foreign_rule(np.zeros(3), np.zeros(2), 0.1), "3 energies but 2"),
        (lambda: auroc(np.zeros(3), np.zeros(0)), "no image"),
        (lambda: refusal_report(rule_with(2.0), np.zeros(0), np.zeros(0), **DRAWS), "no image"),
    ):
        with pytest.raises(UsageError, match=reason):
            failing()
