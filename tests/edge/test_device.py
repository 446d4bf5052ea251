"""The plain install, where torch is not: it answers as torch did, and says of the rest in one line how to get it."""

import json
import subprocess
import sys
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from answering import Answering, form

import stillroom
from stillroom.extras import EXTRAS

SCIPY = find_spec("scipy") is not None
SERVES = find_spec("fastapi") is not None
evaluates = pytest.mark.skipif(not SCIPY, reason="without the extra evaluate")


def ask(*arguments: object, code: int = 0) -> tuple[str, str]:
    """What the command line prints to its two outputs."""
    command = [str(Path(sys.executable).with_name("stillroom")), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout, done.stderr


def test_nothing_that_trains_is_installed(device):
    assert [module for module in EXTRAS["train"] if find_spec(module)] == []


def test_help_loads_little(device):
    code = "import sys; from stillroom.cli.app import main\ntry: main(['--help'])\nfinally: print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.split()
    assert "cyclopts" in loaded
    assert not {"numpy", "onnxruntime", "PIL", "pydicom", "scipy"} & set(loaded)


def test_probabilities_are_torchs(device, known):
    said = json.loads(ask("predict", device / "student.onnx", device / "images", "--json")[0])
    assert [Path(one["path"]).parent.name for one in said] == ["left"] * 12 + ["right"] * 12
    found = [[one["probabilities"][name] for name in ("left", "right")] for one in said]
    assert np.std(known["probabilities"][:, 0]) > 0.05
    np.testing.assert_allclose(found, known["probabilities"], atol=1e-5)


@pytest.mark.skipif(not SERVES, reason="without the extra serve")
def test_answers_over_http_are_torchs(device, known):
    with Answering(f"device={device / 'student.onnx'}") as server:
        files = [(f"{number:02d}.png", path.read_bytes()) for number, path in enumerate(images_of(device))]
        body, kind = form(files)
        said = server.post("/v1/predict", body, kind).json
        drawn = server.post("/v1/explain?of=left&method=score_cam&as=npy", files[0][1])
    assert said["model"]["name"] == "device"
    found = [[one["probabilities"][name] for name in ("left", "right")] for one in said["predictions"]]
    np.testing.assert_allclose(found, known["probabilities"], atol=1e-5)
    assert np.load(BytesIO(drawn.body)).std() > 0.02


def images_of(device: Path) -> list[Path]:
    """In the order of what is known of them."""
    return sorted((device / "images").rglob("*.png"))  # left, then right


@pytest.mark.parametrize("method", ["rise", "score_cam"])
def test_maps_are_torchs(device, known, tmp_path, method):
    from stillroom.data.files import FileReader
    from stillroom.data.geometry import on_original

    images = [device / "images" / "left" / f"{number:03d}.png" for number in range(2)]
    said, _ = ask(
        "explain", device / "student.onnx", *images, "--method", method, "--of", "left", "--out", tmp_path, "--json"
    )
    for one, path, square in zip(json.loads(said), images, known[method], strict=True):
        height, width = FileReader((path,)).read(0).shape[:2]
        expected = np.clip(on_original(square, height, width, "pad"), 0, 1)
        assert square.std() > 0.02
        np.testing.assert_allclose(np.load(one["array"]), expected, atol=2e-3)
        assert Path(one["picture"]).stat().st_size > 100


def test_a_page_is_written(device, tmp_path):
    said, _ = ask("page", device / "student.onnx", "--out", tmp_path / "classifier.html")
    assert "classifier.html" in said
    text = (tmp_path / "classifier.html").read_text("utf-8")
    assert 'id="part-wasm"' in text
    assert "connect-src 'none'" in text


@evaluates
@pytest.mark.parametrize("table", [False, True])
def test_figures_are_scikit_learns(device, known, tmp_path, table):
    source = device / "images"
    if table:
        rows = [f"{path},{path.parent.name}" for path in sorted(source.rglob("*.png"))]
        source = tmp_path / "labels.csv"
        source.write_text("\n".join(["path,label", *rows]), encoding="utf-8")
    found = json.loads(ask("evaluate", device / "student.onnx", source, "--json")[0])
    figures = found["test"]["student"]
    assert figures["auc"]["value"] == pytest.approx(float(known["auc"]), abs=1e-9)
    assert figures["accuracy"]["value"] == pytest.approx(float(known["accuracy"]), abs=1e-9)
    assert figures["auc"]["low"] <= figures["auc"]["value"] <= figures["auc"]["high"]
    assert found["seen_in_training"] is None
    assert any("does not say which images it was trained on" in note for note in found["notes"])


@evaluates
def test_a_folder_is_audited(device):
    said = json.loads(ask("audit", device / "images", "--json")[0])
    assert sum(sum(split.values()) for split in said["class_counts"].values()) == 24


def test_the_doctor_finds_nothing_wrong(device):
    said = json.loads(ask("doctor", device / "student.onnx", "--json")[0])
    assert said["state"] == "well"
    assert any("pip install 'stillroom[train]'" in check["text"] for check in said["checks"])


@pytest.mark.parametrize(
    ("arguments", "extra"),
    [
        (["distill", "{images}"], "train"),
        (["distill", "{images}", "--no-plan"], "train"),
        (["distill", "--resume", "{run}"], "train"),
        (["distill", "--settings", "{run}/settings.yaml"], "train"),
        (["distill", "--plan", "{run}/settings.yaml"], "train"),
        (["plan", "{images}"], "train"),
        (["demo"], "train"),
        (["models"], "train"),
        (["export", "{run}"], "train"),
        (["bench", "{run}/settings.yaml", "--out", "bench"], "train"),
        (["readers", "{run}"], "train"),
        (["doctor", "{run}"], "train"),
        (["doctor", "--weights", "{images}"], "train"),
        (["evaluate", "{run}", "{images}"], "train"),
        (["evaluate", "{run}", "--corruptions"], "train"),
        (["explain", "{run}", "{images}", "--method", "grad_cam"], "train"),
        (["predict", "{run}", "{images}", "--dicom", "{run}"], "dicom"),
        (["evaluate", "{run}/student.onnx", "breastmnist"], "train" if SCIPY else "evaluate"),
        (["evaluate", "{run}/student.onnx", "{run}/table.parquet"], "train" if SCIPY else "evaluate"),
        *([] if SERVES else [(["serve", "{run}"], "serve")]),
        *([] if SCIPY else [(["evaluate", "{run}/student.onnx", "{images}"], "evaluate")]),
        *([] if SCIPY else [(["audit", "{images}"], "evaluate")]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else value,
)
def test_what_needs_more_says_which_extra(device, tmp_path, arguments, extra):
    """The run folder is one only by its names: all of them are refused before anything in it is read."""
    run = tmp_path / "run"
    run.mkdir()
    for name in ("settings.yaml", "manifest.json", "table.parquet"):
        (run / name).write_text("{}")
    (run / "student.onnx").symlink_to(device / "student.onnx")
    asked = [argument.format(run=run, images=device / "images") for argument in arguments]
    _, said = ask(*asked, code=2)
    (told,) = said.splitlines()
    assert told.startswith("error: ")
    assert f"which is not installed: `pip install 'stillroom[{extra}]'`." in told


def test_every_public_name_loads_or_says_which_extra(device):
    said = {}
    for name in stillroom.__all__:
        try:
            getattr(stillroom, name)
        except (stillroom.UsageError, ImportError) as error:
            said[name] = error
    assert set(said) == {"distill", "resume", "export_student", "heat_maps", "FromModule", "FromFactory"}
    for name, error in said.items():
        assert str(error) == f"stillroom.{name} needs torch, which is not installed: `pip install 'stillroom[train]'`."
        assert isinstance(error, stillroom.UsageError)


def test_public_functions_say_which_extra(device, tmp_path):
    (tmp_path / "plan.yaml").write_text("{}")
    calls = [
        lambda: stillroom.plan(device / "images"),
        lambda: stillroom.read_plan(tmp_path / "plan.yaml"),
        lambda: stillroom.run_bench(tmp_path / "plan.yaml", tmp_path / "out"),
        lambda: stillroom.explain(device, device / "images", method="grad_cam", out=tmp_path),
    ]
    if not SCIPY:
        calls += [lambda: stillroom.load_data(device / "images"), lambda: stillroom.evaluate(device, device / "images")]
    for call in calls:
        with pytest.raises(stillroom.UsageError, match=r"which is not installed: `pip install 'stillroom\["):
            call()
