"""Teachers in the cache: what is damaged is thrown away, whatever it is, and the next run trains it again."""

import json

import pytest
import torch

from stillroom.distillation.tuned import keep, recall
from stillroom.files.digests import LIST
from stillroom.models.saving import load_network, save_network
from stillroom.models.zoo import create
from stillroom.progress import remark

HISTORY = [{"role": "teacher", "epoch": 1}]


@pytest.fixture
def cached(tmp_path, monkeypatch):
    """A function that puts a teacher into a cache of the test's own, and its folder."""
    monkeypatch.setenv("STILLROOM_CACHE", str(tmp_path / "cache"))
    network = save_network(create("test_resnet", classes=2, size=32, seed=0), tmp_path / "run" / "teacher")
    remark.cache_clear()

    def put():
        keep("name", network, HISTORY)
        return tmp_path / "cache" / "teachers" / "name"

    return put


def test_a_teacher_comes_back_as_it_was(cached, tmp_path, capsys):
    cached()
    assert recall("name", tmp_path / "again") == HISTORY
    assert recall("other", tmp_path / "other") is None
    first, second = (load_network(tmp_path / name).state_dict() for name in ("again", "run/teacher"))
    assert all(torch.equal(value, second[key]) for key, value in first.items())
    assert capsys.readouterr().err == ""


def test_what_it_logged_is_told_before_it_stands(cached, tmp_path):
    """So that a process that is killed in between has both or trains it again."""
    cached()
    told = []
    recall("name", tmp_path / "again", lambda history: told.append((history, (tmp_path / "again").exists())))
    assert told == [(HISTORY, False)]


@pytest.mark.parametrize("name", ["model.safetensors", "model.json", "history.json", "meta.json", LIST])
def test_one_flipped_bit_throws_it_away_and_the_next_is_kept(cached, tmp_path, capsys, name):
    folder = cached()
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 3] ^= 2
    (folder / name).write_bytes(content)
    assert recall("name", tmp_path / "again") is None
    assert not folder.exists()
    assert not (tmp_path / "again").exists()
    assert capsys.readouterr().err == (
        f"{folder / name} was changed or damaged after it was written: the teacher is thrown away and trained again.\n"
    )
    cached()
    assert recall("name", tmp_path / "again") == HISTORY


@pytest.mark.parametrize("damage", [None, "model.safetensors", "model.json", "history.json"])
def test_one_of_before_digests_is_known_by_its_weights(cached, tmp_path, damage):
    folder = cached()
    (folder / LIST).unlink()
    (folder / "meta.json").write_text('{"network": "name"}')
    if damage == "model.json":
        description = json.loads((folder / damage).read_text())
        (folder / damage).write_text(json.dumps(description | {"classes": 3}))
    elif damage:
        (folder / damage).write_bytes((folder / damage).read_bytes()[:-2])
    assert recall("name", tmp_path / "again") == (None if damage else HISTORY)
    assert folder.exists() == (damage is None)
