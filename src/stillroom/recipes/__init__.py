"""One file per published system. The tuple below is the whole list; nothing registers itself."""

from __future__ import annotations

from stillroom.errors import UsageError, nearest
from stillroom.recipes.attention_guided_kd import AttentionGuidedKD
from stillroom.recipes.base import Recipe
from stillroom.recipes.baseline import Baseline
from stillroom.recipes.best import Best
from stillroom.recipes.ca_mkd import CAMKD
from stillroom.recipes.dual_model_skd import DualModelSKD
from stillroom.recipes.explainable_kd import ExplainableKD
from stillroom.recipes.linear_probe import LinearProbe
from stillroom.recipes.medalmighty import MedAlmighty
from stillroom.recipes.standard_kd import StandardKD
from stillroom.recipes.weckd import WeCKD

RECIPES: tuple[type[Recipe], ...] = (
    Best,
    MedAlmighty,
    ExplainableKD,
    CAMKD,
    AttentionGuidedKD,
    StandardKD,
    DualModelSKD,
    WeCKD,
    LinearProbe,
    Baseline,
)


def recipe_named(name: str) -> type[Recipe]:
    """The recipe class called ``name``. Raises UsageError with the nearest names."""
    for recipe in RECIPES:
        if recipe.name == name:
            return recipe
    known = [recipe.name for recipe in RECIPES]
    raise UsageError(f"There is no recipe {name!r}.{nearest(name, known)} Recipes: {', '.join(known)}.")


__all__ = [
    "CAMKD",
    "RECIPES",
    "AttentionGuidedKD",
    "Baseline",
    "Best",
    "DualModelSKD",
    "ExplainableKD",
    "LinearProbe",
    "MedAlmighty",
    "Recipe",
    "StandardKD",
    "WeCKD",
    "recipe_named",
]
