"""The page of a test with readers, made from a run: which images, in which halves, and what stays in the run."""

import base64
import io
import json
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from stillroom.after.reader_study import draw_sample, make_page, question_of
from stillroom.data.decoding import pixel_digest
from stillroom.errors import UsageError
from stillroom.task import MultiClass, MultiLabel


# -- the sample -----------------------------------------------------------------------------------------------------
def test_every_answer_gets_an_equal_share_as_far_as_it_has_images():
    truth = np.repeat([0, 1, 2], [50, 50, 4])
    rows, halves = draw_sample(truth, np.full(104, ""), 24, 3, seed=0)
    assert np.bincount(truth[rows]).tolist() == [10, 10, 4]
    assert len(set(rows.tolist())) == 24
    for kind in range(3):  # neither half tells the truth
        assert halves[truth[rows] == kind].mean() == 0.5
    again = draw_sample(truth, np.full(104, ""), 24, 3, seed=0)
    assert np.array_equal(rows, again[0])
    assert not np.array_equal(rows, draw_sample(truth, np.full(104, ""), 24, 3, seed=1)[0])


def test_the_order_of_the_page_tells_no_class():
    truth = np.repeat([0, 1], 500)
    orders = [truth[draw_sample(truth, np.full(1000, ""), 40, 2, seed)[0]] for seed in range(200)]
    assert np.abs(np.mean(orders, axis=0) - 0.5).max() < 0.15  # four standard deviations of 200 coins


def test_no_patient_is_shown_twice():
    truth, patients = np.tile([0, 1], 30), np.repeat([f"p{n}" for n in range(20)], 3)
    rows, _ = draw_sample(truth, patients, 16, 2, seed=3)
    assert len(set(patients[rows])) == 16
    with pytest.raises(UsageError, match="20 images of different patients, so 21 cannot be read: give --images 20"):
        draw_sample(truth, patients, 21, 2, seed=3)
    assert len(draw_sample(truth, np.full(60, ""), 60, 2, seed=3)[0]) == 60  # of unknown patients each stands alone


# -- the question ---------------------------------------------------------------------------------------------------
def test_what_readers_are_asked():
    binary, many = MultiClass(("normal", "sick")), MultiClass(("a", "b", "c"))
    labels = MultiLabel(("mass", "fluid"))
    assert (question_of(binary, None).options, question_of(binary, None).finding) == (("normal", "sick"), "sick")
    assert (question_of(binary, "normal").options, question_of(binary, "normal").finding) == (
        ("sick", "normal"),
        "normal",
    )
    assert (question_of(many, None).options, question_of(many, None).finding) == (("a", "b", "c"), None)
    assert question_of(many, "b").options == ("not b", "b")
    with pytest.raises(UsageError, match="--of which one"):
        question_of(labels, None)
    with pytest.raises(UsageError, match=r"no class 'mas'.* Did you mean mass"):
        question_of(labels, "mas")
    asked = question_of(labels, "fluid")
    assert asked.truth(labels, np.array([[1, 0], [0, 1]])).tolist() == [0, 1]
    assert asked.decided(labels, np.array([[0.9, 0.4], [0.1, 0.6]])).tolist() == [0, 1]
    assert asked.shares(labels, np.array([[0.9, 0.4]])).tolist() == [[0.6, 0.4]]
    assert question_of(many, "b").decided(many, np.array([[0.4, 0.35, 0.25], [0.1, 0.8, 0.1]])).tolist() == [0, 1]


# -- the page -------------------------------------------------------------------------------------------------------
def inside(made):
    text = made.page.read_text(encoding="utf-8")
    return text, json.loads(re.search(r'id="study">(.+?)</script>', text, re.DOTALL)[1])


def test_the_page_shows_the_runs_test_images_and_tells_no_truth(own_run, picture_folder):
    made = make_page(own_run, 12, show_progress=False)
    text, page = inside(made)
    frame = own_run.predictions().set_index("id")
    entries = made.content["images"]
    assert json.loads(made.manifest.read_text(encoding="utf-8")) == made.content
    assert made.page.parent.parent == own_run.path / "reader_study"
    assert set(frame.loc[[entry["id"] for entry in entries], "split"]) == {"test"}
    assert frame.loc[[entry["id"] for entry in entries], "target"].value_counts().tolist() == [6, 6]
    predictor = own_run.predictor()
    for entry, shown in zip(entries, page["images"], strict=True):
        picture = Image.open(io.BytesIO(base64.b64decode(shown["picture"].partition(",")[2])))
        assert not picture.info
        assert pixel_digest(np.asarray(picture)) == entry["digest"]
        (said,) = predictor.predict(picture_folder / entry["id"])
        assert entry["refused"] == said.foreign == (shown["help"] is None)
        if not said.foreign:
            assert shown["help"]["shares"] == pytest.approx(list(said.probabilities.values()), abs=1e-4)
            assert page["options"][shown["help"]["decided"]] == said.decision[0]
            assert (shown["help"]["map"] is not None) == bool(shown["help"]["decided"])  # nothing there has no place
        assert entry["id"] not in text
    assert {"image", "half", "width", "height", "picture", "help"} == set(page["images"][0])
    assert make_page(own_run, 12, show_progress=False).page.read_text(encoding="utf-8") == text
    assert make_page(own_run, 12, seed=1, show_progress=False).page != made.page


def test_large_images_are_made_smaller(own_run):
    made = make_page(own_run, 10, side=16, show_progress=False)
    _, page = inside(made)
    assert {(image["width"], image["height"]) for image in page["images"]} == {(16, 16)}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"images": 9}, "at least 10 images, got --images 9"),
        ({"images": 500}, "has 24 images, so 500 cannot be read: give --images 24"),
        ({"images": 12, "of": "middle"}, "no class 'middle'"),
        ({"images": 12, "side": 3}, "at least 16 pixels"),
        ({"images": 12, "source": "/nowhere"}, "not there any more. Name its new place by --source"),
    ],
)
def test_what_cannot_be_made_is_refused(own_run, changes, words):
    with pytest.raises(UsageError, match=words):
        make_page(own_run, show_progress=False, **changes)


def test_other_images_under_the_same_names_are_refused(own_run, picture_folder, tmp_path):
    import shutil

    moved = shutil.copytree(picture_folder, tmp_path / "moved")
    assert make_page(own_run, 24, source=moved, show_progress=False).content["images"]
    victim = make_page(own_run, 24, source=moved, show_progress=False).content["images"][0]["id"]
    Image.fromarray(np.zeros((32, 32), np.uint8)).save(moved / victim)
    with pytest.raises(UsageError, match=f"{victim} is another image by now"):
        make_page(own_run, 24, source=moved, show_progress=False)
    (moved / victim).write_bytes(b"no image")
    with pytest.raises(UsageError, match="cannot be read"):
        make_page(own_run, 24, source=moved, show_progress=False)


def test_a_page_needs_no_torch():
    code = "import sys, stillroom.after.reader_study, stillroom.after.reader_answers; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
