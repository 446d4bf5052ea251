"""Networks that the user brings as code: a module that is there, or a function that makes one."""

from __future__ import annotations

import copy
import hashlib
import importlib
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from stillroom.errors import UsageError, nearest
from stillroom.models.normalisation import Normalisation
from stillroom.settings.network_names import parse, side_told

if TYPE_CHECKING:
    from torch import Tensor, nn

    from stillroom.models.origins.base import Origin

Outputs = Literal["features", "logits", "probabilities"]
OUTPUTS: tuple[Outputs, ...] = ("features", "logits", "probabilities")


@dataclass(frozen=True, eq=False)
class FromModule:
    """A module of your own as a teacher: ``TeacherSettings(teacher=FromModule(module, size=224, mean=..., std=...))``.

    It is known by its weights, its code and how it is read: an equal one finds the bank again, and any change gets a bank of
    its own. A run that was stopped goes on after the same module was made again.

    Args:
        module: maps ``[B, 3, S, S]`` normalised images to an answer.
        size: ``S``, side of its images in pixels.
        mean: of the pixels in [0, 1] that it expects, three numbers or one.
        std: likewise, each above 0.
        outputs: what it answers. ``features``: ``[B, D]``, or a feature map ``[B, C, H, W]`` whose places are averaged;
            a head is made for them. ``logits`` or ``probabilities``: ``[B, K]`` by class, asked as they are. A function makes
            features of whatever the module gives.
        classes: names of the ``K`` answers in their order. Default: they are in the order of the run's classes.
        licence: of its weights, for the report.
    """

    module: nn.Module
    size: int
    mean: tuple[float, ...] | float
    std: tuple[float, ...] | float
    outputs: Outputs | Callable[[Any], Tensor] = "features"
    classes: tuple[str, ...] = ()
    licence: str | None = None
    name: str = field(init=False)

    def __post_init__(self) -> None:
        from torch import nn

        from stillroom.models.origins.brought import code_of
        from stillroom.models.weights import weights_digest

        if not isinstance(self.module, nn.Module):
            raise UsageError(f"FromModule takes a torch.nn.Module, got {type(self.module).__name__}.")
        _check(self.size, self.mean, self.std, self.outputs)
        if isinstance(self.classes, str):
            raise UsageError(f"classes takes a list of names, got {self.classes!r} alone.")
        read = (self.size, _three(self.mean), _three(self.std), tuple(self.classes))
        made_of = f"{weights_digest(self.module)} {code_of(self.module, self.outputs)} {read}"
        name = f"module:{type(self.module).__name__}-{hashlib.blake2b(made_of.encode(), digest_size=6).hexdigest()}"
        object.__setattr__(self, "name", name)
        _HANDED_OVER[name] = self

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, eq=False)
class FromFactory:
    """A network of your own that is built anew: a student, or a teacher that is trained from its start.

    It is known by its shape: a run that was stopped goes on after the same factory was made again.

    Args:
        make: gives the body: a module from ``[B, 3, S, S]`` normalised images to a feature map ``[B, C, H, W]``, or to
            features ``[B, D]``. The mean over places and the linear head are added. Its random weights come from torch's
            generator, which the run seeds.
        size: ``S``, side in pixels of the images that it is made for.
        mean: of the pixels in [0, 1] that it expects, three numbers or one.
        std: likewise, each above 0.
    """

    make: Callable[[], nn.Module]
    size: int
    mean: tuple[float, ...] | float = 0.5
    std: tuple[float, ...] | float = 0.5
    name: str = field(init=False)

    def __post_init__(self) -> None:
        if not callable(self.make):
            raise UsageError(f"FromFactory takes a function that makes a module, got {type(self.make).__name__}.")
        _check(self.size, self.mean, self.std, "features")
        name = f"module:{getattr(self.make, '__name__', type(self.make).__name__)}-{_shape_digest(self.make)}"
        object.__setattr__(self, "name", name)
        _HANDED_OVER[name] = self

    def __str__(self) -> str:
        return self.name


def _shape_digest(make: Callable[[], nn.Module]) -> str:
    """12 hex digits that two functions share which make modules of the same parts and shapes."""
    import torch

    with torch.random.fork_rng(devices=[]):
        module = make()
    if not isinstance(module, torch.nn.Module):
        raise UsageError(f"FromFactory takes a function that makes a module; this one makes a {type(module).__name__}.")
    shapes = [(name, tuple(tensor.shape)) for name, tensor in module.state_dict().items()]
    return hashlib.blake2b(f"{module} {shapes}".encode(), digest_size=6).hexdigest()


