"""Does a run that is killed before or after any of its file operations end as if nothing had happened?

    python proofs/injected.py [--count 10000] [--seed 0] [--out runs/proofs/injected] [--kills 20]

One process is warmed up once; whatever runs or resumes is forked off it. A small run (teacher fine-tuned, student, control,
heat maps, export) is walked through once: before and after every operation that changes a file (open, write, fsync, rename,
remove, make and remove a folder, cut), run folder and cache are copied as they stand, which is what a kill at that moment
would leave; and once more with the file cut in half that was being written. Every different state is then gone on with as a
user would, by the same command where there is no run yet, else by resuming. In the end every file of run folder and cache
must be that of a run that was left alone: the same names, the same bytes, and nothing left over. Clocks stand still for that.
An epoch that was repeated counts once, how long a stage took is no result (a kill may come before it is noted), and where no
lock tells who is at work, in the cache's digests of files, a temporary file may stay for an hour.

First come as many runs as --kills says that are really killed (SIGKILL) at random moments, up to three times each. Exits with
1 where one case failed. --count N goes on with N of the states, in an order that the seed draws.
"""

from __future__ import annotations

import argparse
import builtins
import importlib
import io
import json
import os
import re
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from PIL import Image
from recorded import carry_out, parser, workshop

SIDE, IMAGES, PATIENCE_S = 16, 12, 300.0
_BY_CHANCE = re.compile(r"(?<=\.)(\d+(?=\.tmp)|[0-9a-f]{16}(?=\.building))")
_DURATION = re.compile(rb'<tr><th scope="row">[a-z ]+</th><td>0\.0 s</td></tr>\s*')
_MAY_STAY = re.compile(r"cache/digests/\..+\.tmp$")
_OPERATIONS = ("replace", "rename", "mkdir", "rmdir", "unlink", "remove", "fsync", "truncate", "ftruncate", "write")


def draw_pictures(folder: Path) -> None:
    """Two classes of 12 grey pictures: a bright bar to the left or to the right, in noise."""
    rng = np.random.default_rng(0)
    for label, where in (("left", slice(2, 6)), ("right", slice(10, 14))):
        (folder / label).mkdir(parents=True, exist_ok=True)
        for number in range(IMAGES):
            picture = rng.normal(90, 25, (SIDE, SIDE))
            picture[:, where] += 60
            Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(folder / label / f"{number:02d}.png")


class House:
    """Where the small run lives: always in the same place, so that no path differs.

    Args:
        work: the workshop of the proof.
    """

    def __init__(self, work: Path) -> None:
        self.pictures, self.here, self.alone, self.states = (work / name for name in ("p", "here", "alone", "states"))
        self.traced, self.list = work / "traced", work / "states.json"
        self.run = self.here / "runs" / "small"

    def go_on(self) -> None:
        """Begin the run, or resume it where it is there, as a user would."""
        from stillroom import (
            DataSettings,
            EvaluationSettings,
            MedAlmighty,
            Settings,
            StudentSettings,
            TeacherSettings,
            TrainingSettings,
            ViewSettings,
            distill,
            resume,
        )

        if (self.run / "manifest.json").exists():
            resume(self.run, show_progress=False)
            return
        settings = Settings(
            str(self.pictures),
            MedAlmighty(),
            DataSettings(size=32),
            ViewSettings(views=1),
            TeacherSettings("test_resnet", teacher_mode="finetune", pretrained=False, teacher_epochs=1),
            StudentSettings("test_resnet"),
            TrainingSettings(epochs=2, batch_size=8, lr=3e-3),
            EvaluationSettings(resamples=100, latency=False, explain=1, rivals=False),
            device="cpu",
        )
        distill(settings, self.run, show_progress=False)

    def put(self, state: Path | None) -> None:
        """Make the house what a kill left; None is before everything."""
        shutil.rmtree(self.here, ignore_errors=True)
        if state is None:
            self.here.mkdir()
        else:
            shutil.copytree(state, self.here)


