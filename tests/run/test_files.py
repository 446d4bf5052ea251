"""How every file stands, for whoever looks after a run or a cache."""

import json
from hashlib import sha256

from stillroom.files.atomic import append_line, write_json
from stillroom.files.cache import publish, write_meta
from stillroom.files.digests import begin_ledger, signed
from stillroom.files.own_digest import seal_end
from stillroom.run.files import files_of_cache, files_of_run


def flip(path, byte=3):
    content = bytearray(path.read_bytes())
    content[byte] ^= 1
    path.write_bytes(content)


def states(found, root):
    return {one.path.relative_to(root).as_posix(): one.state for one in found}


def test_every_file_of_a_run(tmp_path):
    begin_ledger(tmp_path)
    for name in ("metrics.json", "manifest.json", "repeats/2/student/model.json"):
        write_json(tmp_path / name, {"name": name})
    append_line(tmp_path / "history.jsonl", signed({"epoch": 1}))
    for name in ("checkpoint-1.pt", "checkpoint-2.pt"):
        path = tmp_path / "checkpoints" / "student" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"state")
        seal_end(path)
    assert set(states(files_of_run(tmp_path), tmp_path).values()) == {"whole"}
    for name in ("metrics.json", "history.jsonl", "checkpoints/student/checkpoint-2.pt"):
        flip(tmp_path / name)
    (tmp_path / "manifest.json").unlink()
    (tmp_path / "notes.txt").write_text("mine")
    found = files_of_run(tmp_path)
    assert states(found, tmp_path) == {
        "checkpoints/student/checkpoint-1.pt": "whole",
        "checkpoints/student/checkpoint-2.pt": "damaged",
        "digests.jsonl": "whole",
        "history.jsonl": "damaged",
        "manifest.json": "missing",
        "metrics.json": "damaged",
        "notes.txt": "no digest",
        "repeats/2/student/model.json": "whole",
    }
    assert [one.path.name for one in found if one.remade] == ["checkpoint-1.pt", "checkpoint-2.pt"]


def test_a_run_of_before_digests_is_known_by_what_its_manifest_notes_at_the_end(tmp_path):
    for name in ("a.safetensors", "b.parquet", "c.onnx", "d.json", "e.parquet", "f.onnx"):
        (tmp_path / name).write_bytes(name.encode())
    known = {name: sha256(name.encode()).hexdigest() for name in ("a.safetensors", "b.parquet", "c.onnx", "f.onnx")}
    (tmp_path / "manifest.json").write_text(json.dumps({"sha256": known}))
    for name in ("b.parquet", "c.onnx"):  # the latter may have been exported again
        flip(tmp_path / name)
    assert states(files_of_run(tmp_path), tmp_path) == {
        "a.safetensors": "whole",
        "b.parquet": "damaged",
        "c.onnx": "no digest",
        "d.json": "no digest",
        "e.parquet": "no digest",
        "f.onnx": "whole",
        "manifest.json": "no digest",
    }


def test_every_file_of_a_real_run_is_whole(tiny_run):
    assert {one.path.name: one.state for one in files_of_run(tiny_run.path) if one.state != "whole"} == {}


def test_every_file_of_the_cache(tmp_path):
    assert files_of_cache(tmp_path / "nowhere") == []
    for name in ("banks/one", "banks/two", "stores/three"):
        publish(tmp_path / name, lambda folder: write_meta(folder, {"of": "it"}))
    flip(tmp_path / "banks/two/meta.json")
    (tmp_path / "stores/three/digests.json").unlink()
    publish(tmp_path / "stores/old", lambda folder: write_meta(folder, {"of": "it"}))
    (tmp_path / "stores/old/digests.json").unlink()
    (tmp_path / "stores/old/meta.json").write_text('{"of": "it"}')
    (tmp_path / "banks" / ".four.building").mkdir()
    assert states(files_of_cache(tmp_path), tmp_path) == {
        "banks/one/digests.json": "whole",
        "banks/one/meta.json": "whole",
        "banks/two/digests.json": "whole",
        "banks/two/meta.json": "damaged",
        "stores/old/meta.json": "no digest",
        "stores/three/digests.json": "missing",
        "stores/three/meta.json": "no digest",
    }
