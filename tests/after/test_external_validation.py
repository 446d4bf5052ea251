"""A finished run tested on other images, through the exported file alone."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import accuracy_score, roc_auc_score

import stillroom
from stillroom import (
    Baseline,
    DataSettings,
    EvaluationSettings,
    Settings,
    StudentSettings,
    TrainingSettings,
    UsageError,
    ViewSettings,
)
from stillroom.cli.app import main
from stillroom.data.load import load_data, open_source
from stillroom.run.stages.export import export_student


@pytest.fixture(scope="module")
def run(tiny_run, tmp_path_factory):
    """A copy of the run, into which tests write."""
    return stillroom.Run.open(shutil.copytree(tiny_run.path, tmp_path_factory.mktemp("runs") / "first"))


@pytest.fixture
def pictures(picture_folder, tmp_path):
    return shutil.copytree(picture_folder, tmp_path / "other clinic")


def evaluate(run, source, **options):
    return stillroom.evaluate(run, source, show_progress=False, **options)


def chances(run, images):
    return np.array([answer.probabilities["right"] for answer in run.predictor().predict(images)])


def test_figures_are_those_of_the_predictor(run, pictures):
    found = evaluate(run, pictures)
    images = [pictures / side / f"{number:03d}.png" for side in ("left", "right") for number in range(60)]
    truth, chance = np.repeat([0, 1], 60), chances(run, images)
    figures = found["test"]["student"]
    assert figures["auc"]["value"] == pytest.approx(roc_auc_score(truth, chance), abs=1e-9)
    assert figures["accuracy"]["value"] == pytest.approx(accuracy_score(truth, chance > 0.5), abs=1e-9)
    assert figures["images"] == 120
    assert found["split"] == "all"
    assert found["quarantined"] == []
    (written,) = (run.path / "evaluations").glob("other-clinic-all-*.json")
    assert json.loads(written.read_text("utf-8")) == json.loads(json.dumps(found))


def test_a_file_alone_is_tested_as_the_run_is(own_run, pictures, capsys):
    """Without the run's folder: all the same but what only the run knows, and nothing is written."""
    expected = evaluate(own_run, pictures)
    file = own_run.path.parent / "alone" / "student.onnx"
    file.parent.mkdir()
    shutil.copy(own_run.path / "student.onnx", file)
    found = evaluate(file, pictures)
    assert list(file.parent.iterdir()) == [file]
    assert found["seen_in_training"] is None
    assert expected["seen_in_training"]["images"] > 0
    same = ("source", "location", "data", "split", "synthetic", "quarantined")
    assert {key: found[key] for key in same} == {key: expected[key] for key in same}
    both = [result["test"]["student"].items() for result in (found, expected)]
    values = [{name: part["value"] for name, part in one if isinstance(part, dict) and "value" in part} for one in both]
    assert len(values[0]) > 5
    assert values[0] == values[1]
    assert found["conformal"]["coverage"]["value"] == expected["conformal"]["coverage"]["value"]
    assert found["ood"]["refused"]["value"] == expected["ood"]["refused"]["value"]
    assert evaluate(own_run.path, pictures) == expected

    main(["evaluate", str(file), str(pictures), "--json"])
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(found))
    for more in (["--corruptions"], [str(pictures), "--foreign"], []):
        with pytest.raises(SystemExit) as stop:
            main(["evaluate", str(file), *more])
        assert stop.value.code == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_whether_sets_and_refusals_keep_their_promises_there(run, pictures):
    """Half of the pictures are inverted: they are foreign, and the sets need not hold their class."""
    for path in sorted(pictures.rglob("*.png"))[::2]:
        Image.fromarray(255 - np.asarray(Image.open(path))).save(path)
    found = evaluate(run, pictures)
    images = [pictures / side / f"{number:03d}.png" for side in ("left", "right") for number in range(60)]
    said, truth = run.predictor().predict(images), ["left"] * 60 + ["right"] * 60
    held = [name in answer.possible for name, answer in zip(truth, said, strict=True)]
    refused = [answer.foreign for answer in said]
    assert 0 < np.mean(refused) < 1
    assert found["conformal"]["coverage"]["value"] == pytest.approx(np.mean(held))
    assert found["conformal"]["mean_size"]["value"] == pytest.approx(np.mean([len(answer.possible) for answer in said]))
    assert found["ood"]["refused"]["value"] == pytest.approx(np.mean(refused))
    assert found["ood"]["refused"]["low"] <= np.mean(refused) <= found["ood"]["refused"]["high"]
    assert found["ood"]["wanted"] == run.settings.evaluation.refusals
    assert found["conformal"]["statement"]
    (point,) = found["operating_points"]["points"]
    raised = np.array([answer.probabilities["right"] for answer in said]) >= point["threshold"]
    assert point["figures"]["sensitivity"]["value"] == pytest.approx(raised[60:].mean())  # foreign ones count too
    assert point["figures"]["flagged"]["value"] == pytest.approx(raised.mean())
    assert [answer.flagged for answer in said] == [
        {} if gone else {"right at sensitivity 0.95": flag} for gone, flag in zip(refused, raised, strict=True)
    ]
    assert found["ood"]["statement"] != run.metrics["ood"]["statement"]


