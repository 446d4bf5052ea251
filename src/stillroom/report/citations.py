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


_BY_RECIPE = {
    "medalmighty": _MEDALMIGHTY,
    "explainable_kd": Citation(
        "Explainable knowledge distillation for efficient medical image classification (2025). arXiv 2508.15251. "
        "Reconstructed from its abstract.",
        "https://arxiv.org/abs/2508.15251",
    ),
    "ca_mkd": Citation(
        "Confidence-aware multi-teacher knowledge distillation (2022). ICASSP.", "https://arxiv.org/abs/2201.00007"
    ),
    "attention_guided_kd": Citation(
        "Zagoruyko S, Komodakis N (2017). Paying more attention to attention: improving the performance of convolutional "
        "neural networks via attention transfer. ICLR. Our recipe follows its idea, not its loss.",
        "https://arxiv.org/abs/1612.03928",
    ),
    "dual_model_skd": Citation(
        "Dual-model weight selection and self-knowledge distillation for medical image classification (2026). Computers "
        "in Biology and Medicine 204:111510. Reconstructed from its abstract.",
        "https://arxiv.org/abs/2508.20461",
    ),
    "weckd": Citation(
        "WeCKD (2025). arXiv 2510.14668. Reconstructed from its abstract and its authors' README.",
        "https://arxiv.org/abs/2510.14668",
    ),
}


def citations(recipe: str) -> list[Citation]:
    """The recipe's own paper, where it has one, and the paper that all distillation rests on."""
    return [_BY_RECIPE[recipe], HINTON] if recipe in _BY_RECIPE else [HINTON]
