"""Stillroom: distil large pretrained vision models into small, deployable medical image classifiers.

    from stillroom import MedAlmighty, Settings, StudentSettings, distill

    run = distill(Settings("pneumoniamnist", recipe=MedAlmighty(temperature=2.0)), out="runs/first")
    run.metrics["test"]["student"]["auc"]
    run.predictor().predict(["image.png"])

Names are loaded when first used, so that ``import stillroom`` is light.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stillroom.bench import run_bench
    from stillroom.corrupted_images import evaluate_corruptions
    from stillroom.data.load import Dataset, load_data
    from stillroom.deployment.predictor import Prediction, Predictor
    from stillroom.errors import RunError, StillroomError, UsageError
    from stillroom.explain_images import Explanation, explain
    from stillroom.explanation.heat_maps import heat_maps
    from stillroom.export import export_student
    from stillroom.external_validation import evaluate
    from stillroom.foreign_images import evaluate_foreign
    from stillroom.pipeline import distill, resume
    from stillroom.planning import Choice, Plan, plan, read_plan, write_plan
    from stillroom.recipes import (
        CAMKD,
        RECIPES,
        AttentionGuidedKD,
        Baseline,
        Best,
        DualModelSKD,
        ExplainableKD,
        LinearProbe,
        MedAlmighty,
        Recipe,
        StandardKD,
        WeCKD,
    )
    from stillroom.run import Run
    from stillroom.settings import (
        DataSettings,
        EvaluationSettings,
        Settings,
        StudentSettings,
        TeacherSettings,
        TrainingSettings,
        ViewSettings,
    )
    from stillroom.task import MultiClass, MultiLabel, Task

_HOMES = {
    "Dataset": "data.load",
    "load_data": "data.load",
    "Prediction": "deployment.predictor",
    "Predictor": "deployment.predictor",
    "RunError": "errors",
    "StillroomError": "errors",
    "UsageError": "errors",
    "evaluate": "external_validation",
    "evaluate_corruptions": "corrupted_images",
    "evaluate_foreign": "foreign_images",
    "Explanation": "explain_images",
    "explain": "explain_images",
    "heat_maps": "explanation.heat_maps",
    "export_student": "export",
    "distill": "pipeline",
    "resume": "pipeline",
    "Choice": "planning",
    "Plan": "planning",
    "plan": "planning",
    "read_plan": "planning",
    "write_plan": "planning",
    "run_bench": "bench",
    "RECIPES": "recipes",
    "AttentionGuidedKD": "recipes",
    "Baseline": "recipes",
    "Best": "recipes",
    "CAMKD": "recipes",
    "DualModelSKD": "recipes",
    "ExplainableKD": "recipes",
    "LinearProbe": "recipes",
    "MedAlmighty": "recipes",
    "Recipe": "recipes",
    "StandardKD": "recipes",
    "WeCKD": "recipes",
    "Run": "run",
    "DataSettings": "settings",
    "EvaluationSettings": "settings",
    "Settings": "settings",
    "StudentSettings": "settings",
    "TeacherSettings": "settings",
    "TrainingSettings": "settings",
    "ViewSettings": "settings",
    "MultiClass": "task",
    "MultiLabel": "task",
    "Task": "task",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'stillroom' has no attribute {name!r}")
    return getattr(import_module(f"stillroom.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(_HOMES)


__all__ = [
    "CAMKD",
    "RECIPES",
    "AttentionGuidedKD",
    "Baseline",
    "Best",
    "Choice",
    "DataSettings",
    "Dataset",
    "DualModelSKD",
    "EvaluationSettings",
    "ExplainableKD",
    "Explanation",
    "LinearProbe",
    "MedAlmighty",
    "MultiClass",
    "MultiLabel",
    "Plan",
    "Prediction",
    "Predictor",
    "Recipe",
    "Run",
    "RunError",
    "Settings",
    "StandardKD",
    "StillroomError",
    "StudentSettings",
    "Task",
    "TeacherSettings",
    "TrainingSettings",
    "UsageError",
    "ViewSettings",
    "WeCKD",
    "distill",
    "evaluate",
    "evaluate_corruptions",
    "evaluate_foreign",
    "explain",
    "export_student",
    "heat_maps",
    "load_data",
    "plan",
    "read_plan",
    "resume",
    "run_bench",
    "write_plan",
]