def test_a_model_without_rules_makes_no_promises(old_run, picture_folder):
    export_student(old_run)
    found = evaluate(old_run, picture_folder)
    assert found["conformal"] is found["ood"] is None


def test_classes_in_another_order_or_fewer_of_them(run, pictures):
    straight = evaluate(run, pictures)
    turned = evaluate(run, pictures, data=DataSettings(classes=("right", "left")))
    assert turned["test"] == straight["test"]


def test_unreadable_images_are_named(run, pictures):
    (pictures / "left" / "000.png").write_bytes(b"")
    (pictures / "right" / "059.png").write_bytes(b"no image")
    found = evaluate(run, pictures)
    assert [entry["path"] for entry in found["quarantined"]] == ["left/000.png", "right/059.png"]
    assert found["test"]["student"]["images"] == 118
    assert any(note.startswith("2 images could not be read") for note in found["notes"])
    for path in pictures.rglob("*.png"):
        path.write_bytes(b"")
    with pytest.raises(UsageError, match="None of the 120 images"):
        evaluate(run, pictures)


def test_splits_are_the_sources_own(run, pictures):
    for split, numbers in (("train", range(40)), ("test", range(40, 60))):
        for side in ("left", "right"):
            (pictures / split / side).mkdir(parents=True)
            for number in numbers:
                shutil.move(pictures / side / f"{number:03d}.png", pictures / split / side)
    shutil.rmtree(pictures / "left")
    shutil.rmtree(pictures / "right")
    counts = {
        split: evaluate(run, pictures, split=split)["test"]["student"]["images"] for split in ("auto", "train", "all")
    }
    assert counts == {"auto": 40, "train": 80, "all": 120}
    assert evaluate(run, pictures)["split"] == "test"
    with pytest.raises(UsageError, match=r"has no val split; it has test, train\. Give --split all"):
        evaluate(run, pictures, split="val")


def test_what_cannot_be_compared(run, picture_folder, tmp_path):
    with pytest.raises(UsageError, match="its images are in no split"):
        evaluate(run, picture_folder, split="test")
    with pytest.raises(UsageError, match=r"'normal', which the model does not know\. The model's classes: left, right"):
        evaluate(run, "phantoms:40")
    table = tmp_path / "labels.csv"
    table.write_text(f"path,label\n{picture_folder}/left/000.png,left\n{picture_folder}/left/001.png,left;right\n")
    with pytest.raises(UsageError, match=r"row 3.*'left;right' is not among the model's classes: left, right"):
        evaluate(run, table)
    with pytest.raises(UsageError, match="trained on binary labels, labels has multilabel ones"):
        evaluate(run, table, data=DataSettings(task="multilabel"))


def test_the_model_decides_which_medmnist_file_is_read(run, monkeypatch):
    asked = []

    def read(flag, settings):
        asked.append((flag, settings.size, settings.resolution))
        raise UsageError("enough")

    monkeypatch.setattr("stillroom.data.sources.medmnist.read_medmnist", read)
    with pytest.raises(UsageError, match="enough"):
        evaluate(run, "breastmnist")
    assert asked == [("breastmnist", 32, None)]


def test_other_sizes_shapes_and_colours_are_made_to_fit(run, tmp_path):
    rng = np.random.default_rng(0)
    for side in ("left", "right"):
        (tmp_path / side).mkdir()
        Image.fromarray(rng.integers(0, 256, (50, 90, 3), np.uint8)).save(tmp_path / side / "colour.png")
        Image.fromarray(rng.integers(0, 255, (20, 20), np.uint8)).save(tmp_path / side / "small.jpg")
    assert evaluate(run, tmp_path)["test"]["student"]["images"] == 4


