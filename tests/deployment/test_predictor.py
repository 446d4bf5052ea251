"""Prediction: training's preprocessing for every kind of image, errors that stay with theirs, and no torch.

The model here is made by hand in ONNX, so that its right answers are known without torch: its logits are linear
in the mean of each channel.
"""

import copy
import json
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from hand_made import SIZE, TWO, write_model
from PIL import Image
from rich.console import Console

from stillroom.data.files import FileReader
from stillroom.data.geometry import fit_image
from stillroom.data.store import build_store
from stillroom.data.table import Table
from stillroom.deployment.metadata import ModelMetadata
from stillroom.deployment.prediction import Prediction
from stillroom.deployment.prediction_table import prediction_table
from stillroom.deployment.predictor import PassedOver, Predictor
from stillroom.errors import RunError, UsageError
from stillroom.evaluation.conformal import ConformalRule
from stillroom.evaluation.ood import ForeignRule
from stillroom.evaluation.operating_points import OperatingPoint
from stillroom.files.own_digest import KEY, with_own_digest
from stillroom.task import MultiClass, MultiLabel


@pytest.fixture
def predictor(tmp_path) -> Predictor:
    return Predictor.load(write_model(tmp_path / "student.onnx"))


def flat(value: int, dtype: type = np.uint8, shape: tuple[int, ...] = (SIZE, SIZE)) -> np.ndarray:
    return np.full(shape, value, dtype=dtype)


def test_grey_colour_16_bit_and_oblong_files_are_predicted_in_order(tmp_path):
    predictor = Predictor.load(write_model(tmp_path / "student.onnx", white=65535))
    pictures = {
        "a.png": flat(255),
        "b.png": flat(10, shape=(20, 20)),
        "c.png": flat(250, shape=(9, 9, 3)),
        "d.png": flat(60000, np.uint16),
        "e.png": flat(600, np.uint16, (30, 12)),
    }
    for name, picture in pictures.items():
        Image.fromarray(picture).save(tmp_path / name)
    predictions = predictor.predict([tmp_path / name for name in pictures], batch_size=2)
    assert [prediction.path.name for prediction in predictions] == list(pictures)
    assert [prediction.decision for prediction in predictions] == [
        ("bright",),
        ("dark",),
        ("bright",),
        ("bright",),
        ("dark",),
    ]
    for prediction in predictions:
        assert list(prediction.probabilities) == ["dark", "bright"]
        assert sum(prediction.probabilities.values()) == pytest.approx(1, abs=1e-6)
        assert prediction.error is None


def test_probabilities_are_those_of_the_prepared_image(predictor):
    image = np.random.default_rng(0).integers(0, 256, (13, 21), dtype=np.uint8)
    mean = fit_image(image, SIZE, "pad").mean() / 255
    margin = 2 * (4 * mean - 2)
    assert predictor.predict([image])[0].probabilities["bright"] == pytest.approx(1 / (1 + np.exp(-margin)))


def test_answers_do_not_depend_on_the_batch_size(predictor):
    images = list(np.random.default_rng(0).integers(0, 256, (7, SIZE, SIZE), dtype=np.uint8))
    one, three = predictor.predict(images, batch_size=1), predictor.predict(images, batch_size=3)
    for first, second in zip(one, three, strict=True):
        assert first.probabilities == pytest.approx(second.probabilities, abs=1e-6)


@pytest.mark.parametrize("white", [1023, 4095, 65535])
def test_8_bit_image_is_scaled_by_its_own_full_range_for_a_16_bit_model(tmp_path, white):
    predictor = Predictor.load(write_model(tmp_path / "student.onnx", white=white))
    image = np.arange(SIZE * SIZE, dtype=np.uint8).reshape(SIZE, SIZE) * 4
    np.testing.assert_allclose(predictor.prepare(image)[0], image / 255, atol=0.5 / white)
    assert predictor.prepare(flat(white, np.uint16)).max() == 1.0
    assert predictor.prepare(flat(255)).min() == 1.0


def test_image_brighter_than_the_training_images_white_is_refused_with_a_reason(predictor, tmp_path):
    bright = predictor.predict([flat(4000, np.uint16)])[0]
    assert "values up to 4000" in bright.error
    assert bright.decision == ()