_HANDED_OVER: dict[str, FromModule | FromFactory] = {}
"""What this process was given, by name: settings, plans and run folders hold the name alone."""


def handed_over(name: str, told: Mapping[str, str]) -> Origin:
    """The origin of ``module:...``. Raises UsageError where this process was not given that module."""
    if name not in _HANDED_OVER:
        raise UsageError(
            f"{name} is a module that was handed over in Python, and this process was not given it. Make the same "
            f"FromModule or FromFactory first.{nearest(name, list(_HANDED_OVER))}"
        )
    return _origin(name, _HANDED_OVER[name], told)


def by_function(name: str, told: Mapping[str, str]) -> Origin:
    """The origin of ``package.module:function``, which is imported and called without arguments.

    It gives a :class:`FromModule`, a :class:`FromFactory`, or a module; how a bare module's pixels and answers are to be
    read, ``told`` says.

    Raises:
        UsageError: there is no such function, it fails, or it gives something else.
    """
    where, _, function = name.partition(":")
    folder = str(Path.cwd())
    if folder not in sys.path:  # as `python -m` has it, so that a file beside the user is found
        sys.path.append(folder)
    try:
        made = getattr(importlib.import_module(where), function)
    except ModuleNotFoundError as error:
        raise UsageError(f"{name}: there is no Python module {error.name!r} to import.") from None
    except AttributeError:
        known = [key for key in vars(sys.modules.get(where, object)) if not key.startswith("_")]
        raise UsageError(f"{name}: {where} has no {function!r}.{nearest(function, known)}") from None
    except Exception as error:  # whatever the user's own code does
        raise UsageError(f"{name}: importing {where} failed: {type(error).__name__}: {error}.") from error
    if not isinstance(made, FromModule | FromFactory):
        if not callable(made):
            raise UsageError(f"{name} is a {type(made).__name__}, not a function that makes a network.")
        try:
            made = made()
        except Exception as error:
            raise UsageError(f"{name}() failed: {type(error).__name__}: {error}.") from error
    return _origin(name, made, told)


def _origin(name: str, made: Any, told: Mapping[str, str]) -> Origin:
    from torch import nn

    from stillroom.models.origins.brought import Brought

    if isinstance(made, FromFactory):
        return Brought(name, made.make, made.size, _normalisation(made), "features", (), None, fresh=True)
    if isinstance(made, FromModule):
        module = made.module
        return Brought(
            name,
            lambda: copy.deepcopy(module),
            made.size,
            _normalisation(made),
            made.outputs,
            made.classes,
            made.licence,
            fresh=False,
        )
    if not isinstance(made, nn.Module):
        raise UsageError(
            f"{name} gives a {type(made).__name__}: it must give a torch module, a FromModule or a FromFactory."
        )
    lacking = [flag for flag in ("size", "mean", "std", "outputs") if flag not in told]
    if lacking:
        raise UsageError(
            f"{name} gives a module and does not say how it is read. Say {' and '.join(lacking)} by "
            f"{', '.join(f'--teacher-{flag}' for flag in lacking)}, or let it give a FromModule."
        )
    bare = Normalisation((0.0,) * 3, (1.0,) * 3)  # what is told takes its place
    size = side_told(parse(f"{name}?size={told['size']}")) or 0
    return Brought(name, lambda: copy.deepcopy(made), size, bare, "features", (), None, fresh=False)


def _normalisation(made: FromModule | FromFactory) -> Normalisation:
    return Normalisation(_three(made.mean), _three(made.std))


def _three(values: tuple[float, ...] | float) -> tuple[float, ...]:
    try:
        given = tuple(float(value) for value in (values if isinstance(values, Iterable) else (values,)))  # NumPy's too
    except (TypeError, ValueError):
        raise UsageError(f"mean and std are three numbers each, or one, got {values!r}.") from None
    return given * 3 if len(given) == 1 else given


def _check(size: int, mean: Any, std: Any, outputs: Any) -> None:
    if not isinstance(size, int) or size < 1:
        raise UsageError(f"size is the side of the images in pixels, got {size!r}.")
    Normalisation(_three(mean), _three(std))
    if not callable(outputs) and outputs not in OUTPUTS:
        raise UsageError(f"outputs is one of {', '.join(OUTPUTS)}, or a function that makes features, got {outputs!r}.")
