"""A whole run on DICOM, from files to answers: what tells of patients stands in no file, message or error of it."""

import json
import re
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pandas as pd
import pytest
from dicom_files import IDENTITY, SECRETS, write_dicom, write_set

from stillroom.cli.app import main

FLAGS = (
    *("--recipe", "baseline", "--student", "resnet10t_050", "--size", "24", "--epochs", "1", "--batch-size", "16"),
    *("--resamples", "100", "--no-latency", "--device", "cpu", "--explain", "2", "--no-plan", "--no-rivals"),
)


@pytest.fixture
def told(capfd, monkeypatch, tmp_path):
    """Run a command, and keep what it prints."""
    monkeypatch.setenv("STILLROOM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("STILLROOM_SECRET", str(tmp_path / "patients.key"))
    said = []

    def run(*arguments):
        capfd.readouterr()
        code = 0
        try:
            main([str(one) for one in arguments])
        except SystemExit as stop:
            code = int(stop.code or 0)
        printed = capfd.readouterr()
        said.append(printed.out + printed.err)
        return code, printed.out, printed.err

    run.said = said
    return run


def contents_of(path: Path) -> str:
    """All that a file says, also where it is compressed."""
    text = path.read_bytes().decode("latin-1")
    if path.suffix == ".parquet":
        frame = pd.read_parquet(path)
        text += " ".join(map(str, [*frame.columns, *frame.to_numpy().ravel()]))
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            text += " ".join(archive.read(name).decode("latin-1") for name in archive.namelist())
    return text


@pytest.mark.slow
def test_nothing_of_a_patient_reaches_a_run(told, tmp_path, monkeypatch):
    about = {"private": "Snickerdoodle", "Modality": "CT"}
    root = write_set(tmp_path / "set", patients=40, images=2, **about)
    for number, change in enumerate(({"PhotometricInterpretation": "QUAGMIRE"}, {"Rows": 999}, {"Modality": "RTDOSE"})):
        bad = {"PatientID": f"{IDENTITY}-{number}"} | change
        write_dicom(root / "well" / f"bad{number}.dcm", np.zeros((24, 24), np.int16), **bad)
    file = root / "ill" / "odd.dcm"
    content = write_dicom(file, np.zeros((24, 24), np.int16)).read_bytes()
    file.write_bytes(content.replace(b"DA\x08\x0020190317", b"DA\x08\x00Quagmire").replace(b"CS", b"DS", 3))
    run = tmp_path / "run"
    assert told("audit", root, "--size", "24", "--json")[0] == 0
    code, _, err = told("distill", root, *FLAGS, "--window", "soft-tissue", "--out", run)
    assert code == 0, err
    assert told("predict", run, root)[0] == 3
    assert told("predict", run, root, "--json")[0] == 3
    assert told("explain", run, root / "ill" / "p1", "--out", tmp_path / "maps")[0] == 0
    assert told("evaluate", run, root)[0] == 0
    assert told("audit", tmp_path / "gone")[0] == 2
    monkeypatch.setenv("STILLROOM_SECRET", str(tmp_path / "other.key"))
    code, _, err = told("export", run, "--out", tmp_path / "again.onnx")
    assert code == 1
    assert "bring the one that the run began with" in err

    written = [path for folder in ("run", "cache", "maps") for path in (tmp_path / folder).rglob("*") if path.is_file()]
    assert len(written) > 20
    patients = pd.read_parquet(run / "images.parquet").patient
    assert patients.nunique() == 40
    assert all(re.fullmatch("[0-9a-f]{16}", name) for name in patients)
    said = {str(path): contents_of(path) for path in written} | {
        f"printed {n}": text for n, text in enumerate(told.said)
    }
    for place, text in said.items():
        found = [secret for secret in SECRETS if secret.casefold() in text.casefold()]
        assert not found, (place, found)

    properties = {one.key: one.value for one in onnx.load(run / "student.onnx").metadata_props}
    assert json.loads(properties["stillroom.window"]) == "soft-tissue"
    assert json.loads(properties["stillroom.shown"]) == ["asked"]
    assert json.loads(properties["stillroom.white"]) == 65535
    assert "by the window asked for, 50,400" in (run / "REPORTING.md").read_text()
    audit = json.loads((run / "audit.json").read_text())
    assert "by the window asked for, 50,400" in str(audit["warnings"])
    assert {one["path"] for one in audit["quarantined"]} >= {f"well/bad{number}.dcm" for number in range(3)}