def test_a_handful_of_pixels_brighter_than_white_is_white_and_noted(tmp_path):
    predictor = Predictor.load(write_model(tmp_path / "student.onnx", white=4095))
    image = flat(1000, np.uint16)
    image[:2, :2] = 60000
    capped = np.minimum(image, 4095)
    np.testing.assert_array_equal(predictor.prepare(image), predictor.prepare(capped))
    Image.fromarray(image).save(tmp_path / "hot.png")
    hot, right = predictor.predict([tmp_path / "hot.png", capped])
    assert hot.note == "4 pixels are brighter than 4095, the model's white, and shown as white"
    assert (hot.probabilities, right.note) == (right.probabilities, None)
    assert hot.to_dict()["note"] == hot.note
    console = Console(width=150, color_system=None)
    with console.capture() as capture:
        console.print(prediction_table([replace(hot, path=None), right]))
    assert capture.get().count(hot.note) == 1


def test_a_store_with_hot_pixels_is_what_its_model_makes_of_the_files(tmp_path):
    """The white that a training set was given travels in the file, and clips the same pixels at the same size."""
    noise, paths = np.random.default_rng(0), [tmp_path / f"{number}.png" for number in range(4)]
    for number, path in enumerate(paths):
        image = noise.integers(0, 4096, (40, 30), dtype=np.uint16)
        image[3, :number] = 65535
        Image.fromarray(image).save(path)
    rows = np.arange(4)
    table = Table("n", "n", TWO, np.array(paths), rows % 2, np.full(4, "train"), rows, FileReader(tuple(paths)))
    store, _, _ = build_store(table, size=SIZE, fit="pad", cache=tmp_path / "cache", progress=False)
    predictor = Predictor.load(write_model(tmp_path / "student.onnx", white=store.white))
    assert (store.white, store.facts.clipped.tolist()) == (4095, [0, 1, 2, 3])
    expected = store.batch(rows).astype(np.float32) / np.float32(store.white)
    for row, path in enumerate(paths):
        np.testing.assert_array_equal(predictor.prepare(FileReader((path,)).read(0)), expected[row])


def test_channels_follow_the_model(tmp_path):
    grey = Predictor.load(write_model(tmp_path / "grey.onnx"))
    colour = Predictor.load(write_model(tmp_path / "colour.onnx", channels=3))
    red = np.zeros((SIZE, SIZE, 3), dtype=np.uint8)
    red[..., 0] = 200
    np.testing.assert_allclose(grey.prepare(red), np.full((1, SIZE, SIZE), 60 / 255), atol=1e-6)
    np.testing.assert_allclose(colour.prepare(red)[:, 0, 0], [200 / 255, 0, 0], atol=1e-6)
    np.testing.assert_allclose(colour.prepare(flat(51)), np.full((3, SIZE, SIZE), 0.2), atol=1e-6)
    assert colour.probabilities(colour.prepare(red)[None]).shape == (1, 2)


@pytest.mark.parametrize("kinds", [("grey",), ("grey", "colour"), ("deep",), ("grey", "colour", "deep")])
@pytest.mark.parametrize("fit", ["pad", "resize"])
def test_prepared_files_are_the_rows_of_the_store_that_a_network_trains_on(tmp_path, kinds, fit):
    noise = np.random.default_rng(0)
    pictures = {
        "grey": noise.integers(0, 256, (11, 19), dtype=np.uint8),
        "colour": noise.integers(0, 256, (17, 13, 3), dtype=np.uint8),
        "deep": noise.integers(0, 65536, (21, 9), dtype=np.uint16),
    }
    paths = tuple(tmp_path / f"{kind}.png" for kind in kinds)
    for kind, path in zip(kinds, paths, strict=True):
        Image.fromarray(pictures[kind]).save(path)
    rows = np.arange(len(kinds))
    ids, splits = np.array(kinds), np.full(len(kinds), "train")
    table = Table("noise", "noise", TWO, ids, rows % 2, splits, rows, FileReader(paths))
    store, _, _ = build_store(table, size=SIZE, fit=fit, cache=tmp_path / "cache", progress=False)

    channels = 3 if store.colour else 1
    model = write_model(tmp_path / "student.onnx", channels=channels, white=store.white, fit=fit)
    predictor = Predictor.load(model)
    for row, path in enumerate(paths):
        expected = store.batch(rows)[row].astype(np.float32) / np.float32(store.white)
        np.testing.assert_array_equal(predictor.prepare(FileReader((path,)).read(0)), expected)


def test_one_image_is_taken_for_a_list_of_one(predictor, tmp_path):
    Image.fromarray(flat(255)).save(tmp_path / "a.png")
    for alone in (tmp_path / "a.png", str(tmp_path / "a.png"), tmp_path, flat(255)):
        assert predictor.predict(alone) == predictor.predict([alone])
        assert len(predictor.predict(alone)) == 1


