"""Lines that history.jsonl lost are missed, by checkpoints and by networks that are done; what a kill leaves is not."""

import pytest

from stillroom import Settings, UsageError
from stillroom.files.digests import LEDGER
from stillroom.files.own_digest import seal_end
from stillroom.run.claims import cut_off, unlisted
from stillroom.run.epochs import lost_epochs, require_every_epoch
from stillroom.run.folder import Run


@pytest.fixture
def run(tmp_path):
    """Its student is done after two epochs, its control has trained two of several."""
    made = Run.create(tmp_path / "run", Settings("phantoms:9"))
    for role in ("student", "control"):
        for epoch in (1, 2):
            made.log({"role": role, "epoch": epoch})
            checkpoint(made, role, epoch)
    (made.path / "student").mkdir()
    (made.path / "student" / "model.json").touch()
    made.note(networks={"student": {"weights": "0", "epochs": 2}, "probe_of_student": {"weights": "0", "epochs": 0}})
    return made


def checkpoint(run, role, epoch):
    path = run.path / "checkpoints" / role / f"checkpoint-{epoch}.pt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"state")
    seal_end(path)


def cut(file, lines):
    content = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(content[:lines]))


@pytest.mark.parametrize(
    ("lines", "lost"),
    [
        (4, {}),
        (3, {"control": [2]}),
        (2, {"control": [1, 2]}),
        (1, {"control": [1, 2], "student": [2]}),
        (0, {"control": [1, 2], "student": [1, 2]}),
    ],
)
def test_lines_that_are_cut_off_are_missed(run, lines, lost):
    cut(run.path / "history.jsonl", lines)
    assert lost_epochs(run.path) == lost


def test_so_is_the_whole_file_also_of_a_repeat(run):
    require_every_epoch(run.path)
    part = run.part("repeats/2")
    part.log({"role": "student", "epoch": 1})
    checkpoint(part, "student", 1)
    require_every_epoch(run.path)
    (part.path / "history.jsonl").unlink()
    with pytest.raises(UsageError, match=r"repeats/2/history\.jsonl lacks epochs that were trained \(student 1\)"):
        require_every_epoch(run.path)
    (run.path / "history.jsonl").unlink()
    with pytest.raises(
        UsageError, match=r"student 1 to 2; control 1 to 2.* or `rm -r [^`]*checkpoints/student"
    ) as told:
        require_every_epoch(run.path)
    assert "\n" not in str(told.value)


def test_what_a_kill_leaves_is_no_loss(run):
    """A line without its checkpoint, half a line, and lines of a network that was put away to be trained again."""
    run.log({"role": "control", "epoch": 3})
    with (run.path / "history.jsonl").open("a") as file:
        file.write('{"role": "control", "ep')
    assert lost_epochs(run.path) == {}
    cut(run.path / "history.jsonl", 0)
    (run.path / "student" / "model.json").unlink()
    for path in (run.path / "checkpoints").rglob("*.pt"):
        path.unlink()
    assert lost_epochs(run.path) == {}


def test_a_run_of_before_digests_is_not_judged(run):
    (run.path / LEDGER).unlink()
    (run.path / "history.jsonl").unlink()
    assert lost_epochs(run.path) == {}


@pytest.mark.parametrize("noted", [[], {"student": 3}, {"student": {"epochs": "2"}}])
def test_a_manifest_that_was_edited_is_named(run, noted):
    run.note(networks=noted)
    with pytest.raises(UsageError, match=r"manifest\.json is damaged: `networks` should hold"):
        lost_epochs(run.path)


def test_a_list_of_digests_without_its_end_is_missed(run):
    for name in ("audit.json", "metrics.json", "notes.txt"):
        run_file = run.path / name
        run_file.write_text("{}")
    assert unlisted(run.path) == ["audit.json", "metrics.json", "student/model.json"]  # these were never in it
    for name in ("audit.json", "metrics.json", "student/model.json"):
        (run.path / name).unlink()
    assert unlisted(run.path) == []
    cut(run.path / LEDGER, 1)
    assert unlisted(run.path) == ["manifest.json"]
    assert cut_off(["a", "b"]) == "does not name a, b, which stand in the run: lines were cut off its end"
    (run.path / LEDGER).write_bytes(b"damaged\n" + (run.path / LEDGER).read_bytes())
    assert unlisted(run.path) == []  # which is told of already
