"""Does one flipped bit in a file of ours ever change an answer without a word?

    python proofs/flips.py [--count 240] [--seed 0] [--out runs/proofs/flips]

Every case flips one bit at a random place of one file, and opens it as a user would; ten times where that takes a moment.
What can be made again (a store, a bank, a teacher in the cache, a checkpoint) must be, with a line that says so, and the run
must end with the weights, figures and predictions of one that was left alone, bit for bit. Everything else must be refused in
a line that names the file, or, where people may edit it or little depends on it, be said in such a line. Exits with 1 where
one flip was not noticed, or the answer afterwards was another one.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from kills import FLAGS, draw_pictures, same
from recorded import carry_out, parser, workshop

from stillroom.after.foreign_images import evaluate_foreign
from stillroom.cli.app import main as command_line
from stillroom.deployment.predictor import Predictor
from stillroom.errors import StillroomError
from stillroom.files.frames import read_frame
from stillroom.models.saving import load_network
from stillroom.progress import remark
from stillroom.report.record import heat_maps, load
from stillroom.run.files import files_of_run
from stillroom.run.folder import Run
from stillroom.run.pipeline import resume
from stillroom.run.stages.uncertainty import read_density

Opener = Callable[[Path], object]
"""What opens a file, as somebody would."""


def on_a_device(file: Path) -> None:
    """An exported network that was copied to where nothing stands beside it."""
    with tempfile.TemporaryDirectory() as elsewhere:
        Predictor.load(shutil.copy(file, Path(elsewhere) / file.name))


def listed(file: Path) -> None:
    """By whoever looks after a run: its list of damaged files."""
    run = next(folder for folder in file.parents if (folder / "manifest.json").exists())
    damaged = [str(one.path) for one in files_of_run(run) if one.state == "damaged"]
    if damaged:
        raise StillroomError(f"{', '.join(damaged)} was changed or damaged.")


OPENED: dict[str, Opener] = {  # of a finished run: by whom
    "student.onnx": on_a_device,
    "student/model.safetensors": lambda file: load_network(file.parent),
    "student/model.json": lambda file: load_network(file.parent),
    "predictions.parquet": lambda file: Run.open(file.parent).predictions(),
    "images.parquet": read_frame,
    "metrics.json": lambda file: Run.open(file.parent).metrics,
    "manifest.json": lambda file: Run.open(file.parent).manifest,
    "audit.json": lambda file: Run.open(file.parent).audit,
    "settings.yaml": lambda file: Run.open(file.parent),
    "history.jsonl": lambda file: Run.open(file.parent).history(),
    "digests.jsonl": lambda file: Run.open(file.parent).manifest,
    "density.npz": read_density,
    "foreign_scores.npz": lambda file: evaluate_foreign(Run.open(file.parent), "nowhere", show_progress=False),
    "features.npz": lambda file: load(file.parent),
    "gallery.npz": lambda file: load(file.parent),
    "explanations/maps.npz": lambda file: heat_maps(load(file.parents[1])),
    "explanations/explanation.json": listed,
    "control/model.safetensors": listed,
    "report.html": listed,
    "MODEL_CARD.md": listed,
}
MOMENTS = 10
REMADE: dict[str, str] = {  # what is made again: where its files are
    "store": "cache/stores/*/*",
    "bank": "cache/banks/*/*",
    "cached teacher": "cache/teachers/*/*",
    "checkpoint": "stopped/checkpoints/student/*",
    "index of images": "cache/digests/*",
}
SILENT = {"index of images"}
"""A shortcut: what it says wrongly is not found, and the images are read."""


def flip(file: Path, rng: np.random.Generator) -> tuple[int, int]:
    """Flip one bit of a file; returns the number of its byte, and of the bit in it."""
    content = bytearray(file.read_bytes())
    place = int(rng.integers(len(content))), int(rng.integers(8))
    content[place[0]] ^= 1 << place[1]
    file.write_bytes(content)
    return place


def said_by(opener: Opener, file: Path) -> str:
    """What is said when the file is opened: the message of an error for people, and lines on standard error."""
    remark.cache_clear()  # what was said of an earlier case
    with contextlib.redirect_stderr(io.StringIO()) as lines, contextlib.redirect_stdout(io.StringIO()):
        try:
            opener(file)
        except StillroomError as error:
            return f"{lines.getvalue()}{error}"
    return lines.getvalue()


def unnoticed(said: str, file: Path) -> str:
    """What was wrong with what was said of a damaged file; empty where nothing was."""
    if not said.strip():
        return "opened without a word"
    named = any(file.name in line for line in said.splitlines())
    return "" if named else f"the file is not named: {said.splitlines()[0]}"


def prepare(work: Path) -> None:
    """A finished run, one that was stopped in its student's last epoch, and the cache that both filled."""
    draw_pictures(work / "pictures")
    distil(work / "alone")
    log = Run.log

    def stop(run: Run, line: dict) -> None:
        if (line["role"], line["epoch"]) == ("student", line["epochs"]):
            raise KeyboardInterrupt
        log(run, line)

    Run.log = stop  # type: ignore[method-assign]
    try:
        distil(work / "stopped")
    finally:
        Run.log = log  # type: ignore[method-assign]
    (work / "ready").touch()


