"""DICOM pixels against pydicom's own functions and closed forms; what is no picture is refused by its reason."""

import io
import shutil
import subprocess
import tracemalloc
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_files import write_dicom
from PIL import Image
from pydicom.pixels import apply_modality_lut, apply_voi_lut, pixel_array
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian

from stillroom.data.dicom import opening
from stillroom.data.dicom.decoding import decode_dicom
from stillroom.data.dicom.grey import Display
from stillroom.data.files import FileReader, decode_image
from stillroom.data.table import UnreadableImage
from stillroom.settings.windows import parse_window

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 4096, (6, 9)).astype(np.uint16)


def shown(path, frame=0, window="", white=65535):
    with path.open("rb") as file:
        return decode_image(file, frame, Display(parse_window(window), white))


def reason(path, **how):
    with pytest.raises(UnreadableImage) as caught:
        shown(path, **how)
    return str(caught.value)


def own(name):
    return pydicom.data.get_testdata_file(name)


def reference(path, frame=0):
    """In [0, 1] by pydicom's functions, which scale to the range that the header gives."""
    data = pydicom.dcmread(path)
    values = apply_voi_lut(apply_modality_lut(pixel_array(data, index=frame), data), data).astype(float)
    if "VOILUTSequence" in data:
        low, high = 0, 2 ** data.VOILUTSequence[0].LUTDescriptor[2] - 1
    elif "ModalityLUTSequence" in data:
        low, high = 0, 2 ** data.ModalityLUTSequence[0].LUTDescriptor[2] - 1
    else:
        half = 2 ** (data.BitsStored - 1) if data.PixelRepresentation else 0
        ends = np.array([-half, 2**data.BitsStored - 1 - half])
        low, high = ends * float(data.get("RescaleSlope", 1)) + float(data.get("RescaleIntercept", 0))
    share = (values - low) / (high - low)
    return 1 - share if data.PhotometricInterpretation == "MONOCHROME1" else share


# -- grey ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "about",
    [
        {"BitsStored": 12},
        {"BitsStored": 12, "WindowCenter": 2000, "WindowWidth": 1000},
        {"BitsStored": 12, "WindowCenter": [2000, 10], "WindowWidth": [1000, 20]},
        {"BitsStored": 12, "WindowCenter": 2000, "WindowWidth": 1000, "VOILUTFunction": "LINEAR_EXACT"},
        {"BitsStored": 12, "WindowCenter": 2000, "WindowWidth": 1000, "VOILUTFunction": "SIGMOID"},
        {"BitsStored": 12, "RescaleSlope": 2.5, "RescaleIntercept": -1024, "WindowCenter": 40, "WindowWidth": 400},
        {"BitsStored": 12, "RescaleSlope": 2.5, "RescaleIntercept": -1024, "PhotometricInterpretation": "MONOCHROME1"},
    ],
)
def test_the_grey_chain_is_that_of_pydicom(tmp_path, about):
    path = write_dicom(tmp_path / "a", GREY, **about)
    assert np.abs(shown(path) - 65535 * reference(path)).max() <= 1


@pytest.mark.parametrize("name", ["mlut_18.dcm", "vlut_04.dcm", "MR_small.dcm", "examples_overlay.dcm"])
def test_files_of_pydicom_are_shown_as_its_functions_show_them(name):
    path = pydicom.data.get_testdata_file(name)
    with open(path, "rb") as file:  # noqa: PTH123
        assert np.abs(decode_dicom(file, 0, Display()) - 65535 * reference(path)).max() <= 1


@pytest.mark.parametrize(
    ("name", "window"),
    [("MR_small.dcm", ""), ("CT_small.dcm", "40,400"), ("CT_small.dcm", "lung"), ("vlut_04.dcm", "")],
)
def test_dicom3tools_shows_the_same(tmp_path, name, window):
    if shutil.which("dctopgm8") is None:
        pytest.skip("dicom3tools are not installed")
    asked = parse_window(window)
    flags = ["-windowcenter", f"{asked.centre:g}", "-windowwidth", f"{asked.width:g}"] if asked else []
    subprocess.run(["dctopgm8", *flags, own(name), tmp_path / "a.pgm"], check=True, capture_output=True)
    with Image.open(tmp_path / "a.pgm") as picture, open(own(name), "rb") as file:  # noqa: PTH123
        found = decode_dicom(file, 0, Display(asked)) / 257
        assert np.abs(np.asarray(picture).astype(float) - found).max() < 1.5  # it cuts where we round


