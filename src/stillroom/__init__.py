"""Stillroom: distil large pretrained vision models into small, deployable medical image classifiers.

    from stillroom import MedAlmighty, Settings, StudentSettings, distill

    run = distill(Settings("pneumoniamnist", recipe=MedAlmighty(temperature=2.0)), out="runs/first")
    run.metrics["test"]["student"]["auc"]
    run.predictor().predict(["image.png"])

Names are loaded when first used, so that ``import stillroom`` is light.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

# ONNX Runtime 1.32 and later would note an identifier of this device and its sessions, to send them to its makers.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

if TYPE_CHECKING:
    from stillroom.after.corruptions import evaluate_corruptions
    from stillroom.after.external_validation import evaluate
    from stillroom.after.foreign_images import evaluate_foreign
    from stillroom.after.heat_map import Explanation, explain
    from stillroom.after.lighter import export_fp16, export_int8
    from stillroom.bench import run_bench
    from stillroom.data.load import Dataset, load_data
    from stillroom.deployment.prediction import Prediction
    from stillroom.deployment.predictor import Predictor
    from stillroom.errors import RunError, StillroomError, UsageError
    from stillroom.explanation.heat_maps import heat_maps
    from stillroom.models.origins.own_module import FromFactory, FromModule
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
    from stillroom.run.folder import Run
    from stillroom.run.pipeline import distill, resume
    from stillroom.run.stages.export import export_student
    from stillroom.settings.evaluation import EvaluationSettings
    from stillroom.settings.sections import (
        DataSettings,
        StudentSettings,
        TeacherSettings,
        TrainingSettings,
        ViewSettings,
    )
    from stillroom.settings.whole import Settings
    from stillroom.task import MultiClass, MultiLabel, Task

_HOMES = {
    "Dataset": "data.load",
    "load_data": "data.load",
    "Prediction": "deployment.prediction",
    "Predictor": "deployment.predictor",
    "RunError": "errors",
    "StillroomError": "errors",
    "UsageError": "errors",
    "evaluate": "after.external_validation",
    "evaluate_corruptions": "after.corruptions",
    "export_fp16": "after.lighter",
    "export_int8": "after.lighter",
    "evaluate_foreign": "after.foreign_images",
    "Explanation": "after.heat_map",
    "explain": "after.heat_map",
    "heat_maps": "explanation.heat_maps",
    "export_student": "run.stages.export",
    "FromFactory": "models.origins.own_module",
    "FromModule": "models.origins.own_module",
    "distill": "run.pipeline",
    "resume": "run.pipeline",
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
    "Run": "run.folder",
    "DataSettings": "settings.sections",
    "EvaluationSettings": "settings.evaluation",
    "Settings": "settings.whole",
    "StudentSettings": "settings.sections",
    "TeacherSettings": "settings.sections",
    "TrainingSettings": "settings.sections",
    "ViewSettings": "settings.sections",
    "MultiClass": "task",
    "MultiLabel": "task",
    "Task": "task",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'stillroom' has no attribute {name!r}")
    try:
        return getattr(import_module(f"stillroom.{_HOMES[name]}"), name)
    except ModuleNotFoundError as error:
        from stillroom.extras import not_installed

        raise not_installed(error, f"stillroom.{name}") or error from None


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
    "FromFactory",
    "FromModule",
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
    "export_fp16",
    "export_int8",
    "export_student",
    "heat_maps",
    "load_data",
    "plan",
    "read_plan",
    "resume",
    "run_bench",
    "write_plan",
]
