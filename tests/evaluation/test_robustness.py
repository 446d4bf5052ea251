"""Robustness: against scoring one corruption at a time, against loops over resamples, and by hand."""

import json

import numpy as np
import pytest
import torch

from stillroom.errors import RunError, UsageError
from stillroom.evaluation.calibration_error import calibration_error
from stillroom.evaluation.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from stillroom.evaluation.intervals import resample_weights
from stillroom.evaluation.metrics import score
from stillroom.evaluation.robustness import ALEXNET, PASSES, SLIGHT, divisible, relative_error, robustness
from stillroom.task import MultiClass, MultiLabel, Task

TASKS: dict[str, Task] = {
    "binary": MultiClass(("healthy", "ill")),
    "multiclass": MultiClass(("a", "b", "c")),
    "ordinal": MultiClass(("none", "mild", "severe"), ordinal=True),
    "multilabel": MultiLabel(("one", "two", "three")),
}
COUNT, SIDE, SEED = 60, 16, 5
NAMES = [corruption.name for corruption in CORRUPTIONS]


class Case:
    """Noisy patterns of their classes, and networks that correlate images with those patterns, more or less well."""

    def __init__(self, kind: str):
        rng = np.random.default_rng(1)
        self.task, self.kind = TASKS[kind], kind
        classes = len(self.task.classes)
        self.targets = (
            np.arange(COUNT) % classes if self.task.exclusive else rng.integers(0, 2, (COUNT, classes)).astype(np.uint8)
        )
        patterns = rng.normal(size=(classes, SIDE * SIDE))
        images = 0.5 + 0.1 * (self.task.one_hot(self.targets) @ patterns + 6.0 * rng.normal(size=(COUNT, SIDE * SIDE)))
        self.images = torch.from_numpy(images.clip(0, 1)).float().reshape(COUNT, 1, SIDE, SIDE)
        # Rows are not positions: the test images are every other row of a larger set.
        self.rows = 2 * np.arange(COUNT) + 7
        self.asks = {
            "student": self.network(patterns),
            "control": self.network(patterns + rng.normal(size=patterns.shape)),
            "teacher": self.network(patterns + 0.4 * rng.normal(size=patterns.shape)),
        }
        self.temperatures = {"student": 0.7, "control": 2.0, "teacher": 1.3}

    def network(self, patterns: np.ndarray):
        # A label by itself is on or off: its threshold lies midway between the two.
        shift = 0.0 if self.task.exclusive else 1.0
        return lambda images: (images.flatten(1).double().numpy() - 0.5) @ patterns.T / 12 - shift

    def batch(self, rows: np.ndarray) -> torch.Tensor:
        return self.images[torch.from_numpy((rows - 7) // 2)]

    def judge(self, **changes):
        given = {
            "asks": self.asks, "temperatures": self.temperatures, "patients": None, "resamples": 40, "seed": SEED,
            "reference": "control", "data_name": "somewhere", "batch_size": 25,
        } | changes  # fmt: skip
        asks, temperatures = given.pop("asks"), given.pop("temperatures")
        return robustness(self.task, asks, temperatures, self.batch, self.rows, self.targets, **given)

    def probabilities(self, role: str, name: str, severity: int) -> np.ndarray:
        images = corrupt(self.images, name, severity, rows=self.rows, seed=SEED) if name else self.images
        return self.task.probabilities(self.asks[role](images), self.temperatures[role])


@pytest.fixture(scope="module")
def cases():
    made = {kind: Case(kind) for kind in TASKS}
    return {kind: (case, case.judge()) for kind, case in made.items()}


@pytest.mark.parametrize("kind", TASKS)
def test_every_condition_is_what_score_says_of_it(cases, kind):
    case, result = cases[kind]
    metric = case.task.selection_metric
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert (result["images"], result["metric"], result["reference"]) == (COUNT, metric, "control")
    assert list(result["corruptions"]) == list(result["families"]) == NAMES
    for role in case.asks:
        found = score(case.task, case.probabilities(role, "", 0), case.targets)
        clean = result["clean"][role]
        assert (clean["accuracy"], clean["ece"], clean[metric]) == (found["accuracy"], found["ece"], found[metric])
        assert clean["balanced_error"]["low"] == pytest.approx(1 - found["balanced_accuracy"]["high"])
        # The variance comes from 40 resamples here.
        assert result["by_severity"][role]["accuracy"][0] == pytest.approx(found["accuracy"], abs=0.045)
        assert result["by_severity"][role]["ece"][0] == pytest.approx(found["ece"])
        assert result["by_severity"][role]["calibration_error"][0] == pytest.approx(
            found["calibration_error"], abs=0.02
        )
        worst = np.concatenate([case.probabilities(role, name, 5) for name in NAMES])
        images = np.tile(np.arange(COUNT).astype(str), len(NAMES))
        together = calibration_error(case.task, worst, np.concatenate([case.targets] * len(NAMES)), images, seed=SEED)
        assert result["by_severity"][role]["calibration_error"][5]["value"] == pytest.approx(together["error"]["value"])
        for name, severity in (("gaussian_noise", 4), ("jpeg", 2), ("bubbles", 5)):
            found = score(case.task, case.probabilities(role, name, severity), case.targets)
            own = result["corruptions"][name][role]
            assert own["accuracy"][severity - 1] == pytest.approx(found["accuracy"], abs=0.045)
            assert own["accuracy"][severity - 1]["value"] == pytest.approx(found["accuracy"]["value"])
            assert own["balanced_error"][severity - 1] == pytest.approx(1 - found["balanced_accuracy"]["value"])
            assert own["ece"][severity - 1] == pytest.approx(found["ece"]["value"])
            assert own[metric][severity - 1] == pytest.approx(found[metric]["value"])


@pytest.mark.parametrize("kind", TASKS)
def test_means_are_means_of_what_is_listed(cases, kind):
    case, result = cases[kind]
    for role in case.asks:
        listed = np.array([[cell["value"] for cell in result["corruptions"][name][role]["accuracy"]] for name in NAMES])
        errors = np.array([result["corruptions"][name][role]["balanced_error"] for name in NAMES])
        by_severity = [cell["value"] for cell in result["by_severity"][role]["accuracy"]]
        assert by_severity[1:] == pytest.approx(listed.mean(axis=0))
        means = [result["corruptions"][name][role]["mean_accuracy"]["value"] for name in NAMES]
        assert means == pytest.approx(listed.mean(axis=1))
        summary = result["summary"][role]
        assert summary["mean_accuracy"]["value"] == pytest.approx(listed.mean())
        assert summary["mean_error"]["value"] == pytest.approx(errors.mean())
        if role != "student":
            student = result["summary"]["student"]["mean_accuracy"]["value"]
            assert result["difference"][role]["value"] == pytest.approx(student - listed.mean())


def balanced_error(truth: np.ndarray, said: np.ndarray) -> float:
    if truth.ndim == 2:
        return float(np.mean([balanced_error(*column) for column in zip(truth.T, said.T, strict=True)]))
    return 1 - float(np.mean([(said[truth == k] == k).mean() for k in np.unique(truth)]))


@pytest.mark.parametrize("kind", ["multiclass", "multilabel"])
def test_intervals_come_from_one_set_of_resamples(cases, kind):
    case, _ = cases[kind]
    result = case.judge(resamples=12)
    picks = [np.repeat(np.arange(COUNT), row) for row in resample_weights(COUNT, 12, SEED)]
    decided = {
        role: {
            (name, severity): case.task.decide(case.probabilities(role, name, severity))
            for name, severity in [("", 0), *((name, severity) for name in NAMES for severity in SEVERITIES)]
        }
        for role in case.asks
    }

    def errors(role: str, pick: np.ndarray) -> tuple[np.ndarray, float]:
        found = {key: balanced_error(case.targets[pick], said[pick]) for key, said in decided[role].items()}
        return np.array([np.mean([found[name, s] for s in SEVERITIES]) for name in NAMES]), found["", 0]

    resampled = {role: [errors(role, pick) for pick in picks] for role in case.asks}
    for role in ("student", "teacher"):
        be, rbe, rise, beyond = [], [], [], []
        rises = np.quantile([base - clean for base, clean in resampled["control"]], 0.025, axis=0)
        worse = rises > SLIGHT
        for (own, clean), (base, base_clean) in zip(resampled[role], resampled["control"], strict=True):
            assert (base > SLIGHT).all()
            be.append(np.mean(own / base))
            rbe.append(np.mean((own - clean)[worse] / (base - base_clean)[worse]))
            rise.append(np.mean(own - clean))
            beyond.append(rise[-1] - np.mean(base - base_clean))
        summary = result["summary"][role]
        error = [own.mean() for own, _ in resampled[role]]
        checks = [("be", be), ("mean_error", error), ("rise", rise), ("rise_over_reference", beyond)]
        if 2 * worse.sum() >= len(NAMES):
            checks.append(("rbe", rbe))
        else:
            assert summary["rbe"]["value"] is None
        for key, values in checks:
            expected = np.quantile(values, [0.025, 0.975])
            assert (summary[key]["low"], summary[key]["high"]) == pytest.approx(tuple(expected)), key
    accuracy = {
        role: np.mean([(decided[role][name, s] == case.targets) for name in NAMES for s in SEVERITIES], axis=0)
        for role in case.asks
    }
    apart = (accuracy["student"] - accuracy["teacher"]).reshape(COUNT, -1).mean(axis=1)
    expected = np.quantile([apart[pick].mean() for pick in picks], [0.025, 0.975])
    found = result["difference"]["teacher"]
    assert (found["low"], found["high"]) == pytest.approx(tuple(expected))


def test_relative_errors_by_hand():
    own = np.array([[0.2], [0.3], [0.9]])
    assert relative_error(own, np.array([[0.4], [0.2], [0.5]])) == pytest.approx([(0.5 + 1.5 + 1.8) / 3])
    assert relative_error(own, np.array([[0.4], [0.2], [-0.5]])) == pytest.approx([(0.5 + 1.5) / 2])
    # Of three one is less than half: a mean of what is left would be no mean over corruptions.
    assert np.isnan(relative_error(own, np.array([[0.4], [0.009], [-0.5]]))).all()
    # Resamples decide what is sure: 0.3 with a low end of 0.005 is not.
    unsure = np.array([[0.4, 0.3, 0.5], [0.3, 0.004, 0.005], [0.5, 0.4, 0.6]])
    assert divisible(unsure).tolist() == [True, False, True]
    ratios = relative_error(np.full((3, 3), 0.3), unsure)
    assert ratios == pytest.approx([(0.3 / 0.4 + 0.3 / 0.5) / 2, (1 + 0.75) / 2, (0.6 + 0.5) / 2])


def test_a_ratio_to_next_to_nothing_is_not_given():
    """What gave 7.96 (1.2 to 52): a reference whose error rises by little, and a network whose error rises by .1."""
    rng = np.random.default_rng(0)
    reference = 0.004 + 0.01 * rng.normal(size=(16, 500))
    own = 0.1 + 0.01 * rng.normal(size=(16, 500))
    with np.errstate(divide="ignore"):
        old = np.where(reference > 1e-9, own / reference, np.nan)
    assert np.nanmax(np.nanmean(old, axis=0)) > 50
    assert np.isnan(relative_error(own, reference)).all()


def test_the_reference_has_relative_errors_of_one(cases):
    for _, result in cases.values():
        summary = result["summary"]["control"]
        assert summary["be"] == pytest.approx({"value": 1.0, "low": 1.0, "high": 1.0})
        assert summary["rbe"]["value"] is None or summary["rbe"] == pytest.approx(
            {"value": 1.0, "low": 1.0, "high": 1.0}
        )
        assert summary["rise_over_reference"] == pytest.approx({"value": 0.0, "low": 0.0, "high": 0.0})


def test_a_network_that_ignores_its_input_bears_everything(cases):
    case, _ = cases["binary"]
    asks = {"student": lambda images: np.tile([0.0, 1.0], (len(images), 1)), "control": case.asks["control"]}
    result = case.judge(asks=asks, reference="student")
    accuracies = result["by_severity"]["student"]["accuracy"]
    assert all(cell == pytest.approx(accuracies[0]) for cell in accuracies)
    assert accuracies[0]["low"] < accuracies[0]["value"] < accuracies[0]["high"]
    assert result["summary"]["student"]["mean_error"] == pytest.approx({"value": 0.5, "low": 0.5, "high": 0.5})
    assert result["summary"]["control"]["be"]["value"] is not None
    # It gets no worse, so nothing can be relative to it.
    assert result["summary"]["control"]["rbe"] == {"value": None, "low": None, "high": None}
    assert result["summary"]["student"]["rise"] == pytest.approx({"value": 0.0, "low": 0.0, "high": 0.0})
    assert result["summary"]["control"]["rise_over_reference"] == result["summary"]["control"]["rise"]
    assert result["notes"] == [
        "rBE is not given: under 16 of 16 corruptions the student's error does not surely rise by more than 0.01, and a ratio"
        " to next to nothing says nothing. The difference of the rises stands in its place."
    ]


def test_two_networks_that_never_differ_leave_doubt_of_their_difference():
    case = Case("binary")

    def constant(images: torch.Tensor) -> np.ndarray:
        return np.tile([0.0, 9.0], (len(images), 1))

    found = case.judge(asks={"student": constant, "control": constant})["difference"]["control"]
    assert found["value"] == 0
    assert found["low"] == pytest.approx(-found["high"])
    assert 0.001 < found["high"] < 0.2


def test_a_network_that_is_always_right_still_leaves_doubt():
    case = Case("binary")
    asked = 0

    def oracle(images: torch.Tensor) -> np.ndarray:
        nonlocal asked
        place = np.arange(asked, asked + len(images)) % COUNT
        asked += len(images)
        return np.eye(2)[case.targets[place]] * 9

    result = case.judge(asks={"student": oracle, "control": case.asks["control"]}, reference="student")
    accuracy = result["corruptions"]["jpeg"]["student"]["accuracy"][4]
    assert (accuracy["value"], accuracy["high"]) == (1.0, 1.0)
    assert 0.9 < accuracy["low"] < 1
    assert result["summary"]["control"]["be"]["value"] is None
    assert result["notes"][0].startswith(
        "BE is not given: under 16 of 16 corruptions the student's error is not surely"
    )


@pytest.mark.parametrize("kind", ["binary", "multiclass", "multilabel"])
@pytest.mark.parametrize("reference", ["control", "teacher"])
def test_a_slight_rise_of_the_reference_is_pointed_out(kind, reference):
    result = Case(kind).judge(reference=reference, resamples=0)
    rises = {
        name: np.mean(result["corruptions"][name][reference]["balanced_error"])
        - result["clean"][reference]["balanced_error"]["value"]
        for name in NAMES
    }
    slight = [name.replace("_", " ") for name, rise in rises.items() if rise <= 0.01]
    (noted,) = [note for note in result["notes"] if note.startswith("rBE")]
    if len(slight) > 8:
        assert noted.startswith(
            f"rBE is not given: under {len(slight)} of 16 corruptions the {reference}'s error does not"
        )
        assert result["summary"]["student"]["rbe"]["value"] is None
    else:
        end = f"the {reference}'s error does not surely rise by more than 0.01: {', '.join(slight)}."
        assert noted == f"rBE leaves out where {end}"
        assert result["summary"]["student"]["rbe"]["value"] is not None
    assert result["summary"]["student"]["rise_over_reference"]["value"] is not None
    assert result["notes"][0] == "No resamples were asked for, so no figure has an interval."
    assert result["summary"]["student"]["be"]["low"] is None


def test_all_networks_see_the_same_images_in_batches_of_their_rows():
    case, seen, steps = Case("binary"), {"student": [], "teacher": []}, []

    def watch(role):
        def ask(images):
            seen[role].append(images.clone())
            return case.asks[role](images)

        return ask

    case.judge(asks={role: watch(role) for role in seen}, reference=None, resamples=0, advance=steps.append)
    assert sum(steps) == COUNT * PASSES
    assert [len(images) for images in seen["student"][:3]] == [25, 25, 10]
    for first, second in zip(seen["student"], seen["teacher"], strict=True):
        assert torch.equal(first, second)
    assert torch.equal(torch.cat(seen["student"][:3]), case.images)
    expected = corrupt(case.images, NAMES[0], 1, rows=case.rows, seed=SEED)
    torch.testing.assert_close(torch.cat(seen["student"][3:6]), expected, atol=1e-6, rtol=0)


def test_whole_patients_are_resampled(cases):
    case, alone = cases["binary"]
    patients = np.array([f"p{number // 12}" for number in range(COUNT)])
    grouped = case.judge(patients=patients)
    found = score(case.task, case.probabilities("student", "jpeg", 3), case.targets, patients=patients)
    own = grouped["corruptions"]["jpeg"]["student"]["accuracy"][2]
    assert own == pytest.approx(found["accuracy"], abs=0.1)
    assert own != alone["corruptions"]["jpeg"]["student"]["accuracy"][2]


def test_alexnet_is_quoted_for_the_sets_of_medmnist():
    case = Case("binary")
    result = case.judge(data_name="breastmnist", reference=None, resamples=0)
    published = result["published"]
    assert (published["clean_error"], published["mean_error"]) == (0.145, 0.299)
    ratio = result["summary"]["teacher"]["mean_error"]["value"] / 0.299
    assert published["ratio"]["teacher"] == pytest.approx(ratio)
    assert "not measured here" in published["note"]
    assert len(ALEXNET) == 12
    assert result["summary"]["student"]["be"]["value"] is None
    assert any("No network was named as reference" in note for note in result["notes"])
    assert case.judge(resamples=0)["published"] is None


def test_wrong_use_and_broken_networks_are_named():
    case = Case("binary")
    with pytest.raises(UsageError, match="reference 'alexnet' is none of the networks: student, control, teacher"):
        case.judge(reference="alexnet")
    broken = case.asks | {"student": lambda images: np.full((len(images), 2), np.nan)}
    with pytest.raises(RunError, match="not finite"):
        case.judge(asks=broken)