def test_monochrome_1_and_2_of_one_image_are_one_input(tmp_path):
    mirrored = (4095 - GREY).astype(np.uint16)
    for number, (window, other) in enumerate(((None, None), (1000, 4095 - 1000 + 1), (777, 4095 - 777 + 1))):
        about = {"BitsStored": 12, "WindowWidth": window and 801}
        first = write_dicom(tmp_path / f"{number}", GREY, WindowCenter=window, **about)
        second = write_dicom(
            tmp_path / f"{number}m", mirrored, WindowCenter=other, PhotometricInterpretation="MONOCHROME1", **about
        )
        assert np.array_equal(shown(first), shown(second))
    plain = RNG.integers(0, 256, (5, 5)).astype(np.uint8)
    first = write_dicom(tmp_path / "a", plain)
    second = write_dicom(tmp_path / "b", 255 - plain, PhotometricInterpretation="MONOCHROME1")
    assert np.array_equal(shown(first), plain)
    assert np.array_equal(shown(second), plain)


def test_no_image_is_scaled_by_its_own_extremes(tmp_path):
    dark = write_dicom(tmp_path / "dark", np.full((4, 4), 41, np.uint16), BitsStored=12)
    assert (shown(dark) == round(65535 * 41 / 4095)).all()
    signed = write_dicom(tmp_path / "signed", np.full((4, 4), -2048, np.int16), BitsStored=12)
    assert (shown(signed) == 0).all()


def test_a_window_that_is_asked_for_goes_before_the_file_s(tmp_path):
    hounsfield = np.array([[-1400, -600, 150, 2000]], np.int16)
    about = {"RescaleSlope": 1, "RescaleIntercept": 0, "WindowCenter": 5000, "WindowWidth": 10}
    path = write_dicom(tmp_path / "a", hounsfield, **about)
    expected = np.clip((hounsfield - (-600 - 0.5)) / (1500 - 1) + 0.5, 0, 1)
    assert np.abs(shown(path, window="lung") - 65535 * expected).max() <= 0.5
    assert np.array_equal(shown(path, window="-600,1500"), shown(path, window="lung"))
    assert not shown(path).any()


def test_a_preset_is_for_hounsfield_units_alone(tmp_path):
    scaled = {"RescaleSlope": 1, "RescaleIntercept": 0}
    assert "which only CT has" in reason(write_dicom(tmp_path / "a", GREY, Modality="MR", **scaled), window="lung")
    assert "no rescale slope" in reason(write_dicom(tmp_path / "b", GREY), window="lung")
    other = write_dicom(tmp_path / "c", GREY, RescaleType="OD", **scaled)
    assert "its rescale type is another" in reason(other, window="lung")
    assert shown(other, window="40,400").any()
    colour = write_dicom(tmp_path / "d", np.zeros((4, 4, 3), np.uint8))
    assert "in colour" in reason(colour, window="40,400")


def test_white_is_what_the_model_has_for_white(tmp_path):
    path = write_dicom(tmp_path / "a", GREY, BitsStored=12)
    assert np.array_equal(shown(path, white=4095), GREY)
    assert shown(path, white=255).dtype == np.uint8
    assert np.abs(shown(path, white=255) - GREY / 4095 * 255).max() <= 0.5


