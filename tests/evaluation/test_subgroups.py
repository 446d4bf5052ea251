import numpy as np
import pytest

from stillroom.data.bands import Grouping
from stillroom.evaluation.main_figures import Answers, main_figures, to_dict
from stillroom.evaluation.subgroup_words import warnings_of
from stillroom.evaluation.subgroups import gap_interval, judge_parts, judge_subgroups
from stillroom.task import MultiClass, MultiLabel

BINARY = MultiClass(("healthy", "ill"))


def both(scores):
    chance = 1 / (1 + np.exp(-scores))
    return np.column_stack([1 - chance, chance])


def study(generator, sizes, far, share=0.4, patients=None):
    """Answers of subgroups of these sizes, each with its own distance between classes."""
    members = np.repeat(np.arange(len(sizes)), sizes)
    targets = np.concatenate([np.arange(size) < share * size for size in sizes]).astype(np.int64)
    scores = np.asarray(far)[members] * (targets - 0.5) + generator.normal(size=len(members))
    names = tuple("abcdefgh"[: len(sizes)])
    return Answers.of(BINARY, both(scores), targets, patients), Grouping("site", names, members)


def test_each_subgroup_has_the_figures_of_its_images_alone():
    answers, grouping = study(np.random.default_rng(0), (80, 120), (1.0, 2.0))
    found = judge_subgroups(answers, [grouping], "student")
    (column,) = found["columns"]
    for k, group in enumerate(column["groups"]):
        rows = grouping.members == k
        alone = main_figures(Answers.of(BINARY, answers.probabilities[rows], answers.targets[rows]))
        for name, figure in to_dict(alone).items():
            assert group[name] == figure
        assert (group["images"], group["patients"], group["positives"]) == (rows.sum(), None, int(0.4 * rows.sum()))
    assert found["comparisons"] == 3
    gap = column["gaps"]["auc"]
    assert gap["value"] == pytest.approx(abs(column["groups"][0]["auc"]["value"] - column["groups"][1]["auc"]["value"]))
    assert (gap["most"], gap["least"]) == ("b", "a")


def test_the_gaps_of_both_parts_of_a_report_are_one_family():
    """So the intervals of each are those of as many gaps in one part."""
    answers, site = study(np.random.default_rng(3), (80, 120), (1.0, 2.0))
    turned = Grouping("sharpness", ("blurred", "sharp"), np.random.default_rng(4).permutation(site.members))
    parts = judge_parts(answers, {"groups": [site], "quality": [turned]}, "student")
    together = judge_subgroups(answers, [site, turned], "student")
    assert [part["columns"][0]["gaps"] for part in parts.values()] == [column["gaps"] for column in together["columns"]]
    alone = judge_subgroups(answers, [site], "student")
    assert [(found["comparisons"], found["family"]) for found in (parts["groups"], together, alone)] == [
        (3, 6), (6, 6), (3, 3),
    ]  # fmt: skip
    assert parts["groups"]["columns"][0]["gaps"]["auc"]["high"] > alone["columns"][0]["gaps"]["auc"]["high"]
    assert "3 gaps in AUC, sensitivity and specificity are compared (6 with those of the" in parts["groups"]["notes"][1]


def test_a_gap_of_two_shares_has_newcombe_s_interval():
    """From Wilson's intervals the formula gives what Newcombe (Stat Med 1998;17:873) prints: 56 of 70 less 48 of 80."""

    first, second = (0.8, 0.6914, 0.8776), (0.6, 0.4904, 0.7004)
    assert gap_interval(first, second, 0.0) == pytest.approx((0.0524, 0.3339), abs=2e-3)
    low, high = gap_interval(first, second, 1.0)  # of the very same patients
    assert high - low < 0.05


def test_what_the_same_patients_share_narrows_the_gap():
    generator = np.random.default_rng(1)
    members = np.tile([0, 1], 150)
    patients = np.repeat(np.arange(150), 2).astype(str)
    targets = np.repeat(np.arange(150) < 60, 2).astype(np.int64)
    hard = np.repeat(generator.normal(size=150), 2)
    answers = Answers.of(
        BINARY, both(1.5 * (targets - 0.5) + hard + 0.3 * generator.normal(size=300)), targets, patients
    )
    grouping = Grouping("eye", ("left", "right"), members)
    paired = judge_subgroups(answers, [grouping], "student")["columns"][0]["gaps"]["auc"]
    apart = np.array([f"{patient}{side}" for patient, side in zip(patients, members, strict=True)])
    answers = Answers.of(BINARY, answers.probabilities, targets, apart)
    loose = judge_subgroups(answers, [grouping], "student")["columns"][0]["gaps"]["auc"]
    assert paired["value"] == pytest.approx(loose["value"])
    assert paired["high"] < 0.7 * loose["high"]


