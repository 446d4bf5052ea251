"""Instances come in as to an archive, and the objects of `explain --dicom` come back, to the bit, with a word on each."""

import shutil
import subprocess
import sys
from io import BytesIO

import numpy as np
import pydicom
import pytest
from answering import Answering
from dicom_files import SECRETS, write_dicom
from dicom_parts import parts_of, related

from stillroom.cli.app import main
from stillroom.serving.bodies import Sent
from stillroom.serving.instances import open_instances
from stillroom.serving.refusals import Refused

pytest.importorskip("highdicom", reason="highdicom is not installed: `pip install 'stillroom[dicom]'`")

pytestmark = pytest.mark.filterwarnings("ignore:Invalid value for VR")  # written so on purpose
CT = "1.2.840.10008.5.1.4.1.1.2"
WHERE = {
    "SOPClassUID": CT,
    "FrameOfReferenceUID": "1.2.3",
    "ImagePositionPatient": [0, 0, 1],
    "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
    "PixelSpacing": [1, 1],
    "SliceThickness": 2,
}
STUDIES = "/dicomweb/studies"


@pytest.fixture(scope="module")
def instances(tmp_path_factory):
    """A CT slice that says where it lies, a capture of three frames that does not, and what cannot be answered about."""
    folder, rng = tmp_path_factory.mktemp("instances"), np.random.default_rng(0)
    deep = rng.integers(0, 4096, (24, 30)).astype(np.uint16)
    frames = rng.integers(0, 256, (3, 24, 24)).astype(np.uint8)
    return {
        "slice": write_dicom(folder / "slice", deep, BitsStored=12, **WHERE),
        "frames": write_dicom(folder / "frames", frames, SOPClassUID="1.2.840.10008.5.1.4.1.1.7.2"),
        "lone": write_dicom(folder / "lone", frames[0], StudyInstanceUID=None),
        "short": write_dicom(folder / "short", frames[0], Rows=4000),
        "odd": write_dicom(folder / "odd", frames[0], PatientSex="Quagmire"),
    }


def asked(server, *contents, query="", **headers):
    body, kind = related(contents)
    return server.ask("POST", STUDIES + query, body, {"Content-Type": kind} | headers)


def test_the_objects_are_those_of_explain_to_the_bit(server, model, instances, tmp_path):
    paths = [instances["slice"], instances["frames"]]
    reply = asked(server, *(path.read_bytes() for path in paths))
    assert (reply.status, "00081198" in parts_of(reply.body, reply.headers["content-type"])[1]) == (200, False)
    files, told = parts_of(reply.body, reply.headers["content-type"])
    main(["explain", str(model), *map(str, paths), "--out", str(tmp_path / "maps"), "--dicom", str(tmp_path / "out")])
    expected = {path.name.split(".", 1)[1].removesuffix(".dcm"): path for path in (tmp_path / "out").iterdir()}
    found = {pydicom.dcmread(BytesIO(content)).SOPInstanceUID: content for content in files}
    assert sorted(path.name[:2] for path in expected.values()) == ["PM", *["SC"] * 4, *["SR"] * 2]
    assert set(found) == set(expected)
    for uid, path in expected.items():
        mine, theirs = pydicom.dcmread(BytesIO(found[uid])), pydicom.dcmread(path)
        for one in (mine, theirs):  # when it was made
            for element in list(one.iterall()):
                if element.VR in ("DA", "TM", "DT") and element.keyword not in ("StudyDate", "PatientBirthDate"):
                    element.value = None
        assert mine == theirs
    uids = [pydicom.dcmread(path).SOPInstanceUID for path in paths]
    assert [one["00081155"]["Value"][0] for one in told["00081199"]["Value"]] == uids


def test_dciodvfy_finds_no_error_in_what_comes_back(server, instances, tmp_path):
    if not shutil.which("dciodvfy"):
        pytest.skip("dciodvfy is not installed (Debian's dicom3tools)")
    reply = asked(server, *(instances[name].read_bytes() for name in ("slice", "frames")))
    files, _ = parts_of(reply.body, reply.headers["content-type"])
    kinds = []
    for number, content in enumerate(files):
        (tmp_path / f"{number}.dcm").write_bytes(content)
        told = subprocess.run(["dciodvfy", str(tmp_path / f"{number}.dcm")], capture_output=True, text=True).stderr
        assert not [line for line in told.splitlines() if line.startswith("Error")]
        kinds += [line for line in told.splitlines() if line in ("EnhancedSR", "SCImage", "ParametricMap")]
    assert sorted(kinds) == ["EnhancedSR"] * 2 + ["ParametricMap"] + ["SCImage"] * 4


