"""The page against the predictor, in real browsers: the same pixels, the same answers, the same maps."""

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom.data import get_testdata_file

from stillroom.data.files import FileReader, decode_image
from stillroom.data.geometry import on_original
from stillroom.data.table import UnreadableImage
from stillroom.deployment.edge_maps import edge_map

pytestmark = pytest.mark.slow


def encoded(image: Image.Image, form: str, **options) -> bytes:
    target = io.BytesIO()
    image.save(target, form, **options)
    return target.getvalue()


def picture(height: int, width: int, seed: int = 0) -> Image.Image:
    """A smooth picture with noise, in colour."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (7, 9, 3), dtype=np.uint8)).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    noise = rng.integers(-20, 21, (height, width, 3))
    return Image.fromarray((np.asarray(coarse).astype(int) + noise).clip(0, 255).astype(np.uint8))


def turned(code: int) -> Image.Exif:
    notes = Image.Exif()
    notes[0x0112] = code
    return notes


def files() -> dict[str, bytes]:
    """Every mode in which images come, as files."""
    colour, grey = picture(97, 141), picture(120, 83, seed=1).convert("L")
    deep = Image.fromarray((np.asarray(grey).astype(np.uint16) * 257) ^ 0x0155)
    seen = colour.copy()
    seen.putalpha(grey.resize(colour.size))
    spotted = colour.quantize(32)
    spotted.info["transparency"] = bytes([0, 90, 255] * 10)
    made = {
        "grey.png": encoded(grey, "PNG"),
        "colour.png": encoded(colour, "PNG"),
        "one_bit.png": encoded(grey.convert("1"), "PNG"),
        "palette.png": encoded(colour.quantize(200), "PNG"),
        "palette_of_4_bits.png": encoded(colour.quantize(14), "PNG", bits=4),
        "palette_with_opacity.png": encoded(spotted, "PNG", transparency=bytes([0, 90, 255] * 10)),
        "opacity.png": encoded(seen, "PNG"),
        "grey_with_opacity.png": encoded(seen.convert("LA"), "PNG"),
        "key.png": encoded(colour, "PNG", transparency=colour.getpixel((5, 7))),
        "grey_key.png": encoded(grey, "PNG", transparency=grey.getpixel((5, 7))),
        "grey_as_colour.png": encoded(grey.convert("RGB"), "PNG"),
        "turned.png": encoded(colour, "PNG", exif=turned(6)),
        "16_bits.png": encoded(deep, "PNG"),
        "tiny.png": encoded(colour.resize((3, 2)), "PNG"),
        "wide.png": encoded(colour.resize((400, 3)), "PNG"),
        "tall.png": encoded(picture(400, 90), "PNG"),
        "very_tall.png": encoded(picture(700, 2), "PNG"),
        "tall_of_16_bits.png": encoded(_deep(picture(501, 3)), "PNG"),
        "exact.png": encoded(colour.resize((64, 64)), "PNG"),
        "colour.jpg": encoded(colour, "JPEG", quality=75),
        "progressive.jpg": encoded(colour, "JPEG", quality=60, progressive=True),
        "not_halved.jpg": encoded(colour, "JPEG", quality=90, subsampling=0),
        "grey.jpg": encoded(grey, "JPEG"),
        "profile.jpg": encoded(colour, "JPEG", icc_profile=_profile()),
        "colour.webp": encoded(colour, "WEBP"),
        "lossless.webp": encoded(colour, "WEBP", lossless=True),
        "opacity.webp": encoded(seen, "WEBP", exact=True),
        "turned.webp": encoded(colour, "WEBP", exif=turned(8)),
    }
    return made | {f"turned_{code}.jpg": encoded(colour, "JPEG", exif=turned(code)) for code in range(2, 9)}


def _profile() -> bytes:
    from PIL import ImageCms

    return ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()


def refused() -> dict[str, bytes]:
    """What is refused here and there alike."""
    whole = encoded(picture(40, 60), "PNG")
    jpeg = encoded(picture(90, 120), "JPEG")
    frames = [picture(20, 20, seed) for seed in range(3)]
    clear = picture(30, 30)
    clear.putalpha(0)
    return {
        "empty.png": b"",
        "text.png": b"not an image at all, only words",
        "cut.png": whole[: len(whole) // 2],
        "flipped.png": whole[:20] + bytes([whole[20] ^ 255]) + whole[21:],
        "cut.jpg": jpeg[: len(jpeg) // 2],
        "headless.jpg": jpeg[:200],
        "several.png": encoded(frames[0], "PNG", save_all=True, append_images=frames[1:]),
        "several.webp": encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:]),
        "cut.webp": encoded(picture(90, 120), "WEBP")[:500],
        "clear.png": encoded(clear, "PNG"),
        "huge.png": whole[:16] + (60000).to_bytes(4, "big") * 2 + whole[24:],
    }


@pytest.fixture(scope="module")
def page(show, student):
    return show(student)


def compare(page, name: str, content: bytes) -> int:
    """Reads a file here and there, holds both together, and gives the image's number in the page."""
    pixels = decode_image(io.BytesIO(content), display=page.predictor.display)
    found = page.read(name, content)
    assert "images" in found, (name, found)
    (one,) = found["images"]
    assert (one["height"], one["width"], one["bits"]) == (*pixels.shape[:2], 8 * pixels.itemsize), name
    prepared = page.predictor.prepare(pixels)
    assert np.array_equal(one["prepared"], prepared), (name, np.abs(one["prepared"] - prepared).max())
    said, expected = page.predict(one["image"]), page.predictor.answers(prepared[None], [None])[0].to_dict()
    for key in ("answer", "decision", "possible", "unsure", "foreign", "flagged", "promised", "error"):
        assert said[key] == expected[key], (name, key)
    for label, probability in expected["probabilities"].items():
        assert said["probabilities"][label] == pytest.approx(probability, abs=1e-4), name
    assert said["foreign_score"] == pytest.approx(expected["foreign_score"], abs=1e-3), name
    return one["image"]


