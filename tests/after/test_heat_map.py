"""Explaining single images with a finished run or an exported file."""

import json
import shutil
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from PIL import Image

from stillroom import UsageError
from stillroom.after.heat_map import METHODS, UNTESTED, explain, trust
from stillroom.data.geometry import on_original
from stillroom.deployment.edge_maps import edge_map
from stillroom.explanation.claims import FAITHFUL, VERDICTS
from stillroom.explanation.heat_maps import heat_maps
from stillroom.explanation.overlay import overlay
from stillroom.run.stages.export import export_student
from stillroom.settings.methods import BY_MASKS


@pytest.fixture
def pictures(tmp_path):
    """Grey and colour, oblong and small, none of the model's size."""
    rng = np.random.default_rng(0)
    shapes = {"wide.png": (41, 90), "tall.jpg": (77, 30, 3), "small.png": (9, 13)}
    for name, shape in shapes.items():
        (tmp_path / "scans").mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(tmp_path / "scans" / name)
    return tmp_path / "scans"


def explained(source, images, **settings):
    return explain(source, images, show_progress=False, **settings)


def test_picture_and_map_have_the_images_own_size(tiny_run, pictures, tmp_path):
    out = tmp_path / "out"
    found = explained(tiny_run.path, [pictures], out=out)
    assert [explanation.prediction.path.name for explanation in found] == ["small.png", "tall.jpg", "wide.png"]
    predictor = tiny_run.predictor()
    for explanation in found:
        prediction = explanation.prediction
        image = np.asarray(Image.open(prediction.path))
        heat, picture = np.load(explanation.array, allow_pickle=False), Image.open(explanation.picture)
        assert (heat.shape, heat.dtype) == (image.shape[:2], np.float32)
        assert 0 <= heat.min() <= heat.max() <= 1
        assert explanation.empty == (not heat.any())
        assert picture.size == (image.shape[1], image.shape[0])
        np.testing.assert_array_equal(np.asarray(picture), np.asarray(overlay(image, heat)))
        assert prediction == predictor.predict([prediction.path])[0]
        assert prediction.probabilities[explanation.of] == max(prediction.probabilities.values())
        assert explanation.picture.name == f"{prediction.path.stem}.{explanation.of}.png"
    assert len(list(out.iterdir())) == 6


def test_a_hot_pixel_darkens_no_picture(tiny_run, tmp_path):
    film = np.random.default_rng(0).integers(0, 256, (40, 40), dtype=np.uint16)
    for name, pixel in (("clean.png", 255), ("hot.png", 65535)):
        film[3, 3] = pixel
        Image.fromarray(film).save(tmp_path / name)
    clean, hot = explained(tiny_run.path, [tmp_path / "clean.png", tmp_path / "hot.png"], out=tmp_path / "out")
    assert (clean.prediction.note, hot.prediction.note[:7]) == (None, "1 pixel")
    np.testing.assert_array_equal(np.asarray(Image.open(hot.picture)), np.asarray(Image.open(clean.picture)))


@pytest.mark.parametrize("method", METHODS)
def test_the_map_is_the_students_laid_back_over_the_image(tiny_run, pictures, tmp_path, method):
    (found,) = explained(tiny_run.path, [pictures / "wide.png"], method=method, of="left", out=tmp_path / "out")
    predictor, student = tiny_run.predictor(), tiny_run.student()
    prepared = predictor.prepare(np.asarray(Image.open(pictures / "wide.png")))
    batch, layer = torch.from_numpy(prepared[None]), predictor.metadata.layer
    expected = heat_maps(student, batch, [0], method=method, layer=layer)[0].numpy()
    heat = np.load(found.array)
    assert heat.any()
    np.testing.assert_allclose(heat, on_original(expected, 41, 90, "pad").clip(0, 1), atol=2e-3)
    if method in BY_MASKS:
        np.testing.assert_allclose(edge_map(predictor, prepared, 0, method=method), expected, atol=1e-3)


