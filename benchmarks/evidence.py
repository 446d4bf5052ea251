"""What the evidence says of real runs: heat maps, guidance, prediction sets, refusals, corruptions.

    python benchmarks/evidence.py phantoms breast breastmnist pneumoniamnist otoscopy --out DIR --seeds 1
    python benchmarks/evidence.py guidance --out DIR                  # attention-guided distillation, three seeds
    python benchmarks/evidence.py --out DIR                           # the tables, from whatever stands in DIR

Needs $STILLROOM_DATA and $STILLROOM_WEIGHTS. Runs that are finished are not run again, interrupted ones go on. The last
command also shows every seed-0 student the other sets, as `stillroom evaluate RUN SET --foreign` does, and writes
DIR/evidence.md. Intervals are over test images (bootstrap), those of guidance over seeds (t).
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from stillroom import (
    AttentionGuidedKD,
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
from stillroom.after.foreign_images import evaluate_foreign

DATA, WEIGHTS = (Path(os.environ.get(name, ".")) for name in ("STILLROOM_DATA", "STILLROOM_WEIGHTS"))


def phantoms() -> Settings:
    """Synthetic chest films with exact lesion masks; a teacher from random weights, five times the student's size."""
    return Settings(
        "phantoms:1000",
        recipe=AttentionGuidedKD(),
        data=DataSettings(size=128),
        views=ViewSettings(views=4),
        teacher=TeacherSettings("resnet10t", teacher_mode="finetune", pretrained=False, teacher_epochs=12),
        student=StudentSettings("resnet10t_050"),
        training=TrainingSettings(epochs=12, batch_size=32, lr=2e-3),
        evaluation=EvaluationSettings(explain=32, latency=False),
        device="cpu",
    )


def guidance() -> Settings:
    """The same in small, for several seeds: is the student led to where the teacher looks?"""
    large = phantoms()
    return replace(
        large,
        source="phantoms:800",
        data=DataSettings(size=96),
        teacher=replace(large.teacher, teacher_epochs=10),
        training=replace(large.training, epochs=10),
        evaluation=EvaluationSettings(explain=24, latency=False),
    )


def breast() -> Settings:
    """Breast ultrasound with drawn lesions (BUSI): two pretrained networks, the smaller of which learns from the larger."""
    return Settings(
        str(DATA / "breast_ultrasound"),
        recipe=AttentionGuidedKD(),
        data=DataSettings(size=160, test_fraction=0.35),
        views=ViewSettings(views=4),
        teacher=TeacherSettings(
            "mobilenet_edgetpu_100", teacher_mode="finetune", weights=WEIGHTS, teacher_epochs=12, teacher_lr=1e-3
        ),
        student=StudentSettings("mobilenetv2_100", student_pretrained=True),
        training=TrainingSettings(epochs=12, batch_size=16, lr=1e-3),
        # 1,280 channels: the exact map would cost six times as much.
        evaluation=EvaluationSettings(explain=40, explain_method="score_cam_fast", latency=False),
        device="cpu",
    )


def _small(source: str, data: DataSettings, epochs: int) -> Settings:
    """A frozen pretrained teacher, a student of 5 MB from random weights."""
    return Settings(
        source,
        recipe=MedAlmighty(),
        data=data,
        views=ViewSettings(views=4),
        teacher=TeacherSettings("mobilenet_edgetpu_100", teacher_size=96, weights=WEIGHTS),
        student=StudentSettings("resnet10t_050"),
        training=TrainingSettings(epochs=epochs, batch_size=32, lr=2e-3),
        evaluation=EvaluationSettings(explain=32, corruptions=True, latency=False),
        device="cpu",
    )


