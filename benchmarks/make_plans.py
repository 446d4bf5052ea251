"""Make the plans that benchmarks/follow_plans.py follows: each set at all labels and a tenth, for two sizes of student.

    python benchmarks/make_plans.py benchmarks/plans --minutes 2 --threads 2

Steps are timed here, so the machine must have nothing else to do. $STILLROOM_DATA and $STILLROOM_WEIGHTS name the folders
described in docs/benchmarks.md; in the files they stand as these names.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import torch

from stillroom import DataSettings, Settings, TeacherSettings, TrainingSettings, plan
from stillroom.planning import write_plan

FOLDERS, SMALL_IMAGES = ("otoscopy", "brain_mri", "breast_ultrasound"), ("pneumoniamnist", "breastmnist", "retinamnist")
CASES = ((10.0, 1.0), (10.0, 0.1), (2.5, 1.0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", nargs="*", default=[], help="sets")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    arguments.out.mkdir(parents=True, exist_ok=True)
    data, weights = os.environ["STILLROOM_DATA"], os.environ["STILLROOM_WEIGHTS"]
    for name in (*FOLDERS, *SMALL_IMAGES):
        if arguments.only and name not in arguments.only:
            continue
        for megabytes, labels in CASES:
            small = name in SMALL_IMAGES
            given = Settings(
                name if small else f"{data}/{name}",
                data=DataSettings(resolution=28 if small else None, drop_leaks=name == "otoscopy"),
                teacher=TeacherSettings(weights=Path(weights)),
                training=TrainingSettings(label_fraction=labels),
                device="cpu",
            )
            fixed = ["teacher.weights", *["data.resolution"] * small, *["data.drop_leaks"] * (name == "otoscopy")]
            fixed += ["training.label_fraction"] * (labels < 1)
            file = arguments.out / f"{name}-{megabytes:g}mb-{labels:g}.yaml"
            found = plan(given.source, minutes=arguments.minutes, max_mb=megabytes, given=given, fixed=fixed)
            write_plan(found, file)
            text = (
                file.read_text(encoding="utf-8").replace(weights, "$STILLROOM_WEIGHTS").replace(data, "$STILLROOM_DATA")
            )
            file.write_text(text, encoding="utf-8")
            print(file)


if __name__ == "__main__":
    main()
