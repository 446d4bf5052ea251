"""What is known of a foundation model before it teaches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from stillroom.models.normalisation import Normalisation

Loader = Literal["timm", "transformers", "open_clip", "stillroom"]
Features = Literal["cls", "mean", "both", "own"]

NOT_VERIFIED = "not verified"
"""Begins what an entry says of itself where its names and shapes could be held against nothing published."""


@dataclass(frozen=True)
class MedicalTeacher:
    """One network of the catalogue.

    Attributes:
        name: what `--teacher` takes.
        domain: what kind of images it was made for.
        parameters: millions, of the part that reads images, without a classifier.
        size: side of the square image it was made for, in pixels.
        normalisation: its own mean and standard deviation.
        features: what its authors take of it: its class token, the mean of its patches, both, or its own pooling or
            projection.
        width: how many numbers that is for an image.
        licence: of its weights: an SPDX name, or its publisher's own words.
        commercial: whether that allows commercial use; None where it has to be read for that.
        gated: whether its publisher lets nobody have it who has not asked; None where that could not be looked up.
        source: where its weights are: ``hf-hub:OWNER/NAME`` in timm's form, ``hf:OWNER/NAME`` in transformers',
            ``open_clip:OWNER/NAME``, or ``file:`` and what the user must bring.
        loader: the library that knows its architecture; ``stillroom`` where none does.
        architecture: that library's name of it: timm's, also for open_clip's towers, or transformers' ``model_type``.
        arguments: what that library must be told to build it; classes by their names.
        registers: tokens beside class and patches, in none of the features.
        files: what the file of weights may be called, where it has a name of its own.
        reference: where the facts were looked up.
        verified: what its names, shapes or number of parameters were held against; else :data:`NOT_VERIFIED` and why.
        terms: what else its publisher asks, in a sentence; empty where the licence says all.
    """

    name: str
    domain: str
    parameters: float
    size: int
    normalisation: Normalisation
    features: Features
    width: int
    licence: str
    commercial: bool | None
    gated: bool | None
    source: str
    loader: Loader
    architecture: str
    reference: tuple[str, ...]
    verified: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    registers: int = 0
    files: tuple[str, ...] = ()
    terms: str = ""

    @property
    def repository(self) -> str | None:
        """The repository of the hub that has its weights; None where the user must bring a file."""
        scheme, _, rest = self.source.partition(":")
        return None if scheme == "file" else rest
