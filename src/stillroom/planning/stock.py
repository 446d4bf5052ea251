"""Which networks there are to choose from: their size, the images they take, and whose pretrained weights are at hand."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from stillroom.errors import UsageError

HUB_PATIENCE_S = 3.0


class Shelf:
    """Networks by name.

    Args:
        classes: of the classifier.
    """

    def __init__(self, classes: int) -> None:
        self.classes = classes
        self.megabytes = cache(self._megabytes)

    def _megabytes(self, name: str) -> float:
        """Its float32 parameters with the run's classifier, in 10^6 bytes."""
        from stillroom.models.zoo import outline

        return 4 * sum(value.numel() for value in outline(name, None, self.classes).parameters()) / 1e6

    def native(self, name: str) -> int:
        """Side in pixels of the images that it was made for."""
        from stillroom.models.zoo import resolve_size, specification

        return resolve_size(name, None, specification(name).native_size)

    def trains(self, name: str) -> bool:
        """Whether it can be fine-tuned."""
        from stillroom.models.zoo import specification

        spec = specification(name)
        return spec.trainable and spec.says == "features"

    def takes(self, name: str, side: int) -> bool:
        """Whether it takes images of that side with its weights as they are; DINOv2's are made to be resampled."""
        from stillroom.models.zoo import check_size, specification

        if specification(name).fixed_size and "dinov2" not in name and side != self.native(name):
            return False
        try:
            check_size(name, side)
        except UsageError:
            return False
        return True


def weights_at_hand(names: tuple[str, ...], weights: Path | None) -> tuple[tuple[str, ...], str]:
    """Of ``names`` those with pretrained weights, and where they were looked for, in words. No file is opened.

    Args:
        names: of networks.
        weights: a file or folder; None asks timm's hub: its local cache, and the hub itself where it answers at once.

    Raises:
        UsageError: ``weights`` is not there.
    """
    if not names:
        return (), "none are wanted"
    from stillroom.settings.network_names import parse

    brought = tuple(name for name in names if parse(name).brings_weights)
    names = tuple(name for name in names if name not in brought)
    if not names:
        return brought, "they come with the network"
    if weights is not None:
        if not weights.expanduser().exists():
            raise UsageError(f"No weights at {weights}: there is no such file or folder.")
        return (*brought, *(name for name in names if _in_files(name, weights))), f"{weights}"
    from stillroom.models import hub
    from stillroom.models.origins.timm_models import FILES
    from stillroom.models.zoo import specification

    published = {name: source for name in names if (source := specification(name).hub)}
    cached = tuple(
        name for name, source in published.items() if any(hub.is_cached(source, file=file) for file in FILES)
    )
    if len(cached) == len(published):
        return (*brought, *cached), "the local cache of timm's hub"
    if hub.answers(HUB_PATIENCE_S):
        return (*brought, *published), "timm's hub"
    return (*brought, *cached), "the local cache of timm's hub (the hub itself does not answer)"


def _in_files(name: str, weights: Path) -> bool:
    """Whether a file is there that is named like the network; ``model.safetensors`` may be anybody's."""
    from stillroom.models.weights import find_weights

    try:
        file = find_weights(weights, name)
    except UsageError:
        return False
    named = file.parent.name if file.stem == "model" else file.stem
    return named.split(".")[0] == name.split(".")[0]
