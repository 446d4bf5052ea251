"""The papers behind the recipes, as the report and the model card cite them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Citation:
    """A paper.

    Attributes:
        text: authors, year, title and place.
        link: where to read it.
        reconstructed: True where only the abstract was to be had, so that the recipe is a reading of it.
    """

    text: str
    link: str
    reconstructed: bool = False


HINTON = Citation(
    "Hinton G, Vinyals O, Dean J (2015). Distilling the knowledge in a neural network.",
    "https://arxiv.org/abs/1503.02531",
)
_MEDALMIGHTY = Citation(
    "Ren Y, Gu Z, Liu W (2025). MedAlmighty: enhancing disease diagnosis with large vision model "
    "distillation. Frontiers in Artificial Intelligence 8:1527980.",
    "https://doi.org/10.3389/frai.2025.1527980",
)
_DUAL = Citation(
    "Tsutsumi A, Li G, Togo R, Ogawa T, Kondo S, Haseyama M (2025). Dual-model weight selection and "
    "self-knowledge distillation for medical image classification. arXiv:2508.20461.",
    "https://arxiv.org/abs/2508.20461",
    reconstructed=True,
)
_EXPLAINABLE = Citation(
    "Mir AN, Rizvi DR (2025). Explainable knowledge distillation for efficient medical image classification. "
    "arXiv:2508.15251.",
    "https://arxiv.org/abs/2508.15251",
    reconstructed=True,
)
_WECKD = Citation(
    "Rahman MA, Raiaan MAK, Azam S, Karim A, Beissbarth J, Leach A (2025). WeCKD: weakly-supervised chained "
    "distillation network for efficient multimodal medical imaging. arXiv:2510.14668.",
    "https://arxiv.org/abs/2510.14668",
    reconstructed=True,
)
_CAMKD = Citation(
    "Zhang H, Chen D, Wang C (2022). Confidence-aware multi-teacher knowledge distillation. ICASSP.",
    "https://arxiv.org/abs/2201.00007",
)
# Keys are how a recipe's name begins once its hyphens and underscores are gone.
_PAPERS = {
    "medalmighty": _MEDALMIGHTY,
    "dualmodel": _DUAL,
    "explainable": _EXPLAINABLE,
    "weckd": _WECKD,
    "camkd": _CAMKD,
}


def citations(recipe: str) -> list[Citation]:
    """The recipe's own paper, where it has one, and the paper that all distillation rests on."""
    name = recipe.lower().replace("-", "").replace("_", "").replace(" ", "")
    return [*(paper for key, paper in _PAPERS.items() if name.startswith(key)), HINTON]
