"""The page's DICOM reader, run by node, against Python's: the same pixels bit for bit, or a refusal, in the same words."""

import csv
import json
import random
import shutil
import subprocess
import zlib
from base64 import b64decode, b64encode
from collections import Counter
from hashlib import sha256
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_files import SECRETS, write_dicom
from pydicom.dataset import Dataset

import stillroom
from stillroom.data.dicom.grey import Display
from stillroom.data.dicom.opening import count_frames
from stillroom.data.files import FileReader
from stillroom.data.table import UnreadableImage
from stillroom.deployment.page.notes import notes_on
from stillroom.deployment.predictor import Predictor
from stillroom.settings.windows import parse_window

from ..test_predictor import write_model

PAGE = Path(stillroom.__file__).parent / "deployment" / "page"
TEXTS = json.loads((PAGE / "texts" / "en.json").read_text("utf-8"))
WILD = Path(__file__).parents[2] / "data" / "dicom" / "wild.csv"
NODE = shutil.which("node")
PATIENCE = 120  # seconds for all files of one process, on a machine that has other work
ONLY_HERE = ("refused.dicom_compression", "refused.dicom_jpeg_kind")
"""Refusals of what Python reads."""

pytestmark = pytest.mark.skipif(NODE is None, reason="node, which runs the page's scripts here, is not installed")


@pytest.fixture(scope="session", autouse=True)
def _runtime():
    """Nothing that others wrote is needed here."""


@pytest.fixture(scope="session")
def engine(tmp_path_factory):
    """The page's scripts as node takes them for modules, whatever its version."""
    folder = tmp_path_factory.mktemp("page") / "engine"
    shutil.copytree(PAGE / "engine", folder)
    (folder / "package.json").write_text('{"type": "module"}')
    return folder


@pytest.fixture
def told_by(engine, tmp_path):
    def ask(script, asked):
        place = tmp_path / "asked.json"
        place.write_text(json.dumps(asked))
        command = [NODE, Path(__file__).parent / script, engine, place]
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return ask


@pytest.fixture
def page_reads(told_by):
    def ask(paths, window="", white=65535, last=False):
        shown = parse_window(window)
        display = {"window": None if shown is None else vars(shown), "white": white}
        return told_by("read_dicom.mjs", [{"path": str(path), "display": display, "last": last} for path in paths])

    return ask


def python_reads(path, window="", white=65535, frame=0):
    """What the page's reader tells of an image or, as text, why there is none."""
    frames = count_frames(path)
    try:
        image = FileReader((path,), frames=(frame,), display=Display(parse_window(window), white)).read(0)
    except UnreadableImage as error:
        return str(error)
    pixels = sha256(np.ascontiguousarray(image).tobytes()).hexdigest()
    told = {"frame": frame + 1 if frames > 1 else None, "shape": list(image.shape), "depth": image.dtype.name}
    return told | {"pixels": pixels}


def in_words(found):
    return TEXTS[found["key"]].format(**found["values"])


def real(name):
    return Path(pydicom.data.get_testdata_file(name, download=False))


# -- real files ---------------------------------------------------------------------------------------------------
def test_of_all_files_with_pixels_none_is_read_otherwise(page_reads):
    data_store = pytest.importorskip("data_store", reason="pydicom-data is not installed: pip install pydicom-data")
    folders = [Path(pydicom.__file__).parent / "data" / "test_files", Path(data_store.__file__).parent / "data"]
    with WILD.open(newline="", encoding="utf-8") as file:
        rows = [(folder / row["file"], row) for row in csv.DictReader(file) for folder in folders]
    rows = [(path, row) for path, row in rows if path.is_file()]
    tally = Counter()
    for (path, row), found in zip(rows, page_reads([path for path, _ in rows], last=True), strict=True):
        assert "failed" not in found, found
        if "key" in found:
            tally[found["key"]] += 1
            if found["key"] not in ONLY_HERE:
                assert in_words(found) == row["reason"]
            continue
        tally["read"] += 1
        assert found["known"] or not row["file"].endswith(".dcm")
        assert found["count"] == int(row["frames"])
        assert found["images"] == [
            python_reads(path, frame=frame) for frame in dict.fromkeys((0, found["count"] - 1))
        ], path.name
    assert tally["read"] >= 121
    assert tally["refused.dicom_compression"] <= 19
    assert not tally["refused.dicom_jpeg_kind"]


