"""Where a network comes from: what is known of it before it is built, how it is built, and where its weights are."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from stillroom.errors import UsageError
from stillroom.models.specification import Size, Specification

if TYPE_CHECKING:
    from stillroom.models.network import Network


@dataclass(frozen=True)
class Provenance:
    """Whose weights a network has.

    Attributes:
        source: a repository of the hub, an address or a path; how they came in words where there is none of these.
        revision: the repository's commit, 40 hex digits; None where it is not known.
        licence: in the words of its publisher; None where they do not say.
    """

    source: str
    revision: str | None = None
    licence: str | None = None


class Origin(ABC):
    """One network by its name."""

    @property
    @abstractmethod
    def specification(self) -> Specification: ...

    @property
    def reads_all_weights(self) -> bool:
        """Whether every parameter of what it builds is in the file of weights, or refused, and nothing is computed from their
        first values: it can be built as :mod:`~stillroom.models.blank` does.
        """
        return False

    @abstractmethod
    def build(self, classes: int | None, input_size: Size) -> nn.Module:
        """The backbone with random weights, or with those that it brings.

        It has timm's three methods: ``forward_features``, ``forward_head(features, pre_logits)`` and ``get_classifier``.

        Args:
            classes: ``K`` of the classifier; None keeps the number it was published with.
            input_size: height and width in pixels.
        """

    @abstractmethod
    def locate(self) -> Path:
        """The file of its published weights, downloaded if need be. Raises UsageError where there is none."""

    @property
    def published(self) -> dict[str, Any] | None:
        """What was read of its repository or folder, by file: with it a saved network can be built where neither is there.

        None where the name says all.
        """
        return None

    def fill(self, network: Network, file: Path, name: str) -> None:
        """Read a file of weights into the network. Raises UsageError where they do not fit."""
        from stillroom.models.weights import load_weights

        load_weights(network, file, name)

    def provenance(self, file: Path | None) -> Provenance:
        """Whose weights it has, ``file`` being what the user gave: where that comes from, only the user knows."""
        spec = self.specification
        return Provenance(str(file)) if file else Provenance(spec.hub or "", None, spec.licence)


def no_published_weights(name: str) -> UsageError:
    return UsageError(
        f"timm's hub has no weights for {name}. Give --weights with a file or folder that holds some, or start from "
        "random weights."
    )