def test_every_mode_is_read_prepared_and_answered_as_the_predictor_does(page):
    for name, content in files().items():
        compare(page, name, content)
    assert page.browser.complaints == []


def test_what_the_predictor_refuses_the_page_refuses(page):
    for name, content in refused().items():
        with pytest.raises(UnreadableImage):
            decode_image(io.BytesIO(content))
        assert page.read(name, content).get("refused"), name


@pytest.mark.parametrize("method", ["rise", "score_cam", "score_cam_fast"])
def test_maps_are_those_of_the_exported_file(page, method):
    number = compare(page, "odd.png", content := encoded(picture(77, 130), "PNG"))
    pixels = decode_image(io.BytesIO(content))
    found = page.explain(number, None, method, workers=1)
    assert found["workers"] == 1
    of = page.predictor.classes.index(found["of"])
    expected = edge_map(page.predictor, page.predictor.prepare(pixels), of, method=method)
    assert found["method"] == method
    assert expected.std() > 0.02
    np.testing.assert_allclose(found["map"], expected, atol=1e-3)
    original = on_original(expected, *pixels.shape[:2], "pad").clip(0, 1)
    np.testing.assert_allclose(found["original"].reshape(original.shape), original, atol=1e-3)
    shares = [step["progress"] for step in found["steps"]]
    assert shares == sorted(shares)
    assert len(shares) > 1
    assert all(step["drawn"] and step["left"] >= 0 for step in found["steps"])


def test_a_map_can_be_cancelled_and_then_drawn_of_another_class(page):
    number = compare(page, "grey.png", files()["grey.png"])
    stopped = page.explain(number, cancel_after=1)
    assert stopped["cancelled"]
    assert "map" not in stopped
    drawn = page.explain(number, "normal")
    assert (drawn["done"], drawn["of"], drawn["empty"]) == (True, "normal", not drawn["map"].any())


