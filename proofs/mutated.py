"""Does anything that a user might give ever end in more than one line, or in the wrong exit code?

    python proofs/mutated.py [--count 1000] [--seed 0] [--out runs/proofs/mutated]

Every case changes one thing: bytes or values of an image, a table, a settings file, a plan, a grid, a file of a finished
run (with its digests, or as one of before there were any), a file of weights or an ONNX file; or gives a flag an odd value.
Then the verb that reads it is called, in this process. The answer must come within two minutes: exit code 0, 1, 2 or 3, on
any but 0 one line on standard error that begins with `error: `, no traceback, nothing that Stillroom has no words for, and
no control character. Exits with 1 where one case failed.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

import numpy as np
import pandas as pd
import yaml
from kills import FLAGS, draw_pictures
from mutations import ODD, another, cell, damaged, drawn, graph, tensors
from PIL import Image
from recorded import carry_out, parser, workshop

from stillroom.cli.app import main as command_line
from stillroom.cli.app import make_app
from stillroom.errors import StillroomError

SECONDS = 120
Command = list[str] | Callable[[], object]
"""Arguments of the command line, or a call in the place of one, where reading a file is the beginning of a long job."""
Made = tuple[str, str, Command]
"""What was changed, how, and the command that reads it."""


def prepare(work: Path, run: Path | None = None) -> None:
    """What the cases are made of: pictures in several formats, tables, a plan, a grid, weights and a finished run.

    Args:
        work: the folder, which the cases leave as it is.
        run: a finished run on two classes to take a copy of. Default: one is made.
    """
    import timm
    import torch

    draw_pictures(work / "many")
    for label in ("left", "right"):
        (work / "set" / label).mkdir(parents=True)
        for number, suffix in enumerate(("png", "jpg", "tif", "bmp") * 3):
            with Image.open(work / "many" / label / f"{number:03d}.png") as picture:
                picture.save(work / "set" / label / f"{number:03d}.{suffix}")
    if run is None:
        distil = ("distill", "many", *FLAGS, "--out", "run")
        subprocess.run([sys.executable, "-m", "stillroom", *distil], cwd=work, check=True, capture_output=True)
    else:
        shutil.copytree(run, work / "run")
    grid = {"data": ["set"], "recipes": ["baseline"], "students": ["test_resnet"], "seeds": [0, 1]}
    (work / "grid.yaml").write_text(yaml.safe_dump(grid | {"settings": {"data": {"size": 32}}}), "utf-8")
    settings = yaml.safe_load((work / "run" / "settings.yaml").read_text("utf-8"))
    (work / "settings.yaml").write_text(yaml.safe_dump(settings | {"source": "set"}), "utf-8")
    choices = {"data.size": 32, "training.epochs": {"value": 3, "why": "it is few"}}
    plan = {"source": "set", "budget": {"minutes": 3}, "facts": {}, "expected_s": {"student": 3.0}, "choices": choices}
    (work / "plan.yaml").write_text(yaml.safe_dump(plan), "utf-8")
    torch.manual_seed(0)
    torch.save(timm.create_model("test_resnet", num_classes=2).state_dict(), work / "weights.pth")
    (work / "ready").touch()


def of_images(work: Path, rng: np.random.Generator) -> Made:
    source = drawn(sorted((work / "set").rglob("*.*")), rng)
    how, content = damaged(source.read_bytes(), rng)
    file = Path("set") / source.parent.name / source.name
    shutil.copytree(work / "set", "set")
    file.write_bytes(content)
    good = str(Path("set") / "left" / ("000.png" if source.name != "000.png" else "001.jpg"))
    run = str(work / "run")
    commands = [
        ["predict", run, str(file)],
        ["predict", run, good, str(file), "--json"],
        ["audit", "set", "--size", "32"],
    ]
    return source.suffix, how, drawn([*commands, ["explain", run, str(file), "--out", "maps"]], rng)


def of_tables(work: Path, rng: np.random.Generator) -> Made:
    paths = sorted((work / "set").rglob("*.*"))
    rows = [["path", "label", "patient", "split"]]
    rows += [
        [str(path), path.parent.name, f"p{n % 12}", ("train", "val", "test")[n % 3]] for n, path in enumerate(paths)
    ]
    suffix = str(drawn([".csv", ".tsv", ".parquet"], rng))
    file, how = Path(f"table{suffix}"), ""
    if bytewise := rng.random() < 0.4:
        changed = rows
    else:
        how, changed = cell(rows, rng)
    if suffix == ".parquet":
        width = max(map(len, changed))
        names = [*changed[0], *map(str, range(width))][:width]
        filled = [[*row, *[None] * (width - len(row))] for row in changed[1:]]
        names = [name if names.index(name) == place else f"{name}.{place}" for place, name in enumerate(names)]
        with contextlib.suppress(Exception):  # no Parquet file holds half a letter
            pd.DataFrame(filled, columns=names).to_parquet(file)
    else:
        with file.open("w", encoding="utf-8", errors="surrogateescape", newline="") as opened:
            csv.writer(opened, delimiter="\t" if suffix == ".tsv" else ",").writerows(changed)
    if bytewise:
        how, content = damaged(file.read_bytes(), rng)
        file.write_bytes(content)
    return suffix, how, ["audit", str(file), "--size", "32"]


def of_yaml(work: Path, rng: np.random.Generator) -> Made:
    Path("taken").write_text("in the way")  # of what can be read, the answer is this
    name = str(drawn(["settings.yaml", "plan.yaml", "grid.yaml"], rng))
    text = (work / name).read_text("utf-8")
    if rng.random() < 0.4:
        how, content = damaged(text.encode(), rng)
        Path(name).write_bytes(content)
    else:
        how, value = another(yaml.safe_load(text), rng)
        Path(name).write_text(yaml.safe_dump(value, allow_unicode=True), "utf-8")
    flag = f"--{name.removesuffix('.yaml')}"
    return (
        name,
        how,
        ["bench", name, "--out", "taken"] if name == "grid.yaml" else ["distill", "set", flag, name, "--out", "taken"],
    )


def of_runs(work: Path, rng: np.random.Generator) -> Made:
    shutil.copytree(work / "run", "run")
    run = Path("run")
    kept = {path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file() and path.stat().st_size}
    wanted = ("json", "yaml", "jsonl", "parquet", "npz", "safetensors", "onnx")
    name = str(drawn(sorted(path for path in kept if path.endswith(wanted) and "repeats" not in path), rng))
    file = run / name
    if name.endswith(("json", "yaml")) and rng.random() < 0.7:
        how, value = another(yaml.safe_load(file.read_text("utf-8")), rng)
        file.write_text(json.dumps(value) if name.endswith("json") else yaml.safe_dump(value), "utf-8")
    else:
        how, content = damaged(file.read_bytes(), rng)
        file.write_bytes(content)
    if rng.random() < 0.7:  # a run of before there were digests
        (run / "digests.jsonl").unlink(missing_ok=True)
        how += ", no digests"
    picture, pictures = str(work / "set" / "left" / "000.png"), str(work / "set")
    commands: list[list[str]] = [
        ["predict", "run", picture],
        ["evaluate", "run", pictures],
        ["evaluate", "run", str(work / "set" / "left"), "--foreign"],
        ["distill", "--resume", "run"],
        ["explain", "run", picture, "--method", "grad_cam", "--json"],
    ]
    return name, how, ["export", "run", "--out", "x.onnx"] if rng.random() < 0.05 else drawn(commands, rng)


def of_weights(work: Path, rng: np.random.Generator) -> Made:
    import torch
    from safetensors.torch import save_file

    from stillroom.models.weights import load_weights
    from stillroom.models.zoo import create

    how, state = tensors(torch.load(work / "weights.pth", weights_only=True), rng)
    file = Path(f"test_resnet.{drawn(['pth', 'safetensors'], rng)}")
    try:
        save_file({key: value.contiguous() for key, value in state.items()}, file)
    except Exception:  # only tensors by name
        file = Path("test_resnet.pth")
    if file.suffix == ".pth":
        torch.save(state, file)
    if rng.random() < 0.5:
        how, content = damaged(file.read_bytes(), rng)
        file.write_bytes(content)
    return file.suffix, how, lambda: load_weights(create("test_resnet", classes=2, size=32), file, "test_resnet")


def of_onnx(work: Path, rng: np.random.Generator) -> Made:
    import onnx

    from stillroom.files.own_digest import with_own_digest

    if rng.random() < 0.2:
        how, content = damaged((work / "run" / "student.onnx").read_bytes(), rng)
    else:
        model = onnx.load(work / "run" / "student.onnx")
        how = graph(model, rng)
        content = with_own_digest(model.SerializeToString())  # as somebody's own tool would
    Path("student.onnx").write_bytes(content)
    pictures = [str(work / "set" / "left" / name) for name in ("000.png", "001.jpg")]
    return "student.onnx", how, ["predict" if rng.random() < 0.7 else "explain", "student.onnx", *pictures]


def of_flags(work: Path, rng: np.random.Generator) -> Made:
    Path("taken").mkdir()
    (Path("taken") / "file").touch()
    shutil.copy(work / "plan.yaml", "taken.yaml")
    run, pictures = str(work / "run"), str(work / "set")
    picture = str(work / "set" / "left" / "000.png")
    command = drawn(
        [
            ["audit", pictures],
            ["predict", run, picture],
            ["explain", run, picture, "--out", "maps"],
            ["models", "test_resnet"],
            ["recipes"],
            ["plan", pictures, "--out", "taken.yaml"],  # these four end before they begin
            ["distill", pictures, "--out", "taken"],
            ["bench", str(work / "grid.yaml"), "--out", "taken"],
            ["demo", "--out", "taken"],
        ],
        rng,
    )
    names = sorted({name for one in make_app()[command[0]].assemble_argument_collection() for name in one.names})
    name, value = str(drawn([*names, "--nothing"], rng)), str(drawn(ODD, rng))
    how = str(rng.choice(["value", "value", "value", "alone", "joined", "positional"]))
    more = {"value": [name, value], "alone": [name], "joined": [f"{name}={value}"], "positional": [value]}[how]
    if command[0] == "models" and how == "positional":
        more = [name]
    return command[0], " ".join(more)[:60], [*command, *more]


KINDS = {
    "images": of_images,
    "tables": of_tables,
    "flags": of_flags,
    "run folders": of_runs,
    "settings": of_yaml,
    "weights": of_weights,
    "ONNX files": of_onnx,
}


class TooLong(BaseException):
    """No answer in time."""


@contextlib.contextmanager
def within(seconds: int) -> Iterator[None]:
    """Raises TooLong in the block after so many seconds, where the system has alarms."""

    def ring(number: int, frame: FrameType | None) -> None:
        raise TooLong

    if not hasattr(signal, "SIGALRM"):
        yield
        return
    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def answer(command: Command) -> tuple[int | None, str, str]:
    """Exit code, standard output and standard error; no exit code where no answer came in time."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            with within(SECONDS):
                if callable(command):
                    command()
                else:
                    command_line(command)
        except SystemExit as end:
            code = int(end.code or 0)
        except StillroomError as error:
            code = error.exit_code
            print(f"error: {error}", file=err)
        except TooLong:
            return None, out.getvalue(), err.getvalue()
        except Exception as error:  # of a call in the place of a command, which has no handler of last resort
            print(f"error: Something that Stillroom has no words for: {error!r}", file=err)
            code = 1
    return code, out.getvalue(), err.getvalue()


