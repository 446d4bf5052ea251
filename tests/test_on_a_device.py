"""docs/on-a-device.md, run as it stands: every command but those that install, and both programs."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from dicom_files import write_dicom
from PIL import Image

from stillroom import Predictor

PAGE = (Path(__file__).parents[1] / "docs" / "on-a-device.md").read_text("utf-8")
COMMANDS = [
    line.removeprefix("$ ")
    for block in re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL)
    for line in block.splitlines()
]
INSTALLING = (
    "python3 -m venv device",
    ". device/bin/activate",
    "pip install stillroom",
    "scp other-machine:runs/first/student.onnx .",
)
"""What `make edge` does in its own way."""

ASKING = [line for line in COMMANDS if line not in INSTALLING and "export" not in line]


def program(tag: str) -> str:
    (code,) = re.findall(rf"<!-- tested: {tag} -->\n```python\n(.*?)```", PAGE, re.DOTALL)
    return code


def do(line: str, place: Path) -> subprocess.CompletedProcess:
    shell = f'stillroom() {{ "{sys.executable}" -m stillroom "$@"; }}; {line}'
    return subprocess.run(["bash", "-c", shell], cwd=place, capture_output=True, text=True)


@pytest.fixture(scope="module")
def device(tiny_run, picture_folder, tmp_path_factory):
    place = tmp_path_factory.mktemp("device")
    shutil.copy(tiny_run.path / "student.onnx", place)
    for side in ("left", "right"):
        for number, path in enumerate(sorted(picture_folder.rglob(f"{side}/*.png"))[:8]):
            for folder, name in (("images", f"{side}{number}.png"), (f"labelled/{side}", path.name)):
                (place / folder).mkdir(parents=True, exist_ok=True)
                shutil.copy(path, place / folder / name)
    shutil.copy(place / "images" / "left0.png", place / "image.png")
    write_dicom(place / "scan.dcm", np.asarray(Image.open(place / "image.png").convert("L")))
    return place


def test_no_command_is_passed_over():
    assert [line for line in COMMANDS if line in INSTALLING] == list(INSTALLING)
    assert all(line.startswith("stillroom ") for line in COMMANDS if line not in INSTALLING)
    assert len(ASKING) >= 8


@pytest.fixture(scope="module")
def asked(device):
    return {line: do(line, device) for line in ASKING}


@pytest.mark.parametrize("line", ASKING)
def test_a_command_does_what_the_page_says(asked, line):
    done = asked[line]
    assert done.returncode == 0, done.stderr
    assert done.stdout or ">" in line


def test_what_commands_leave_is_there(asked, device):
    said = json.loads((device / "answers.json").read_text("utf-8"))
    assert len(said) == 16
    named = set(re.findall(r"`(\w+)`", PAGE.split("`--json` prints")[1].split("Only data")[0]))
    assert named <= set(said[0])
    assert {path.suffix for path in (device / "maps").iterdir()} == {".png", ".npy"}
    assert list((device / "for_archive").rglob("*.dcm"))


def test_the_exit_codes_are_those_of_the_page(device):
    codes = {int(code) for code in re.findall(r"^\| (\d) \|", PAGE, re.MULTILINE)}
    (device / "mixed").mkdir()
    shutil.copy(device / "image.png", device / "mixed" / "a.png")
    (device / "mixed" / "b.png").write_bytes(b"")
    found = {
        do(f"stillroom predict {what}", device).returncode
        for what in ("student.onnx image.png", "student.onnx mixed", "other.onnx image.png")
    }
    assert found == {0, 3, 2}
    assert found < codes


def test_the_program_without_stillroom_answers_as_the_predictor(device, tmp_path, monkeypatch, capsys):
    code = program("onnx-only")
    assert "stillroom import" not in code
    assert len([line for line in code.splitlines() if line]) == 15
    monkeypatch.chdir(device)
    names: dict = {}
    exec(compile(code, "on-a-device.md", "exec"), names)
    predictor = Predictor.load("student.onnx")
    decided, _, rest = capsys.readouterr().out.partition(" ")
    (first,) = predictor.predict("image.png")
    assert (decided,) == first.decision
    assert eval(rest) == pytest.approx(first.probabilities, abs=1e-6)

    wide = np.random.default_rng(0).integers(0, 256, (37, 53), dtype=np.uint8)
    Image.fromarray(wide).save(tmp_path / "wide.png")
    notes = Image.Exif()
    notes[0x0112] = 6  # to be turned a quarter clockwise
    Image.fromarray(np.rot90(wide)).save(tmp_path / "turned.png", exif=notes)
    for name in ("wide.png", "turned.png"):
        (expected,) = predictor.predict(tmp_path / name)
        assert names["predict"](tmp_path / name) == pytest.approx(expected.probabilities, abs=1e-6)
    assert np.ptp(list(expected.probabilities.values())) > 1e-4


def test_the_program_with_stillroom_answers(device, monkeypatch, capsys):
    monkeypatch.chdir(device)
    code = program("with-stillroom")
    assert len([line for line in code.splitlines() if line]) == 3
    exec(compile(code, "on-a-device.md", "exec"), {})
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 17
    assert all(line.endswith("None") for line in lines)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["int8", "fp16"])
def test_other_precisions_are_exported(own_run, tmp_path, precision):
    (line,) = [line for line in COMMANDS if line.startswith("stillroom export") and precision in line]
    (tmp_path / "runs").mkdir()
    own_run.path.rename(tmp_path / "runs" / "first")
    done = do(line, tmp_path)
    assert done.returncode == 0, done.stderr
    assert re.search(rf"student\.{precision}\.onnx decides \d+ of \d+ test images like student\.onnx", done.stdout)
    assert Predictor.load(tmp_path / "runs" / "first" / f"student.{precision}.onnx")