def test_unreadable_images_get_their_reason_and_stop_no_other(predictor, tmp_path):
    good, broken = tmp_path / "good.png", tmp_path / "broken.png"
    Image.fromarray(flat(255)).save(good)
    broken.write_bytes(good.read_bytes()[:40])
    odd = np.zeros((4, 4), dtype=np.float32)
    predictions = predictor.predict([broken, good, tmp_path / "gone.png", odd, good], batch_size=2)
    assert [prediction.decision for prediction in predictions] == [(), ("bright",), (), (), ("bright",)]
    assert predictions[0].path == broken
    assert predictions[0].probabilities == {}
    assert predictions[2].error == "the file does not exist"
    assert "not [4, 4] of float32" in predictions[3].error
    only_bad = predictor.predict([broken])
    assert only_bad[0].error


@pytest.mark.parametrize("shape", [(4,), (4, 4, 4), (4, 4, 1), (0, 4), (2, 4, 4, 3)])
def test_arrays_of_other_shapes_are_refused(predictor, shape):
    with pytest.raises(UsageError, match=r"must be \[H, W\] or \[H, W, 3\]"):
        predictor.prepare(np.zeros(shape, dtype=np.uint8))


def test_folder_stands_for_the_images_in_it(predictor, tmp_path):
    folder = tmp_path / "scans"
    (folder / "deep").mkdir(parents=True)
    for name in ("scan10.png", "scan2.png", "deep/x.jpg", "scan2_mask.png"):
        Image.fromarray(flat(255)).save(folder / name)
    (folder / "notes.txt").write_text("not an image")
    with pytest.warns(PassedOver, match=r"Masks of images in .*scans are left out: 1\."):
        found = [prediction.path for prediction in predictor.predict([folder, str(folder / "scan2.png")])]
    assert found == [folder / name for name in ("deep/x.jpg", "scan2.png", "scan10.png", "scan2.png")]

    (folder / "3_mask.png").write_bytes((folder / "scan2.png").read_bytes())
    with pytest.warns(PassedOver, match=r"Masks without their image in .* are left out: 3_mask\.png"):
        assert len(predictor.predict(folder)) == 3
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="no image in the folder"):
        predictor.predict([tmp_path / "empty"])


def test_multilabel_decides_for_any_number_of_labels(tmp_path):
    task = MultiLabel(("none", "red", "green", "blue"))
    predictor = Predictor.load(write_model(tmp_path / "student.onnx", task, channels=3))
    colours = {
        (255, 255, 255): ("red", "green", "blue"),
        (255, 0, 255): ("red", "blue"),
        (0, 0, 0): ("none",),
    }
    for colour, expected in colours.items():
        image = np.broadcast_to(np.array(colour, np.uint8), (SIZE, SIZE, 3))
        assert predictor.predict([image])[0].decision == expected