def test_small_subgroups_are_shown_and_not_compared():
    answers, grouping = study(np.random.default_rng(2), (100, 12, 100), (1.5, 1.5, 1.5))
    found = judge_subgroups(answers, [grouping], "student")
    (column,) = found["columns"]
    assert [group["small"] for group in column["groups"]] == ["", "5 images with ill and 7 without", ""]
    assert column["groups"][1]["auc"]["value"] is not None
    assert {column["gaps"]["auc"]["most"], column["gaps"]["auc"]["least"]} == {"a", "c"}
    assert "By site too small to judge, and not compared: b (5 images with ill and 7 without)." in warnings_of(found)
    alone, grouping = study(np.random.default_rng(2), (100, 12), (1.5, 1.5))
    (column,) = judge_subgroups(alone, [grouping], "student")["columns"]
    assert column["gaps"] == {}
    assert column["statements"][-1].startswith("By site nothing can be compared")


def test_a_large_gap_is_said_and_a_small_one_bounded():
    answers, grouping = study(np.random.default_rng(3), (300, 300, 300), (0.5, 2.5, 2.5))
    (column,) = judge_subgroups(answers, [grouping], "student")["columns"]
    gap = column["gaps"]["auc"]
    assert gap["low"] > 0.05
    assert {tuple(pair) for pair in gap["sure"]} == {("b", "a"), ("c", "a")}
    assert column["statements"][0].startswith("AUC differs by site: 0.9")
    answers, grouping = study(np.random.default_rng(3), (300, 300), (2, 2))
    (column,) = judge_subgroups(answers, [grouping], "student")["columns"]
    assert column["gaps"]["auc"]["low"] == 0
    assert column["statements"][0].startswith(
        "By site no gap in AUC, sensitivity or specificity is shown; gaps of up to 0."
    )


def test_means_of_subgroups_are_over_the_classes_that_all_of_them_have():
    generator = np.random.default_rng(4)
    task, members = MultiLabel(("a", "b", "c")), np.repeat([0, 1], 200)
    targets = (generator.random((400, 3)) < 0.3).astype(np.uint8)
    targets[200:, 2] = 0
    answers = Answers.of(task, task.probabilities(2.0 * targets - 1 + generator.normal(size=(400, 3))), targets)
    found = judge_subgroups(answers, [Grouping("site", ("one", "two"), members)], "student")
    assert found["columns"][0]["classes"] == ["a", "b"]
    assert "By site means leave out c: too rare in one of the subgroups." in found["notes"]
    for k, group in enumerate(found["columns"][0]["groups"]):
        assert group["auc"] == to_dict(main_figures(answers.take(np.flatnonzero(members == k)), [0, 1]))["auc"]


def test_classes_that_a_subgroup_lacks_make_it_too_small():
    generator = np.random.default_rng(5)
    task = MultiClass(tuple("abcd"))
    targets = np.concatenate([generator.integers(0, 4, 200), np.repeat([0], 50)])
    logits = 2.0 * task.one_hot(targets) + generator.normal(size=(250, 4))
    answers = Answers.of(task, task.probabilities(logits), targets)
    grouping = Grouping("site", ("one", "two"), np.repeat([0, 1], (200, 50)))
    (column,) = judge_subgroups(answers, [grouping], "student")["columns"]
    assert column["groups"][1]["small"] == "0 of 4 classes have 10 images or more"
    assert column["groups"][1]["positives"] is None
    assert column["groups"][1]["auc"]["value"] is None


def test_gaps_are_claimed_by_chance_in_no_more_reports_than_is_said():
    """A sample of proofs/subgroups.py."""
    generator = np.random.default_rng(6)
    claimed, held = [], []
    for _ in range(100):
        answers, grouping = study(generator, (60, 90, 150), (1.8, 1.8, 1.8))
        found = judge_subgroups(answers, [grouping], "student")
        claimed.append(any(gap["sure"] for gap in found["columns"][0]["gaps"].values()))
        answers, grouping = study(generator, (150, 150), (1.0, 2.0))  # areas of .7602 and .9214
        gap = judge_subgroups(answers, [grouping], "student")["columns"][0]["gaps"]["auc"]
        held.append(gap["low"] <= 0.1612 <= gap["high"])
    assert np.mean(claimed) <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 100)
    assert np.mean(held) >= 0.95