EXPERIMENTS = {
    "phantoms": phantoms,
    "guidance": guidance,
    "breast": breast,
    "breastmnist": lambda: _small("breastmnist", DataSettings(size=28, resolution=28), 30),
    "pneumoniamnist": lambda: _small("pneumoniamnist", DataSettings(size=28, resolution=28), 6),
    "otoscopy": lambda: _small(str(DATA / "otoscopy"), DataSettings(size=64, drop_leaks=True), 25),
}
FOREIGN = {
    "otoscopy": (str(DATA / "otoscopy"), DataSettings()),
    "breast ultrasound": (str(DATA / "breast_ultrasound"), DataSettings()),
    "brain MRI": (str(DATA / "brain_mri"), DataSettings()),
    "RetinaMNIST": ("retinamnist", DataSettings(resolution=28)),
    "PneumoniaMNIST": ("pneumoniamnist", DataSettings(resolution=28)),
    "phantoms": ("phantoms:200", DataSettings()),
}
"""Sets to be refused, by those whose own they are not."""
OWN = {
    "phantoms": {"phantoms"},
    "guidance": {"phantoms"},
    "breast": {"breast ultrasound"},
    "breastmnist": {"breast ultrasound"},
    "pneumoniamnist": {"PneumoniaMNIST"},
    "otoscopy": {"otoscopy"},
}


def carry_out(name: str, seed: int, folder: Path) -> Run:
    if (folder / "settings.yaml").exists():
        return resume(folder, show_progress=sys.stderr.isatty())
    return distill(replace(EXPERIMENTS[name](), seed=seed), folder, show_progress=sys.stderr.isatty())


def figure(value: dict[str, Any] | None, digits: int = 3) -> str:
    if not value or value["value"] is None:
        return "n/a"
    if value["low"] is None:
        return f"{value['value']:.{digits}f}"
    return f"{value['value']:.{digits}f} ({value['low']:.{digits}f} to {value['high']:.{digits}f})"


def over_seeds(values: list[float]) -> str:
    """Mean with a t-interval over seeds; of one seed the value alone."""
    if len(values) < 2:
        return f"{values[0]:+.3f}"
    half = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)
    return f"{np.mean(values):+.3f} ({np.mean(values) - half:+.3f} to {np.mean(values) + half:+.3f})"


def table(heads: list[str], rows: list[list[str]]) -> Iterator[str]:
    yield "| " + " | ".join(heads) + " |"
    yield "|" + "---|" * len(heads)
    for row in rows:
        yield "| " + " | ".join(row) + " |"
    yield ""