def test_multilabel_may_decide_for_nothing_without_that_being_an_error(tmp_path):
    task = MultiLabel(("mass", "nodule"))
    predictor = Predictor.load(write_model(tmp_path / "student.onnx", task))
    # At mean 0.5 both logits are 0 and both probabilities 0.5, which is not above 0.5.
    half = np.repeat(np.array([[0, 255]], np.uint8), SIZE, axis=0).repeat(SIZE // 2, axis=1)
    prediction = predictor.predict([half])[0]
    assert prediction.decision == ()
    assert prediction.error is None
    assert prediction.probabilities == {"mass": 0.5, "nodule": 0.5}


def test_ordinal_task_and_notes_come_back_from_the_file(tmp_path):
    task = MultiClass(("mild", "moderate", "severe"), ordinal=True)
    write_model(tmp_path / "student.onnx", task, synthetic=True, details={"data": "phantoms"})
    predictor = Predictor.load(tmp_path)
    assert predictor.task == task
    assert predictor.classes == ("mild", "moderate", "severe")
    assert (predictor.size, predictor.channels, predictor.name) == (SIZE, 1, "by_hand")
    assert predictor.synthetic
    assert predictor.metadata.details == {"data": "phantoms"}


def test_prediction_is_ready_for_json(predictor, tmp_path):
    predictions = predictor.predict([flat(255), tmp_path / "gone.png"])
    first, second = json.loads(json.dumps([prediction.to_dict() for prediction in predictions]))
    assert first["path"] is None
    assert first["decision"] == ["bright"]
    assert first["probabilities"]["bright"] > 0.9
    assert first["answer"] == "bright"
    assert (first["possible"], first["foreign"], first["foreign_score"]) == (None, None, None)
    assert second == {
        "path": str(tmp_path / "gone.png"),
        "frame": None,
        "answer": None,
        "decision": [],
        "probabilities": {},
        "possible": None,
        "unsure": [],
        "foreign": None,
        "foreign_score": None,
        "flagged": {},
        "promised": {},
        "note": None,
        "error": "the file does not exist",
    }


# -- answers ------------------------------------------------------------------------------------------------------
def answer(**known) -> str | None:
    return Prediction(None, **known).answer


def test_answers_in_words():
    assert answer(decision=("benign",)) == "benign"
    assert answer(decision=("benign",), possible=("benign",)) == "benign"
    assert answer(decision=("benign",), possible=("benign", "malignant")) == "benign or malignant"
    three = dict.fromkeys(("benign", "malignant", "normal"), 1 / 3)
    assert answer(decision=("benign",), possible=("benign", "normal"), probabilities=three) == "benign or normal"
    assert answer(decision=("benign",), possible=tuple(three), probabilities=three) == "any of the 3 classes"
    assert answer(decision=("benign",), possible=("benign",), foreign=True) == "not this kind of image"
    assert answer(decision=("benign",), possible=("benign",), foreign=False) == "benign"
    assert answer(decision=("mass", "nodule")) == "mass, nodule"
    assert answer(decision=("mass", "nodule"), possible=("mass", "nodule")) == "mass, nodule"
    assert answer(decision=("mass",), possible=("mass", "nodule"), unsure=("nodule",)) == "mass, perhaps nodule"
    assert answer(decision=("mass",), possible=("mass",), unsure=("mass",)) == "perhaps mass"
    assert answer() == answer(possible=()) == "no finding"
    assert answer(error="the file is empty", foreign=None) is None


def conformal(*thresholds) -> dict:
    return ConformalRule(0.9, False, np.array(thresholds, dtype=np.float64), 100).to_dict()


def test_a_set_of_classes_holds_those_that_cannot_be_ruled_out(tmp_path):
    """The rule keeps what has a probability of 0.3 or more before any temperature: at mean 0.5, both."""
    path = write_model(tmp_path / "student.onnx", temperature=0.1, conformal=conformal(*[-np.log(0.3)] * 2))
    predictor = Predictor.load(path)
    dark, half, bright = predictor.predict([flat(0), flat(128), flat(255)])
    assert [dark.possible, half.possible, bright.possible] == [("dark",), ("dark", "bright"), ("bright",)]
    assert [dark.answer, half.answer, bright.answer] == ["dark", "dark or bright", "bright"]
    assert half.decision == ("bright",)
    assert half.unsure == ()
    assert json.loads(json.dumps(half.to_dict()))["possible"] == ["dark", "bright"]
    # What was promised with too few images is everything.
    everything = Predictor.load(write_model(tmp_path / "few.onnx", conformal=conformal(np.inf, np.inf)))
    assert everything.predict([flat(0)])[0].answer == "dark or bright"


def test_labels_that_may_be_there_or_not_are_said_with_perhaps(tmp_path):
    task = MultiLabel(("none", "red", "green", "blue"))
    rule = conformal([0, 0], *[[-np.log(0.4)] * 2] * 3)
    predictor = Predictor.load(write_model(tmp_path / "student.onnx", task, channels=3, conformal=rule))
    image = np.zeros((SIZE, SIZE, 3), np.uint8)
    image[:] = 255, 130, 20  # green has a probability of about a half
    found = predictor.predict([image])[0]
    assert found.decision == ("red", "green")
    assert found.possible == ("red", "green")
    assert found.unsure == ("green",)
    assert found.answer == "red, perhaps green"
    image[..., 1] = 125
    found = predictor.predict([image])[0]
    assert (found.decision, found.possible) == (("red",), ("red", "green"))
    assert found.answer == "red, perhaps green"


def foreign_rule(threshold: float = 2.0) -> dict:
    return ForeignRule(-1.0, 1.0, 0.0, 0.1, threshold, 0.05, 100).to_dict()


def test_images_of_another_kind_are_refused(tmp_path):
    predictor = Predictor.load(write_model(tmp_path / "student.onnx", foreign=foreign_rule()))
    spot = flat(200)
    spot[:4] = 255
    own, odd = predictor.predict([flat(200), spot])
    assert (own.foreign, own.answer) == (False, "bright")
    # The larger of both scores: the energy -log(e^-m + e^m) from -1, and the distance in tenths.
    logit = 4 * 200 / 255 - 2
    assert own.foreign_score == pytest.approx(max(1 - np.logaddexp(logit, -logit), 0), abs=1e-5)
    assert odd.foreign_score == pytest.approx(10 * (1 - (200 + 255) / 510), abs=1e-5)
    assert (odd.foreign, odd.answer) == (odd.foreign_score > 2, "bright")
    spot[1:] = 0
    found = predictor.predict([spot])[0]
    assert (found.foreign, found.answer, found.decision) == (True, "not this kind of image", ("dark",))
    assert json.loads(json.dumps(found.to_dict()))["foreign"] is True
    never = Predictor.load(write_model(tmp_path / "never.onnx", foreign=foreign_rule(float("inf"))))
    assert never.predict([spot])[0].foreign is False


def point(of: str = "bright", threshold: float = 0.3, wanted: float = 0.95, kind: str = "sensitivity") -> dict:
    return OperatingPoint(of, kind, wanted, threshold, wanted, 100, 100.0).to_dict()


def test_an_image_is_flagged_from_the_threshold_of_the_calibrated_probability_on(tmp_path):
    """At mean m the log odds are 8 m - 4 over the temperature: .3 lies at m = .5 - .106 * temperature."""
    flags = {}
    for temperature in (1.0, 2.0):
        path = write_model(
            tmp_path / f"{temperature}.onnx", temperature=temperature, points=(point(), point(threshold=0.9))
        )
        predictor = Predictor.load(path)
        edge = 255 * (0.5 - np.log(0.7 / 0.3) / 8 * temperature)
        found = predictor.predict([flat(int(edge) - 1), flat(int(edge) + 2)])
        flags[temperature] = [list(one.flagged.values()) for one in found]
        assert list(found[0].flagged) == ["bright at sensitivity 0.95"]  # of two of one name the last would do
        assert found[1].answer == "dark"
    assert [one.threshold for one in predictor.points] == [0.3, 0.9]


def test_a_flag_is_said_beside_the_answer_and_a_refusal_alone(tmp_path):
    known = {"points": (point(), point(threshold=0.8, wanted=0.9, kind="specificity")), "foreign": foreign_rule()}
    predictor = Predictor.load(write_model(tmp_path / "student.onnx", **known))
    spot = flat(0)
    spot[0] = 255
    likely, perhaps, foreign = predictor.predict([flat(255), flat(115), spot])
    assert likely.flagged == {"bright at sensitivity 0.95": True, "bright at specificity 0.9": True}
    assert likely.flags == (
        "flagged at a threshold for sensitivity 0.95: bright; flagged at a threshold for specificity 0.9: bright"
    )
    assert (perhaps.answer, perhaps.flags) == ("dark", "flagged at a threshold for sensitivity 0.95: bright")
    assert (foreign.answer, foreign.flagged, foreign.flags) == ("not this kind of image", {}, "")
    assert json.loads(json.dumps(perhaps.to_dict()))["flagged"] == perhaps.flagged
    console = Console(width=140, color_system=None)
    with console.capture() as capture:
        console.print(prediction_table([perhaps, foreign]))
    lines = [" ".join(line.split()) for line in capture.get().splitlines()]
    assert lines[2].startswith("flagged at a threshold for sensitivity 0.95: bright")
    assert "flagged" not in lines[3]


def test_labels_are_flagged_each_by_its_own_threshold():
    flagged = {"a b at sensitivity 0.95": True, "c at sensitivity 0.95": False, "look at at sensitivity 0.95": True}
    assert Prediction(None, flagged=flagged).flags == "flagged at a threshold for sensitivity 0.95: a b, look at"
    assert Prediction(None, flagged=dict.fromkeys(flagged, False)).flags == ""


def test_a_flag_says_what_is_surely_reached_where_that_is_less_than_its_name(tmp_path):
    few = OperatingPoint("bright", "sensitivity", 0.95, 0.3, 0.949, 57, 57.0).to_dict()
    known = {"points": (few, point(kind="specificity", wanted=0.8)), "foreign": foreign_rule()}
    predictor = Predictor.load(write_model(tmp_path / "student.onnx", **known))
    spot = flat(0)
    spot[0] = 255
    said, foreign = predictor.predict([flat(255), spot])
    assert said.flags == (
        "flagged at a threshold for sensitivity 0.95 (surely reached: 0.94): bright; "
        "flagged at a threshold for specificity 0.8: bright"
    )
    assert json.loads(json.dumps(said.to_dict()))["promised"] == {
        "bright at sensitivity 0.95": 0.949,
        "bright at specificity 0.8": 0.8,
    }
    assert foreign.promised == {}


def test_a_file_of_before_there_were_thresholds_has_none(tmp_path):
    path = write_model(tmp_path / "student.onnx", points=(point(),))
    model = onnx.load(path)
    kept = [entry for entry in model.metadata_props if entry.key != "stillroom.points"]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    path.write_bytes(with_own_digest(model.SerializeToString()))
    predictor = Predictor.load(path)
    assert predictor.points == ()
    assert predictor.predict([flat(255)])[0].flagged == {}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"of": "blurred"}, r"points\[0\].of is 'blurred'; it must be one of bright"),
        ({"for": "luck"}, "sensitivity or specificity"),
        ({"threshold": 1.5}, r"points\[0\].threshold is 1.5"),
        ({"wanted": None}, r"points\[0\].wanted is None; it must be between 0 and 1"),
    ],
)
def test_thresholds_that_cannot_be_are_refused(tmp_path, changed, said):
    with pytest.raises(UsageError, match=f"damaged Stillroom metadata.*{said}"):
        Predictor.load(write_model(tmp_path / "student.onnx", points=(point() | changed,)))