def distil(out: Path) -> None:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit, KeyboardInterrupt):
        command_line(["distill", str(out.parent / "pictures"), *FLAGS, "--out", str(out)])


def use(work: Path, kind: str) -> Path:
    """The run that reads what was damaged: a new one takes the teacher from the cache, one that was stopped has its own."""
    if kind == "cached teacher":
        distil(work / "new")
        return work / "new"
    return resume(work / "stopped", show_progress=False).path


def main() -> None:
    given = parser(__doc__, name="flips", count=240).parse_args()
    work = workshop(given)
    # Not the user's cache; and under one name, for a run's settings and its data's place are compared.
    place, kept = work.with_name("place"), work.with_name(f"kept-{work.name}")
    os.environ["STILLROOM_CACHE"] = str(place / "cache")
    if not (kept / "ready").exists():
        for folder in (place, kept):
            shutil.rmtree(folder, ignore_errors=True)
        place.mkdir(parents=True)
        prepare(place)
        shutil.copytree(place, kept)
    kinds = [*OPENED, *REMADE]

    def case(rng: np.random.Generator, number: int) -> dict:
        kind = kinds[number % len(kinds)]
        if kind in OPENED:
            file = kept / "alone" / kind
            whole, bad = file.read_bytes(), []
            for _ in range(MOMENTS):
                try:
                    byte, bit = flip(file, rng)
                    if failed := unnoticed(said_by(OPENED[kind], file), file):
                        bad.append(f"byte {byte}, bit {bit}: {failed}")
                finally:
                    file.write_bytes(whole)
            return {"kind": kind, "file": kind, "flips": MOMENTS, "failed": bad}
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(kept, place)
        files = sorted(file for file in place.glob(REMADE[kind]) if file.stat().st_size)
        if kind == "checkpoint":  # the one before it is not read as long as the last one is whole
            files = [max(files, key=lambda path: int(path.stem.rpartition("-")[2]))]
        file = files[int(rng.integers(len(files)))]
        byte, bit = flip(file, rng)
        ended: list[Path] = []
        said = said_by(lambda _: ended.append(use(place, kind)), file)
        failed = "" if kind in SILENT else unnoticed(said, file)
        if not failed and not (ended and same(kept / "alone", ended[0])):
            failed = "another result"
        bad = [f"byte {byte}, bit {bit}: {failed}"] if failed else []
        return {"kind": kind, "file": str(file.relative_to(place)), "flips": 1, "failed": bad}

    done = []
    for line in carry_out(given, case):
        done.append(line)
        for failed in line["failed"]:
            print(f"case {line['case']}: {line['file']}, {failed}", flush=True)
        if len(done) % 50 == 0:
            print(f"{len(done)} cases", flush=True)
    for kind in kinds:
        flips, missed = counted([line for line in done if line["kind"] == kind])
        print(f"{kind}: {flips - missed} of {flips} noticed")
    flips, missed = counted(done)
    print(f"{flips} bits flipped, {flips - missed} noticed")
    sys.exit(bool(missed))


def counted(lines: list[dict]) -> tuple[int, int]:
    """How many bits were flipped, and how many of them were not noticed."""
    return sum(line["flips"] for line in lines), sum(len(line["failed"]) for line in lines)


if __name__ == "__main__":
    main()
