"""The papers behind the recipes, as the report and the model card cite them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Citation:
    """A paper.

    Attributes:
        text: authors, year, title and place.
        link: where to read it.
    """

    text: str
    link: str


HINTON = Citation(
    "Hinton G, Vinyals O, Dean J (2015). Distilling the knowledge in a neural network.",
    "https://arxiv.org/abs/1503.02531",
)
_MEDALMIGHTY = Citation(
    "Ren Y, Gu Z, Liu W (2025). MedAlmighty: enhancing disease diagnosis with large vision model "
    "distillation. Frontiers in Artificial Intelligence 8:1527980.",
    "https://doi.org/10.3389/frai.2025.1527980",
)


def citations(recipe: str) -> list[Citation]:
    """The recipe's own paper, where it has one, and the paper that all distillation rests on."""
    return [_MEDALMIGHTY, HINTON] if recipe == "medalmighty" else [HINTON]
