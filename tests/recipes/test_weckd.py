"""The chain: which images each stage learns from, what its control gets, and that a stopped chain goes on."""

import dataclasses

import numpy as np
import pytest

import stillroom
from stillroom import (
    DataSettings,
    EvaluationSettings,
    RunError,
    Settings,
    StudentSettings,
    TrainingSettings,
    UsageError,
    ViewSettings,
    WeCKD,
)
from stillroom.data.load import load_data
from stillroom.run.folder import Run
from stillroom.run.workbench import Workbench

QUICK = {
    "data": DataSettings(size=32),
    "views": ViewSettings(views=2),
    "student": StudentSettings("test_resnet", student_size=64),
    "training": TrainingSettings(epochs=2, batch_size=8, lr=3e-3),
    "evaluation": EvaluationSettings(resamples=100, latency=False, explain=0),
    "device": "cpu",
}


@pytest.fixture
def bench(picture_folder, tmp_path):
    """A workbench whose ``fit`` only notes what it was asked for."""

    def make(recipe, **training):
        settings = Settings(str(picture_folder), recipe, **QUICK)
        settings = dataclasses.replace(settings, training=dataclasses.replace(settings.training, **training))
        dataset = load_data(picture_folder, settings.data, show_progress=False)
        made = Workbench(Run.create(tmp_path / "run", settings), dataset, show_progress=False)
        made.asked_for = []

        def fit(role, network, objective, *, teachers=(), epochs=None, rows=None, lr=None):
            made.asked_for.append((role, type(objective).__name__, rows, epochs, len(teachers), lr))
            made.run.log({"role": role, "epoch": 1, "images": (epochs or settings.training.epochs) * len(rows)})
            return network

        made.fit = fit
        made.asked = lambda network, **_: network
        return made

    return make


def test_disjoint_stages_and_a_control_on_their_union(bench):
    recipe = WeCKD(fraction=0.2)
    made = bench(recipe, epochs=7)
    recipe.run(made)
    recipe.control(made)
    *chain, control = made.asked_for
    assert [entry[0] for entry in chain] == ["stage_1", "stage_2", "student"]
    assert [entry[1] for entry in chain] == ["LabelLoss", "ChainLoss", "ChainLoss"]
    assert [entry[4] for entry in chain] == [0, 1, 1]
    rows = [entry[2] for entry in chain]
    assert len(np.unique(np.concatenate(rows))) == sum(map(len, rows))
    assert np.isin(np.concatenate(rows), made.data.train).all()
    assert control[:2] == ("control", "LabelLoss")
    assert sorted(control[2]) == sorted(np.concatenate(rows))
    assert control[3] == 7  # as many epochs on the union: as many image passes as the chain
    assert list(made.milestones) == ["stage_1", "stage_2"]


@pytest.mark.parametrize(
    ("settings", "sizes", "epochs"),
    [
        ({"slices": "same"}, (1, 1, 1), 30),
        ({"slices": "cumulative"}, (1, 2, 3), 20),
        ({"one_step": True}, (1, 2), 10),
        ({"length": 1}, (1,), 10),
        ({"slices": "overlapping"}, (1, 1, 1), None),
    ],
)
def test_other_slices_and_the_controls_budget(bench, settings, sizes, epochs):
    recipe = WeCKD(fraction=0.2, **settings)
    made = bench(recipe, epochs=10)
    recipe.run(made)
    recipe.control(made)
    *chain, control = made.asked_for
    unit = len(chain[0][2])
    assert [len(entry[2]) for entry in chain] == [unit * size for size in sizes]
    if settings.get("slices") == "overlapping":
        assert not np.array_equal(chain[0][2], chain[1][2])
        passes = sum(len(entry[2]) for entry in chain) * 10
        assert abs(control[3] * len(control[2]) - passes) <= len(control[2]) / 2
    else:
        assert control[3] == epochs


def test_slices_are_cut_from_the_labels_that_may_be_used(bench):
    recipe = WeCKD(fraction=0.3)
    made = bench(recipe, label_fraction=0.5)
    recipe.run(made)
    joined = np.concatenate([entry[2] for entry in made.asked_for])
    assert len(joined) <= len(made.data.train) <= len(made.training_rows) / 2 + 1
    assert np.isin(joined, made.data.train).all()


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"length": 0}, "length"),
        ({"fraction": 0.5}, "slices of 0.5 are more than all labels"),
        ({"fraction": 0}, "fraction"),
        ({"kd_weight": 1.5}, "kd_weight"),
        ({"temperature": 0.5}, "final_temperature"),
        ({"final_temperature": 0}, "final_temperature"),
        ({"decay": 1}, "decay"),
        ({"attention_weight": -1}, "attention_weight"),
        ({"tune": -1}, "tune"),
    ],
)
def test_settings_out_of_range_are_refused(values, words):
    with pytest.raises(UsageError, match=words):
        WeCKD(**values)


def test_a_map_of_one_place_is_refused_before_anything_is_trained(picture_folder, tmp_path):
    settings = Settings(
        str(picture_folder), WeCKD(fraction=0.3), **QUICK | {"student": StudentSettings("resnet10t_050")}
    )
    with pytest.raises(UsageError, match=r"one place at 32 pixels.*--no-attention"):
        stillroom.distill(settings, tmp_path / "run", show_progress=False)
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def settings(picture_folder):
    return Settings(str(picture_folder), WeCKD(fraction=0.3), **QUICK)


@pytest.mark.slow
def test_a_chain_from_end_to_end_and_one_that_stopped(settings, tmp_path, monkeypatch):
    whole = stillroom.distill(settings, tmp_path / "whole", show_progress=False)
    assert {"student", "control", "stage_1", "stage_2"} <= set(whole.metrics["test"])
    assert (whole.path / "stage_1" / "model.json").exists()
    lines = whole.history()
    assert {"label", "teacher", "teacher attention"} <= set(lines[-1]["losses"]) or lines[-1]["role"] == "control"
    assert whole.predictor().predict([next((tmp_path.parent).rglob("pictures*/left/000.png"))])

    def die(self, line):
        raise RunError("stopped")

    with monkeypatch.context() as patch:
        original = Run.log
        patch.setattr(
            Run, "log", lambda run, line: die(run, line) if line["role"] == "student" else original(run, line)
        )
        with pytest.raises(RunError, match="stopped"):
            stillroom.distill(settings, tmp_path / "parts", show_progress=False)
    resumed = stillroom.resume(tmp_path / "parts", show_progress=False)
    for role in ("stage_1", "student", "control"):
        one, other = (run.path / role / "model.safetensors" for run in (whole, resumed))
        assert one.read_bytes() == other.read_bytes()


@pytest.mark.slow
def test_a_search_on_validation_is_kept_and_used(settings, tmp_path):
    optuna = pytest.importorskip("optuna")
    settings = dataclasses.replace(settings, recipe=WeCKD(fraction=0.3, tune=3, length=2, inherit=True))
    run = stillroom.distill(settings, tmp_path / "run", show_progress=False)
    found = run.manifest["tuned_chain"]
    assert 1e-5 <= found["lr"] <= 1e-2
    assert 0.1 <= found["kd_weight"] <= 0.9
    assert 2 <= found["temperature"] <= 10
    study = optuna.load_study(study_name="search", storage=f"sqlite:///{run.path / 'tuning' / 'chain.db'}")
    assert len(study.trials) == 3
    assert study.best_params == found
    assert set(run.manifest["tuned_control"]) == {"lr"}
    assert not (run.path / "tuning_chain").exists()
