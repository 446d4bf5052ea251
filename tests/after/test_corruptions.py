"""A finished run's networks on corrupted test images."""

import json
import re
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

import stillroom
from stillroom import RunError, UsageError
from stillroom.after.corruptions import evaluate_corruptions
from stillroom.evaluation.corruptions import CORRUPTIONS
from stillroom.run.pipeline import reopen
from stillroom.run.stages.corruptions import measure


@pytest.fixture(scope="module")
def tested(tiny_run, tmp_path_factory):
    """A copy of the run, tested; what was found, and what stood there before."""
    run = stillroom.Run.open(shutil.copytree(tiny_run.path, tmp_path_factory.mktemp("tested") / "run"))
    before = {name: (run.path / name).read_bytes() for name in ("metrics.json", "manifest.json", "history.jsonl")}
    return run, evaluate_corruptions(run, show_progress=False), before


def test_what_is_found_joins_the_runs_figures_and_its_report(tested):
    run, found, before = tested
    metrics = json.loads(before["metrics.json"])
    assert run.metrics["robustness"] == json.loads(json.dumps(found))
    assert {key: part for key, part in run.metrics.items() if key != "robustness"} == metrics
    assert set(found["summary"]) == {"student", "control", "teacher"}
    assert "orrupt" in run.report.read_text("utf-8")


def test_clean_figures_are_those_of_the_run(tested):
    run, found, _ = tested
    for role, figures in found["clean"].items():
        assert figures["accuracy"]["value"] == pytest.approx(run.metrics["test"][role]["accuracy"]["value"], abs=1e-9)


def test_nothing_is_trained_or_changed_by_it(tested):
    run, _, before = tested
    assert (run.path / "history.jsonl").read_bytes() == before["history.jsonl"]
    assert (run.path / "manifest.json").read_bytes() == before["manifest.json"]
    assert run.finished


def test_it_is_repeatable(tested):
    run, *_ = tested
    bench, networks = reopen(run, show_progress=False)
    temperatures = {role: part["temperature"] for role, part in run.metrics["calibration"].items()}
    assert json.loads(json.dumps(measure(bench, networks, temperatures))) == run.metrics["robustness"]


def test_each_network_is_asked_about_every_corruption(tested):
    """Counted at the network: every test image once clean, and once for each corruption and severity."""
    run, *_ = tested
    bench, networks = reopen(run, show_progress=False)
    counts = []
    networks["student"].register_forward_pre_hook(lambda module, given: counts.append(len(given[0])))
    measure(bench, {"student": networks["student"]}, {"student": 1.0})
    tests = len(bench.dataset.table.indices("test"))
    assert sum(counts) == (5 * len(CORRUPTIONS) + 1) * tests


def test_of_many_test_images_a_sample_is_corrupted_and_the_reader_told(tested, monkeypatch):
    run, found, _ = tested
    bench, networks = reopen(run, show_progress=False)
    tests = len(bench.dataset.table.indices("test"))
    assert not any("random sample" in note for note in found["notes"])
    monkeypatch.setattr("stillroom.run.stages.corruptions._MOST_IMAGES", 5)
    shown = []
    networks["student"].register_forward_pre_hook(lambda module, given: shown.append(given[0]))
    sample = measure(bench, {"student": networks["student"]}, {"student": 1.0})
    assert sample["images"] == 5
    assert sample["notes"][-1] == f"Of the {tests} test images a random sample of 5 was corrupted."
    assert sum(map(len, shown)) == 5 * (5 * len(CORRUPTIONS) + 1)
    assert measure(bench, {"student": networks["student"]}, {"student": 1.0}) == sample


def test_a_manifest_stays_as_it_was_where_a_network_is_gone(own_run):
    before = (own_run.path / "manifest.json").read_bytes()
    (own_run.path / "student" / "model.safetensors").write_bytes(b"")
    with pytest.raises(stillroom.StillroomError):
        evaluate_corruptions(own_run, show_progress=False)
    assert (own_run.path / "manifest.json").read_bytes() == before


def test_reopened_networks_are_those_that_were_evaluated(tested):
    run, *_ = tested
    bench, networks = reopen(run, show_progress=False)
    assert set(networks) == {"student", "control", "teacher"}
    frame = run.predictions()
    with torch.no_grad():
        for role, network in networks.items():
            logits = network.eval()(bench.data.images.batch(np.arange(120)))
            chances = torch.softmax(logits / run.metrics["calibration"][role]["temperature"], dim=1)
            np.testing.assert_allclose(chances[:, 1], frame[f"{role}:right"], atol=2e-3)


def test_an_unfinished_run_is_refused(own_run):
    own_run.report.unlink()
    with pytest.raises(UsageError, match=r"has not finished\. Go on with"):
        evaluate_corruptions(own_run, show_progress=False)


def test_data_that_changed_since_are_refused(own_run, picture_folder, tmp_path):
    other = shutil.copytree(picture_folder, tmp_path / "pictures")
    Image.fromarray(np.zeros((32, 32), np.uint8)).save(other / "left" / "000.png")
    text = (own_run.path / "settings.yaml").read_text()
    (own_run.path / "settings.yaml").write_text(text.replace(str(picture_folder), str(other)))
    metrics = own_run.metrics
    with pytest.raises(RunError, match=r"1 image with other pixels \(left/000\.png\)"):
        evaluate_corruptions(stillroom.Run.open(own_run.path), show_progress=False)
    assert own_run.metrics == metrics
    shutil.rmtree(other)
    with pytest.raises(UsageError, match=re.escape(str(other))):
        evaluate_corruptions(stillroom.Run.open(own_run.path), show_progress=False)
    bench, _ = reopen(stillroom.Run.open(own_run.path), source=picture_folder, show_progress=False)
    assert bench.dataset.fingerprint == own_run.manifest["data_fingerprint"]
    assert own_run.manifest["places"] == {"source": str(picture_folder)}


def test_an_old_run_is_tested_as_well(old_run):
    found = evaluate_corruptions(old_run, show_progress=False)
    assert old_run.metrics["robustness"] == json.loads(json.dumps(found))
