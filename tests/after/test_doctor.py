"""What is well is called well, and every planted fault is found, named and answered by what to do."""

import errno
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from stillroom.after import installation as installed
from stillroom.after.doctor import Check, cache, examine, installation, run_folder, summary, weights_here
from stillroom.cli.app import main
from stillroom.errors import UsageError
from stillroom.files.cache import publish, write_meta
from stillroom.files.digests import record
from stillroom.progress import remark
from stillroom.run.folder import Run


def wrong(checks):
    return [check for check in checks if check.state == "wrong"]


def flip(path, place=-20):
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def forbid(monkeypatch, forbidden):
    """Permissions do not hold root back."""
    plain = Path.open

    def open_unless(path, *arguments, **options):
        if path == forbidden:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return plain(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", open_unless)


def test_an_installation_that_works_is_well():
    found = list(installation())
    assert not wrong(found)
    assert any("ONNX Runtime" in check.text and "answers" in check.text for check in found)


def test_what_is_missing_or_too_old_is_named(monkeypatch):
    monkeypatch.setattr(
        installed, "requires", lambda name: ["numpy>=99", "a-thing-of-nobody>=1", "ray>=2; extra == 'sweep'"]
    )
    found = [check.text for check in wrong(installation())]
    assert len(found) == 2  # what only an extra wants is not wanted here
    assert found[0].startswith("numpy is ")
    assert found[0].endswith("; >=99 is needed.")
    assert found[1] == "a-thing-of-nobody is not installed."


def test_what_cannot_be_loaded_is_named_with_the_reason(monkeypatch):
    monkeypatch.setattr(installed, "_PARTS", ("numpy", "no_such_module_of_ours"))
    (found,) = wrong(installation())
    assert "no_such_module_of_ours cannot be loaded: ModuleNotFoundError" in found.text
    assert "pip install" in found.advice


def test_a_runtime_that_computes_otherwise_is_wrong(monkeypatch):
    import onnxruntime

    class Odd:
        def __init__(self, *arguments, **settings):
            pass

        def run(self, names, inputs):
            return (inputs["x"],)

    monkeypatch.setattr(onnxruntime, "InferenceSession", Odd)
    (found,) = wrong(installation())
    assert "something else" in found.text


def test_a_damaged_entry_of_the_cache_is_named_and_heals_itself(tmp_path, monkeypatch):
    monkeypatch.setenv("STILLROOM_CACHE", str(tmp_path))

    def build(folder):
        (folder / "pixels.bin").write_bytes(bytes(100))
        write_meta(folder, {"n": 1})

    for name in "ab":
        publish(tmp_path / "stores" / name, build)
    assert [check.state for check in cache()] == ["well", "well"]
    flip(tmp_path / "stores" / "b" / "pixels.bin")
    (found,) = [check for check in cache() if "pixels.bin" in check.text]
    assert found.state == "note"
    assert found.text == "stores/b/pixels.bin is damaged."
    assert "built again" in found.advice


def test_a_cache_that_cannot_be_written_to(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("STILLROOM_CACHE", str(tmp_path / "file" / "cache"))
    (found,) = cache()
    assert found.state == "wrong"
    assert "STILLROOM_CACHE" in found.advice


def test_weights_are_read_through(tmp_path):
    save_file({"a": torch.ones(3, 4)}, tmp_path / "good.safetensors")
    save_file({"a": torch.ones(2), "b": torch.tensor([1.0, torch.nan])}, tmp_path / "holed.safetensors")
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "good.safetensors").read_bytes()[:-3])
    (tmp_path / "notes.txt").write_text("of no interest")
    found = {check.text.split("/")[-1].split()[0].strip(":"): check for check in weights_here(tmp_path)}
    assert found["good.safetensors"].state == "well"
    assert "1 tensors" in found["good.safetensors"].text
    assert found["holed.safetensors"].state == "wrong"
    assert found["holed.safetensors"].text.endswith("the first in b.")
    assert found["cut.safetensors"].state == "wrong"
    assert len([check for check in found.values() if check.text.startswith(str(tmp_path))]) == 3


def test_a_folder_without_weights_is_wrong(tmp_path):
    assert [check.text for check in wrong(weights_here(tmp_path))] == [f"{tmp_path} holds no file of weights."]
    with pytest.raises(UsageError, match="No weights at"):
        list(examine(weights=tmp_path / "nowhere"))


