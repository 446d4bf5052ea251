"""How accurate are teacher, student and control on real sets, over several seeds?

    python benchmarks/accuracy.py breastmnist retinamnist pneumoniamnist --out DIR
    python benchmarks/accuracy.py otoscopy otoscopy-without-leaks --out DIR

Needs $STILLROOM_DATA (and $STILLROOM_WEIGHTS for otoscopy). Runs that are finished are not run again, interrupted ones
go on. Writes DIR/accuracy.json and prints a table: mean and standard deviation over seeds, the student's advantage
over its control with its t-interval over seeds, and in how many seeds the paired bootstrap interval excludes zero.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy import stats

from stillroom import (
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
    resume,
)


def _medmnist(name: str, teacher_epochs: int, epochs: int) -> Settings:
    """MedMNIST's published baseline (its CIFAR-style ResNet-18 at 28 px, Adam 1e-3, no augmentation) as the teacher of
    a student of 4.1 MB. Shorter than the published 100 epochs; bfloat16 autocast to fit two CPU cores."""
    return Settings(
        name,
        recipe=MedAlmighty(alpha=0.2, temperature=2.0),
        data=DataSettings(size=28, resolution=28),
        views=ViewSettings(augment="none"),
        teacher=TeacherSettings(
            "resnet18_28", teacher_mode="finetune", pretrained=False, teacher_epochs=teacher_epochs
        ),
        student=StudentSettings("mobilenetv3_small_075", student_size=64),
        training=TrainingSettings(
            epochs=epochs, batch_size=64, lr=1e-3, optimizer="adam", schedule="step", weight_decay=0, precision="bf16"
        ),
        evaluation=EvaluationSettings(latency=False),
        device="cpu",
    )


def _otoscopy(drop_leaks: bool) -> Settings:
    """The first real use: a frozen pretrained network with a linear head teaches a student of 1.6 MB at 96 px."""
    return Settings(
        str(Path(os.environ["STILLROOM_DATA"]) / "otoscopy"),
        recipe=MedAlmighty(alpha=0.2, temperature=2.0),
        data=DataSettings(size=96, drop_leaks=drop_leaks),
        views=ViewSettings(augment="light", views=4),
        teacher=TeacherSettings(
            "mobilenet_edgetpu_100", teacher_size=160, weights=Path(os.environ["STILLROOM_WEIGHTS"])
        ),
        student=StudentSettings("mobilenetv2_035"),
        training=TrainingSettings(epochs=25, batch_size=32, lr=2e-3),
        evaluation=EvaluationSettings(latency=False),
        device="cpu",
    )


EXPERIMENTS = {
    "breastmnist": lambda: _medmnist("breastmnist", 25, 30),
    "retinamnist": lambda: _medmnist("retinamnist", 10, 12),
    "pneumoniamnist": lambda: _medmnist("pneumoniamnist", 4, 4),
    "otoscopy": lambda: _otoscopy(False),
    "otoscopy-without-leaks": lambda: _otoscopy(True),
}
ROLES = ("teacher", "control", "student")


def run_seed(settings: Settings, folder: Path) -> Run:
    if (folder / "settings.yaml").exists():
        return resume(folder, show_progress=sys.stderr.isatty())
    return distill(settings, folder, show_progress=sys.stderr.isatty())


def summarise(runs: list[Run]) -> dict[str, object]:
    figures: dict[str, object] = {}
    for role in ROLES:
        for name in ("auc", "accuracy", runs[0].task.selection_metric):
            values = [run.metrics["test"][role][name]["value"] for run in runs]
            figures[f"{role} {name}"] = {"mean": np.mean(values), "sd": np.std(values, ddof=1), "values": values}
    compared = [run.metrics["comparison"]["student_vs_control"] for run in runs]
    gains = np.array([one["difference"]["value"] for one in compared])
    half = stats.t.ppf(0.975, len(gains) - 1) * stats.sem(gains)
    figures["student over control"] = {
        "metric": compared[0]["metric"],
        "mean": gains.mean(),
        "low": gains.mean() - half,
        "high": gains.mean() + half,
        "seeds_above_zero": sum(one["difference"]["low"] > 0 for one in compared),
        "seeds_below_zero": sum(one["difference"]["high"] < 0 for one in compared),
    }
    figures["megabytes"] = {role: runs[0].metrics["efficiency"][role]["size_mb"] for role in ("teacher", "student")}
    figures["test images"] = runs[0].metrics["test"]["student"]["images"]
    return figures


def table(results: dict[str, dict]) -> str:
    lines = [
        "| set | test images | teacher AUC / ACC | control AUC / ACC | student AUC / ACC | student over control |",
        "|---|---|---|---|---|---|",
    ]
    for name, found in results.items():
        cells = [
            " / ".join(
                f"{found[f'{role} {m}']['mean']:.3f} ± {found[f'{role} {m}']['sd']:.3f}" for m in ("auc", "accuracy")
            )
            for role in ROLES
        ]
        gain = found["student over control"]
        text = f"{gain['metric']} {gain['mean']:+.3f} ({gain['low']:+.3f} to {gain['high']:+.3f})"
        lines.append(f"| {name} | {found['test images']} | {' | '.join(cells)} | {text} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiments", nargs="+", choices=EXPERIMENTS)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    results = {}
    for name in arguments.experiments:
        runs = [
            run_seed(replace(EXPERIMENTS[name](), seed=seed), arguments.out / f"{name}-{seed}")
            for seed in range(arguments.seeds)
        ]
        results[name] = summarise(runs)
        print(table({name: results[name]}), flush=True)
    file = arguments.out / "accuracy.json"
    known = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps(known | results, indent=2) + "\n")
    print("\n" + table(results))


if __name__ == "__main__":
    main()
