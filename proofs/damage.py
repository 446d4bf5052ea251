"""Does a damaged file ever end in a traceback, a crash or a hang?

    python proofs/damage.py [--count 300] [--seed 0] [--out runs/proofs/damage]

Every case damages one file that a user might give (an image, a table, a plan, an exported network, a file of a finished run):
bytes flipped, cut off, zeroed, taken out, doubled or replaced by noise. Then it calls the verb that reads that file. The
answer must come within two minutes with exit code 0, 1 or 2, without a traceback, and say something where it is not 0. Exits
with 1 where one case failed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from kills import FLAGS, draw_pictures
from PIL import Image
from recorded import carry_out, parser, workshop

TARGETS: dict[str, tuple[str, ...]] = {  # file to damage: the verb that reads it
    "images/left/000.png": ("audit", "images"),
    "images/left/001.jpg": ("audit", "images"),
    "images/left/002.tif": ("audit", "images"),
    "images/left/003.bmp": ("audit", "images"),
    "table.csv": ("audit", "table.csv"),
    "table.parquet": ("audit", "table.parquet"),
    # Of a plan or settings that can be read the answer is that the folder exists.
    "plan.yaml": ("distill", "pictures", "--plan", "plan.yaml", "--out", "run"),
    "run/settings.yaml": ("distill", "pictures", "--settings", "run/settings.yaml", "--out", "run"),
    "run/student.onnx": ("predict", "run/student.onnx", "images/right/000.png"),
    "run/manifest.json": ("export", "run"),
    "run/metrics.json": ("predict", "run", "images/right/000.png"),
    "run/student/model.safetensors": ("export", "run"),
    "run/student/model.json": ("export", "run"),
    "run/predictions.parquet": ("evaluate", "run", "pictures"),
}


def prepare(work: Path) -> None:
    """A folder of images in several formats, tables of them, a plan, and a finished run."""
    draw_pictures(work / "pictures")
    draw_pictures(work / "images")
    for number, suffix in enumerate(("jpg", "tif", "bmp"), start=1):
        path = work / f"images/left/{number:03d}.png"
        Image.open(path).save(path.with_suffix(f".{suffix}"))
        path.unlink()
    rows = [(str(path), path.parent.name) for path in sorted((work / "pictures").rglob("*.png"))]
    frame = pd.DataFrame(rows, columns=["path", "label"])
    frame.to_csv(work / "table.csv", index=False)
    frame.to_parquet(work / "table.parquet")
    for verb in (
        ("plan", "pictures", "--minutes", "1", "--out", "plan.yaml"),
        ("distill", "pictures", *FLAGS, "--out", "run"),
    ):
        subprocess.run([sys.executable, "-m", "stillroom", *verb], cwd=work, check=True, capture_output=True)
    (work / "ready").touch()


def damaged(content: bytes, rng: np.random.Generator) -> tuple[str, bytes]:
    """The content after one sort of damage, and its name."""
    how = str(rng.choice(["flip", "cut", "zero", "take out", "double", "noise", "empty"]))
    start = int(rng.integers(len(content)))
    stop = min(len(content), start + 1 + int(rng.geometric(0.02)))
    span = content[start:stop]
    if how == "flip":
        bytes_ = bytearray(content)
        for place in rng.integers(len(content), size=int(rng.integers(1, 6))):
            bytes_[place] ^= 1 << int(rng.integers(8))
        return how, bytes(bytes_)
    changed = {
        "cut": content[:start],
        "zero": content[:start] + bytes(len(span)) + content[stop:],
        "take out": content[:start] + content[stop:],
        "double": content[:stop] + span + content[stop:],
        "noise": content[:start] + rng.bytes(len(span)) + content[stop:],
        "empty": b"",
    }
    return how, changed[how]


def verdict(code: int, said: str) -> str:
    """What was wrong with the answer; empty where nothing was."""
    if code not in (0, 1, 2):
        return f"exit code {code}"
    if "Traceback (most recent call last)" in said:
        return "a traceback"
    return "" if code == 0 or said.strip() else f"exit code {code} without a word"


def main() -> None:
    given = parser(__doc__, name="damage", count=300).parse_args()
    work = workshop(given)
    os.environ["STILLROOM_CACHE"] = str(work.with_name("cache"))  # not the user's
    if not (work / "ready").exists():
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        prepare(work)

    def case(rng: np.random.Generator, number: int) -> dict:
        name = list(TARGETS)[number % len(TARGETS)]
        sandbox = work.with_name("sandbox")
        shutil.rmtree(sandbox, ignore_errors=True)
        shutil.copytree(work, sandbox)
        how, content = damaged((work / name).read_bytes(), rng)
        (sandbox / name).write_bytes(content)
        command = [sys.executable, "-m", "stillroom", *TARGETS[name]]
        try:
            done = subprocess.run(command, cwd=sandbox, capture_output=True, timeout=120, check=False)
            failed = verdict(done.returncode, (done.stderr + done.stdout).decode(errors="replace"))
            code = done.returncode
        except subprocess.TimeoutExpired:
            failed, code = "no answer within two minutes", None
        return {"file": name, "damage": how, "code": code, "failed": failed}

    done = []
    for line in carry_out(given, case):
        done.append(line)
        if line["failed"]:
            print(f"case {line['case']}: {line['file']}, {line['damage']}: {line['failed']}", flush=True)
        elif len(done) % 25 == 0:
            print(f"{len(done)} cases", flush=True)
    failed = [line for line in done if line["failed"]]
    codes = {code: sum(line["code"] == code for line in done) for code in (0, 1, 2)}
    print(f"{len(done)} damaged files, {len(failed)} bad answers; exit codes " + str(codes))
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
