"""Every file with pixels that pydicom and pydicom-data bring: decoded to a known digest, or refused with a known reason.

wild.csv holds, of the first frame, shape, depth, digest and mean (of 65535). What is compressed with loss may come out a bit
otherwise of another version of a decoder, and is held to shape and mean.
"""

import csv
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.pixels import get_decoder, pixel_array

from stillroom.data.decoding import pixel_digest
from stillroom.data.dicom.opening import count_frames
from stillroom.data.files import FileReader
from stillroom.data.geometry import drop_equal_channels
from stillroom.data.table import UnreadableImage

data_store = pytest.importorskip("data_store", reason="pydicom-data is not installed: pip install pydicom-data")

with (Path(__file__).parent / "wild.csv").open(newline="", encoding="utf-8") as file:
    KNOWN = {row["file"]: row for row in csv.DictReader(file)}
FOLDERS = [Path(pydicom.__file__).parent / "data" / "test_files", Path(data_store.__file__).parent / "data"]
LOSSY = tuple(f"1.2.840.10008.1.2.4.{end}" for end in (50, 51, 81, 91, 203))
ADDED = "pip install 'stillroom[dicom]'"


def place(name):
    found = [folder / name for folder in FOLDERS if (folder / name).is_file()]
    if not found:
        pytest.skip(f"this version of pydicom-data has no {name}")
    return found[0]


def read(path):
    try:
        return FileReader((path,)).read(0), ""
    except UnreadableImage as error:
        return None, str(error)


def test_the_table_is_of_all_files_with_pixels():
    assert len(KNOWN) == 162
    assert sum(not row["reason"] for row in KNOWN.values()) == 139


@pytest.mark.parametrize("name", KNOWN)
def test_a_wild_file_is_what_it_was(name):
    path, known = place(name), KNOWN[name]
    assert count_frames(path) == int(known["frames"])
    image, reason = read(path)
    if ADDED in reason:
        pytest.skip(reason)
    assert reason == known["reason"]
    if image is None:
        return
    assert ("x".join(map(str, image.shape)), image.dtype.name) == (known["shape"], known["depth"])
    mean = image.mean() * (257 if image.dtype == np.uint8 else 1)
    assert mean == pytest.approx(float(known["mean"]), abs=0.002 * 65535)
    if pydicom.dcmread(path, force=True, stop_before_pixels=True).file_meta.get("TransferSyntaxUID") not in LOSSY:
        assert pixel_digest(drop_equal_channels(image))[:16] == known["digest"]


@pytest.mark.parametrize(
    ("name", "plugins"),
    [
        ("693_J2KR.dcm", ("pillow", "pylibjpeg", "gdcm")),
        ("MR_small_jp2klossless.dcm", ("pillow", "pylibjpeg", "gdcm")),
        ("emri_small_jpeg_2k_lossless.dcm", ("pillow", "pylibjpeg", "gdcm")),
        ("J2K_pixelrep_mismatch.dcm", ("pillow", "pylibjpeg", "gdcm")),
        ("MR_small_jpeg_ls_lossless.dcm", ("pyjpegls", "gdcm")),
        ("emri_small_jpeg_ls_lossless.dcm", ("pyjpegls", "gdcm")),
    ],
)
def test_decoders_without_loss_agree_so_that_it_does_not_matter_which_is_there(name, plugins):
    path = place(name)
    here = get_decoder(pydicom.dcmread(path, stop_before_pixels=True).file_meta.TransferSyntaxUID).available_plugins
    first, *others = [pixel_array(path, index=0, decoding_plugin=one) for one in plugins if one in here] or [None]
    if not others:
        pytest.skip(f"of {', '.join(plugins)} fewer than two are installed: {ADDED}")
    assert all(np.array_equal(first, other) for other in others)
