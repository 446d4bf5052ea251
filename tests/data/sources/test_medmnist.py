"""MedMNIST as published: its facts, splits, numbering and checksums; the real files where they are."""

from __future__ import annotations

import hashlib
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hub_server import FileServer

from stillroom.data.sources import medmnist as source
from stillroom.data.sources.medmnist import at_hand, medmnist_flags, medmnist_info, read_medmnist
from stillroom.errors import RunError, UsageError
from stillroom.files import download as downloading
from stillroom.settings.sections import DataSettings


@pytest.fixture
def forge(tmp_path, monkeypatch):
    """``forge(flag, resolution)`` writes a tiny file of that name whose checksum is taken for the published one."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("STILLROOM_DATA", raising=False)
    info = {flag: dict(facts) for flag, facts in medmnist_info().items()}
    monkeypatch.setattr(source, "medmnist_info", lambda: info)

    def write(flag, resolution=28, folder=tmp_path / "data"):
        rng = np.random.default_rng(0)
        facts, arrays = info[flag], {}
        shape = (resolution, resolution, 3)[: 2 if facts["n_channels"] == 1 else 3]
        multi = facts["task"] == "multi-label, binary-class"
        for split, n in (("train", 5), ("val", 2), ("test", 3)):
            arrays[f"{split}_images"] = rng.integers(0, 256, (n, *shape), dtype=np.uint8)
            columns = len(facts["label"]) if multi else 1
            arrays[f"{split}_labels"] = rng.integers(0, 2, (n, columns), dtype=np.uint8)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / (f"{flag}.npz" if resolution == 28 else f"{flag}_{resolution}.npz")
        np.savez_compressed(path, **arrays)
        facts["MD5" if resolution == 28 else f"MD5_{resolution}"] = hashlib.md5(path.read_bytes()).hexdigest()
        return path, arrays

    return write


@pytest.fixture
def publish(forge, monkeypatch):
    """``publish(flag, resolution)`` puts such a file on a server on loopback, and nowhere else; returns the server and
    the file's path there."""
    server = FileServer()
    monkeypatch.setattr(downloading, "PAUSES_S", (0.0, 0.0))

    def publish(flag, resolution):
        path, _ = forge(flag, resolution)
        server.files[f"/{path.name}"] = path.read_bytes()
        source.medmnist_info()[flag][f"url_{resolution}"] = f"{server.address}/{path.name}?download=1"
        path.unlink()
        return server, f"/{path.name}"

    yield publish
    server.stop()


def test_facts_are_those_of_the_package():
    import medmnist

    assert medmnist_info() == medmnist.INFO
    assert medmnist_flags() == [flag for flag in medmnist.INFO if not flag.endswith("3d")]
    assert len(medmnist_flags()) == 12


def test_facts_need_no_torch():
    program = (
        "import sys; from stillroom.data.sources.medmnist import medmnist_info; medmnist_info();"
        "assert 'torch' not in sys.modules and 'medmnist' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_table_and_pixels(forge, tmp_path):
    _, arrays = forge("dermamnist")
    table = read_medmnist("DermaMNIST", DataSettings(size=28, data_dir=tmp_path / "data"))
    assert (table.name, table.source) == ("dermamnist", "MedMNIST v2 DermaMNIST, 28 px")
    assert table.ids.tolist() == [f"train/{i}" for i in range(5)] + ["val/0", "val/1", "test/0", "test/1", "test/2"]
    assert table.splits.tolist() == ["train"] * 5 + ["val"] * 2 + ["test"] * 3
    for split in ("train", "val", "test"):
        rows = table.indices(split)
        np.testing.assert_array_equal(table.targets[rows], arrays[f"{split}_labels"][:, 0])
        pixels = np.stack([table.reader.read(int(row)) for row in table.rows[rows]])
        np.testing.assert_array_equal(pixels, arrays[f"{split}_images"])
    assert table.targets.dtype == np.int64
    assert table.reader.read_mask(0) is None
    assert len({table.reader.made_of(row) for row in range(10)}) == 10
    with pytest.raises(IndexError):
        table.reader.read(10)


def test_reader_pickles_light_and_loads_once_for_all_threads(forge, tmp_path, monkeypatch):
    _, arrays = forge("pathmnist")
    reader = read_medmnist("pathmnist", DataSettings(size=28, data_dir=tmp_path / "data")).reader
    loads = []
    real_load = np.load
    monkeypatch.setattr(np, "load", lambda path: loads.append(path) or real_load(path))
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(reader.read, range(5)))
    assert len(loads) == 1
    assert len(pickle.dumps(reader)) < 1000
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(reader)).read(9), arrays["test_images"][2])


@pytest.mark.parametrize(
    ("flag", "kind"),
    [
        ("pneumoniamnist", "binary"),
        ("bloodmnist", "multiclass"),
        ("retinamnist", "ordinal"),
        ("chestmnist", "multilabel"),
    ],
)
def test_task_is_the_published_one(forge, tmp_path, flag, kind):
    _, arrays = forge(flag)
    settings = DataSettings(size=28, data_dir=tmp_path / "data")
    table = read_medmnist(flag, settings)
    assert table.task.kind == kind
    labels = medmnist_info()[flag]["label"]
    assert list(table.task.classes) == [labels[str(k)] for k in range(len(labels))]
    if kind == "multilabel":
        np.testing.assert_array_equal(table.targets[:5], arrays["train_labels"])
        assert table.targets.dtype == np.uint8


