"""What is known of a network before it is built."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from stillroom.models.normalisation import Normalisation

Size = tuple[int, int]
"""Height and width in pixels."""

Says = Literal["features", "logits", "probabilities"]
"""What a network answers: features, for which a head is made, or something by class already."""


@dataclass(frozen=True)
class Specification:
    """What is known of a network before it is built.

    Attributes:
        native_size: side of the image it was made for, in pixels.
        fixed_size: whether its weights depend on the input size (position embeddings, windows).
        normalisation: its own.
        family: the kind of network, by module.
        hub: its repository or address in timm's hub, or the repository that its name says; None where there are no
            published weights.
        licence: of its weights, in the words of its publisher; None where they do not say.
        says: what it answers. By class it teaches as it is, and has no head of ours.
        classes: the names of what it answers, in its order, where it says so.
        brings_weights: whether it comes with its weights, so that none are looked for.
        trainable: whether it can be fine-tuned.
        features: what a head on its features sees of a transformer unless told: class token, mean of patches, or both.
    """

    native_size: int
    fixed_size: bool
    normalisation: Normalisation
    family: str
    hub: str | None
    licence: str | None = None
    says: Says = "features"
    classes: tuple[str, ...] = ()
    brings_weights: bool = False
    trainable: bool = True
    features: Literal["cls", "mean", "both"] = "cls"