def test_padding_is_black_whatever_black_is(tmp_path):
    about = {"BitsStored": 12, "PhotometricInterpretation": "MONOCHROME1", "PixelPaddingValue": 0}
    pixels = np.array([[0, 100, 4095]], np.uint16)
    assert shown(write_dicom(tmp_path / "a", pixels, **about)).tolist() == [[0, round(65535 * 3995 / 4095), 0]]
    ranged = write_dicom(tmp_path / "b", pixels, PixelPaddingRangeLimit=100, **about)
    assert shown(ranged).tolist() == [[0, 0, 0]]


def test_bits_above_those_stored_do_not_count(tmp_path):
    path = write_dicom(tmp_path / "a", (GREY | 0xF000).astype(np.uint16), BitsStored=12)
    assert np.array_equal(shown(path), shown(write_dicom(tmp_path / "b", GREY, BitsStored=12)))


def test_a_frame_of_an_enhanced_file_has_its_own_rescaling_and_window(tmp_path):
    def item(**elements):
        made = pydicom.Dataset()
        for keyword, value in elements.items():
            setattr(made, keyword, value)
        return made

    scales, centres = (1.0, 2.0), (100.0, 3000.0)
    groups = [
        item(
            PixelValueTransformationSequence=[item(RescaleSlope=scale, RescaleIntercept=-10.0)],
            FrameVOILUTSequence=[item(WindowCenter=centre, WindowWidth=1001.0)],
        )
        for scale, centre in zip(scales, centres, strict=True)
    ]
    stack = np.stack([GREY, GREY[::-1]])
    path = write_dicom(tmp_path / "a", stack, BitsStored=12, PerFrameFunctionalGroupsSequence=groups)
    for frame, (scale, centre) in enumerate(zip(scales, centres, strict=True)):
        expected = np.clip((stack[frame] * scale - 10 - (centre - 0.5)) / 1000 + 0.5, 0, 1)
        assert np.abs(shown(path, frame) - 65535 * expected).max() <= 0.5 + 1e-6
    shared = write_dicom(tmp_path / "b", stack, BitsStored=12, SharedFunctionalGroupsSequence=groups[1:])
    assert np.array_equal(shown(shared, 1), shown(path, 1))
    assert np.array_equal(shown(shared, 0)[::-1], shown(path, 1))


# -- colour and ways of writing -----------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("name", "twins"),
    [
        ("SC_rgb.dcm", ["SC_rgb_rle.dcm", "SC_rgb_expb.dcm", "SC_rgb_gdcm_KY.dcm"]),
        ("OBXXXX1A.dcm", ["OBXXXX1A_rle.dcm", "OBXXXX1A_expb.dcm"]),
        ("MR_small.dcm", ["MR_small_RLE.dcm", "MR_small_bigendian.dcm", "MR_small_implicit.dcm", "MR_small_expb.dcm"]),
        ("MR_small.dcm", ["MR_small_jp2klossless.dcm", "MR_small_jpeg_ls_lossless.dcm", "MR_small_padded.dcm"]),
        ("emri_small.dcm", ["emri_small_RLE.dcm", "emri_small_big_endian.dcm", "emri_small_jpeg_ls_lossless.dcm"]),
        ("SC_rgb_16bit.dcm", ["SC_rgb_rle_16bit.dcm", "SC_rgb_expb_16bit.dcm"]),
    ],
)
def test_one_image_written_in_several_ways_is_one_image(name, twins):
    def read(one):
        path = own(one)
        if path is None:
            pytest.skip(f"pydicom-data is not installed: {one} is not there")
        with open(path, "rb") as file:  # noqa: PTH123
            try:
                return decode_dicom(file, 0, Display())
            except UnreadableImage as error:
                if "pip install" in str(error):
                    pytest.skip(str(error))
                raise

    for twin in twins:
        assert np.array_equal(read(twin), read(name)), twin