def test_a_refusal_is_shown_instead_of_a_class(tmp_path):
    predictions = [
        Prediction(Path("a.png"), ("b",), {"a": 0.25, "b": 0.75}, foreign=True),
        Prediction(Path("b.png"), ("b",), {"a": 0.25, "b": 0.75}, possible=("a", "b")),
    ]
    console = Console(width=100, color_system=None)
    with console.capture() as capture:
        console.print(prediction_table(predictions))
    lines = [" ".join(line.split()) for line in capture.get().splitlines()]
    assert lines[1] == "a.png not this kind of image"  # no class and no probability: nobody should use them
    assert lines[2].startswith("b.png a or b b 75.0%")
    refused = predictions[0].to_dict()  # programs get both, behind what says not to use them
    assert (refused["foreign"], refused["answer"], refused["decision"]) == (True, "not this kind of image", ["b"])


def test_wrong_models_are_refused_by_name(tmp_path):
    with pytest.raises(UsageError, match=r"holds no student\.onnx"):
        Predictor.load(tmp_path)
    with pytest.raises(UsageError, match="There is no model at"):
        Predictor.load(tmp_path / "gone.onnx")

    text = tmp_path / "text.onnx"
    text.write_text("hello")
    with pytest.raises(UsageError, match=r"text\.onnx is not an ONNX model") as caught:
        Predictor.load(text)
    assert "\n" not in str(caught.value)


