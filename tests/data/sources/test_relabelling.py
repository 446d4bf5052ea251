"""Classes joined, dropped and made positive, in every kind of source."""

import shutil
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from stillroom import DataSettings, UsageError, load_data
from stillroom.data.audit import audit_lines
from stillroom.data.findings import on_changes
from stillroom.data.load import open_source
from stillroom.data.sources.medmnist import medmnist_info
from stillroom.data.sources.relabelling import relabel, relabel_table
from stillroom.data.table import Change

KINDS = {"Ill": 3, "healthy": 4, "mild": 2, "unclear": 5}


@pytest.fixture
def folder(tmp_path):
    """Four class folders of as many pictures as `KINDS` says, one of the unclear ones with a mask."""
    rng = np.random.default_rng(0)
    root = tmp_path / "site"
    for name, count in KINDS.items():
        (root / name).mkdir(parents=True)
        for number in range(count):
            Image.fromarray(rng.integers(0, 256, (32, 32), dtype=np.uint8)).save(root / name / f"{number}.png")
    shutil.copy(root / "unclear" / "0.png", root / "unclear" / "0_mask.png")
    return root


@pytest.fixture
def sheet(folder):
    """The same as a table, with patients and splits."""
    lines = [
        f"{name}/{number}.png,{name},{name}{number},{'test' if number == 0 else 'train'}"
        for name, count in KINDS.items()
        for number in range(count)
    ]
    path = folder / "labels.csv"
    path.write_text("\n".join(["path,label,patient,split", *lines]))
    return path