def test_colours_are_those_of_pydicom_and_a_label_that_is_wrong_is_not_believed():
    for name in ("SC_rgb_jpeg_dcmtk.dcm", "SC_ybr_full_422_uncompressed.dcm", "color-pl.dcm", "examples_ybr_color.dcm"):
        with open(own(name), "rb") as file:  # noqa: PTH123
            assert np.array_equal(decode_dicom(file, 0, Display()), pixel_array(own(name), index=0)), name
    # SC_rgb_jpeg.dcm says RGB; its stream has an Adobe marker without a transform, SC_jpeg_no_color_transform.dcm the other.
    told, meant = (own(f"SC_jpeg_no_color_transform{end}.dcm") for end in ("_2", ""))
    for path in (told, meant):
        with open(path, "rb") as file:  # noqa: PTH123
            assert np.array_equal(decode_dicom(file, 0, Display()), pixel_array(path, index=0))


@pytest.mark.parametrize("name", ["SC_rgb_jpeg_dcmtk.dcm", "SC_rgb_rle.dcm"])
def test_of_compressed_colours_a_header_that_says_they_lie_plane_by_plane_is_not_believed(tmp_path, name):
    data = pydicom.dcmread(own(name))
    data.PlanarConfiguration = 1 - data.PlanarConfiguration
    data.save_as(tmp_path / "a")
    assert (shown(tmp_path / "a") == shown(Path(own(name)))).all()


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian])
def test_every_uncompressed_way_of_writing_is_read(tmp_path, syntax):
    data = pydicom.dcmread(write_dicom(tmp_path / "a", GREY, BitsStored=12))
    data.file_meta.TransferSyntaxUID = syntax
    if syntax == ExplicitVRBigEndian:
        data.PixelData = GREY.astype(">u2").tobytes()
    pydicom.dcmwrite(
        tmp_path / "b",
        data,
        enforce_file_format=True,
        little_endian=syntax != ExplicitVRBigEndian,
        implicit_vr=None if syntax != ImplicitVRLittleEndian else True,
    )
    assert np.array_equal(shown(tmp_path / "b"), shown(tmp_path / "a"))


def test_a_file_without_preamble_is_read(tmp_path):
    path = write_dicom(tmp_path / "a", GREY, BitsStored=12)
    bare = tmp_path / "bare"
    content = path.read_bytes()[132:]
    bare.write_bytes(content)
    assert np.array_equal(shown(bare), shown(path))
    bare.write_bytes(content[12 + int.from_bytes(content[8:12], "little") :])  # nor group 2
    assert np.array_equal(shown(bare), shown(path))


# -- refusing -----------------------------------------------------------------------------------------------------
def test_what_is_no_picture_is_refused_by_its_reason(tmp_path):
    assert "RTDOSE" in reason(write_dicom(tmp_path / "a", GREY, Modality="RTDOSE"))
    assert "32 bits" in reason(write_dicom(tmp_path / "b", GREY.astype(np.uint32)))
    assert "single bits" in reason(write_dicom(tmp_path / "c", GREY, BitsAllocated=1, BitsStored=1, HighBit=0))
    assert "more bits than it has room for" in reason(write_dicom(tmp_path / "d", GREY, BitsStored=17))
    assert "no pixels" in reason(write_dicom(tmp_path / "e", GREY, Rows=0))
    assert "neither grey" in reason(write_dicom(tmp_path / "f", GREY, PhotometricInterpretation="HSV"))
    assert "rescale" in reason(write_dicom(tmp_path / "g", GREY, RescaleSlope=0, RescaleIntercept=0))
    narrow = reason(write_dicom(tmp_path / "h", GREY, WindowCenter=1, WindowWidth=0))
    assert "no width" in narrow
    assert "`stillroom distill SOURCE --window" in narrow  # `predict` says it as well, and has no such flag
    odd = {"RescaleSlope": "1e308", "RescaleIntercept": 0}
    assert "rescale" in reason(write_dicom(tmp_path / "odd", GREY, **odd))
    assert "beyond" in reason(write_dicom(tmp_path / "odd", GREY, WindowCenter="-1.7e308", WindowWidth="1.7e308"))
    assert "no frame 2" in reason(write_dicom(tmp_path / "i", GREY), frame=1)
    data = pydicom.dcmread(write_dicom(tmp_path / "j", GREY))
    del data.PixelData
    data.Modality = "SR"
    data.save_as(tmp_path / "j")
    assert reason(tmp_path / "j") == "the DICOM file holds no pixels: it is a report"
    data.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.100"
    data.PixelData = pydicom.encaps.encapsulate([b"\0" * 10])
    data["PixelData"].VR = "OB"
    data["PixelData"].is_undefined_length = True
    data.save_as(tmp_path / "k")
    assert "such as a video" in reason(tmp_path / "k")


