"""Follow the plans of a folder with several seeds, a run each with its rivals, beside one another on a larger machine.

    python benchmarks/follow_plans.py benchmarks/plans --out runs/worth --seeds 0 1 2 --jobs 15 --device cuda --minutes 6
    python benchmarks/worth.py runs/worth --no-rivals

The plans were made where two cores and two minutes are the budget; what is followed here is their number of steps, so that
a faster machine changes the time and not the training. The rival that is fine-tuned plainly gets the steps that fit into the
minutes of teaching and training together. Goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plans", type=Path, help="a folder of plan files, or with --one a file")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin nothing later")
    parser.add_argument("--one", action="store_true")
    arguments = parser.parse_args()
    if arguments.one:
        follow(arguments.plans, arguments.seeds[0], arguments.out, arguments.device, arguments.threads)
        return
    # The first question first: all labels and 10 MB, then 10 % of them, then the small students.
    plans = sorted(arguments.plans.glob("*.yaml"), key=lambda path: ("2.5mb" in path.name, "-0.1" in path.name))
    deadline = time.monotonic() + 60 * arguments.minutes

    def one(plan: Path, seed: int) -> None:
        if time.monotonic() > deadline or rivals_of(arguments.out, plan, seed).exists():
            return
        command = [sys.executable, __file__, str(plan), "--one", "--out", str(arguments.out), "--seeds", str(seed)]
        command += ["--device", arguments.device, "--threads", str(arguments.threads)]
        environment = os.environ | {"OMP_NUM_THREADS": str(arguments.threads)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        last = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines()[-1:]
        print(f"{plan.stem} seed {seed}: {' '.join(last)}", flush=True)

    with ThreadPoolExecutor(arguments.jobs) as pool:
        for seed in arguments.seeds:
            for plan in plans:
                pool.submit(one, plan, seed)


def rivals_of(out: Path, plan: Path, seed: int) -> Path:
    return out / "cells" / f"{plan.stem}-s{seed}-rivals.parquet"


def follow(file: Path, seed: int, out: Path, device: str, threads: int) -> None:
    """One run by its plan, then its rivals."""
    import torch

    from stillroom import distill, read_plan

    torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder) / file.name
        whole.write_text(os.path.expandvars(file.read_text(encoding="utf-8")), encoding="utf-8")
        plan = read_plan(whole)
    settings = plan.settings
    quick = replace(settings.evaluation, explain=0, latency=False, rivals=False, resamples=200)
    plan = replace(plan, settings=replace(settings, seed=seed, device=device, evaluation=quick))
    path = out / "cells" / f"{file.stem}-s{seed}"
    if not (path / "report.html").exists():
        distill(plan, path, show_progress=False)

    sys.path.insert(0, str(Path(__file__).parent))
    from plain_fine_tuning import make_rivals

    spent = plan.expected_s
    steps = round(settings.training.steps * (spent["teach"] + spent["student"]) / spent["student"])
    make_rivals(path, steps=steps, device=device)
    print(f"{steps} steps for plain fine-tuning")


if __name__ == "__main__":
    main()