def said(call):
    with pytest.raises(UsageError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def labels(table):
    return dict(zip(table.ids.tolist(), table.task.names(table.targets), strict=True))


WISHES = DataSettings(size=32, merge=("mild=Ill",), drop_class=("unclear",), positive="Ill")


@pytest.mark.parametrize("kind", ["folder", "sheet"])
def test_a_folder_and_a_table(kind, request):
    table = open_source(request.getfixturevalue(kind), WISHES)
    assert table.task.classes == ("healthy", "Ill")
    assert table.task.positive_class == "Ill"
    assert Counter(table.task.names(table.targets)) == {"healthy": 4, "Ill": 5}
    assert all((name == "healthy") == row.startswith("healthy/") for row, name in labels(table).items())
    assert table.changes == (Change("unclear", None, 5, 5), Change("mild", "Ill", 2))
    assert not table.has_masks  # the only one went with its image
    for row, place in zip(table.ids, table.rows, strict=True):
        assert table.reader.made_of(int(place))[0].as_posix().endswith(f"/{row}")


def test_columns_stay_with_their_rows(sheet):
    table = open_source(sheet, WISHES)
    for row, patient, split in zip(table.ids, table.patients, table.splits, strict=True):
        name, _, number = str(row).removesuffix(".png").partition("/")
        assert patient == name + number
        assert split == ("test" if number == "0" else "train")


def test_a_new_name_and_classes_in_the_order_given(folder):
    wishes = {"merge": ("mild=patient", "Ill=patient"), "drop_class": ("unclear",)}
    assert open_source(folder, DataSettings(**wishes)).task.classes == ("healthy", "patient")
    turned = open_source(folder, DataSettings(classes=("patient", "healthy"), **wishes))
    assert turned.task.classes == ("patient", "healthy")
    assert sum(turned.targets == 0) == 5
    assert open_source(folder, DataSettings(positive="healthy", **wishes)).task.classes == ("patient", "healthy")


def test_what_could_not_be_read_before_can_be_now(folder):
    """Names that differ only in case, and a class that only the test split has."""
    (folder / "unclear").rename(folder / "ill")
    assert "differ only in case" in said(lambda: open_source(folder, DataSettings()))
    assert open_source(folder, DataSettings(merge=("ill=Ill",))).task.classes == ("healthy", "Ill", "mild")
    for name in KINDS:
        if name != "unclear":
            shutil.copytree(folder / name, folder / "train" / name)
            shutil.move(folder / name, folder / "test" / name)
    shutil.move(folder / "ill", folder / "test" / "rare")
    assert "'rare' in its test split" in said(lambda: open_source(folder, DataSettings()))
    assert len(open_source(folder, DataSettings(drop_class=("rare",)))) == 18


def test_labels_are_taken_off_and_joined(tmp_path):
    cells = ["a;b", "b", "", "c;b;a", "c", "b;d"]
    (tmp_path / "many.csv").write_text("path,label\n" + "".join(f"{n}.png,{c}\n" for n, c in enumerate(cells)))
    for number in range(len(cells)):
        Image.fromarray(np.full((32, 32), number, np.uint8)).save(tmp_path / f"{number}.png")
    table = open_source(tmp_path / "many.csv", DataSettings(drop_class=("b",), merge=("c=a",)))
    assert table.task.classes == ("a", "d")
    assert labels(table) == {"0.png": "a", "2.png": "", "3.png": "a", "4.png": "a", "5.png": "d"}
    assert table.changes == (Change("b", None, 4, 1), Change("c", "a", 2))
    (finding,) = on_changes(open_source(tmp_path / "many.csv", DataSettings(drop_class=("b",))))
    assert finding.text == "Classes left out by --drop-class: b (4 images, of which 3 with other labels are kept)."
    refused = said(lambda: open_source(tmp_path / "many.csv", DataSettings(positive="a")))
    assert "several labels per image" in refused
    exclusive = DataSettings(task="multiclass", drop_class=("a;b", "c;b;a", "b;d"), merge=("c=b",))
    (tmp_path / "many.csv").write_text((tmp_path / "many.csv").read_text().replace("2.png,", "2.png,e"))
    assert open_source(tmp_path / "many.csv", exclusive).task.classes == ("b", "e")


def test_named_sets_keep_the_order_of_what_is_left():
    plain = open_source("phantoms:60", DataSettings())
    first, second, third, last = plain.task.classes
    table = open_source("phantoms:60", DataSettings(merge=(f"{last}={second}",), drop_class=(third,)))
    assert table.task.classes == (first, second)
    expected = {0: first, 1: second, 3: second}
    kept = [row for row, target in enumerate(plain.targets) if target != 2]
    assert table.ids.tolist() == plain.ids[kept].tolist()
    assert table.task.names(table.targets) == [expected[int(plain.targets[row])] for row in kept]
    assert table.patients.tolist() == plain.patients[kept].tolist()
    turned = open_source("phantoms:60", DataSettings(merge=(f"{last}={second}",), drop_class=(third,), positive=first))
    assert turned.task.classes == (second, first)
    assert (turned.targets == 1 - table.targets).all()


def test_medmnist_turned_around_and_thinned(tmp_path, monkeypatch):
    """A file in MedMNIST's form with a checksum of its own: the classes keep MedMNIST's numbers but for what was asked."""
    import hashlib

    arrays = {f"{split}_images": np.zeros((4, 28, 28), np.uint8) for split in ("train", "val", "test")}
    arrays |= {f"{split}_labels": np.array([[0], [1], [1], [0]], np.uint8) for split in ("train", "val", "test")}
    np.savez(tmp_path / "breastmnist.npz", **arrays)
    info = medmnist_info()["breastmnist"]
    digest = hashlib.md5((tmp_path / "breastmnist.npz").read_bytes()).hexdigest()
    monkeypatch.setitem(info, "MD5", digest)
    table = open_source("breastmnist", DataSettings(size=28, data_dir=tmp_path, positive="malignant"))
    assert table.task.classes == ("normal, benign", "malignant")
    assert table.targets.tolist() == [1, 0, 0, 1] * 3
    assert table.splits.tolist() == ["train"] * 4 + ["val"] * 4 + ["test"] * 4
    message = said(lambda: open_source("breastmnist", DataSettings(size=28, data_dir=tmp_path, drop_class=("malign",))))
    assert "Did you mean malignant" in message
    dropped = DataSettings(size=28, data_dir=tmp_path, drop_class=("malignant",))
    assert "only one class" in said(lambda: open_source("breastmnist", dropped))


def test_a_set_of_several_labels(make_table):
    from stillroom.task import MultiLabel

    images = [np.full((16, 16), number, np.uint8) for number in range(4)]
    targets = np.array([[1, 1, 0], [0, 1, 0], [0, 0, 0], [0, 1, 1]], np.uint8)
    table = make_table(images, targets=targets, task=MultiLabel(("a", "b", "c")))
    found = relabel_table(table, DataSettings(drop_class=("b",)))
    assert found.task == MultiLabel(("a", "c"))
    assert found.ids.tolist() == ["image0.png", "image2.png", "image3.png"]
    assert found.targets.tolist() == [[1, 0], [0, 0], [0, 1]]


def test_the_audit_says_how_many(folder):
    for number in range(20):  # enough to cut splits from
        shutil.copy(folder / "Ill" / "1.png", folder / "mild" / f"copy{number}.png")
        shutil.copy(folder / "healthy" / "1.png", folder / "healthy" / f"copy{number}.png")
    data = DataSettings(size=32, merge=("mild=Ill",), drop_class=("unclear",), group_duplicates=False)
    lines = audit_lines(load_data(folder, data, show_progress=False).audit)
    assert "Note: Classes left out by --drop-class: unclear (5 images)." in lines
    assert "Note: Classes that count as others by --merge: mild as Ill (22 images)." in lines


def test_nothing_asked_changes_nothing():
    rows = [["a"], [], ["b", "a"]]
    found = relabel(rows, DataSettings(), "It")
    assert found.labels == rows
    assert found.kept.tolist() == [0, 1, 2]
    assert found.changes == ()


def test_the_run_is_another_one(folder, tmp_path):
    def name(**wishes):
        data = DataSettings(size=32, **wishes)
        return load_data(folder, data, cache=tmp_path / "cache", show_progress=False).labelled_fingerprint

    two = {"merge": ("mild=Ill",), "drop_class": ("unclear",)}
    names = [name(), name(drop_class=("unclear",)), name(**two), name(**two, positive="healthy")]
    assert len(set(names)) == 4
    assert name(**two, positive="Ill") == name(**two)  # which it is already


@pytest.mark.parametrize(
    ("wishes", "words"),
    [
        ({"drop_class": ("uncler",)}, ["no class 'uncler', which drop_class names", "Did you mean unclear?"]),
        ({"merge": ("mlid=Ill",)}, ["no class 'mlid', which merge names", "Did you mean mild?"]),
        ({"drop_class": tuple(KINDS)}, ["no image left"]),
        (
            {"drop_class": ("Ill", "mild", "unclear")},
            ["only one class, 'healthy' once classes are joined and dropped"],
        ),
        ({"merge": ("Ill=x", "mild=x", "healthy=x", "unclear=x")}, ["only one class, 'x'"]),
        ({"positive": "Ill"}, ["has 4 classes", "only of two one is positive"]),
        ({"positive": "healty", "drop_class": ("mild", "unclear")}, ["no class 'healty'", "Did you mean healthy?"]),
        ({"classes": ("Ill", "healthy")}, ["'mild'", "--merge mild=NAME", "--drop-class"]),
    ],
)
def test_wishes_that_do_not_fit_the_source(folder, wishes, words):
    message = said(lambda: open_source(folder, DataSettings(**wishes)))
    assert all(word in message for word in words), message


def test_a_label_that_is_not_wanted_is_told_by_its_row(sheet):
    data = DataSettings(classes=("healthy", "Ill"), drop_class=("mild",))
    message = said(lambda: open_source(sheet, data))
    assert "row 11" in message
    assert "'unclear'" in message


@pytest.mark.parametrize(
    ("wishes", "words"),
    [
        ({"merge": ("mild",)}, "merge takes old=new, such as mild=ill, got 'mild'"),
        ({"merge": ("=ill",)}, "merge takes old=new"),
        ({"merge": ("a=b=c",)}, "merge takes old=new"),
        ({"merge": ("a=a",)}, "cannot be joined to itself"),
        ({"merge": ("a=b", "a=c")}, "both as 'b' and as 'c'"),
        ({"merge": ("a=b", "b=c")}, "make a chain: write a=c and b=c"),
        ({"merge": ("a=b",), "drop_class": ("a",)}, "contradict each other"),
        ({"merge": ("a=b",), "drop_class": ("b",)}, "contradict each other"),
        ({"positive": "a", "classes": ("a", "b")}, "contradict each other"),
        ({"positive": "c", "classes": ("a", "b", "c")}, "contradict each other"),
    ],
)
def test_wishes_that_contradict_themselves(wishes, words):
    assert words in said(lambda: DataSettings(**wishes))


def test_wishes_that_agree():
    DataSettings(positive="b", classes=("a", "b"))
    assert DataSettings(merge=("a=b", "a=b", "c=b")).merges == {"a": "b", "c": "b"}