def test_images_that_the_run_was_trained_on_are_counted(run, picture_folder, tmp_path):
    frame = run.predictions()
    learnt = frame[frame["split"] != "test"]
    own = evaluate(run, picture_folder)
    assert own["seen_in_training"] == {"images": len(learnt), "of": 120}
    assert own["notes"][0].startswith(f"{len(learnt)} of 120 images were in the run's training or validation split")

    held_out = list(frame.loc[frame["split"] == "test", "id"])
    for name in [*held_out, *learnt["id"][:3]]:  # in other names, colours and formats
        image = Image.open(picture_folder / name).convert("RGB")
        target = tmp_path / "site" / name.replace("/", "/another ")
        target.parent.mkdir(parents=True, exist_ok=True)
        image.save(target.with_suffix(".bmp"))
    mixed = evaluate(run, tmp_path / "site")
    assert mixed["seen_in_training"] == {"images": 3, "of": len(held_out) + 3}

    for name in learnt["id"][:3]:
        (tmp_path / "site" / name.replace("/", "/another ")).with_suffix(".bmp").unlink()
    clean = evaluate(run, tmp_path / "site")
    assert clean["seen_in_training"]["images"] == 0
    assert not any("flatter" in note for note in clean["notes"])


def test_a_run_without_digests_says_so(run, pictures, monkeypatch):
    frame = run.predictions().drop(columns="digest")
    monkeypatch.setattr(type(run), "predictions", lambda self: frame)
    found = evaluate(run, pictures)
    assert found["seen_in_training"] is None
    assert "is not known" in found["notes"][0]


def test_a_site_with_one_class_only(run, pictures, tmp_path):
    shutil.rmtree(pictures / "right")
    found = evaluate(run, pictures)
    assert found["test"]["student"]["images"] == 60
    assert found["test"]["student"]["auc"]["value"] is None
    assert any("right" in note for note in found["notes"])
    table = tmp_path / "labels.csv"
    lines = [f"{path},left" for path in sorted((pictures / "left").iterdir())]
    table.write_text("\n".join(["filename,dx", *lines, "lost.png,left"]))
    again = evaluate(run, table)
    assert again["test"]["student"]["accuracy"] == found["test"]["student"]["accuracy"]
    assert any("'dx' holds the label" in note for note in again["notes"])  # how a table was read is told here too
    assert any("1 of 61 files in the column 'filename' do not exist" in note for note in again["notes"])
    for path in sorted((pictures / "left").iterdir()):  # sorted by patient below the class
        (pictures / "left" / f"p{path.stem}").mkdir()
        shutil.move(path, pictures / "left" / f"p{path.stem}")
    assert evaluate(run, pictures)["test"]["student"]["images"] == 60
    with pytest.raises(UsageError, match="no image of 'right'"):
        load_data(pictures, replace(run.settings.data, classes=("left", "right")), show_progress=False)


def test_a_split_that_could_not_be_trained_on(run, pictures):
    for split, side in (("train", "left"), ("test", "right")):
        (pictures / split).mkdir()
        shutil.move(pictures / side, pictures / split)
    shutil.rmtree(pictures / "left", ignore_errors=True)
    assert evaluate(run, pictures, split="all")["test"]["student"]["images"] == 120
    with pytest.raises(UsageError, match="not among its training images"):
        load_data(pictures, run.settings.data, show_progress=False)


def test_a_class_that_the_model_does_not_know(run, pictures):
    (pictures / "left").rename(pictures / "both")
    with pytest.raises(UsageError, match="'both', which is not among the model's classes: left, right"):
        evaluate(run, pictures)


def test_labels_are_read_as_the_model_has_them(tmp_path, picture_folder):
    """No row of the second table has two labels, and one has none: the model alone tells that it is multi-label."""
    paths = [picture_folder / side / f"{number:03d}.png" for side in ("left", "right") for number in range(30)]
    labels = ["a", "b", "a;b", ""] * 15
    both, single = tmp_path / "both.csv", tmp_path / "single.csv"
    both.write_text("path,label\n" + "".join(f"{path},{label}\n" for path, label in zip(paths, labels, strict=True)))
    single.write_text(f"path,label\n{paths[0]},b\n{paths[1]},b\n{paths[2]},\n")
    settings = Settings(
        str(both),
        recipe=Baseline(),
        data=DataSettings(size=32),
        views=ViewSettings(views=1),
        student=StudentSettings("test_resnet"),
        training=TrainingSettings(epochs=1, batch_size=16),
        evaluation=EvaluationSettings(resamples=100, latency=False, explain=0),
        device="cpu",
    )
    run = stillroom.distill(settings, tmp_path / "run", show_progress=False)
    found = evaluate(run, single)
    classes = found["test"]["student"]["per_class"]
    assert found["data"]["task"] == "multilabel"
    assert {name: figures["support"] for name, figures in classes.items()} == {"a": 0, "b": 2}