def verdict(code: int | None, out: str, err: str) -> str:
    """What was wrong with the answer; empty where nothing was."""
    if code is None:
        return f"no answer within {SECONDS} seconds"
    if code not in (0, 1, 2, 3):
        return f"exit code {code}"
    if "Traceback (most recent call last)" in out + err:
        return "a traceback"
    if "has no words for" in err or "errors.log" in err:
        return f"no words: {err.strip()[-200:]}"
    if odd := set(out + err) & {chr(number) for number in (*range(9), *range(11, 32), *range(127, 160), 0x202E)}:
        return f"control characters {sorted(odd)!r}"
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    if len(lines) != (code != 0):
        return f"exit code {code} with {len(lines)} lines of error"
    return f"a line of {len(lines[0])} characters" if lines and len(lines[0]) > 1500 else ""


def carried_out(work: Path, place: Path, rng: np.random.Generator, kind: str) -> dict:
    """One case of a kind, in an empty folder at ``place``, which is the current one for the time being."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    before = Path.cwd()
    os.chdir(place)
    try:
        what, how, command = KINDS[kind](work, rng)
        code, out, err = answer(command)
    finally:
        os.chdir(before)
    said = next((line for line in err.splitlines() if line.startswith("error: ")), "")
    verb = "" if callable(command) else command[0]
    told = {"kind": kind, "what": what, "how": how[:200], "verb": verb, "code": code, "said": said[:300]}
    return {
        key: value.encode(errors="replace").decode() if isinstance(value, str) else value for key, value in told.items()
    } | {"failed": verdict(code, out, err).encode(errors="replace").decode()}


def main() -> None:
    given = parser(__doc__, name="mutated", count=1000).parse_args()
    work = workshop(given)
    os.environ["STILLROOM_CACHE"] = str(work.with_name("cache"))  # not the user's
    if not (work / "ready").exists():
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        prepare(work)
    kinds, done = list(KINDS), []
    for line in carry_out(
        given, lambda rng, number: carried_out(work, work.with_name("place"), rng, kinds[number % len(kinds)])
    ):
        done.append(line)
        if line["failed"]:
            print(f"case {line['case']}: {line['verb']} {line['what']}, {line['how']}: {line['failed']}", flush=True)
        elif len(done) % 100 == 0:
            print(f"{len(done)} cases", flush=True)
    for kind in kinds:
        of_kind = [line for line in done if line["kind"] == kind]
        codes = Counter(line["code"] for line in of_kind)
        counted = ", ".join(f"{codes[code]} ended with {code}" for code in (0, 1, 2, 3) if codes[code])
        print(f"{kind}: {len(of_kind)}, of which {counted}")
    failed = [line for line in done if line["failed"]]
    print(f"{len(done)} things changed, {len(done) - len(failed)} answers of one line")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
