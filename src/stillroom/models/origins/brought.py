"""A module of any make behind timm's three methods."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import CodeType
from typing import Any

import torch
from torch import Tensor, nn

from stillroom.errors import UsageError
from stillroom.models.normalisation import Normalisation
from stillroom.models.origins.base import Origin, Provenance
from stillroom.models.specification import Says, Size, Specification


class Backbone(nn.Module):
    """What answers, and the head on it.

    Args:
        module: maps normalised images to something.
        take: makes of it features ``[B, D]``, a feature map ``[B, C, H, W]``, or an answer by class ``[B, K]``.
        head: maps features to logits; ``nn.Identity`` where the answer is by class.
        made_of: a text of what makes the answers besides weights: the module's parts and code, and how it is read.
    """

    content: Tensor

    def __init__(self, module: nn.Module, take: Callable[[Any], Tensor], head: nn.Module, made_of: str = "") -> None:
        super().__init__()
        self.module, self.take, self.head = module, take, head
        if made_of:  # a buffer, so that banks and cached teachers of another code are not taken for this one's
            digest = hashlib.blake2b(made_of.encode(), digest_size=16).digest()
            self.register_buffer("content", torch.tensor(list(digest), dtype=torch.uint8))

    def forward_features(self, images: Tensor) -> Tensor:
        return self.take(self.module(images))

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        pooled = features.mean((2, 3)) if features.ndim == 4 else features
        return pooled if pre_logits else self.head(pooled)

    def get_classifier(self) -> nn.Module:
        return self.head

    def forward(self, images: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(images))


@dataclass(frozen=True)
class Brought(Origin):
    """A network that comes as a module.

    Args:
        name: the user's.
        make: gives the module.
        size: side of its images in pixels.
        normalisation: of its pixels.
        outputs: what it answers, or a function that makes features of that.
        classes: names of the answers.
        licence: of its weights.
        fresh: whether ``make`` gives a new module with random weights every time.
    """

    name: str
    make: Callable[[], nn.Module]
    size: int
    normalisation: Normalisation
    outputs: Says | Callable[[Any], Tensor]
    classes: tuple[str, ...]
    licence: str | None
    fresh: bool

    @cached_property
    def specification(self) -> Specification:
        return Specification(
            native_size=self.size,
            fixed_size=True,
            normalisation=self.normalisation,
            family="own",
            hub=None,
            licence=self.licence,
            says="features" if callable(self.outputs) else self.outputs,
            classes=self.classes,
            brings_weights=not self.fresh,
        )

    def build(self, classes: int | None, input_size: Size) -> nn.Module:
        module = self.make()
        if not isinstance(module, nn.Module):
            raise UsageError(f"{self.name} made a {type(module).__name__}, not a torch module.")
        take = self.outputs if callable(self.outputs) else _tensor(self.name)
        answer = shape_of(self.name, module, take, input_size)
        head = nn.Linear(answer[1], classes) if classes and self.specification.says == "features" else nn.Identity()
        return Backbone(module, take, head, "" if self.fresh else code_of(module, self.outputs))

    def locate(self) -> Path:
        raise UsageError(
            f"{self.name} is made anew with random weights: give --weights with a file of its own, or --no-pretrained and "
            "--teacher-mode finetune."
        )

    def provenance(self, file: Path | None) -> Provenance:
        return Provenance("a module of the user's own", None, self.licence)


def code_of(module: nn.Module, outputs: Says | Callable[[Any], Tensor]) -> str:
    """A text that changes with the module's parts, their settings and the code of their classes, and with ``outputs``.

    What is read elsewhere, such as a file or a global number, it cannot know.
    """
    kinds = sorted({type(part) for part in module.modules()}, key=lambda kind: f"{kind.__module__}.{kind.__qualname__}")
    own = [kind for kind in kinds if kind.__module__.partition(".")[0] not in ("torch", "timm", "stillroom")]
    read = _source(outputs) if callable(outputs) else outputs
    return re.sub(r"0x[0-9a-fA-F]+", "", "\n".join([str(module), *map(_source, own), read]))  # no places in memory


def _source(thing: Any) -> str:
    """What a function computes, with what it has closed over; of a class, what all of its functions do.

    Compiled code, not text: two classes of one name in one file have one text for Python's ``inspect``.
    """
    if isinstance(thing, type):
        inside = (getattr(value, "__func__", getattr(value, "fget", value)) for value in vars(thing).values())
        return "\n".join([thing.__qualname__, *(_source(value) for value in inside if hasattr(value, "__code__"))])
    code = getattr(thing, "__code__", None)
    if code is None:  # a partial, a module, an object that is called
        return str(thing)
    closed = [str(cell.cell_contents) for cell in thing.__closure__ or ()]
    return f"{_compiled(code)} {closed} {thing.__defaults__}"


def _compiled(code: CodeType) -> str:
    inner = [_constant(part) for part in code.co_consts]
    return f"{code.co_code!r} {code.co_names} {code.co_varnames} {inner}"


def _constant(part: Any) -> str:
    if isinstance(part, CodeType):
        return _compiled(part)
    return str(sorted(map(repr, part))) if isinstance(part, frozenset) else repr(part)  # a set has no order of its own


def shape_of(name: str, module: nn.Module, take: Callable[[Any], Tensor], input_size: Size) -> tuple[int, ...]:
    """``[1, D]`` or ``[1, C, H, W]``: the shape of what it says to one black image. It is left as it was found.

    Raises:
        UsageError: it fails, or says something else.
    """
    modes = {part: part.training for part in module.modules()}
    first = next(module.parameters(), None)
    image = torch.zeros(1, 3, *input_size, device="cpu" if first is None else first.device)
    try:
        with torch.no_grad():
            said = take(module.eval()(image))
    except UsageError:
        raise
    except Exception as error:  # the user's own code
        raise UsageError(
            f"{name} fails on one image [1, 3, {input_size[0]}, {input_size[1]}]: {type(error).__name__}: {error}."
        ) from error
    finally:
        for part, training in modes.items():
            part.training = training
    if not isinstance(said, Tensor) or said.ndim not in (2, 4) or len(said) != 1:
        got = tuple(said.shape) if isinstance(said, Tensor) else type(said).__name__
        raise UsageError(
            f"{name} gives {got} for one image; wanted are [1, D] or a feature map [1, C, H, W]. Give outputs a function "
            "that takes it out of what the module gives."
        )
    return tuple(said.shape)


def _tensor(name: str) -> Callable[[Any], Tensor]:
    def take(said: Any) -> Tensor:
        if not isinstance(said, Tensor):
            raise UsageError(
                f"{name} gives a {type(said).__name__}, not a tensor. Give outputs a function that takes features out of it."
            )
        return said

    return take
