"""What the demonstration's teaching is made of, one part at a time: the trials by which it was chosen.

    python benchmarks/demo_parts.py --out runs/demo-parts plain plain-long larger-images large-slow-teacher --seeds 0
    python benchmarks/demo_parts.py --list

Each trial is a run on the demonstration's phantoms with a fixed number of steps, so that a busy machine changes the time and
not the result; with OMP_NUM_THREADS=1 the order of sums is fixed too. Prints AUC / accuracy on the 200 test images. Trials
whose report is there are not run again.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from stillroom import (
    Baseline,
    Best,
    DataSettings,
    EvaluationSettings,
    MedAlmighty,
    Run,
    Settings,
    StudentSettings,
    TeacherSettings,
    TrainingSettings,
    ViewSettings,
    distill,
)

BARE = EvaluationSettings(latency=False, explain=0, resamples=100, rivals=False, control=False)
BESIDE = replace(BARE, control=True)


def base(seed: int) -> Settings:
    """The demonstration's images and rates at 64 px, each trial's own parts left open."""
    return Settings(
        "phantoms:1000",
        recipe=Baseline(),
        data=DataSettings(size=64),
        views=ViewSettings(views=0, flips=True, crop=0.75),
        teacher=TeacherSettings("test_resnet", teacher_mode="finetune", pretrained=False, teacher_epochs=50),
        student=StudentSettings("test_resnet"),
        training=TrainingSettings(steps=1232, batch_size=32, lr=2e-3, pretrained_lr=0.5),
        evaluation=BARE,
        seed=seed,
    )


def best(**changed: Any) -> Best:
    return Best(**({"alpha": 0.2, "temperature": 4.0, "feature_weight": 3.0} | changed))


def small(recipe: Any, views: int, *, epochs: int = 50, control: bool = False) -> dict[str, Any]:
    """`test_byobnet` (.8 MB) taught in 2,200 steps by `test_resnet`."""
    return {
        "recipe": recipe,
        "student": {"student": "test_byobnet"},
        "training": {"steps": 2200},
        "views": {"views": views},
        "teacher": {"teacher_epochs": epochs},
        "evaluation": BESIDE if control else BARE,
    }


def planned(student: str) -> dict[str, Any]:
    """The steps and views that the demonstration's plan has, for this student and its control."""
    return {
        "recipe": best(),
        "student": {"student": student},
        "training": {"steps": 1320},
        "views": {"views": 40},
        "teacher": {"teacher_epochs": 42},
        "evaluation": BESIDE,
    }


TRIALS: dict[str, dict[str, Any]] = {
    "plain": {},
    "plain-four-views": {"views": {"views": 4}},
    "plain-long": {"training": {"steps": 2464}},
    "larger-images": {"data": {"size": 96}},
    "large-slow-teacher": {"student": {"student": "resnet10t"}, "training": {"steps": 220}},
    "small": {"student": {"student": "test_byobnet"}, "training": {"steps": 2200}},
    "small-sharp": small(MedAlmighty(alpha=0.2, temperature=2.0), 25),
    "small-soft": small(MedAlmighty(alpha=0.0, temperature=4.0), 25),
    "small-softer": small(MedAlmighty(alpha=0.0, temperature=8.0), 25),
    "small-features": small(best(feature_weight=1.0), 25),
    "small-more-features": small(best(feature_weight=10.0), 25),
    "small-16-views": small(best(), 16, control=True),
    "small-40-views": small(best(), 40, epochs=46, control=True),
    "twin": planned("test_resnet"),
    "smaller": planned("test_efficientnet"),
}


def settings_of(trial: str, seed: int) -> Settings:
    settings = base(seed)
    for section, changed in TRIALS[trial].items():
        whole = replace(getattr(settings, section), **changed) if isinstance(changed, dict) else changed
        settings = replace(settings, **{section: whole})
    return settings


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trials", nargs="*", choices=[*TRIALS, []], metavar="TRIAL")
    parser.add_argument("--out", type=Path, default=Path("runs/demo-parts"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--list", action="store_true", help="name the trials")
    arguments = parser.parse_args()
    if arguments.list or not arguments.trials:
        print("\n".join(TRIALS))
        return
    for trial in arguments.trials:
        for seed in arguments.seeds:
            path = arguments.out / f"{trial}-{seed}"
            if not (path / "report.html").exists():
                distill(settings_of(trial, seed), path, show_progress=False)
            test = Run.open(path).metrics["test"]
            roles = [role for role in ("student", "control", "teacher") if role in test]
            told = [
                f"{role} {test[role]['auc']['value']:.3f} / {test[role]['accuracy']['value']:.3f}" for role in roles
            ]
            print(f"{trial}, seed {seed}: {', '.join(told)}", flush=True)


if __name__ == "__main__":
    main()