def test_one_file_is_a_body_by_itself_and_without_maps_there_is_the_report_alone(server, instances):
    reply = server.post(f"{STUDIES}?maps=false", instances["frames"].read_bytes(), "application/dicom")
    (content,), _ = parts_of(reply.body, reply.headers["content-type"])
    assert (reply.status, pydicom.dcmread(BytesIO(content)).Modality) == (200, "SR")


def test_each_instance_that_fails_has_its_reason_as_a_code_and_in_words(server, instances):
    whole = [instances[name].read_bytes() for name in ("slice", "lone", "short", "odd")]
    reply = asked(server, *whole, b"this is no image")
    files, told = parts_of(reply.body, reply.headers["content-type"])
    assert (reply.status, len(files)) == (202, 5)
    words = [(one["00081197"]["Value"], one["00111001"]["Value"][0]) for one in told["00081198"]["Value"]]
    assert [code for code, _ in words] == [[0xC000]] * 2
    assert "no valid StudyInstanceUID" in words[0][1]
    uid = told["00081198"]["Value"][1]["00081155"]["Value"][0]
    assert uid == pydicom.dcmread(instances["short"], stop_before_pixels=True).SOPInstanceUID
    assert told["0008119A"]["Value"][0]["00111001"]["Value"] == ["it is no DICOM file"]
    whole, partly = told["00081199"]["Value"]
    assert "00081196" not in whole
    assert (partly["00081196"]["Value"], "PatientSex" in partly["00111001"]["Value"][0]) == ([0xB006], True)


def test_where_nothing_can_be_made_there_is_that_alone(server, instances):
    reply = asked(server, instances["lone"].read_bytes())
    assert (reply.status, reply.headers["content-type"]) == (409, "application/dicom+json")
    assert "00081199" not in reply.json


def test_what_came_from_here_is_not_answered_again(server, instances):
    reply = asked(server, instances["slice"].read_bytes())
    files, _ = parts_of(reply.body, reply.headers["content-type"])
    again = asked(server, *files)
    assert again.status == 409
    assert {one["00081197"]["Value"][0] for one in again.json["00081198"]["Value"]} == {0x0122}


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"", {"Content-Type": "application/dicom"}, 400),
        (b"x", {"Content-Type": "image/png"}, 415),
        (b"x", {"Content-Type": 'multipart/related; type="application/dicom+json"; boundary=a'}, 415),
        (b"x", {"Content-Type": 'multipart/related; type="application/dicom"; boundary=a'}, 400),
        (b"x", {"Content-Type": 'multipart/related; type="application/dicom"'}, 400),
        (b"--a\r\nContent-Type: text/plain\r\n\r\nx\r\n--a--", {"Content-Type": "multipart/related; boundary=a"}, 400),
        (b"x", {"Content-Type": "application/dicom", "Accept": "application/dicom+json"}, 406),
    ],
)
def test_a_request_that_is_none_is_refused_in_words(server, body, headers, status):
    reply = server.ask("POST", STUDIES, body, headers)
    assert reply.status == status
    assert reply.json["error"].endswith(".")


def test_frames_are_counted_before_anything_is_drawn(model, instances):
    with Answering(model, "--max-images", "2") as server:
        assert server.post(STUDIES, instances["frames"].read_bytes(), "application/dicom").status == 413


def test_maps_of_more_pixels_than_are_held_are_refused_by_the_header(tmp_path):
    sent = Sent(None, write_dicom(tmp_path / "large", np.zeros((7100, 7100), np.uint8)).read_bytes())
    with pytest.raises(Refused, match="maps=false") as refused:
        open_instances([sent], most=1, maps=True)
    assert refused.value.status == 413
    (instance,) = open_instances([sent], most=1, maps=False)
    assert len(instance.frames) == 1


def test_the_log_names_nobody(server, instances):
    asked(server, *(path.read_bytes() for path in instances.values()))
    server.wait_for(r'"route": "/dicomweb/studies".*"files": 5.*"objects": [1-9]')
    assert not any(secret in line for line in server.lines for secret in SECRETS)


def test_without_the_extra_one_line_says_so(model, instances, tmp_path):
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['highdicom'] = None\n")
    path = f"{tmp_path}:{':'.join(sys.path)}"
    with Answering(model, environment={"PYTHONPATH": path}) as server:
        reply = server.post(STUDIES, instances["slice"].read_bytes(), "application/dicom")
        assert reply.status == 501
        assert reply.json["error"] == (
            "An answer in DICOM needs highdicom, which is not installed: `pip install 'stillroom[dicom]'`."
        )