@pytest.fixture
def refused(tmp_path, reseal):
    """``refused(properties, reason)``: a model with these properties, a missing one left out, is refused for that reason."""
    model = onnx.load(write_model(tmp_path / "good.onnx"))
    good = {entry.key: entry.value for entry in model.metadata_props}

    def refuse(changed: dict[str, str | None], reason: str, *, whole: bool = True) -> None:
        del model.metadata_props[:]
        told = {key: value for key, value in (good | changed).items() if value is not None}
        onnx.helper.set_model_props(model, told)
        path = tmp_path / "student.onnx"
        if whole:
            reseal(model, path)
        else:
            onnx.save(model, path)
        with pytest.raises(UsageError, match=reason) as caught:
            Predictor.load(path)
        assert "\n" not in str(caught.value)

    return refuse


def test_foreign_newer_and_damaged_metadata_are_refused_by_name(refused):
    nothing = dict.fromkeys(ModelMetadata(TWO, "", 8, 1, 255, "pad", 1).to_properties())
    refused(nothing, "not one that Stillroom exported", whole=False)
    refused({"stillroom.format": "4"}, "has format 4, this Stillroom reads format 3: export the model again")
    refused({"stillroom.format": "1", "stillroom.layer": None}, "has format 1, this Stillroom reads format 3")
    refused({"stillroom.task": None}, "damaged .*'task' is missing")
    refused({"stillroom.task": '{"kind": "binary"}'}, "damaged .*'classes'")
    refused({"stillroom.conformal": '{"coverage": 0.9}'}, "damaged Stillroom metadata .*'class_conditional'")
    refused({"stillroom.foreign": '{"threshold": 1}'}, "damaged Stillroom metadata")
    refused({"stillroom.explanation": '{"faithful": true, "statement": "", "method": "eigen_cam"}'}, "damaged .*'fast'")


