"""Does a run that is killed at any moment, again and again, end as if nothing had happened?

    python proofs/kills.py [--count 20] [--seed 0] [--out runs/proofs/kills]

Every case starts a small run (teacher fine-tuned, student, control, heat maps, export), kills it with SIGKILL after a random
time, resumes it, kills it again with even odds up to three times, and lets it end. Weights of all three networks, figures and
predictions must then be those of a run that was left alone, bit for bit. A case that had nothing to resume yet, because the
kill came before the run folder stood, is begun again, as a user would. Exits with 1 where one case failed. ``kills`` of a
case are the seconds after which each attempt was killed.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image
from recorded import carry_out, parser, workshop
from safetensors.numpy import load_file

_FLAGS = """
    --recipe medalmighty --size 32 --views 2 --no-plan --device cpu --no-latency --resamples 100 --explain 4
    --teacher test_resnet --teacher-mode finetune --no-pretrained --teacher-epochs 3
    --student test_resnet --epochs 4 --batch-size 16 --lr 3e-3
"""
FLAGS = tuple(_FLAGS.split())
MOST_KILLS = 3


def draw_pictures(folder: Path) -> None:
    """Two classes of 60 grey pictures: a bright bar to the left or to the right, in noise."""
    rng = np.random.default_rng(0)
    for label, where in (("left", slice(4, 12)), ("right", slice(20, 28))):
        (folder / label).mkdir(parents=True, exist_ok=True)
        for number in range(60):
            picture = rng.normal(90, 25, (32, 32))
            picture[:, where] += 60
            Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(folder / label / f"{number:03d}.png")


def same(one: Path, other: Path) -> bool:
    """Whether both runs hold the same weights, figures and predictions."""
    for part in ("teacher", "student", "control"):
        first, second = (load_file(run / part / "model.safetensors") for run in (one, other))
        if first.keys() != second.keys() or any(not np.array_equal(first[name], second[name]) for name in first):
            return False
    parts = ("test", "validation", "calibration", "comparison", "conformal", "ood", "explanation")
    figures = [json.loads((run / "metrics.json").read_text("utf-8")) for run in (one, other)]
    if any(figures[0].get(part) != figures[1].get(part) for part in parts):
        return False
    return (one / "predictions.parquet").read_bytes() == (other / "predictions.parquet").read_bytes()


def main() -> None:
    given = parser(__doc__, name="kills", count=20).parse_args()
    work = workshop(given)
    pictures, alone = work / "pictures", work / "alone"
    draw_pictures(pictures)  # the same each time
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    stillroom = [sys.executable, "-m", "stillroom", "distill"]

    def environment(name: str) -> dict[str, str]:
        """A cache of its own for each, or the teacher would come from another's."""
        return os.environ | {"STILLROOM_CACHE": str(work / f"cache-{name}")}

    if not (work / "seconds").exists():
        shutil.rmtree(alone, ignore_errors=True)
        started = time.monotonic()
        subprocess.run(
            [*stillroom, str(pictures), *FLAGS, "--out", str(alone)], check=True, env=environment("alone"), **quiet
        )
        (work / "seconds").write_text(str(time.monotonic() - started))
    takes = float((work / "seconds").read_text())

    def case(rng: np.random.Generator, number: int) -> dict:
        killed = work / f"killed-{number}"
        shutil.rmtree(killed, ignore_errors=True)
        kills: list[float] = []
        while True:
            begun = (killed / "settings.yaml").exists()
            command = [*stillroom, "--resume", str(killed)] if begun else [*stillroom, str(pictures), *FLAGS]
            command += [] if begun else ["--out", str(killed)]
            process = subprocess.Popen(command, env=environment(str(number)), **quiet)
            started = time.monotonic()
            again = len(kills) < MOST_KILLS and (not kills or rng.random() < 0.5)
            try:
                code = process.wait(float(rng.uniform(0, 0.8 * takes)) if again else 600)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                if not again:
                    return {"kills": kills, "failed": "it did not end within ten minutes"}
                kills.append(round(time.monotonic() - started, 2))
                continue
            if code:
                return {"kills": kills, "failed": f"exit code {code}: {' '.join(command)}"}
            break
        found = {"kills": kills, "failed": "" if same(alone, killed) else f"another result in {killed}"}
        if not found["failed"]:
            for folder in (killed, work / f"cache-{number}"):
                shutil.rmtree(folder, ignore_errors=True)
        return found

    done = []
    for line in carry_out(given, case):
        done.append(line)
        print(f"case {line['case']}: {len(line['kills'])} kills, {line['failed'] or 'the same'}", flush=True)
    failed = [line for line in done if line["failed"]]
    print(f"{len(done)} runs, {sum(len(line['kills']) for line in done)} kills, {len(failed)} that ended differently")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
