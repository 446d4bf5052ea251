"""What a network is like, as `stillroom models` lists it: its size, parameters and multiply-accumulates."""

from __future__ import annotations

from dataclasses import dataclass

from stillroom.errors import UsageError
from stillroom.models.catalogue import STUDENTS, TEACHERS
from stillroom.models.medical import medical


@dataclass(frozen=True)
class ModelCard:
    """One network at a glance.

    Attributes:
        name: what `--teacher` and `--student` take.
        family: the kind of network, by timm's module, e.g. ``mobilenetv3``.
        role: ``teacher``, ``student``, ``teacher, student``, or empty outside the short list and the medical catalogue.
        native_size: side of the image it was made for, in pixels.
        parameters: millions, with the classifier it was published with unless a number of classes was given.
        megabytes: its parameters' size as float32.
        pretrained: whether timm's hub has weights for it.
        size: side in pixels of the images that the next two are of.
        macs: millions of multiply-accumulates for one image; None where the network takes no images of that size.
        latency_ms: median milliseconds for one image on this machine; None where it was not measured.
    """

    name: str
    family: str
    role: str
    native_size: int
    parameters: float
    megabytes: float
    pretrained: bool
    size: int
    macs: float | None
    latency_ms: float | None = None


def describe(wanted: list[str], *, size: int | None = None, classes: int | None = None) -> list[ModelCard]:
    """A card for each name. Networks are laid out without memory, a fraction of a second each.

    Args:
        wanted: names of networks.
        size: side in pixels of the images to count multiply-accumulates for. Default: each network's own.
        classes: of the classifier. Default: as published.

    Raises:
        UsageError: an unknown name, or a size or number of classes below 1.
    """
    for flag, value in (("--size", size), ("--classes", classes)):
        if value is not None and value < 1:
            raise UsageError(f"{flag} must be at least 1, got {value}.")
    import torch

    from stillroom.models.multiply_adds import count_macs
    from stillroom.models.zoo import check_size, outline, specification

    cards = []
    for name in wanted:
        spec = specification(name)
        if spec.brings_weights:
            raise UsageError(
                f"{name} is a network of your own: this list is of networks that Stillroom builds by name."
            )
        side = spec.native_size if size is None else size
        try:
            check_size(name, side)
            takes = True
        except UsageError:
            side, takes = spec.native_size, False
        network = outline(name, side, classes)
        parameters = sum(parameter.numel() for parameter in network.parameters())
        macs = count_macs(network, torch.empty(1, 3, side, side, device="meta"))
        teaches = name in TEACHERS or medical(name) is not None
        roles = [role for role, is_one in (("teacher", teaches), ("student", name in STUDENTS)) if is_one]
        cards.append(
            ModelCard(
                name=name,
                family=spec.family,
                role=", ".join(roles),
                native_size=spec.native_size,
                parameters=round(parameters / 1e6, 2),
                megabytes=round(4 * parameters / 1e6, 3),
                pretrained=spec.hub is not None,
                size=side if size is None else size,
                macs=round(macs / 1e6, 1) if takes else None,
            )
        )
    return cards