def test_a_truncated_file_is_refused_wherever_it_ends(tmp_path):
    path = write_dicom(tmp_path / "a", GREY)
    whole = path.read_bytes()
    for end in range(0, len(whole), 37):
        path.write_bytes(whole[:end])
        reason(path)


def test_a_file_that_claims_more_than_it_holds_takes_no_memory(tmp_path):
    path = write_dicom(tmp_path / "a", GREY, Rows=65535, Columns=65535)
    assert "million pixels" in reason(path)
    assert "truncated" in reason(write_dicom(tmp_path / "b", GREY, Rows=9000, Columns=9000))
    many = write_dicom(tmp_path / "c", GREY, NumberOfFrames=99_999)
    assert opening.count_frames(many) == 2  # one that is there, and one that says of the rest
    assert "truncated" in reason(many, frame=1)
    assert "more than 100,000 frames" in reason(write_dicom(tmp_path / "d", GREY, NumberOfFrames=100_001))


def test_a_deflated_bomb_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(opening, "MOST_INFLATED", 10_000)
    data = pydicom.dcmread(write_dicom(tmp_path / "a", np.zeros((200, 200), np.uint16)))
    data.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    data.save_as(tmp_path / "b")
    assert (tmp_path / "b").stat().st_size < 10_000
    assert "unpacks to more than" in reason(tmp_path / "b")


def test_a_deflated_bomb_takes_no_more_than_its_limit(tmp_path, monkeypatch):
    data = pydicom.dcmread(write_dicom(tmp_path / "a", np.zeros((6000, 6000), np.uint16)))
    data.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    data.save_as(tmp_path / "b")
    monkeypatch.setattr(opening, "MOST_INFLATED", 50_000_000)  # of 72 MB
    tracemalloc.start()
    assert "unpacks to more than 50 MB" in reason(tmp_path / "b")
    assert tracemalloc.get_traced_memory()[1] < 20_000_000
    tracemalloc.stop()


def test_a_compressed_picture_of_another_size_is_not_decoded(tmp_path):
    stream = io.BytesIO()
    Image.new("L", (64, 32)).save(stream, "JPEG")
    data = pydicom.dcmread(write_dicom(tmp_path / "a", np.zeros((8, 8), np.uint8)))
    data.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.50"
    data.PixelData = pydicom.encaps.encapsulate([stream.getvalue()])
    data["PixelData"].is_undefined_length = True
    data.save_as(tmp_path / "b")
    assert reason(tmp_path / "b") == "its compressed picture has 64x32 pixels, where the header says 8x8"
    data.Rows, data.Columns = 32, 64
    data.save_as(tmp_path / "b")
    assert shown(tmp_path / "b").shape == (32, 64)


def test_run_lengths_longer_than_the_picture_are_not_unpacked(tmp_path):
    data = pydicom.dcmread(write_dicom(tmp_path / "a", np.zeros((8, 8), np.uint8)))
    data.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.5"
    runs = b"\x81\0" * 100_000  # each becomes 128 bytes
    data.PixelData = pydicom.encaps.encapsulate([(b"\x01\0\0\0\x40" + bytes(59)) + runs])
    data["PixelData"].VR, data["PixelData"].is_undefined_length = "OB", True
    data.save_as(tmp_path / "b")
    assert "longer than the picture" in reason(tmp_path / "b")


def test_no_reason_quotes_the_file(tmp_path):
    path = write_dicom(tmp_path / "a", GREY, PhotometricInterpretation="QUAGMIRE", BitsStored=12)
    assert "QUAGMIRE" not in reason(path).upper()
    assert FileReader((path,)).made_of(0) == (path,)