def test_images_brighter_than_the_models_white_are_named(run, pictures):
    Image.fromarray(np.full((32, 32), 3000, np.uint16)).save(pictures / "left" / "000.png")
    found = evaluate(run, pictures)
    (entry,) = found["quarantined"]
    assert entry["path"] == "left/000.png"
    assert "values up to 3000" in entry["reason"]
    assert found["test"]["student"]["images"] == 119


def test_images_with_a_handful_of_brighter_pixels_are_noted(run, pictures):
    image = np.full((32, 32), 100, np.uint16)
    image[0, 0] = 3000
    Image.fromarray(image).save(pictures / "left" / "000.png")
    found = evaluate(run, pictures)
    assert found["quarantined"] == []
    assert [note for note in found["notes"] if "shown as white" in note and "left/000.png" in note]


def test_sites_of_one_name_have_files_of_their_own(run, picture_folder, tmp_path):
    found = {}
    for site in ("h1", "h2"):
        shutil.copytree(picture_folder, tmp_path / site / "images")
        found[str(tmp_path / site / "images")] = evaluate(run, tmp_path / site / "images")
    evaluate(run, tmp_path / "h1" / "images", data=DataSettings(classes=("right", "left")))
    written = [json.loads(path.read_text("utf-8")) for path in (run.path / "evaluations").glob("images-all-*.json")]
    assert len(written) == 3
    assert {entry["location"] for entry in written} == set(found)
    evaluate(run, tmp_path / "h1" / "images")
    assert len(list((run.path / "evaluations").glob("images-all-*.json"))) == 3


def test_classes_are_joined_and_dropped_to_the_models(run, pictures):
    """Another site has a third class, and calls one of the model's by two names."""
    shutil.copytree(pictures / "left", pictures / "blurred")
    (pictures / "leftish").mkdir()
    for number in range(20):
        shutil.move(pictures / "left" / f"{number:03d}.png", pictures / "leftish")
    with pytest.raises(UsageError, match=r"'blurred', .*--merge blurred=NAME, or leave it out by --drop-class"):
        evaluate(run, pictures)
    data = DataSettings(merge=("leftish=left",), drop_class=("blurred",), positive="left")
    found = evaluate(run, pictures, data=data)
    figures = found["test"]["student"]
    assert figures["images"] == 120
    assert figures["positive_class"] == "right"  # the model's own
    images = [pictures / side / f"{number:03d}.png" for side in ("left", "right") for number in range(60)]
    images[:20] = [pictures / "leftish" / path.name for path in images[:20]]
    assert figures["auc"]["value"] == pytest.approx(
        roc_auc_score(np.repeat([0, 1], 60), chances(run, images)), abs=1e-9
    )
    assert "Classes left out by --drop-class: blurred (60 images)." in found["notes"]
    assert "Classes that count as others by --merge: leftish as left (20 images)." in found["notes"]
    with pytest.raises(UsageError, match=r"no class 'blured', which drop_class names.*Did you mean blurred\?"):
        evaluate(run, pictures, data=replace(data, drop_class=("blured", "blurred")))
    with pytest.raises(UsageError, match=r"no class 'lift', which merge names"):
        evaluate(run, pictures, data=replace(data, merge=("leftish=left", "lift=left")))


def test_a_named_set_is_joined_to_the_models_classes(run):
    names = open_source("phantoms:40", DataSettings()).task.classes
    merge = (f"{names[0]}=left", *(f"{name}=right" for name in names[1:-1]))
    found = evaluate(run, "phantoms:40", data=DataSettings(merge=merge, drop_class=(names[-1],)))
    table = open_source("phantoms:40", DataSettings(), seed=run.settings.seed)
    supports = {name: found["test"]["student"]["per_class"][name]["support"] for name in ("left", "right")}
    assert supports == {"left": int((table.targets == 0).sum()), "right": int(np.isin(table.targets, (1, 2)).sum())}


def test_what_the_run_joined_and_dropped_is_so_elsewhere(run, pictures, monkeypatch):
    shutil.copytree(pictures / "left", pictures / "blurred")
    (pictures / "left").rename(pictures / "links")
    own = replace(
        run.settings, data=replace(run.settings.data, merge=("links=left", "gauche=left"), drop_class=("blurred",))
    )
    monkeypatch.setattr(run, "settings", own)
    found = evaluate(run, pictures)
    assert found["test"]["student"]["images"] == 120
    assert found["data"]["merge"] == ["links=left", "gauche=left"]
    assert "Classes left out by --drop-class: blurred (60 images)." in found["notes"]
    with pytest.raises(UsageError, match="'blurred', which is not among the model's classes"):
        evaluate(run, pictures, data=DataSettings(merge=("links=left",)))