def test_the_class_asked_for_is_the_one_explained(tiny_run, pictures, tmp_path):
    for name in ("left", "right"):
        (found,) = explained(tiny_run.path, [pictures / "wide.png"], of=name, out=tmp_path / name)
        assert found.of == name
        assert found.array == tmp_path / name / f"wide.{name}.npy"
        written = json.loads(json.dumps(found.to_dict()))
        assert written["class"] == name
        assert written["picture"].endswith(f"wide.{name}.png")
        assert written["probabilities"] == found.prediction.probabilities


def test_files_go_to_the_run_or_to_where_the_user_stands(own_run, pictures, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (first,) = explained(own_run.path, [pictures / "small.png"])
    assert first.picture.parent == own_run.path / "explanations"
    (second,) = explained(own_run.path / "student.onnx", [pictures / "small.png"])
    assert second.picture.parent.resolve() == tmp_path / "explanations"
    np.testing.assert_array_equal(np.load(first.array), np.load(second.array))


def test_images_of_one_name_do_not_overwrite_each_other(tiny_run, pictures, tmp_path):
    (tmp_path / "other").mkdir()
    for name in ("wide.png", "wide.bmp"):
        Image.new("L", (20, 10), 90).save(tmp_path / "other" / name)
    images = [pictures / "wide.png", tmp_path / "other"]
    for _ in range(2):  # another call writes over what the one before it left
        found = explained(tiny_run.path, images, of="left", out=tmp_path / "out")
        names = [explanation.array.name for explanation in found]
        assert names == ["wide.left.npy", "wide.left-2.npy", "wide.left-3.npy"]
        assert [np.load(explanation.array).shape for explanation in found] == [(41, 90), (10, 20), (10, 20)]
    assert len(list((tmp_path / "out").iterdir())) == 6


def test_names_that_no_file_can_have(tiny_run, tmp_path):
    Image.new("L", (20, 20), 90).save(tmp_path / "ä [b] 図.png")
    (found,) = explained(tiny_run.path, [tmp_path / "ä [b] 図.png"], of="left", out=tmp_path / "out")
    assert found.picture.name == "ä-b-図.left.png"


def test_what_cannot_be_read_stops_no_other(tiny_run, pictures, tmp_path):
    (pictures / "note.png").write_text("no image")
    deep = np.full((20, 20), 4000, np.uint16)
    Image.fromarray(deep).save(pictures / "deep.png")
    images = [pictures / "note.png", pictures / "wide.png", pictures / "deep.png", pictures / "gone.png"]
    found = explained(tiny_run.path, images, out=tmp_path / "out")
    assert [explanation.prediction.error is None for explanation in found] == [False, True, False, False]
    assert "no PNG" in found[0].prediction.error
    assert "values up to 4000" in found[2].prediction.error
    assert found[3].prediction.error == "the file does not exist"
    assert found[0].to_dict()["picture"] is found[0].to_dict()["class"] is None
    assert len(list((tmp_path / "out").iterdir())) == 2


def test_one_image_is_taken_for_a_list_of_one(tiny_run, pictures, tmp_path):
    (alone,) = explained(tiny_run.path, str(pictures / "wide.png"), out=tmp_path / "out")
    assert alone == explained(tiny_run.path, [pictures / "wide.png"], out=tmp_path / "out")[0]
    assert len(explained(tiny_run.path, pictures, out=tmp_path / "out")) == 3


def test_wrong_use_is_refused_before_anything_is_written(tiny_run, pictures, tmp_path):
    out = tmp_path / "out"

    def refused(words, *arguments, **settings):
        with pytest.raises(UsageError, match=words):
            explained(*arguments, out=out, **settings)
        assert not out.exists()

    run, image = tiny_run.path, [pictures / "wide.png"]
    refused("There is no model at", tmp_path / "nowhere", image)
    refused(r"holds no student\.onnx", pictures, image)
    refused("is not an ONNX model", pictures / "wide.png", image)
    refused(r"no class 'rihgt'\. Did you mean right\? Classes: left, right", run, image, of="rihgt")
    refused(r"no heat map 'grad-cam'\. Did you mean grad_cam", run, image, method="grad-cam")
    (tmp_path / "bare").mkdir()
    refused("no image in the folder", run, [tmp_path / "bare"])
    for method in ("grad_cam", "grad_cam_pp", "eigen_cam"):
        refused(
            f"{method} needs .* name the run's folder, .* or use rise or score_cam",
            run / "student.onnx",
            image,
            method=method,
        )


def test_a_model_without_a_map_says_so(own_run, pictures, tmp_path, reseal):
    model = onnx.load(own_run.path / "student.onnx")
    for entry in model.metadata_props:
        entry.value = "null" if entry.key == "stillroom.layer" else entry.value
    reseal(model, own_run.path / "student.onnx")
    with pytest.raises(UsageError, match="has no feature map of more than one place"):
        explained(own_run.path, [pictures / "wide.png"], method="score_cam", out=tmp_path / "out")
    assert explained(own_run.path, [pictures / "wide.png"], out=tmp_path / "out")[0].picture.exists()  # RISE needs none


def test_a_foreign_image_is_explained_and_called_foreign(tiny_run, tmp_path):
    Image.fromarray(np.indices((64, 64)).sum(axis=0).astype(np.uint8) % 2 * 255).save(tmp_path / "odd.png")
    (found,) = explained(tiny_run.path, [tmp_path / "odd.png"], out=tmp_path / "out")
    assert found.prediction.foreign
    assert found.to_dict()["answer"] == "not this kind of image"
    assert found.picture.exists()


def test_trust_repeats_what_was_tested_and_says_where_nothing_was(tiny_run, monkeypatch):
    predictor, figures = tiny_run.predictor(), tiny_run.metrics["explanation"]
    statement = f"{figures['statement']['student']} {figures['faithfulness']['student']['reasons'][0]}"
    verdict = tiny_run.metrics["explanation"]["faithfulness"]["student"]["verdict"]
    assert trust(predictor, "rise") == (verdict, statement)
    other = trust(predictor, "eigen_cam")
    assert other[0] is None
    assert other[1] == f"Maps by eigen_cam were not tested. Of those by rise, which were: {statement}"
    for untested in (None, {"faithful": None, "statement": "", "method": "rise"}):
        monkeypatch.setattr(predictor, "metadata", replace(predictor.metadata, explanation=untested))
        assert trust(predictor, "rise") == (None, UNTESTED)


def test_trust_ends_where_the_test_of_faithfulness_ended(tiny_run, picture_folder, tmp_path, monkeypatch):
    """Tested were maps of the class decided for, where that is positive, of images of the model's kind."""
    predictor, image = tiny_run.predictor(), picture_folder / "left" / "000.png"
    Image.fromarray(np.indices((64, 64)).sum(axis=0).astype(np.uint8) % 2 * 255).save(tmp_path / "odd.png")
    odd = explained(tiny_run.path, [tmp_path / "odd.png"], out=tmp_path / "out")[0]
    pair = {name: explained(tiny_run.path, [image], of=name, out=tmp_path / "out")[0] for name in ("left", "right")}
    assert odd.prediction.foreign
    own = pair["left"].prediction
    assert not own.foreign
    positive, negative = (
        replace(own, decision=(decided,), probabilities=dict(zip(pair, values, strict=True)))
        for decided, values in (("right", (0.1, 0.9)), ("left", (0.9, 0.1)))
    )
    healthy = replace(pair["left"], prediction=negative)
    pair = {name: replace(explanation, prediction=positive) for name, explanation in pair.items()}
    decided, other = "right", "left"
    gone = explained(tiny_run.path, [tmp_path / "gone.png"], out=tmp_path / "out")[0]

    tested = dict(predictor.metadata.explanation)
    yes, no, unclear = ({**tested, "verdict": verdict, "statement": "Tested."} for verdict in VERDICTS)
    monkeypatch.setattr(predictor, "metadata", replace(predictor.metadata, explanation=yes))
    assert trust(predictor, tested["method"]) == (FAITHFUL, "Tested.")
    assert trust(predictor, tested["method"], pair[decided]) == (FAITHFUL, "Tested.")
    assert trust(predictor, tested["method"], gone) == (FAITHFUL, "Tested.")
    assert trust(predictor, tested["method"], odd) == (None, "Maps of images of another kind were not tested.")
    assert trust(predictor, tested["method"], pair[other]) == (
        None,
        "Maps of classes that the model does not decide for were not tested.",
    )
    assert trust(predictor, tested["method"], healthy) == (
        None,
        "Maps of negative answers were not tested: that nothing is there has no place.",
    )
    # What is not faithful on the model's own images is not to be trusted on others.
    for told, verdict in ((no, VERDICTS[1]), (unclear, VERDICTS[2])):
        monkeypatch.setattr(predictor, "metadata", replace(predictor.metadata, explanation=told))
        for explanation in (None, pair[decided], pair[other], odd, gone, healthy):
            assert trust(predictor, tested["method"], explanation) == (verdict, "Tested.")
    # A file of before there were three verdicts judged all answers.
    old = {name: value for name, value in tested.items() if name != "verdict"} | {"faithful": True, "statement": "Old."}
    monkeypatch.setattr(predictor, "metadata", replace(predictor.metadata, explanation=old))
    assert trust(predictor, tested["method"], healthy) == (FAITHFUL, "Old.")


def test_files_are_named_after_a_method_that_is_not_the_default(tiny_run, pictures, tmp_path):
    image = [pictures / "wide.png"]
    names = {
        method: explained(tiny_run.path, image, method=method, of="left", out=tmp_path / "out")[0].picture.name
        for method in (None, "rise", "eigen_cam")
    }
    assert names == {None: "wide.left.png", "rise": "wide.left.png", "eigen_cam": "wide.left.eigen_cam.png"}


@pytest.mark.parametrize("tested", ["score_cam_fast", "eigen_cam"])
def test_the_method_that_was_tested_is_the_one_that_is_drawn(own_run, pictures, tmp_path, reseal, tested):
    model, image = onnx.load(own_run.path / "student.onnx"), [pictures / "wide.png"]
    for entry in model.metadata_props:
        if entry.key == "stillroom.explanation":
            entry.value = json.dumps(json.loads(entry.value) | {"method": tested})
    reseal(model, own_run.path / "student.onnx")

    def drawn(source, **settings):
        (found,) = explained(source, image, of="left", out=tmp_path / "out", **settings)
        return np.load(found.array)

    np.testing.assert_array_equal(drawn(own_run.path), drawn(own_run.path, method=tested))
    file = own_run.path / "student.onnx"
    at_the_edge = "rise" if tested == "eigen_cam" else tested
    np.testing.assert_array_equal(drawn(file), drawn(file, method=at_the_edge))


def test_an_old_run_is_explained_once_it_is_exported_anew(old_run, pictures, tmp_path):
    run = old_run
    with pytest.raises(UsageError, match="has format 1, this Stillroom reads format 3: export"):
        explained(run.path, [pictures / "wide.png"], out=tmp_path / "out")
    _, parity = export_student(run)
    assert parity["passed"]
    (found,) = explained(run.path, [pictures / "wide.png"], out=tmp_path / "out")
    assert (found.prediction.foreign, found.prediction.possible) == (None, None)
    assert found.picture.exists()
    assert trust(run.predictor(), "rise") == (None, UNTESTED)


def test_nothing_of_another_call_is_overwritten_but_what_was_made_of_the_same(tiny_run, pictures, tmp_path):
    (tmp_path / "other").mkdir()
    shutil.copy(pictures / "wide.png", tmp_path / "other")  # the very same pixels, elsewhere
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "wide.left-2.png").write_text("a note of mine")
    places = [pictures / "wide.png", tmp_path / "other" / "wide.png"]
    for _ in range(2):
        found = [explained(tiny_run.path, [place], of="left", out=tmp_path / "out")[0].picture.name for place in places]
        assert found == ["wide.left.png", "wide.left-3.png"]
    (other,) = explained(tiny_run.path / "student.onnx", [places[0]], of="left", out=tmp_path / "out")
    assert other.picture.name == "wide.left-4.png"
    assert (tmp_path / "out" / "wide.left-2.png").read_text() == "a note of mine"
    long = shutil.copy(places[0], tmp_path / f"{'図' * 80}.png")
    (cut,) = explained(tiny_run.path, [long], of="left", out=tmp_path / "out")
    assert len(cut.picture.name.encode()) <= 255