def test_numbering_cannot_be_changed(forge, tmp_path):
    forge("breastmnist")
    folder = tmp_path / "data"
    same = DataSettings(size=28, data_dir=folder, classes=("malignant", "normal, benign"))
    assert read_medmnist("breastmnist", same).task.classes[1] == "normal, benign"
    with pytest.raises(UsageError, match=r"order are fixed.*malignant; normal, benign\. Leave `classes` out"):
        read_medmnist("breastmnist", DataSettings(data_dir=folder, classes=("normal, benign", "malignant")))


def test_task_must_fit(forge, tmp_path):
    forge("retinamnist")
    folder = tmp_path / "data"
    plain = read_medmnist("retinamnist", DataSettings(size=28, data_dir=folder, task="multiclass"))
    assert plain.task.kind == "multiclass"
    for flag, task in (("chestmnist", "multiclass"), ("pathmnist", "ordinal"), ("pathmnist", "multilabel")):
        with pytest.raises(UsageError, match=f"`task` {task} does not fit"):
            read_medmnist(flag, DataSettings(data_dir=folder, task=task))


@pytest.mark.parametrize(
    ("size", "resolution", "read"),
    [(28, None, 28), (32, None, 64), (64, None, 64), (224, None, 224), (384, None, 224), (64, 28, 28)],
)
def test_resolution(forge, tmp_path, size, resolution, read):
    forge("octmnist", read)
    table = read_medmnist("octmnist", DataSettings(size=size, resolution=resolution, data_dir=tmp_path / "data"))
    assert table.reader.read(0).shape == (read, read)
    assert table.source.endswith(f"{read} px")


def test_places_in_turn(forge, tmp_path, monkeypatch):
    places = [tmp_path / "shared" / "medmnist", tmp_path / "shared", tmp_path / "home" / ".medmnist"]
    monkeypatch.setenv("STILLROOM_DATA", str(tmp_path / "shared"))
    paths = [forge("octmnist", folder=place)[0] for place in places]
    for path in paths:
        assert read_medmnist("octmnist", DataSettings(size=28)).reader.path == path
        path.unlink()


def test_absent_file_is_downloaded(publish, tmp_path):
    server, _ = publish("octmnist", 64)
    assert len(read_medmnist("octmnist", DataSettings())) == 10
    assert (tmp_path / "home" / ".medmnist" / "octmnist_64.npz").is_file()
    read_medmnist("octmnist", DataSettings(data_dir=tmp_path / "new" / "place"))
    assert [path.name for path in (tmp_path / "new" / "place").iterdir()] == ["octmnist_64.npz"]
    assert len(server.requests) == 2
    read_medmnist("octmnist", DataSettings())
    assert len(server.requests) == 2


def test_a_cut_download_goes_on(publish, tmp_path):
    server, path = publish("octmnist", 64)
    half = len(server.files[path]) // 2
    server.cuts = [half, 0, 0]
    with pytest.raises(RunError) as caught:
        read_medmnist("octmnist", DataSettings())
    message = str(caught.value)
    assert "\n" not in message
    assert "was cut after" in message
    assert "the next try goes on from there. Try again. Or fetch it from http://127" in message
    # Half a set is no set.
    assert at_hand("octmnist", DataSettings()) == []
    server.requests.clear()
    assert len(read_medmnist("octmnist", DataSettings())) == 10
    assert [seen.range for seen in server.requests] == [f"bytes={half}-"]


def test_another_file_than_the_published_one_is_thrown_away(publish, tmp_path):
    server, path = publish("octmnist", 64)
    content = server.files[path]
    server.files[path] = content[:-1] + bytes([content[-1] ^ 1])
    with pytest.raises(
        RunError, match=r"downloading it failed: .*its md5 digest is not [0-9a-f]{32}\. It was thrown away"
    ):
        read_medmnist("octmnist", DataSettings())
    assert at_hand("octmnist", DataSettings()) == []
    server.files[path] = content
    assert len(read_medmnist("octmnist", DataSettings())) == 10


def test_no_network(forge, publish, tmp_path, monkeypatch):
    monkeypatch.setenv("STILLROOM_DATA", str(tmp_path / "shared"))
    server, _ = publish("octmnist", 64)
    server.stop()
    forge("octmnist", folder=tmp_path / "shared")
    with pytest.raises(UsageError) as caught:
        read_medmnist("octmnist", DataSettings(size=64))
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"octmnist_64.npz is not in {tmp_path}/shared/medmnist, {tmp_path}/shared, ")
    assert "octmnist_64.npz?download=1" in message
    assert "The 28 px file is there: --resolution 28 would upsample it." in message


def test_damaged_file(forge, tmp_path):
    path, _ = forge("octmnist")
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(UsageError, match=r"octmnist\.npz is damaged or another version"):
        read_medmnist("octmnist", DataSettings(size=28, data_dir=tmp_path / "data"))


@pytest.mark.parametrize("flag", ["pneumonia", "organmnist3d", "nope"])
def test_unknown_sets(flag):
    with pytest.raises(UsageError, match=f"'{flag}' is not a 2-D MedMNIST set.*There are: pathmnist"):
        read_medmnist(flag, DataSettings())


@pytest.mark.parametrize("flag", ["pneumoniamnist", "retinamnist", "breastmnist"])
def test_real_files_against_the_package(real_data, flag):
    """Row for row what medmnist's own class gives."""
    import medmnist

    folder = real_data("medmnist")
    table = read_medmnist(flag, DataSettings(size=28, data_dir=folder))
    for split in ("train", "val", "test"):
        theirs = getattr(medmnist, medmnist.INFO[flag]["python_class"])(split=split, root=str(folder))
        rows = table.indices(split)
        np.testing.assert_array_equal(table.targets[rows], theirs.labels[:, 0])
        np.testing.assert_array_equal(np.stack([table.reader.read(int(row)) for row in rows]), theirs.imgs)
