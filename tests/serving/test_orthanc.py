"""A real Orthanc stores images, and finds the answers to them in its own store."""

import base64
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from io import BytesIO
from pathlib import Path
from urllib.error import URLError
from urllib.request import Request, urlopen

import numpy as np
import pydicom
import pytest
from answering import Answering
from dicom_files import IDENTITY, SECRETS, write_dicom

from .test_dicomweb import WHERE

pytest.importorskip("highdicom", reason="highdicom is not installed: `pip install 'stillroom[dicom]'`")
ORTHANC = shutil.which("Orthanc", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(ORTHANC is None, reason="Orthanc is not installed (Debian's package orthanc)"),
]
SCRIPT = Path(__file__).parents[2] / "deploy" / "orthanc.py"
TOKEN = "correct-horse-battery-staple"
LOGIN = "archive:its-own-password"


class Orthanc:
    """One with a store of its own, on a free port, that only those who log in may ask."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        name, password = LOGIN.split(":")
        settings = {
            "StorageDirectory": str(folder / "store"),
            "IndexDirectory": str(folder / "store"),
            "HttpPort": port,
            "DicomServerEnabled": False,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": True,
            "RegisteredUsers": {name: password},
            "Plugins": [],
        }
        (folder / "orthanc.json").write_text(json.dumps(settings))
        self.url = f"http://127.0.0.1:{port}"
        self.said = (folder / "orthanc.log").open("wb")
        self.process = subprocess.Popen(
            [str(ORTHANC), str(folder / "orthanc.json")], stdout=self.said, stderr=self.said
        )
        end = time.monotonic() + 60
        while True:
            try:
                self.ask("/system")
                return
            except URLError:
                assert self.process.poll() is None, (folder / "orthanc.log").read_text()
                assert time.monotonic() < end
                time.sleep(0.1)

    def ask(self, path: str, body: bytes | None = None) -> bytes:
        headers = {"Authorization": "Basic " + base64.b64encode(LOGIN.encode()).decode()}
        with urlopen(Request(self.url + path, body, headers), timeout=60) as answer:
            return answer.read()

    def instances(self) -> list[pydicom.Dataset]:
        ids = json.loads(self.ask("/instances"))
        return [pydicom.dcmread(BytesIO(self.ask(f"/instances/{one}/file"))) for one in ids]

    def end(self) -> None:
        self.process.terminate()
        self.process.wait(60)
        self.said.close()


@pytest.fixture
def orthanc(tmp_path):
    running = Orthanc(tmp_path)
    yield running
    running.end()


def wait_for(orthanc: Orthanc, count: int, following: subprocess.Popen) -> None:
    end = time.monotonic() + 120
    while len(json.loads(orthanc.ask("/instances"))) < count:
        assert following.poll() is None
        assert time.monotonic() < end
        time.sleep(0.2)


def wait_until_noted(orthanc: Orthanc, last: Path) -> None:
    """An answer stands in the archive a moment before it is noted that it does."""
    end = time.monotonic() + 120
    while int(last.read_text()) < json.loads(orthanc.ask("/changes?last"))["Last"]:
        assert time.monotonic() < end
        time.sleep(0.1)


def test_what_orthanc_stores_is_answered_and_the_answers_stand_in_its_store(orthanc, model, tmp_path):
    rng = np.random.default_rng(0)
    first = write_dicom(tmp_path / "slice", rng.integers(0, 4096, (24, 30)).astype(np.uint16), BitsStored=12, **WHERE)
    second = write_dicom(tmp_path / "picture", rng.integers(0, 256, (20, 20, 3)).astype(np.uint8), Modality="XC")
    (tmp_path / "token").write_text(TOKEN + "\n")
    token = ("--token-file", str(tmp_path / "token"))
    last = tmp_path / "last"
    with Answering(model, *token) as server, (tmp_path / "said").open("wb") as said:
        where = ("--orthanc", orthanc.url, "--stillroom", f"http://127.0.0.1:{server.port}", "--last", str(last))
        command, environment = [sys.executable, str(SCRIPT), *where, *token], os.environ | {"ORTHANC_LOGIN": LOGIN}
        following = subprocess.Popen(command, env=environment, stdout=said, stderr=said)
        try:
            orthanc.ask("/instances", first.read_bytes())
            wait_for(orthanc, 4, following)
            orthanc.ask("/instances", second.read_bytes())
            wait_for(orthanc, 7, following)
            wait_until_noted(orthanc, last)
        finally:
            following.terminate()
            following.wait(30)
        dealt_with = last.read_text()
        last.unlink()  # a wrong token passes nothing over
        (tmp_path / "wrong").write_text(TOKEN[::-1])
        wrong = subprocess.run(
            [*command[:-1], str(tmp_path / "wrong"), "--once"], env=environment, capture_output=True, text=True
        )
        assert (wrong.returncode, last.exists()) == (1, False)
        assert wrong.stderr == "error: Orthanc or the server does not answer: 401 Unauthorized.\n"
        last.write_text(dealt_with)
        for _ in range(2):  # the answers are no new questions, nor is what was dealt with
            subprocess.run([*command, "--once"], check=True, env=environment, stdout=said)
        last.unlink()  # all over again: the same answers have the same UIDs
        subprocess.run([*command, "--once"], check=True, env=environment, stdout=said)
        answered = [
            entry for entry in server.log if entry.get("route") == "/dicomweb/studies" and entry["status"] == 200
        ]
        assert len(answered) == 4
        assert not any(secret in line for line in server.lines for secret in SECRETS)
    found = orthanc.instances()
    answers = [one for one in found if one.get("Manufacturer") == "Stillroom"]
    kinds = {
        path: {one.SOPClassUID.name for one in answers if study_of(one) == study_of(path)} for path in (first, second)
    }
    assert (len(found), len(answers)) == (7, 5)
    assert kinds[first] == {"Enhanced SR Storage", "Secondary Capture Image Storage", "Parametric Map Storage"}
    assert kinds[second] == {"Enhanced SR Storage", "Secondary Capture Image Storage"}
    patients = json.loads(orthanc.ask("/patients?expand"))
    assert [one["MainDicomTags"]["PatientID"] for one in patients] == [IDENTITY]
    assert len(patients[0]["Studies"]) == 2
    require_valid(answers, tmp_path)


def study_of(one: Path | pydicom.Dataset) -> str:
    data = pydicom.dcmread(one, stop_before_pixels=True) if isinstance(one, Path) else one
    return str(data.StudyInstanceUID)


def require_valid(answers: list[pydicom.Dataset], folder: Path) -> None:
    """dciodvfy's word on what came back through Orthanc, where it is installed."""
    if not shutil.which("dciodvfy"):
        return
    for number, one in enumerate(answers):
        one.save_as(folder / f"{number}.dcm")
        told = subprocess.run(["dciodvfy", str(folder / f"{number}.dcm")], capture_output=True, text=True).stderr
        assert not [line for line in told.splitlines() if line.startswith("Error")]