def test_a_finished_run_is_well_and_changes_nothing(own_run):
    before = {path: path.stat().st_mtime_ns for path in own_run.path.rglob("*")}
    found = list(run_folder(own_run.path))
    assert [check.state for check in found] == ["well", "well"], found
    assert before == {path: path.stat().st_mtime_ns for path in own_run.path.rglob("*")}


@pytest.mark.parametrize("name", ["student/model.safetensors", "predictions.parquet", "density.npz", "metrics.json"])
def test_a_flipped_bit_of_a_run_is_found_and_a_lost_file_missed(own_run, name):
    flip(own_run.path / name)
    (found,) = wrong(run_folder(own_run.path))
    assert found.text == f"{name} was changed or damaged after it was written."
    assert "distill --settings" in found.advice
    (own_run.path / name).unlink()
    (found,) = wrong(run_folder(own_run.path))
    assert found.text == f"{name} was written and is gone."


def test_an_exported_file_is_checked_alone(own_run, tmp_path):
    alone = tmp_path / "student.onnx"
    alone.write_bytes((own_run.path / "student.onnx").read_bytes())
    assert [check.state for check in run_folder(alone)] == ["well"]
    flip(alone, len(alone.read_bytes()) // 2)
    (found,) = wrong(run_folder(alone))
    assert "opy it again" in found.advice
    flip(own_run.path / "student.onnx", len(alone.read_bytes()) // 2)
    assert all("stillroom export" in check.advice for check in wrong(run_folder(own_run.path)))


@pytest.mark.parametrize("precision", ["int8", "fp16"])
def test_a_lighter_file_is_exported_again_or_done_without(own_run, tmp_path, precision):
    lighter, alone = own_run.path / f"student.{precision}.onnx", tmp_path / f"eyes.{precision}.onnx"
    lighter.write_bytes((own_run.path / "student.onnx").read_bytes())
    record(lighter)
    flip(lighter, lighter.stat().st_size // 2)
    (found,) = wrong(run_folder(own_run.path))
    command = f"`stillroom export {own_run.path} --{precision}`"
    assert found.advice == f"Export it again: {command}; or do without: `rm {lighter}`."
    alone.write_bytes(lighter.read_bytes())
    (told,) = wrong(run_folder(alone))
    assert f"export it again with `stillroom export RUN --{precision}`" in told.text
    lighter.unlink()
    (gone,) = [check for check in run_folder(own_run.path) if check.state != "well"]
    assert (gone.state, gone.text) == ("note", f"{lighter.name} was written and is gone.")
    assert command in gone.advice


@pytest.mark.parametrize("name", ["student.onnx", "predictions.parquet", "history.jsonl"])
def test_a_file_that_may_not_be_read_is_wrong_and_the_rest_is_looked_at(own_run, monkeypatch, name):
    forbid(monkeypatch, own_run.path / name)
    found = list(run_folder(own_run.path))
    assert wrong(found)[0].text == f"{name} cannot be read."
    assert "right to read" in wrong(found)[0].advice
    assert any("are as they were written" in check.text for check in found)
    if name == "student.onnx":
        (alone,) = wrong(run_folder(own_run.path / name))
        assert alone.text == f"{own_run.path / name} cannot be read: Permission denied."


def test_a_file_that_somebody_added_is_pointed_at(own_run):
    (own_run.path / "notes.txt").write_text("mine")
    (found,) = [check for check in run_folder(own_run.path) if check.state == "note"]
    assert found.text == "1 file was not written by this run: notes.txt."


def test_a_stopped_run_is_told_how_to_go_on(own_run):
    (own_run.path / "report.html").unlink()
    found = next(iter(run_folder(own_run.path)))
    assert found.state == "note"
    assert f"--resume {own_run.path}" in found.advice


@pytest.mark.parametrize("content", ["[]", "null", '{"created"', "[" * 100_000], ids=["list", "null", "cut", "deep"])
@pytest.mark.parametrize("name", ["manifest.json", "metrics.json", "audit.json"])
def test_what_cannot_be_read_is_one_line_and_the_rest_is_looked_at(own_run, name, content):
    (own_run.path / name).write_text(content)
    record(own_run.path / name)  # whoever wrote it meant it
    found = list(run_folder(own_run.path))
    (one,) = wrong(found)
    assert f"{name} is damaged: it " in one.text
    assert any("student.onnx opens and answers" in check.text for check in found)


def test_settings_that_cannot_be_read_stop_nothing(own_run):
    (own_run.path / "settings.yaml").write_bytes(b"\xff" + (own_run.path / "settings.yaml").read_bytes()[1:])
    (one,) = wrong(examine_run := list(run_folder(own_run.path)))
    assert one.text == "settings.yaml was changed or damaged after it was written."
    assert "manifest.json" in one.advice
    assert len(examine_run) == 3
    record(own_run.path / "settings.yaml")
    (one,) = wrong(run_folder(own_run.path))
    assert "settings.yaml" in one.text


@pytest.mark.parametrize("lose", [lambda path: path.unlink(), lambda path: path.write_text("")], ids=["gone", "empty"])
def test_a_lost_list_of_digests_is_wrong_and_said_when_the_run_is_opened(own_run, capsys, lose):
    lose(own_run.path / "digests.jsonl")
    (one,) = wrong(run_folder(own_run.path))
    assert one.text.startswith("digests.jsonl is gone or was emptied")
    remark.cache_clear()
    Run.open(own_run.path)
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert f"{own_run.path / 'digests.jsonl'} is gone or was emptied" in said


def test_a_run_of_before_digests_is_quiet(old_run, capsys):
    remark.cache_clear()
    Run.open(old_run.path)
    assert capsys.readouterr().err == ""
    assert any("before files had digests" in check.text for check in run_folder(old_run.path))
    flip(old_run.path / "student" / "model.safetensors")  # known by the manifest that it left at its end
    assert wrong(run_folder(old_run.path))[0].text == (
        "student/model.safetensors was changed or damaged after it was written."
    )


def test_of_an_unfinished_run_what_is_made_again_is_a_note_and_what_is_not_is_wrong(own_run):
    (own_run.path / "report.html").unlink()
    for name in ("audit.json", "student.onnx"):
        flip(own_run.path / name)
    found = list(run_folder(own_run.path))
    assert not wrong(found)
    assert sum("made again when the run goes on" in check.advice for check in found) == 2
    flip(own_run.path / "student" / "model.safetensors")
    (own_run.path / "images.parquet").unlink()
    found = list(run_folder(own_run.path))
    assert sum("made again when the run goes on" in check.advice for check in found) == 3
    assert [check.text for check in wrong(found)] == ["images.parquet was written and is gone."]
    (own_run.path / "images.parquet").touch()
    own_run.note(networks={})  # as of a run that noted none: going on refuses it
    _, second = wrong(run_folder(own_run.path))
    assert f"rm {own_run.path}/student/model.json" in second.advice


def test_lines_that_were_cut_off_the_end_of_lists_are_missed(own_run, capsys):
    for name, kept, said in (
        (
            "digests.jsonl",
            -1,
            "digests.jsonl does not name report.html, which stands in the run: lines were cut off its end",
        ),
        ("history.jsonl", 1, "history.jsonl lacks epochs that were trained (student 2 to 3; control 1 to 3)"),
        ("history.jsonl", 0, "history.jsonl lacks epochs that were trained (student 1 to 3; control 1 to 3)"),
    ):
        file = own_run.path / name
        whole = file.read_text()
        file.write_text("".join(whole.splitlines(keepends=True)[:kept]))
        (check,) = wrong(run_folder(own_run.path))
        assert said in check.text
        remark.cache_clear()
        Run.open(own_run.path)
        assert said in capsys.readouterr().err
        file.write_text(whole)
    (own_run.path / "history.jsonl").unlink()
    assert "lacks epochs" in wrong(run_folder(own_run.path))[0].text


def test_the_worst_state_stands_on_top():
    checks = [Check("a", "well", "x"), Check("a", "wrong", "y", "z"), Check("a", "note", "w")]
    assert summary(checks)["state"] == "wrong"
    assert summary(checks)["checks"][1] == {"part": "a", "state": "wrong", "text": "y", "advice": "z"}


def test_the_verb_exits_by_what_it_found(own_run, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("stillroom.after.doctor.installation", lambda: iter(()))
    main(["doctor", str(own_run.path), "--json"])
    assert json.loads(capsys.readouterr().out)["state"] != "wrong"
    flip(own_run.path / "student" / "model.safetensors")
    with pytest.raises(SystemExit) as stop:
        main(["doctor", str(own_run.path)])
    said = capsys.readouterr()
    assert stop.value.code == 1
    assert "model.safetensors was changed or damaged" in said.out
    assert said.err.count("\n") == 1
    assert "found something wrong" in said.err
    with pytest.raises(SystemExit) as stop:
        main(["doctor", str(tmp_path / "nothing")])
    assert stop.value.code == 2


def test_looking_at_the_command_line_loads_nothing_heavy():
    code = "import sys, stillroom.after.doctor; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