RULE = {"coverage": 0.9, "class_conditional": False, "thresholds": [0.5, None], "images": 30}
FAR = {"energy_location": 0, "energy_scale": 1, "distance_location": 0, "distance_scale": 1}
FAR |= {"threshold": 3, "refusals": 0.05, "images": 30}


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("white", "bright", "white is 'bright'; it must be one less than a power of two, from 255 to 65535"),
        ("white", 254.0, "white is 254.0; it must be"),
        ("white", 0, "white is 0; it must be"),
        ("size", 8.5, "size is 8.5; it must be a whole number of pixels"),
        ("size", 0, "size is 0; it must be"),
        ("size", 9, "says size 9, and its graph takes images of 8 x 8"),
        ("channels", 2, "channels is 2; it must be 1 or 3"),
        ("channels", 3, "says 3 channels, and its graph takes 1"),
        ("fit", "crop", "fit is 'crop'; it must be pad or resize"),
        ("temperature", 0, "temperature is 0; it must be above 0 and finite"),
        ("temperature", float("inf"), "temperature is inf; it must be above 0 and finite"),
        ("synthetic", 1, "synthetic is 1; it must be true or false"),
        ("hidden", [1.5], r"hidden is \[1.5\]; it must be numbers from 0 to 1"),
        ("hidden", [0.1, 0.2], "hidden has 2 values for 1 channels"),
        ("name", "", "name is ''; it must be a name"),
        ("details", {"data": 1}, "details is .*; it must be texts by name"),
        (
            "task",
            {"kind": "binari", "classes": ["a", "b"], "ordinal": False},
            "task.kind is 'binari'; it must be one of",
        ),
        (
            "task",
            {"kind": "multiclass", "classes": ["a", "b"], "ordinal": False},
            "task.kind is 'multiclass', which does",
        ),
        ("task", {"kind": "binary", "classes": ["a", "a"], "ordinal": False}, "Class names must differ"),
        ("task", {"kind": "binary", "classes": ["a", 1], "ordinal": False}, "task.classes is .* a list of names"),
        (
            "task",
            {"kind": "multiclass", "classes": ["a", "b", "c"], "ordinal": False},
            "3 classes, and its graph answers 2",
        ),
        ("layer", "body", "has no output map, which its metadata speak of"),
        ("conformal", RULE | {"coverage": 1.9}, "conformal.coverage is 1.9; it must be between 0 and 1"),
        (
            "conformal",
            RULE | {"thresholds": [0.5]},
            "conformal.thresholds is .* a number or null for each of 2 classes",
        ),
        ("conformal", RULE | {"thresholds": [0.5, -3]}, "conformal.thresholds is"),
        ("conformal", [0.5], r"conformal is \[0.5\]; it must be an object or null"),
        ("foreign", FAR | {"energy_scale": 0}, "foreign.energy_scale is 0; it must be above 0 and finite"),
        ("foreign", FAR | {"threshold": float("nan")}, "foreign.threshold is nan; it must be"),
        ("foreign", FAR | {"treshold": 3}, "foreign has the unknown part treshold"),
        ("explanation", {"faithful": "yes"}, "explanation.faithful is 'yes'; it must be true, false or null"),
    ],
)
def test_a_value_that_cannot_be_true_is_refused_by_its_name(refused, name, value, wanted):
    refused({f"stillroom.{name}": json.dumps(value)}, wanted)


def test_good_rules_pass(tmp_path):
    assert Predictor.load(write_model(tmp_path / "m.onnx", conformal=RULE, foreign=FAR)).conformal.coverage == 0.9


def test_a_changed_file_is_refused_by_name(tmp_path):
    path = write_model(tmp_path / "student.onnx")
    content = path.read_bytes()
    for bit in np.random.default_rng(0).integers(8 * len(content), size=200):
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        with pytest.raises(UsageError, match=r"student\.onnx (was changed or damaged|carries damaged|is not an ONNX)"):
            Predictor.load(path)


@pytest.mark.parametrize("name", ["eyes.onnx", "eyes.int8.onnx", "eyes.fp16.onnx"])
@pytest.mark.parametrize("precision", ["", "int8", "fp16"])
def test_the_advice_for_a_damaged_file_writes_one_of_its_precision(tmp_path, name, precision):
    details = {"precision": precision} if precision else {}
    path = write_model(tmp_path / name, details=details)
    content = path.read_bytes()
    path.write_bytes(content.replace(b"bias", b"bios"))
    wanted = next((one for one in ("int8", "fp16") if one in name), precision)
    command = f"`stillroom export RUN{f' --{wanted}' if wanted else ''}`."
    with pytest.raises(UsageError) as refused:
        Predictor.load(path)
    assert str(refused.value).endswith(f"copy it again, or export it again with {command}")
    path.write_bytes(content.replace(b"stillroom.task", b"stillroom.tusk").replace(KEY.encode(), KEY[::-1].encode()))
    with pytest.raises(UsageError) as refused:
        Predictor.load(path)
    assert str(refused.value).endswith(command)


