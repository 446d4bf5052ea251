"""What is known of every image of a store besides its pixels: what the audit asks for oddities and shortcuts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np


@dataclass(frozen=True)
class ImageFacts:
    """``N`` rows, one per image, at native size.

    Attributes:
        blank: ``[N]`` bool, every pixel alike, or all within 2 of one another whatever the bits.
        colour: ``[N]`` bool; a grey image saved as RGB is grey.
        whites: ``[N]`` int64, the image's own white: 255 of 8 bits, else see :func:`~stillroom.data.geometry.white_of`.
        clipped: ``[N]`` int64, how many of its pixels were brighter than the store's white and are shown as white.
        scaled_masks: ``[N]`` bool, whether the mask was given at another size and resized to the image's.
        flat_masks: ``[N]`` int8, 1 where the mask is all black, 2 where it is wholly white, else 0.
    """

    blank: np.ndarray
    colour: np.ndarray
    whites: np.ndarray
    clipped: np.ndarray
    scaled_masks: np.ndarray
    flat_masks: np.ndarray

    def __len__(self) -> int:
        return len(self.blank)

    def take(self, indices: np.ndarray) -> ImageFacts:
        """The same of these rows, in this order."""
        return ImageFacts(**{name: column[indices] for name, column in self.columns().items()})

    def columns(self) -> dict[str, np.ndarray]:
        """By name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_columns(cls, columns: Mapping[str, np.ndarray]) -> ImageFacts:
        """The inverse of :meth:`columns`. Raises KeyError where one is missing."""
        return cls(**{field.name: columns[field.name] for field in fields(cls)})
