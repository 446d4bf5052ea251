"""How a network wants its pixels scaled. Every pretrained network has its own mean and standard deviation."""

from __future__ import annotations

from dataclasses import dataclass

from stillroom.errors import UsageError


@dataclass(frozen=True)
class Normalisation:
    """``(pixel - mean) / std`` per colour channel, for pixels in [0, 1].

    Attributes:
        mean: red, green, blue.
        std: red, green, blue, each above 0.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise UsageError(
                "A normalisation is three means and three positive standard deviations, "
                f"got {self.mean} and {self.std}."
            )


IMAGENET = Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Of most networks trained on ImageNet."""

HALF = Normalisation((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
"""Pixels from -1 to 1: TensorFlow's networks, many transformers, MedMNIST's baselines."""

CLIP = Normalisation((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
"""Of CLIP, and of most networks trained as it was, on pictures with their texts."""


def from_metadata(metadata: dict[str, str]) -> Normalisation | None:
    """The normalisation in a .safetensors header, stated as ``mean`` and ``std`` (``0.5,0.5,0.5``), or None.

    Raises:
        UsageError: only one of the two is there, or they are not three numbers each.
    """
    if "mean" not in metadata and "std" not in metadata:
        return None
    try:
        mean, std = (tuple(float(part) for part in metadata[key].split(",")) for key in ("mean", "std"))
        return Normalisation(mean, std)
    except (KeyError, ValueError, UsageError):
        stated = {key: metadata.get(key) for key in ("mean", "std")}
        raise UsageError(f"The file's header states mean and std as {stated}, not as three numbers each.") from None