def test_a_digest_whose_name_or_form_is_damaged_is_missed(tmp_path):
    path = write_model(tmp_path / "student.onnx")
    content = path.read_bytes()
    place = content.index(KEY.encode())
    for byte in range(place, place + len(KEY) + 2 + 66):
        damaged = bytearray(content)
        damaged[byte] ^= 1 << byte % 8
        path.write_bytes(damaged)
        with pytest.raises(UsageError, match=r"student\.onnx (was changed or damaged|carries damaged|is not an ONNX)"):
            Predictor.load(path)


def test_a_file_of_before_digests_is_opened(tmp_path):
    path = write_model(tmp_path / "student.onnx")
    model = onnx.load(path)
    kept = {entry.key: entry.value for entry in model.metadata_props if entry.key != KEY}
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, kept | {"stillroom.format": "2"})
    onnx.save(model, path)
    assert Predictor.load(path).classes == TWO.classes


def test_predicting_imports_neither_torch_nor_pandas_nor_sklearn(tmp_path):
    rules = {"conformal": conformal(1.0, 1.0), "foreign": foreign_rule()}
    write_model(tmp_path / "student.onnx", **rules)
    Image.fromarray(flat(255)).save(tmp_path / "a.png")
    script = (
        "import sys\n"
        "import stillroom\n"
        "from stillroom.deployment.prediction_table import prediction_table\n"
        "from stillroom.deployment.predictor import Predictor\n"
        "import stillroom.deployment.edge_maps\n"
        "assert 'onnxruntime' not in sys.modules\n"
        f"predictions = Predictor.load({str(tmp_path)!r}).predict([{str(tmp_path / 'a.png')!r}])\n"
        "prediction_table(predictions)\n"
        "assert predictions[0].decision == ('bright',)\n"
        "print(*{'torch', 'pandas', 'sklearn', 'scipy', 'onnx', 'matplotlib', 'timm'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("\n", "")


def test_table_shows_the_decision_first_errors_as_they_are_and_synthetic_models_as_such():
    predictions = [
        Prediction(Path("[scan]1.png"), ("b",), {"a": 0.25, "b": 0.7, "c": 0.05}),
        Prediction(None, error="the file [is] empty"),
    ]
    console = Console(width=100, record=True, file=None, quiet=False, color_system=None)
    with console.capture() as capture:
        console.print(prediction_table(predictions, synthetic=True, top=2))
    lines = [line.rstrip() for line in capture.get().splitlines()]
    assert lines[1].split() == ["[scan]1.png", "b", "b", "70.0%", "█" * 21]
    assert lines[2].split() == ["a", "25.0%", "█" * 8]
    assert lines[3].split() == ["image", "2", "the", "file", "[is]", "empty"]
    assert "synthetic" in lines[4]


def test_a_predictor_is_sent_to_another_process_with_all_of_its_model(tmp_path):
    path = write_model(tmp_path / "student.onnx")
    images = [np.full((9, 9), grey, np.uint8) for grey in (3, 120, 240)]
    predictor = Predictor.load(path)
    expected = predictor.predict(images)
    sent = pickle.dumps(predictor)
    copied = copy.deepcopy(predictor)
    path.unlink()  # as on a machine that does not have it
    again = pickle.loads(pickle.dumps(pickle.loads(sent)))
    assert expected == again.predict(images) == copied.predict(images)
    assert again.metadata == predictor.metadata
    with pytest.raises(UsageError, match="not the file any more that was opened"):
        pickle.dumps(predictor)


def test_what_the_runtime_cannot_answer_is_one_line_and_what_is_no_number_is_set_aside(tmp_path):
    predictor = Predictor.load(write_model(tmp_path / "student.onnx"))
    images = [np.full((9, 9), grey, np.uint8) for grey in (3, 120, 240)]
    session = predictor._session

    class Odd:
        def __init__(self, change):
            self.change = change

        def run(self, names, given):
            return self.change(session.run(names, given))

    def fail(found):
        raise ValueError("Non-zero status code\nand pages of more")

    def spoil(found):
        found[0][1] = np.nan
        return found

    for change, said in (
        (fail, "cannot answer: Non-zero status code. Export"),
        (lambda f: [v[:, :1] for v in f], "of shape"),
    ):
        predictor._session = Odd(change)
        with pytest.raises(RunError, match=said) as caught:
            predictor.predict(images)
        assert "student.onnx" in str(caught.value)
        assert "\n" not in str(caught.value)
    predictor._session = Odd(spoil)
    good, spoilt, other = predictor.predict(images)
    assert spoilt.error == "the model's answer to it is not a finite number"
    assert good.error is other.error is None
    with pytest.raises(RunError, match="not finite"):
        predictor.logits(np.stack([predictor.prepare(np.zeros((9, 9), np.uint8))] * 2))
