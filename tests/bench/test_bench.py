"""Whole grids on phantoms: tables, failures, stops, and Ray beside processes."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file
from scipy import stats

import stillroom
from stillroom import Run, UsageError, run_bench
from stillroom.bench.collect import Outcome, over_sets, row, systems
from stillroom.bench.engines import Job, launch, made_by
from stillroom.bench.grid import read_grid
from stillroom.bench.page import page
from stillroom.bench.tables import csv_table, markdown
from stillroom.cli.app import main

GRID = {
    "data": ["phantoms:240"],
    "recipes": ["baseline", "medalmighty"],
    "teachers": [{"name": "test_vit", "pretrained": False, "teacher_size": 32}],
    "students": ["test_resnet"],
    "seeds": [0],
    "settings": {
        "data": {"size": 32},
        "views": {"views": 1},
        "training": {"epochs": 1, "batch_size": 32},
        "evaluation": {"resamples": 100, "latency": False},
        "device": "cpu",
    },
}


def write(folder, **changes):
    file = folder / "grid.yaml"
    file.write_text(yaml.safe_dump(GRID | changes))
    return file


def rows_of(out):
    with (out / "table.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def times(out):
    """When each cell's weights were written."""
    return {path: path.stat().st_mtime_ns for path in out.glob("cells/*/student/model.safetensors")}


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A grid of one baseline and one distilled student, run by processes."""
    folder = tmp_path_factory.mktemp("bench")
    return run_bench(write(folder), folder / "out", workers=1, show_progress=False), folder


@pytest.mark.slow
def test_the_tables_say_what_the_runs_say(done):
    results, _ = done
    assert not results.failed
    rows = rows_of(results.out)
    assert [row["recipe"] for row in rows] == ["baseline", "medalmighty"]
    for found in rows:
        run = Run.open(results.out / found["run"])
        student = run.metrics["test"]["student"]
        assert float(found["ece"]) == student["ece"]["value"]
        for name in ("auc", "accuracy", "f1", "calibration_error", "nll"):
            assert float(found[name]) == student[name]["value"]
            assert float(found[f"{name}_low"]) == student[name]["low"]
        assert int(found["parameters"]) == run.metrics["efficiency"]["student"]["parameters"]
        assert (found["state"], found["reason"]) == ("done", "")
    baseline, taught = results.systems
    assert baseline.is_control
    difference = float(rows[1]["auc"]) - float(rows[0]["auc"])
    assert taught.difference.value == pytest.approx(difference)
    assert taught.difference.low < difference < taught.difference.high
    text = (results.out / "table.md").read_text()
    assert f"{float(rows[0]['auc']):.3f}" in text
    page = (results.out / "index.html").read_text()
    assert "These images are synthetic" in page
    assert "<svg" in page


@pytest.mark.slow
def test_a_cell_is_the_run_that_distill_makes(done, tmp_path):
    results, _ = done
    cell = results.outcomes[1].cell
    threads = {"env": os.environ | {"OMP_NUM_THREADS": "1"}}
    settings = results.out / "cells" / f"{cell.id}.yaml"
    command = [
        sys.executable,
        "-m",
        "stillroom",
        "distill",
        "--settings",
        str(settings),
        "--out",
        str(tmp_path / "run"),
    ]
    subprocess.run(command, check=True, capture_output=True, **threads)
    first, second = (
        load_file(folder / "student" / "model.safetensors")
        for folder in (results.out / "cells" / cell.id, tmp_path / "run")
    )
    if os.environ.get("OMP_NUM_THREADS") == "1":  # the cell's number of threads
        assert all(np.array_equal(first[name], second[name]) for name in first)
    else:
        assert all(np.allclose(first[name], second[name], atol=1e-3) for name in first)


@pytest.mark.slow
def test_what_is_done_is_kept_and_a_changed_file_adds(done, capfd):
    results, folder = done
    before = times(results.out)
    again = run_bench(folder / "grid.yaml", results.out, workers=1)
    assert times(results.out) == before
    assert "2 cells: 2 done before and kept, 0 to go" in capfd.readouterr().err
    assert [row(a) for a in again.outcomes] == [row(b) for b in results.outcomes]
    recipes = ["baseline", {"name": "medalmighty", "alpha": 0.9}]
    more = run_bench(write(folder, recipes=recipes), results.out, workers=1)
    said = capfd.readouterr().err
    assert "2 cells: 1 done before and kept, 1 to go" in said
    assert "1 of an earlier file stay in" in said
    assert before.items() <= times(results.out).items()
    assert [outcome.state for outcome in more.outcomes] == ["done", "done"]


@pytest.mark.slow
def test_a_failed_cell_is_named_and_the_others_finish(tmp_path, capfd):
    wild = {"name": "baseline", "label": "wild", "training": {"lr": 1e12, "optimizer": "sgd", "batch_size": 8}}
    file = write(tmp_path, recipes=[wild, "medalmighty"], data=["phantoms:120"])
    with pytest.raises(SystemExit) as stop:
        main(["bench", str(file), "--out", str(tmp_path / "out"), "--workers", "1", "--json"])
    assert stop.value.code == 1
    said = capfd.readouterr()
    assert "1 of 2 cells failed; their logs are" in said.err
    found = json.loads(said.out)
    assert [cell["state"] for cell in found["cells"]] == ["failed", "done"]
    assert "training diverged. Lower --lr" in found["cells"][0]["reason"]
    assert [found["systems"][place]["verdict"] for place in (0, 1)] == ["not compared", "not compared"]
    for name in ("table.csv", "table.md", "index.html"):
        assert "training diverged" in (tmp_path / "out" / name).read_text(), name


def bench(file, out, engine):
    command = [sys.executable, "-m", "stillroom", "bench", str(file), "--out", str(out), "--workers", "1"]
    command += ["--engine", engine]
    heed = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.default_int_handler)}
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, **heed)


@pytest.mark.prove
@pytest.mark.parametrize("engine", ["processes", "ray"])
def test_a_stopped_bench_goes_on(tmp_path, monkeypatch, engine):
    """Told to end, then killed outright where that leaves no cluster behind, then let through."""
    if engine == "ray":
        pytest.importorskip("ray")
        monkeypatch.delenv("RAY_ADDRESS", raising=False)
    long = {"training": GRID["settings"]["training"] | {"epochs": 40, "batch_size": 8}}
    recipes = ["baseline", {"name": "baseline", "label": "long"} | long]
    file, out = write(tmp_path, recipes=recipes, data=["phantoms:120"]), tmp_path / "out"
    short, longer = read_grid(file)
    history, log = out / "cells" / longer.id / "history.jsonl", out / "cells" / f"{longer.id}.log"
    reached = 0
    for how in (signal.SIGTERM, signal.SIGKILL) if engine == "processes" else (signal.SIGINT,):
        process = bench(file, out, engine)
        while process.poll() is None and not (history.exists() and history.read_text().count("\n") >= reached + 2):
            time.sleep(0.02)
        process.send_signal(how)
        _, said = process.communicate(timeout=60)
        times_stopped = 2 if how == signal.SIGKILL else 1
        deadline = time.monotonic() + 30
        while log.read_text().count("error: Stopped.") < times_stopped and time.monotonic() < deadline:
            time.sleep(0.1)
        # The cell did not outlive the bench.
        assert log.read_text().count("error: Stopped. Go on with") == times_stopped
        before, reached = reached, history.read_text().count("\n")
        assert before + 2 <= reached < 40
        states = [found["state"] for found in rows_of(out)]  # what was done stands in the table already
        assert states == ["done", "waiting"]
        if how != signal.SIGKILL:
            assert process.returncode == 128 + how
            assert "1 of 2 cells are done; the same command goes on." in said
    before = times(out)
    results = run_bench(file, out, workers=1, show_progress=False)
    assert [outcome.state for outcome in results.outcomes] == ["done", "done"]
    assert before.items() <= times(out).items()
    assert "distill --resume" in log.read_text()
    assert [line["epoch"] for line in Run.open(out / "cells" / longer.id).history()] == list(range(1, 41))
    assert "--settings" in (out / "cells" / f"{short.id}.log").read_text()


@pytest.mark.slow
def test_ray_gives_the_same_figures(done, tmp_path, monkeypatch):
    pytest.importorskip("ray")
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("needs two cores")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    file = write(tmp_path, seeds=[0, 1])
    first = run_bench(file, tmp_path / "processes", workers=2, show_progress=False)
    second = run_bench(file, tmp_path / "ray", workers=2, engine="ray", show_progress=False)
    untimed = [[{k: v for k, v in row(o).items() if k != "seconds"} for o in r.outcomes] for r in (first, second)]
    assert untimed[0] == untimed[1]
    assert len(untimed[0]) == 4
    assert {found["state"] for found in untimed[0]} == {"done"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"teachers": [{"name": "test_vit", "weights": "nowhere"}]}, "No weights at"),
        ({"teachers": [{"name": "test_vit", "pretrained": False, "teacher_size": 50}]}, "multiple of 16 pixels"),
        ({"recipes": [{"name": "medalmighty", "paper_softmax": True}]}, "paper_softmax reproduces a multi-label"),
    ],
)
def test_every_cell_is_checked_before_any_runs(tmp_path, monkeypatch, changes, words):
    monkeypatch.setattr("stillroom.bench.engines.launch", lambda *_: pytest.fail("a cell was started"))
    with pytest.raises(UsageError, match=words) as caught:
        run_bench(write(tmp_path, **changes), tmp_path / "out", show_progress=False)
    assert "grid.yaml: phantoms:240 · medalmighty · test_vit · test_resnet · seed 0: " in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "letter.txt").write_text("x")
    with pytest.raises(UsageError, match="holds no bench"):
        run_bench(write(tmp_path), tmp_path / "out", show_progress=False)


def test_a_closed_line_of_life_stops_a_waiting_cell(tmp_path):
    """The cell waits for the log, which another holds; it must not outlive the bench."""
    import fcntl

    (cell, _) = read_grid(write(tmp_path))
    waiting = Job(tmp_path / "c.yaml", tmp_path / "c", tmp_path / "c.log", made_by(cell.settings))
    with waiting.log.open("ab") as held:
        fcntl.flock(held.fileno(), fcntl.LOCK_EX)
        process = launch(waiting, 1)
        time.sleep(4)
        assert process.poll() is None
        process.stdin.close()
        assert process.wait(15) != 0


# -- tables without training ------------------------------------------------------------------------------------------
def invented(tmp_path, **changes):
    """Outcomes of a grid whose figures are drawn: the recipe is better than its baseline by 0.15."""
    from stillroom.bench.collect import Finished
    from stillroom.bench.statistics import Spread
    from stillroom.evaluation.effective import Moved

    rng, outcomes = np.random.default_rng(0), []
    for cell in read_grid(write(tmp_path, **changes)):
        value = 0.7 + 0.15 * (not cell.is_baseline) + rng.normal(0, 0.003)
        values = dict.fromkeys(("auc", "accuracy", "f1"), value)
        moves = np.random.default_rng(1).normal(0, 0.02 / 80**0.5, 80)
        moved = {name: Moved(value, moves, 80.0, 80.0) for name in values}
        figures = {name: {"value": v, "low": v - 0.04, "high": v + 0.04} for name, v in values.items()}
        cost = {"seconds": 1.5, "parameters": 10, "size_mb": 0.5, "latency_ms": None}
        finished = Finished(figures, "auc", Spread(f"{cell.data} {cell.seed}", 80, moved), cost, False)
        outcomes.append(Outcome(cell, "done", finished=finished))
    return outcomes


SIX = [{"source": f"phantoms:{100 + n}", "label": f"set {n} | <b>"} for n in range(6)]


def test_csv_and_markdown_read_back(tmp_path):
    outcomes = invented(tmp_path, data=SIX, seeds=[0, 1, 2])
    read = list(csv.DictReader(csv_table(outcomes).splitlines()))
    assert len(read) == len(outcomes) == 36
    assert read[5]["data"] == "set 0 | <b>"
    assert float(read[5]["auc"]) == outcomes[5].finished.figures["auc"]["value"]
    found = systems(outcomes)
    text = markdown(outcomes, found, over_sets(found))
    table = [line for line in text.splitlines() if line.startswith("|")]
    header, _, control, taught = ([cell.strip() for cell in line.strip("|").split(" | ")] for line in table[:4])
    assert len(header) == len(control) == len(taught) == 10
    cells = dict(zip(header, taught, strict=True))
    mean = np.mean([o.finished.figures["auc"]["value"] for o in outcomes[3:6]])
    assert cells["AUC"].startswith(f"{mean:.3f} ± ")
    assert cells["Verdict"] == "beats its control"
    assert dict(zip(header, control, strict=True))["Verdict"] == "the control"
    assert "## set 0 \\| &lt;b>" in text
    assert "<b>" not in page(Path("grid.yaml"), outcomes, found, over_sets(found))


def test_over_sets_is_made_of_the_systems_means(tmp_path):
    outcomes = invented(tmp_path, data=SIX, seeds=[0, 1])
    found = over_sets(systems(outcomes))
    value = np.array([o.finished.figures["auc"]["value"] for o in outcomes]).reshape(6, 2, 2).mean(axis=2)
    (test,) = found["wilcoxon"].values()
    assert test["p"] == stats.wilcoxon(value[:, 1] - value[:, 0]).pvalue
    assert found["ranks"] == {"baseline · test_resnet": 2.0, "medalmighty · test_vit · test_resnet": 1.0}


def test_a_system_without_all_its_seeds_is_not_ranked(tmp_path):
    outcomes = invented(tmp_path, data=SIX)
    outcomes[1] = Outcome(outcomes[1].cell, "failed", "it broke")
    found = systems(outcomes)
    assert over_sets(found) is None
    assert (found[1].done, found[1].failed, found[1].verdict) == (0, 1, "not compared")
    assert "it broke" in page(Path("grid.yaml"), outcomes, found, None)


def test_published_figures_stand_apart_and_say_whose_they_are(tmp_path):
    outcomes = invented(tmp_path, data=["breastmnist"])
    found = systems(outcomes)
    text = markdown(outcomes, found, None)
    assert "Published figures, not measured here:" in text
    assert "| CA-MKD | 0.877 | 0.830 | MedAlmighty (2025), Table 2 |" in text
    html = page(Path("grid.yaml"), outcomes, found, None)
    assert "Published figures for breastmnist, not measured here" in html
    assert "http" not in html.replace("http-equiv", "").replace("http://www.w3.org", "")


def test_what_else_differs_from_the_control_is_said(tmp_path):
    recipes = ["baseline", {"name": "medalmighty", "training": {"epochs": 9, "lr": 0.01}}]
    outcomes = invented(tmp_path, recipes=recipes)
    found = systems(outcomes)
    assert found[1].unlike == ("training.epochs", "training.lr")
    assert "¹ medalmighty differs from its control also in training.epochs, training.lr." in markdown(
        outcomes, found, None
    )


def test_a_recipe_is_compared_with_the_control_that_it_names(tmp_path):
    recipes = ["baseline", {"name": "weckd", "against": "one"}, {"name": "weckd", "label": "one", "length": 1}]
    outcomes = invented(tmp_path, data=SIX, recipes=recipes, seeds=[0, 1])
    found = systems(outcomes)
    chain = next(system for system in found if system.key[1] == "weckd")
    value = {
        (o.cell.recipe, o.cell.seed): o.finished.figures["auc"]["value"]
        for o in outcomes
        if o.cell.data == SIX[0]["label"]
    }
    gains = [value["weckd", seed] - value["one", seed] for seed in (0, 1)]
    assert chain.difference.value == pytest.approx(np.mean(gains))
    text = markdown(outcomes, found, over_sets(found))
    assert "(control: one)" in text
    assert "(control: one)" in page(Path("grid.yaml"), outcomes, found, None)
    means = np.array([[s.means["auc"].value for s in found if s.key[0] == one["label"]] for one in SIX])
    test = over_sets(found)["wilcoxon"]["weckd · test_resnet"]
    assert test["p"] == stats.wilcoxon(means[:, 1] - means[:, 2]).pvalue


def test_a_control_with_the_same_teacher_goes_first(tmp_path):
    recipes = [
        "baseline",
        {"name": "standard_kd", "label": "kd"},
        {"name": "standard_kd", "label": "dkd", "loss": "dkd", "against": "kd"},
    ]
    teachers = [{"name": name, "pretrained": False} for name in ("resnet18", "resnet50")]
    found = {system.key[1:3]: system for system in systems(invented(tmp_path, recipes=recipes, teachers=teachers))}
    for teacher in ("resnet18", "resnet50"):
        assert found["dkd", teacher].control[1:3] == ("kd", teacher)
        assert found["kd", teacher].control[1:3] == ("baseline", "")
    lone = {"name": "standard_kd", "label": "dkd", "loss": "dkd", "against": "kd", "teacher": {"teacher": "resnet34"}}
    outcomes = invented(tmp_path, recipes=[*recipes[:2], lone], teachers=teachers)
    (unclear,) = (system for system in systems(outcomes) if system.key[1] == "dkd")
    assert unclear.control is None  # which of the two is meant nobody knows
    assert unclear.verdict == "not compared"


def test_a_recipe_with_a_control_of_its_own_says_so(tmp_path):
    cut = {"name": "dual_model_skd", "initial": "single", "skd": "none", "label": "cut"}
    recipes = ["baseline", "weckd", {"name": "weckd", "label": "named", "length": 2, "against": "baseline"}, cut]
    found = systems(invented(tmp_path, recipes=recipes))
    assert "all slices together" in found[1].own_control
    assert [found[k].own_control for k in (2, 3)] == [
        "",
        "",
    ]  # a cut without self-distillation has the baseline's epochs
    text = markdown(invented(tmp_path, recipes=recipes), found, None)
    assert "¹ The control that weckd itself would train is another one: one network on the labels of all slices" in text


@pytest.mark.prove
def test_a_damaged_cell_is_put_aside_and_run_again(done):
    results, folder = done
    # Of this file's own cells: other tests' grids have left theirs in the same folder.
    name = next(o.cell.id for o in results.outcomes if "medalmighty" in o.cell.id)
    damaged = folder / "out" / "cells" / name
    (damaged / "metrics.json").write_text("{")
    again = run_bench(write(folder), folder / "out", workers=1, show_progress=False)
    assert not again.failed
    assert [o.finished.figures for o in again.outcomes] == [o.finished.figures for o in results.outcomes]
    assert (folder / "out" / "damaged" / f"{damaged.name}-1" / "metrics.json").read_text() == "{"


def test_the_name_is_exported_and_its_import_is_light():
    assert stillroom.run_bench is run_bench
    program = "import sys, stillroom.bench; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0


@pytest.mark.slow
def test_a_planned_cell_plans_where_it_runs(tmp_path):
    settings = GRID["settings"] | {"training": {"steps": 6}, "views": {}}
    file = write(tmp_path, recipes=["baseline"], teachers=None, plan={"minutes": 0.5, "max_mb": 4}, settings=settings)
    results = run_bench(file, tmp_path / "out", workers=1, show_progress=False)
    assert not results.failed, results.failed
    (folder,) = (path for path in (tmp_path / "out" / "cells").iterdir() if path.is_dir())
    made = stillroom.read_plan(folder / "plan.yaml")
    assert (made.budget.minutes, made.budget.max_mb) == (0.5, 4)
    given = {name for name, choice in made.choices.items() if choice.why == "given"}
    assert {"recipe.name", "student.student", "data.size", "training.steps", "evaluation.control"} <= given
    assert "training.batch_size" not in given
    assert Run.open(folder).settings.data.size == 32