MODES = {
    "grey.png": lambda image: encoded(image.convert("L"), "PNG"),
    "colour.png": lambda image: encoded(image, "PNG"),
    "opacity.png": lambda image: encoded(_seen(image), "PNG"),
    "palette.png": lambda image: encoded(image.quantize(64), "PNG"),
    "16_bits.png": lambda image: encoded(_deep(image), "PNG"),
    "key.png": lambda image: encoded(image, "PNG", transparency=image.getpixel((0, 0))),
    "small.jpg": lambda image: encoded(image.resize((image.width // 3, image.height // 5)), "JPEG", quality=80),
    "turned.jpg": lambda image: encoded(image, "JPEG", exif=turned(2 + image.width % 7)),
    "progressive.jpg": lambda image: encoded(image, "JPEG", progressive=True, subsampling=image.width % 3),
    "colour.webp": lambda image: encoded(image, "WEBP"),
    "opacity.webp": lambda image: encoded(_seen(image), "WEBP", lossless=True),
}


def _seen(image: Image.Image) -> Image.Image:
    seen = image.copy()
    seen.putalpha(image.convert("L"))
    return seen


def _deep(image: Image.Image) -> Image.Image:
    grey = np.asarray(image.convert("L")).astype(np.uint16)
    return Image.fromarray(grey * 257 ^ np.roll(grey, 1, axis=1))


def test_200_real_images_in_every_mode(page, real_data):
    """A third as they lie there, the others brought into each mode; every 40th is explained."""
    found = sorted(path for path in real_data().rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    chosen = np.random.default_rng(0).permutation(len(found))[:200]
    for number, path in enumerate(found[index] for index in chosen):
        content = path.read_bytes()
        if number % 3:
            mode = list(MODES)[number % len(MODES)]
            with Image.open(path) as image:
                content = MODES[mode](image.convert("RGB"))
        place = compare(page, path.name, content)
        if number % 40 == 0:
            drawn = page.explain(place, None, "rise")
            pixels = decode_image(io.BytesIO(content))
            of = page.predictor.classes.index(drawn["of"])
            expected = edge_map(page.predictor, page.predictor.prepare(pixels), of, method="rise")
            np.testing.assert_allclose(drawn["map"], expected, atol=1e-3, err_msg=path.name)


# -- DICOM --------------------------------------------------------------------------------------------------------
DICOM = (
    *("CT_small.dcm", "emri_small.dcm", "MR_small_RLE.dcm", "JPEG-LL.dcm", "MR_small_jpeg_ls_lossless.dcm"),
    *("SC_rgb_jpeg_dcmtk.dcm", "SC_ybr_full_422_uncompressed.dcm", "image_dfl.dcm", "examples_palette.dcm"),
)


def test_dicom_is_answered_as_the_predictor_does(page):
    for name in DICOM:
        path = Path(get_testdata_file(name))
        expected = page.predictor.predict([path])
        found = page.read(name, path.read_bytes())["images"]
        assert len(found) == len(expected), name
        for one, answer in zip(found, expected, strict=True):
            said = page.predict(one["image"])
            assert said["frame"] == answer.frame, name
            for key in ("answer", "decision", "possible", "unsure", "foreign", "error"):
                assert said[key] == answer.to_dict()[key], (name, key)
            for label, probability in answer.probabilities.items():
                assert said["probabilities"][label] == pytest.approx(probability, abs=1e-4), name
    assert page.browser.complaints == []


def test_many_frames_are_read_with_the_time_that_is_left_and_each_by_itself(page):
    path = Path(get_testdata_file("emri_small.dcm"))
    found = page.read("emri_small.dcm", path.read_bytes())
    assert len(found["images"]) == 10
    assert all(0 < step["progress"] < 1 and step["frames"] == 10 for step in found["steps"])
    content = base64.b64encode(path.read_bytes()).decode()
    (one,) = page.browser.evaluate(f"driver.read('emri_small.dcm', '{content}', 7)")["images"]
    assert one["frame"] == 7
    assert page.predict(one["image"])["probabilities"] == page.predict(found["images"][6]["image"])["probabilities"]


def test_of_a_file_whose_last_frame_is_damaged_the_others_are_read(page):
    content = Path(get_testdata_file("emri_small_RLE.dcm")).read_bytes()
    *others, last = page.read("damaged.dcm", content[:-800])["images"]
    assert len(others) == 9
    assert all("image" in one for one in others)
    assert last["refused"]["key"] == "refused.dicom_pixels_damaged"


def test_dicom_is_shown_in_the_window_of_the_training_images(show, saying):
    page = show(saying(window="lung"))  # in the same window: the page that the tests before share is gone
    path = Path(get_testdata_file("CT_small.dcm"))
    prepared = page.predictor.prepare(FileReader((path,), display=page.predictor.display).read(0))
    (one,) = page.read("ct", path.read_bytes())["images"]
    assert np.array_equal(one["prepared"], prepared)
    refused = page.read("mr", Path(get_testdata_file("MR_small.dcm")).read_bytes())["refused"]
    assert refused == {"key": "refused.dicom_units_of_ct", "values": {"window": "lung"}}


# -- many hands, little time ----------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def many_hands(show, wide):
    """The page of a wider network, once a further worker has come: the first map calls them. The page before is gone."""
    page = show(wide)
    number = page.read("first.png", encoded(picture(50, 50), "PNG"))["images"][0]["image"]
    for _ in range(100):
        if page.explain(number, None, "rise")["workers"] > 1:
            return page
    pytest.fail("no further worker came")


@pytest.mark.parametrize("method", ["rise", "score_cam", "score_cam_fast"])
def test_maps_do_not_depend_on_how_many_workers_there_are(many_hands, method):
    number = compare(many_hands, "odd.png", content := encoded(picture(83, 71), "PNG"))
    prepared = many_hands.predictor.prepare(decode_image(io.BytesIO(content)))
    found = many_hands.explain(number, None, method)
    assert found["workers"] > 1
    expected = edge_map(many_hands.predictor, prepared, many_hands.predictor.classes.index(found["of"]), method=method)
    assert expected.std() > 0.02
    np.testing.assert_allclose(found["map"], expected, atol=1e-3)
    assert many_hands.browser.complaints == []


def test_an_estimate_from_few_channels_is_the_predictors_and_goes_on_to_the_fuller_map(many_hands):
    number = compare(many_hands, "odd.png", content := encoded(picture(83, 71), "PNG"))
    prepared = many_hands.predictor.prepare(decode_image(io.BytesIO(content)))
    found = many_hands.explain(number, None, "score_cam_fast", most=34)
    assert found["estimate"] == {"asked": 34, "channels": 256, "coarse": True}
    assert (found["fuller"]["method"], found["fuller"]["channels"]) == ("score_cam_fast", 43)
    assert found["verdict"] is None
    how = {"number": many_hands.predictor.classes.index(found["of"]), "method": "score_cam_fast"}
    np.testing.assert_allclose(found["map"], edge_map(many_hands.predictor, prepared, **how, most=34), atol=1e-3)
    fuller = many_hands.explain(number, None, "score_cam_fast")  # what was asked is not asked again
    assert fuller["estimate"] == {"asked": 43, "channels": 256, "coarse": False}
    np.testing.assert_allclose(fuller["map"], edge_map(many_hands.predictor, prepared, **how), atol=1e-3)


def test_when_a_map_is_cancelled_every_worker_is_free_for_the_next(many_hands):
    number = compare(many_hands, "odd.png", content := encoded(picture(83, 71), "PNG"))
    assert many_hands.explain(number, None, "score_cam", cancel_after=1)["cancelled"]
    found = many_hands.explain(number, "normal", "rise")
    prepared = many_hands.predictor.prepare(decode_image(io.BytesIO(content)))
    assert found["workers"] > 1
    np.testing.assert_allclose(found["map"], edge_map(many_hands.predictor, prepared, 2, method="rise"), atol=1e-3)