def tables(runs: dict[str, list[Run]]) -> Iterator[str]:
    first = {name: found[0].metrics for name, found in runs.items()}
    yield "### Faithfulness (seed 0)"
    rows = []
    for name, metrics in first.items():
        for role, found in metrics["explanation"]["faithfulness"].items():
            controls = found["controls"]
            best = max(controls, key=lambda control: controls[control]["gap"]["value"])
            rows.append(
                [
                    name,
                    role,
                    metrics["explanation"]["layer"][role],
                    figure(found["gap"]),
                    f"{figure(controls[best]['gap'])} ({best})",
                    figure(found["advantage"][best]),
                    figure(found["drop"]),
                    figure(found.get("road")),
                    figure(found["sanity"]["pearson"]),
                    "yes" if found["faithful"] else "**no**",
                ]
            )
    yield from table(
        ["set", "maps of", "layer", "insertion - deletion", "best trivial map", "advantage", "average drop", "ROAD",
         "sanity", "faithful"],
        rows,
    )  # fmt: skip
    yield "### Lesions (seed 0)"
    rows = [
        [name, of, figure(found["energy"]), figure(found["pointing"]), figure(lesions["share"]), str(lesions["images"])]
        for name, metrics in first.items()
        if (lesions := metrics["explanation"]["lesions"])
        for of, found in lesions.items()
        if of not in ("share", "images")
    ]
    yield from table(["set", "map", "energy in the lesion", "pointing game", "a flat map's energy", "images"], rows)
    yield "### Agreement (seed 0)"
    rows = [
        [name, pair.replace("_", " "), part, *(figure(found[part][key]) for key in ("pearson", "ssim", "iou")),
         str(found["images"][part])]
        for name, metrics in first.items()
        for pair, found in metrics["explanation"]["agreement"].items()
        for part in ("all", "right", "wrong")
    ]  # fmt: skip
    yield from table(["set", "pair", "images", "Pearson", "SSIM", "IoU of the top 20 %", "number"], rows)
    yield "### Guidance: student minus the same student without the look term, over seeds"
    rows = []
    for name, found in runs.items():
        if found[0].settings.recipe.name != AttentionGuidedKD.name:
            continue
        metrics = [run.metrics for run in found]
        rows.append(
            [
                name,
                str(len(found)),
                *(
                    over_seeds([m["comparison"]["student_vs_control"][key]["value"] for m in metrics])
                    for key in ("difference", "accuracy_difference")
                ),
                *(
                    over_seeds([m["explanation"]["guidance"][key]["value"] for m in metrics])
                    for key in ("pearson", "iou", "energy")
                ),
            ]
        )
    heads = ["set", "seeds", "AUC", "accuracy", "agreement with the teacher, Pearson", "IoU", "lesion energy"]
    yield from table(heads, rows)
    yield "### Prediction sets"
    rows = [
        [f"{name}, seed {seed}", figure(found["coverage"]), figure(found["mean_size"], 2), figure(found["singletons"], 2),
         figure(found["accuracy_of_singletons"]), str(found["calibration_images"])]
        for name, some in runs.items()
        for seed, run in enumerate(some)
        for found in [run.metrics["conformal"]]
    ]  # fmt: skip
    yield from table(
        [
            "run",
            "coverage (wanted 0.9)",
            "classes a set",
            "sets of one class",
            "accuracy of these",
            "validation images",
        ],
        rows,
    )
    yield "### Refusals (seed 0): AUROC"
    rows = []
    for name, metrics in first.items():
        ood = metrics["ood"]
        rows.append([name, "*its own test images*", "", "", "", figure(ood["refused"])])
        for found in [*ood["made_up"], *ood["against"]]:
            aurocs = (figure(found[key]) for key in ("auroc", "auroc_energy", "auroc_distance"))
            rows.append([name, found["name"], *aurocs, figure(found["refused"])])
    yield from table(["run", "shown", "both", "energy", "distance", "refused"], rows)
    yield "### Corruptions (seed 0)"
    rows = []
    for name, metrics in first.items():
        found = metrics.get("robustness")
        if not found:
            continue
        published = found["published"]
        for role, summary in found["summary"].items():
            ratio = f"{published['ratio'][role]:.2f}" if published else ""
            clean = figure(found["clean"][role]["accuracy"])
            kept = (figure(summary[key]) for key in ("mean_accuracy", "mean_error", "rise_over_reference", "be", "rbe"))
            rows.append([name, role, clean, *kept, ratio])
    heads = [
        "set",
        "network",
        "accuracy, clean",
        "corrupted",
        "balanced error",
        "its rise, less the control's",
        "BE",
        "rBE",
        "over *published* AlexNet's",
    ]
    yield from table(heads, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiments", nargs="*", choices=[*EXPERIMENTS, []])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    for seed in range(arguments.seeds):
        for name in arguments.experiments:
            run = carry_out(name, seed, arguments.out / f"{name}-{seed}")
            print(run.path, run.metrics["comparison"]["student_vs_control"]["statement"], flush=True)
    if arguments.experiments:
        return
    runs: dict[str, list[Run]] = {}
    for name in EXPERIMENTS:
        found = [
            Run.open(path) for path in sorted(arguments.out.glob(f"{name}-[0-9]")) if (path / "report.html").exists()
        ]
        if found:
            runs[name] = found
            wanted = [shown for label, shown in FOREIGN.items() if label not in OWN[name]]
            if len(found[0].metrics["ood"]["against"]) < len(wanted):
                for source, data in wanted:
                    evaluate_foreign(found[0], source, data, show_progress=sys.stderr.isatty())
    text = "\n".join(tables(runs))
    (arguments.out / "evidence.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
