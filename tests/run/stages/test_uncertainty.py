"""Sets of classes and refusals of a run: fitted on validation, checked on test, and the same in the exported file."""

import shutil
from dataclasses import astuple, replace

import numpy as np
import pytest
import torch

from stillroom import Run, UsageError
from stillroom.evaluation.conformal import ConformalRule
from stillroom.evaluation.density import FeatureDensity
from stillroom.evaluation.ood import ForeignRule
from stillroom.run.pipeline import reopen
from stillroom.run.stages.uncertainty import density_arrays, made_up_images, measure, read_density
from stillroom.run.workbench import Workbench


@pytest.fixture(scope="module")
def reopened(tiny_run, tmp_path_factory):
    copy = shutil.copytree(tiny_run.path, tmp_path_factory.mktemp("copy") / "run")
    return reopen(Run.open(copy), show_progress=False)


def answers(run, picture_folder, split):
    """Rows of predictions.parquet of a split, and the exported file's answers to the same files."""
    frame = run.predictions()
    frame = frame[frame["split"] == split]
    return frame, run.predictor().predict([picture_folder / name for name in frame["id"]])


def test_the_promise_is_kept_on_the_images_it_was_made_on(tiny_run, picture_folder):
    """Of n validation images at least a share of coverage * (n + 1) / n lies in its set, by construction."""
    frame, said = answers(tiny_run, picture_folder, "val")
    held = [truth in answer.possible for truth, answer in zip(frame["target"], said, strict=True)]
    assert np.mean(held) >= 0.9
    rule = tiny_run.metrics["conformal"]["rule"]
    assert rule["images"] == len(frame) == tiny_run.metrics["conformal"]["calibration_images"]
    assert tiny_run.predictor().metadata.conformal == rule
    assert not rule["class_conditional"]


def test_coverage_is_that_of_the_exported_files_sets(tiny_run, picture_folder):
    frame, said = answers(tiny_run, picture_folder, "test")
    held = [truth in answer.possible for truth, answer in zip(frame["target"], said, strict=True)]
    figures = tiny_run.metrics["conformal"]
    assert figures["coverage"]["value"] == pytest.approx(np.mean(held))
    sizes = [len(answer.possible) for answer in said]
    assert figures["mean_size"]["value"] == pytest.approx(np.mean(sizes))
    assert "sets hold the true class of" in figures["statement"]


def test_refusals_are_those_of_the_exported_file(tiny_run, picture_folder):
    frame, said = answers(tiny_run, picture_folder, "test")
    figures, kept = tiny_run.metrics["ood"], np.load(tiny_run.path / "foreign_scores.npz", allow_pickle=False)
    assert figures["refused"]["value"] == pytest.approx(np.mean([answer.foreign for answer in said]))
    rule = ForeignRule.from_dict(figures["rule"])
    assert len(kept["energy"]) == len(frame)
    scores = rule.scores(kept["energy"], kept["distance"])
    np.testing.assert_allclose([answer.foreign_score for answer in said], scores, atol=1e-2)
    assert kept["patients"].size == 0
    val, calibration = answers(tiny_run, picture_folder, "val")
    assert np.mean([answer.foreign for answer in calibration]) <= rule.refusals
    assert rule.images == len(val)


def test_the_density_is_that_of_the_training_images_features(tiny_run, reopened):
    """The nearest centre by a covariance that is written out in full. Classes are what the student decides."""
    bench, networks = reopened
    density = read_density(tiny_run.path / "density.npz")
    table = bench.dataset.table
    with torch.no_grad():
        said = networks["student"].outputs(bench.data.images.batch(table.indices("train")))
    pooled, targets = said.pooled.numpy(), said.logits.argmax(dim=1).numpy()
    assert set(targets) == {0, 1}
    centres = np.array([pooled[targets == k].mean(axis=0) for k in (0, 1)])
    np.testing.assert_allclose(density.centres, centres, rtol=1e-3, atol=1e-4)
    away = np.concatenate([pooled[targets == k] - centres[k] for k in (0, 1)]).astype(np.float64)
    variance = np.diag(density.directions.T @ (away.T @ away / (len(away) - 2)) @ density.directions)
    assert np.corrcoef(variance, 1 / density.precisions)[0, 1] > 0.999


def test_a_density_comes_back_from_its_file(tmp_path):
    rng = np.random.default_rng(0)
    density = FeatureDensity(
        rng.normal(size=(2, 5)).astype(np.float32),
        np.linalg.qr(rng.normal(size=(5, 3)))[0].astype(np.float32),
        rng.random(3),
        7.25,
    )
    np.savez(tmp_path / "density.npz", **density_arrays(density))
    read, features = read_density(tmp_path / "density.npz"), rng.normal(size=(9, 5)).astype(np.float32)
    np.testing.assert_array_equal(read.distances(features), density.distances(features))
    assert isinstance(read.residual_precision, float)


def test_measuring_once_more_finds_the_same(tiny_run, reopened):
    bench, networks = reopened
    found = measure(bench, networks["student"], student_logits(bench, networks["student"]))
    for part in ("conformal", "ood"):
        assert found.figures[part]["statement"] == tiny_run.metrics[part]["statement"]
    rule = ForeignRule.from_dict(tiny_run.metrics["ood"]["rule"])
    assert astuple(found.rules.foreign) == pytest.approx(astuple(rule), rel=1e-2)
    stored = ConformalRule.from_dict(tiny_run.metrics["conformal"]["rule"])
    np.testing.assert_allclose(found.rules.conformal.thresholds, stored.thresholds, rtol=1e-3)


