"""A decoder in a process of its own: what hangs is ended, what falls or prints is refused, and the next frame is decoded."""

import os
import shutil
import signal
import sys
import threading

import numpy as np
import pydicom
import pytest
from dicom_files import write_dicom

from stillroom.data.dicom import apart
from stillroom.data.files import FileReader
from stillroom.data.table import UnreadableImage

jpeg_ls = pytest.importorskip("jpeg_ls", reason="pyjpegls is not installed: pip install 'stillroom[dicom]'")

PIXELS = np.random.default_rng(0).integers(0, 4096, (40, 50)).astype(np.uint16)
LOSSLESS = "1.2.840.10008.1.2.4.80"


def compressed(path, change=lambda encoded: encoded):
    data = pydicom.dcmread(write_dicom(path, PIXELS, BitsStored=12))
    data.file_meta.TransferSyntaxUID = LOSSLESS
    data.PixelData = pydicom.encaps.encapsulate([change(bytes(jpeg_ls.encode_array(PIXELS)))])
    data["PixelData"].is_undefined_length = True
    data.save_as(path)
    return path


def test_frames_come_back_as_they_were_from_several_threads(tmp_path):
    reader = FileReader((compressed(tmp_path / "a"),))
    expected = np.rint(PIXELS / 4095 * 65535)
    found = []
    threads = [threading.Thread(target=lambda: found.append(reader.read(0))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 3
    assert all(np.array_equal(image, expected) for image in found)


def test_what_takes_too_long_is_ended_and_what_falls_is_refused(tmp_path, monkeypatch):
    path = compressed(tmp_path / "a")
    apart._end_all()
    whole = FileReader((path,)).read(0)
    (process,) = apart._idle
    os.kill(process.pid, signal.SIGSTOP)  # as one that hangs
    monkeypatch.setattr(apart, "SECONDS", 0.0)
    with pytest.raises(UnreadableImage, match="took longer than 0 s"):
        FileReader((path,)).read(0)
    assert process.poll() is not None
    monkeypatch.undo()
    assert np.array_equal(FileReader((path,)).read(0), whole)
    apart._end_all()
    monkeypatch.setattr(sys, "executable", shutil.which("false"))  # as one that falls
    with pytest.raises(UnreadableImage, match="truncated or damaged"):
        FileReader((path,)).read(0)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "none"))
    with pytest.raises(UnreadableImage, match=r"cannot be started \(no such file"):
        FileReader((path,)).read(0)
    monkeypatch.undo()
    assert np.array_equal(FileReader((path,)).read(0), whole)


def test_a_stream_that_ends_early_is_refused(tmp_path):
    path = compressed(tmp_path / "a", lambda encoded: encoded[: len(encoded) // 2] + b"\xff\xd9")
    with pytest.raises(UnreadableImage, match=r"damaged"):
        FileReader((path,)).read(0)


@pytest.mark.parametrize("also", [False, True])  # python -m names the folder that it is started in
def test_nothing_in_the_current_folder_is_executed(tmp_path, monkeypatch, also):
    path = compressed(tmp_path / "a")
    whole = FileReader((path,)).read(0)
    apart._end_all()
    place = tmp_path / "here"
    place.mkdir()
    for name in ("dl", "jpeg_ls", "gdcm", "json"):
        (place / f"{name}.py").write_text(f"open({str(tmp_path / 'run')!r}, 'w').close()\nraise ImportError")
    monkeypatch.chdir(place)
    if also:
        monkeypatch.setattr(sys, "path", [str(place), *sys.path])
    assert np.array_equal(FileReader((path,)).read(0), whole)
    assert not (tmp_path / "run").exists()
    apart._end_all()