# -- processes ------------------------------------------------------------------------------------------------------
def forked(work: Callable[[], object], kill_after: float | None = None) -> str:
    """Do ``work`` in a process of its own; what went wrong, or nothing. Killed after so many seconds if it takes longer."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            work()
        except BaseException:
            os.write(writing, traceback.format_exc()[-2000:].encode())
        os._exit(0)
    os.close(writing)
    started, limit = time.monotonic(), PATIENCE_S if kill_after is None else kill_after
    while os.waitpid(child, os.WNOHANG)[0] == 0:
        if time.monotonic() - started > limit:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            os.close(reading)
            return "stuck" if kill_after is None else "killed"
        time.sleep(0.002)
    said = os.read(reading, 1 << 16).decode()
    os.close(reading)
    return said


def warm_up(house: House) -> float:
    """Import what a run imports, learnt from one that is forked off; returns the seconds that it took once warm."""
    modules = house.traced.with_name("modules.txt")

    def first() -> None:
        house.go_on()
        modules.write_text("\n".join(sys.modules))

    os.environ["STILLROOM_CACHE"] = str(house.here / "cache")
    import torch

    torch.set_num_threads(1)
    importlib.import_module("stillroom.run.pipeline")
    stand_still()
    remember_traces(house.traced)
    house.put(None)
    if failed := forked(first):
        sys.exit(f"The run that is left alone fails: {failed}")
    for name in modules.read_text().split():
        with suppress(Exception):
            importlib.import_module(name)
    house.put(None)
    started = time.monotonic()
    if failed := forked(house.go_on):
        sys.exit(f"The run that is left alone fails: {failed}")
    return time.monotonic() - started


def stand_still() -> None:
    """Stop the clocks that write times into files, and leave out what takes time and changes nothing here.

    That is: drawings of the report, whose figures are compared themselves, and waiting for the disk, as no kill takes away
    what the system has been given.
    """
    from stillroom.report import curves, explanation, figures
    from stillroom.run import folder
    from stillroom.training import loop

    for module in (curves, explanation, figures):
        module.render = lambda name, label, *_: f"<svg>{label}</svg>"
    os.fsync = lambda handle: None

    folder._now = lambda: "2030-01-01T00:00:00+00:00"
    folder.time = SimpleNamespace(monotonic=lambda: 0.0)
    loop.time = SimpleNamespace(perf_counter=lambda: 0.0)


def remember_traces(folder: Path) -> None:
    """The export's tracing touches no file and takes most of a run's time: the same network is traced once."""
    import onnx

    from stillroom.deployment import onnx as exporter

    trace = exporter._trace
    folder.mkdir(exist_ok=True)

    def traced(network: Any, metadata: Any, layer: Any, density: Any) -> onnx.ModelProto:
        known = sha256(repr((metadata.temperature, metadata.size, metadata.channels, layer and layer.path)).encode())
        for name, tensor in network.state_dict().items():
            known.update(name.encode() + tensor.cpu().numpy().tobytes())
        for value in vars(density).values() if density else ():
            known.update(np.asarray(value).tobytes())
        file = folder / known.hexdigest()
        if not file.exists():
            file.write_bytes(trace(network, metadata, layer, density).SerializeToString(deterministic=True))
        return onnx.load_model_from_string(file.read_bytes())

    exporter._trace = traced


# -- the walk -------------------------------------------------------------------------------------------------------
@contextmanager
def watched(root: Path, at: Callable[[str, Path | None], None]) -> Iterator[None]:
    """Call ``at`` before and after every operation below ``root`` that may change a file.

    It is given what is done, and the file that was opened for writing last.
    """
    real, busy, opened = {name: getattr(os, name) for name in _OPERATIONS}, [False], [None]
    real_open, real_os_open = io.open, os.open

    def point(what: str) -> None:
        busy[0] = True
        try:
            at(what, opened[0])
        finally:
            busy[0] = False

    def inside(place: Any, within: int | None = None) -> bool:
        """Whether it is below the root; what is named by an open file or folder counts as well."""
        return isinstance(place, int) or within is not None or Path(place).absolute().is_relative_to(root)

    def around(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            if busy[0] or not inside(args[0], kwargs.get("dir_fd")):
                return call(*args, **kwargs)
            point(f"before {name}")
            result = call(*args, **kwargs)
            point(f"after {name}")
            return result

        return wrapped

    def writing(name: str, call: Callable[..., Any], writes: Callable[..., bool]) -> Callable[..., Any]:
        def wrapped(file: Any, *args: Any, **kwargs: Any) -> Any:
            if busy[0] or isinstance(file, int) or not inside(file) or not writes(*args, **kwargs):
                return call(file, *args, **kwargs)
            point(f"before {name}")
            result = call(file, *args, **kwargs)
            opened[0] = Path(file)
            point(f"after {name}")
            return result

        return wrapped

    def by_mode(mode: str = "r", *_: Any, **__: Any) -> bool:
        return any(letter in mode for letter in "wax+")

    def by_flags(flags: int, *_: Any, **__: Any) -> bool:
        return bool(flags & (os.O_WRONLY | os.O_RDWR))

    for name, call in real.items():
        setattr(os, name, around(name, call))
    io.open = builtins.open = writing("open", real_open, by_mode)
    os.open = writing("os.open", real_os_open, by_flags)
    try:
        yield
        point("after all")
    finally:
        for name, call in real.items():
            setattr(os, name, call)
        io.open = builtins.open = real_open
        os.open = real_os_open


def digest_of(folder: Path) -> str:
    """Of all names and contents, but for numbers of processes and what is drawn by chance in names."""
    parts = []
    for path in folder.rglob("*"):
        content = path.read_bytes() if path.is_file() and path.name != ".lock" else b""
        name = _BY_CHANCE.sub("*", str(path.relative_to(folder)))
        parts.append(f"{name} {path.is_dir()} {len(content)} ".encode() + content)
    return sha256(b"".join(sorted(parts))).hexdigest()


def walk(house: House) -> list[dict[str, Any]]:
    """Every point of the run with the state that a kill there leaves; each different state is kept once."""
    points: list[dict[str, Any]] = []
    lengths: dict[Path, int] = {}

    def keep(what: str) -> None:
        state = digest_of(house.here)
        if not (house.states / state).exists():
            shutil.copytree(house.here, house.states / state)
        points.append({"point": len(points), "what": what, "state": state})

    def at(what: str, written: Path | None) -> None:
        keep(what)
        if written is not None and written.is_file() and what.startswith("before"):
            whole, before = written.read_bytes(), lengths.get(written, 0)
            if len(whole) > before + 1:  # killed in the middle of writing
                times = written.stat()
                written.write_bytes(whole[: (before + len(whole)) // 2])
                keep(f"in the middle of writing {written.name}")
                written.write_bytes(whole)
                os.utime(written, ns=(times.st_atime_ns, times.st_mtime_ns))
                lengths[written] = len(whole)

    def walked() -> None:
        with watched(house.here, at):
            house.go_on()
        house.list.write_text(json.dumps(points))

    shutil.rmtree(house.states, ignore_errors=True)
    house.put(None)
    if failed := forked(walked):
        sys.exit(f"The walk failed: {failed}")
    return json.loads(house.list.read_text())


# -- the comparison -------------------------------------------------------------------------------------------------
def differs(one: Path, other: Path) -> str:
    """The first file of two houses that is not the same, and nothing where all are."""
    files = [
        {path.relative_to(root): path for path in root.rglob("*") if not _MAY_STAY.match(str(path.relative_to(root)))}
        for root in (one, other)
    ]
    if files[0].keys() != files[1].keys():
        return f"{sorted(map(str, files[0].keys() ^ files[1].keys()))[0]} is there or not there"
    for name, path in files[0].items():
        if path.is_file() and _content(path) != _content(files[1][name]):
            return f"{name} is another"
    return ""


def _content(path: Path) -> Any:
    from stillroom.files.digests import read_lines

    if path.name == "history.jsonl":
        return {(line["role"], line["epoch"]): line for line in read_lines(path).entries}
    if path.name == "digests.jsonl":  # a file that was written twice has two lines
        return {(line["file"], line["sha256"]) for line in read_lines(path).entries} and path.name
    if path.name == "manifest.json":
        return json.loads(path.read_bytes()) | {"durations_s": None}
    return _DURATION.sub(b"", path.read_bytes()) if path.name == "report.html" else path.read_bytes()


def unknown(run: Path) -> str:
    """The first file of the run that its ledger does not know as it is."""
    from stillroom.files.digests import ledger_states

    return next((f"{name}: {state}" for name, state in ledger_states(run) if state != "whole"), "")


def judged(house: House) -> str:
    failed = forked(house.go_on)
    return failed or differs(house.alone, house.here) or unknown(house.run)


def main() -> None:
    wanted = parser(__doc__, name="injected", count=10_000)
    wanted.add_argument("--kills", type=int, default=20, help="runs that are really killed; default 20")
    given = wanted.parse_args()
    work = workshop(given)
    work.mkdir(parents=True, exist_ok=True)
    house = House(work)
    draw_pictures(house.pictures)
    takes = warm_up(house)
    shutil.rmtree(house.alone, ignore_errors=True)
    house.here.rename(house.alone)
    points = json.loads(house.list.read_text()) if house.list.exists() else walk(house)
    states = list(dict.fromkeys(point["state"] for point in points))
    print(f"{len(points)} points of one run, {len(states)} different states; a run takes {takes:.1f} s", flush=True)
    drawn = np.random.default_rng(given.seed).permutation(len(states))[: given.count]

    def case(rng: np.random.Generator, number: int) -> dict[str, Any]:
        if number >= given.kills:
            state = states[drawn[number - given.kills]]
            told = {"what": next(point["what"] for point in points if point["state"] == state)}
            house.put(house.states / state)
        else:
            house.put(None)
            kills = []
            while len(kills) < 3 and (not kills or rng.random() < 0.5):
                after = float(rng.uniform(0, 0.9 * takes))
                if forked(house.go_on, kill_after=after) == "killed":
                    kills.append(round(after, 3))
                else:
                    break
            told = {"what": "killed at random", "kills": kills}
        return told | {"failed": judged(house)}

    failed, real = 0, 0
    every = argparse.Namespace(**vars(given) | {"count": len(drawn) + given.kills})
    for line in carry_out(every, case):
        failed += bool(line["failed"])
        real += len(line.get("kills", []))
        print(f"case {line['case']}: {line['what']}, {line['failed'] or 'the same'}", flush=True)
    print(
        f"{len(points)} points before and after file operations: {len(drawn)} of {len(states)} different states "
        f"were gone on with; {real} kills at random moments; {failed} ended differently"
    )
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