@pytest.mark.parametrize(
    ("window", "shown"),
    [
        ("", ()),
        ("40,400", ("asked",)),
        ("40,400", ("window",)),
        ("", ("table", "window")),
        ("", ("range",)),
        ("", ("range", "table")),
    ],
)
def test_the_page_says_as_the_predictor_what_is_not_shown_as_in_training(tmp_path, told_by, window, shown):
    named = {"WindowCenter": 40, "WindowWidth": 400}
    ways = (named, {}, {"WindowCenter": 9, "WindowWidth": 90}, named | {"VOILUTFunction": "SIGMOID"})
    grey = np.arange(64, dtype=np.uint16).reshape(8, 8)
    paths = [write_dicom(tmp_path / f"{number}", grey, **way) for number, way in enumerate(ways)]
    predictor = Predictor.load(write_model(tmp_path / "model.onnx", white=65535, window=window, shown=shown))
    model = notes_on(predictor, {"en": TEXTS}) | {"language": "en"}
    found = told_by("note_dicom.mjs", [{"path": str(path), "model": model, "texts": TEXTS} for path in paths])
    assert found == [one.note for one in predictor.predict(paths)]


# -- the grey chain -----------------------------------------------------------------------------------------------
def table(first, bits, entries):
    item = Dataset()
    item.add_new("LUTDescriptor", "SS" if first < 0 else "US", [len(entries), first, bits])
    item.add_new("LUTData", "OW", np.asarray(entries, np.uint16).tobytes())
    return [item]


def test_grey_is_shown_by_tables_windows_and_padding_as_in_python(tmp_path, page_reads):
    rng = np.random.default_rng(0)
    stored = rng.integers(-2048, 2048, (24, 17)).astype(np.int16)
    wide = {"WindowCenter": "40.5", "WindowWidth": "400.25"}
    abouts = [
        {},
        {"BitsStored": 12, "RescaleSlope": "0.37", "RescaleIntercept": "-11.5", **wide},
        *({**wide, "VOILUTFunction": function} for function in ("LINEAR", "LINEAR_EXACT", "SIGMOID", "OTHER")),
        {**wide, "VOILUTFunction": "SIGMOID", "PhotometricInterpretation": "MONOCHROME1"},
        {"WindowCenter": "100", "WindowWidth": "1"},
        {"WindowCenter": ["1e2", "7"], "WindowWidth": ["2e3", "9"], "PhotometricInterpretation": "MONOCHROME1"},
        {"RescaleSlope": "-2", "RescaleIntercept": "7"},
        {"ModalityLUTSequence": table(-2048, 12, rng.integers(0, 4096, 4096))},
        {"VOILUTSequence": table(-100, 10, np.arange(300) * 8), "PhotometricInterpretation": "MONOCHROME1"},
        {"PixelPaddingValue": int(stored[0, 0]), "PixelPaddingRangeLimit": 900},
        {"WindowCenter": "1", "WindowWidth": "-5"},
        {"RescaleSlope": "0"},
        {"VOILUTSequence": table(0, 10, [])},
    ]
    paths = [write_dicom(tmp_path / str(number), stored, **about) for number, about in enumerate(abouts)]
    refused = 0
    for window, white in (("", 65535), ("300.5,1000", 4095), ("lung", 255)):
        for path, found in zip(paths, page_reads(paths, window, white), strict=True):
            expected = python_reads(path, window, white)
            if isinstance(expected, str):
                refused += 1
                assert expected.startswith(in_words(found))
            else:
                assert found["images"] == [expected], (path.name, window)
    assert 3 <= refused < 3 * len(paths)