def student_logits(bench, student):
    with torch.no_grad():
        return torch.cat([student(part) for part in bench.data.images.batch(np.arange(120)).split(40)]).numpy()


def test_no_label_of_a_training_image_is_read(reopened, tmp_path):
    """Training labels outside a run's budget may be wrong, or be unknown: rules and figures must not depend on any."""
    bench, networks = reopened
    logits = student_logits(bench, networks["student"])
    table = bench.dataset.table
    scrambled, train = table.targets.copy(), table.indices("train")
    scrambled[train] = np.random.default_rng(0).permutation(scrambled[train])
    assert (scrambled != table.targets).any()
    dataset = replace(bench.dataset, table=replace(table, targets=scrambled))
    other = Workbench(Run.create(tmp_path / "other", bench.settings), dataset, show_progress=False)
    found, expected = (measure(place, networks["student"], logits) for place in (other, bench))
    for name, array in density_arrays(expected.rules.density).items():
        np.testing.assert_array_equal(density_arrays(found.rules.density)[name], array)
    assert found.rules.foreign == expected.rules.foreign
    assert found.figures == expected.figures


def test_made_up_images_are_of_the_patients_that_they_are_made_of(reopened, tmp_path):
    bench, networks = reopened
    logits = student_logits(bench, networks["student"])
    table = bench.dataset.table
    tests = table.indices("test")
    names = np.array([f"p{number}" for number in range(len(table))])
    names[tests] = [f"t{number // 4}" for number in range(len(tests))]

    def report(name, patients):
        dataset = replace(bench.dataset, table=replace(table, patients=patients))
        place = Workbench(Run.create(tmp_path / name, bench.settings), dataset, show_progress=False)
        return measure(place, networks["student"], logits).figures["ood"]["made_up"]

    images, patients = report("images", None), report("patients", names)
    for first, second in zip(images, patients, strict=True):
        assert first["refused"]["value"] == second["refused"]["value"]
    assert [entry["refused"] for entry in images] != [entry["refused"] for entry in patients]


def test_made_up_images_are_asked_about(tiny_run):
    made_up = tiny_run.metrics["ood"]["made_up"]
    assert [entry["name"] for entry in made_up] == ["noise", "shuffled", "inverted"]
    tests = int((tiny_run.predictions()["split"] == "test").sum())
    for entry in made_up:
        assert entry["images"] == tests
        assert 0 <= entry["auroc"]["low"] <= entry["auroc"]["value"] <= entry["auroc"]["high"] <= 1
    assert tiny_run.metrics["ood"]["against"] == []


def test_without_a_density_nothing_is_refused_and_the_reason_is_said(tiny_run, reopened, monkeypatch):
    bench, networks = reopened

    def no_density(*arguments):
        raise UsageError("A feature density needs a class with at least two training images: there is none.")

    monkeypatch.setattr("stillroom.run.stages.uncertainty.fit_density", no_density)
    logits = np.random.default_rng(0).normal(size=(120, 2)).astype(np.float32)
    found = measure(bench, networks["student"], logits)
    assert found.rules.foreign is found.rules.density is None
    assert found.figures["ood"]["rule"] is None
    assert found.figures["ood"]["statement"].startswith("Foreign images are not refused: A feature density needs")
    assert found.rules.conformal.images == 14


# -- images of no kind --------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("side", "channels"), [(32, 1), (28, 3), (35, 3)])
def test_made_up_images(side, channels):
    images = torch.rand(5, channels, side, side, generator=torch.Generator().manual_seed(0)) ** 3
    state = torch.get_rng_state()
    made = made_up_images(images, seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    for name, changed in made.items():
        assert changed.shape == images.shape
        assert 0 <= changed.min() <= changed.max() <= 1
        assert torch.equal(changed, made_up_images(images, seed=1)[name])
    assert torch.equal(made["inverted"], 1 - images)
    assert made["noise"].mean() == pytest.approx(float(images.mean()), abs=0.05)
    # Noise has no neighbours that are alike.
    flat = made["noise"].flatten(1)
    assert abs(float(torch.corrcoef(torch.stack([flat[:, :-1].flatten(), flat[:, 1:].flatten()]))[0, 1])) < 0.1


@pytest.mark.parametrize("side", [32, 35])
def test_a_shuffled_image_has_the_same_tiles_in_another_order(side):
    images, tile = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0)), side // 4
    shuffled = made_up_images(images, seed=1)["shuffled"]

    def tiles(image):
        starts = range(0, 4 * tile, tile)
        return [image[:, top : top + tile, left : left + tile].numpy().tobytes() for top in starts for left in starts]

    for before, after in zip(images, shuffled, strict=True):
        assert tiles(before) != tiles(after)
        assert sorted(tiles(before)) == sorted(tiles(after))
        assert torch.equal(before[:, 4 * tile :], after[:, 4 * tile :])
        assert torch.equal(before[:, :, 4 * tile :], after[:, :, 4 * tile :])