# -- changed files ------------------------------------------------------------------------------------------------
def test_changed_files_are_refused_or_read_as_python_reads_them(tmp_path, page_reads):
    names = {
        "CT_small.dcm": True,
        "MR_small_implicit.dcm": True,
        "MR_small_bigendian.dcm": True,
        "SC_rgb_small_odd.dcm": True,
        "image_dfl.dcm": True,
        "MR_small_RLE.dcm": False,  # of compressed pixels Python's decoders take long or guess where they are damaged
        "SC_rgb_jpeg_dcmtk.dcm": False,
        "JPEG-LL.dcm": False,
        "MR_small_jpeg_ls_lossless.dcm": False,
    }
    rng = random.Random(0)
    paths = []
    for number in range(300):
        name = rng.choice(list(names))
        content = bytearray(real(name).read_bytes())
        for _ in range(rng.choice((1, 1, 2, 5, 20))):
            at = rng.randrange(132, min(len(content), 4000)) if rng.random() < 0.7 else rng.randrange(len(content))
            kind = rng.random()
            if kind < 0.8:
                content[at] = rng.choice((0, 1, 128, 255, rng.randrange(256)))
            elif kind < 0.9:
                del content[at : at + rng.choice((1, 2, 8, 100))]
            else:
                content[at:at] = rng.randbytes(rng.choice((1, 2, 4, 8)))
            if len(content) < 200:
                break
        paths.append(tmp_path / f"{number} {name}")
        paths[-1].write_bytes(content)
    tally = Counter()
    for path, found in zip(paths, page_reads(paths), strict=True):
        assert "failed" not in found, (path.name, found)
        assert "key" not in found or in_words(found)
        tally["refused" if "key" in found else "read"] += 1
        if "images" in found and names[path.name.split(" ")[1]]:
            assert found["images"] == [python_reads(path)], path.name
    assert min(tally["read"], tally["refused"]) > 50


def test_what_is_refused_says_nothing_of_the_file(tmp_path, page_reads):
    pixels = np.zeros((4, 4), np.uint16)
    abouts = [{"WindowCenter": "1", "WindowWidth": "-5"}, {"PhotometricInterpretation": "QUAGMIRE"}, {"Rows": 999}]
    paths = [write_dicom(tmp_path / str(number), pixels, **about) for number, about in enumerate(abouts)]
    for found in page_reads(paths):
        told = (json.dumps(found) + in_words(found)).lower()
        assert not any(secret.lower() in told for secret in SECRETS)


# -- deflated files -----------------------------------------------------------------------------------------------
def test_deflated_bytes_are_unpacked_as_zlib_unpacks_them(told_by):
    rng = random.Random(0)
    plain = [b"", b"a", rng.randbytes(70_000), b"the quick brown fox " * 4000, bytes(range(256)) * 300]
    streams = []
    for content in plain:
        for level, strategy in ((0, 0), (1, 0), (9, 0), (6, zlib.Z_HUFFMAN_ONLY), (6, zlib.Z_RLE), (6, zlib.Z_FIXED)):
            packing = zlib.compressobj(level, zlib.DEFLATED, -zlib.MAX_WBITS, 8, strategy)
            packed = packing.compress(content) + packing.flush()
            changed = bytearray(packed)
            changed[rng.randrange(len(packed))] ^= rng.randrange(1, 256)
            streams += [packed, packed + b"\0filler", packed[: len(packed) // 2], bytes(changed)]
    asked = [{"packed": b64encode(stream).decode(), "limit": 10**8} for stream in streams]
    read = 0
    for stream, found in zip(streams, told_by("inflate.mjs", asked), strict=True):
        try:
            expected = zlib.decompressobj(-zlib.MAX_WBITS).decompress(stream)
        except zlib.error:
            continue  # where zlib stops depends on what it has read ahead
        read += 1
        assert found is not None
        assert b64decode(found) == expected
    assert read >= 3 * len(streams) // 4
    bomb = zlib.compress(bytes(10**7), 9)[2:]
    (found,) = told_by("inflate.mjs", [{"packed": b64encode(bomb).decode(), "limit": 10**5}])
    assert 10**5 < len(b64decode(found)) < 2 * 10**5
