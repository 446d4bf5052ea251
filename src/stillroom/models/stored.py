"""Tensors in files of weights: mapped into memory, looked at by name and shape, and read where they are wanted."""

from __future__ import annotations

import argparse
import json
import pickle
import re
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from stillroom.errors import UsageError
from stillroom.models.normalisation import Normalisation, from_metadata

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")
INDEX = ".index.json"
"""What the name of a file ends in that says which tensor is in which of several files beside it."""
INDICES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
"""Such files' usual names."""

_WRAPPERS = ("state_dict", "model")
_PREFIXES = ("module.", "_orig_mod.")
"""What DistributedDataParallel and torch.compile put before every name."""
_POINTER = b"version https://git-lfs."
"""How a file begins that Git LFS left in place of a large one."""
_REFUSED = re.compile(r"(?:GLOBAL|class|global|function)\s+`?([A-Za-z_][\w.]*\.[\w.]+)")
"""Where torch's refusal of a pickle names what it would have called."""
_SAVE = "Save it as .safetensors, or with torch.save(model.state_dict(), ...)."
_AT_ONCE = 2**28
"""Bytes that are copied before the files are let go: the pages that were read of them count as memory until then."""


def is_weights(file: Path) -> bool:
    """Whether a file of that name can be read here."""
    return file.suffix in SUFFIXES or file.name.endswith(INDEX)


def parts_of(file: Path) -> list[Path]:
    """The files that hold the tensors: those that an index names, in the order of their names, or the file itself.

    Raises:
        UsageError: the index cannot be read, or a file that it names is not there.
    """
    if not file.name.endswith(INDEX):
        return [file]
    try:
        places = json.loads(file.read_text(encoding="utf-8"))["weight_map"]
        names = sorted({str(name) for name in places.values()})
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{file} has no table weight_map of tensors and files ({error}).") from None
    parts = [file.parent / name for name in names]
    for part in parts:
        if part.parent != file.parent or not part.is_file():  # a name of an index is no path
            raise UsageError(f"{file} names {part.name}, which is not beside it.")
    return parts


def stated_normalisation(file: Path) -> Normalisation | None:
    """What the header of a .safetensors file says of mean and deviation; None where it says nothing.

    Raises:
        UsageError: the file is damaged, or what it says is no normalisation.
    """
    first = parts_of(file)[0]
    if first.suffix != ".safetensors":
        return None
    with _said_of(first), safe_open(first, framework="pt") as handle:
        return from_metadata(handle.metadata() or {})


def mapped(file: Path) -> dict[str, Tensor]:
    """A file's tensors by name, as it has them. Nothing is read but where they are (all of an old pickle is).

    Wrappers (``state_dict``, ``model``) and prefixes (``module.``, ``_orig_mod.``) are taken off. Of a pickle no code is run.

    Raises:
        UsageError: the file is damaged or holds something else than tensors.
    """
    found: dict[str, Tensor] = {}
    for part in parts_of(file):
        tensors = _tensors(part)
        twice = next((name for name in tensors if name in found), None)
        if twice is not None:
            raise UsageError(f"{part} holds {twice}, and so does another file of {file}.")
        found |= tensors
    while prefix := next((text for text in _PREFIXES if all(name.startswith(text) for name in found)), None):
        found = {name.removeprefix(prefix): tensor for name, tensor in found.items()}
    return found


def copy_into(target: Mapping[str, Tensor], state: dict[str, Tensor], file: Path, stored: dict[str, Tensor]) -> None:
    """Copy tensors into those of the same names, in their precision, with no more memory than a part of the file takes.

    Args:
        target: what is written to; names that ``state`` lacks are left as they are.
        state: of equal shapes; emptied.
        file: where ``stored`` comes from.
        stored: what :func:`mapped` gave, emptied: those of ``state`` that are the same objects are read from the file again.
    """
    again = {id(tensor): name for name, tensor in stored.items() if _can_map(file) and not tensor._version}
    plain = {name: again[id(tensor)] for name, tensor in state.items() if id(tensor) in again}
    made = {name: tensor for name, tensor in state.items() if name not in plain}
    state.clear()
    stored.clear()
    with torch.no_grad():
        for name in list(made):
            _copy(target[name], made.pop(name), name, file)
        for group in _groups(target, plain):
            opened = mapped(file)
            for name in group:
                _copy(target[name], opened[plain[name]], name, file)


def _copy(target: Tensor, values: Tensor, name: str, file: Path) -> None:
    """Raises UsageError where the values are no numbers and those that they replace are: it is the file that is damaged."""
    odd = values.is_floating_point() and not bool(torch.isfinite(values).all())
    if odd and torch.isfinite(target).all():
        raise UsageError(
            f"{file} cannot be used: {name} holds values that are not finite numbers. The file is damaged, or the training "
            "that made it diverged; get it again."
        )
    target.copy_(values)


def _groups(target: Mapping[str, Tensor], names: Mapping[str, str]) -> Iterator[list[str]]:
    group, size = [], 0
    for name in names:
        group.append(name)
        size += target[name].numel() * 4
        if size > _AT_ONCE:
            yield group
            group, size = [], 0
    yield group


def _can_map(file: Path) -> bool:
    """Whether opening it again costs next to nothing: a pickle of torch before 1.6 is no archive, and read as a whole."""
    return all(part.suffix == ".safetensors" or zipfile.is_zipfile(part) for part in parts_of(file))


def _tensors(file: Path) -> dict[str, Tensor]:
    with _said_of(file):
        with file.open("rb") as opened:
            start = opened.read(len(_POINTER))
        if not start:
            raise UsageError("the file is empty.")
        if start == _POINTER:
            raise UsageError("this is a pointer of Git LFS, not the weights: `git lfs pull` fetches them.")
        if file.suffix == ".safetensors":
            with safe_open(file, framework="pt") as handle:
                content: Any = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
        else:
            # Training scripts after MAE's keep their flags beside the weights. They hold plain values, and go unused.
            with torch.serialization.safe_globals([argparse.Namespace]):
                content = torch.load(file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file))
    for wrapper in _WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    tensors = content if isinstance(content, dict) else {}
    if not tensors or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in tensors.items()):
        raise UsageError(f"{file} is not a file of weights: it holds something else than tensors by name. {_SAVE}")
    odd = next((name for name, tensor in tensors.items() if not _is_plain(tensor)), None)
    if odd is not None:
        raise UsageError(f"{file} is not a file of weights for a network here: {odd} is {_kind(tensors[odd])}. {_SAVE}")
    return tensors


def _is_plain(tensor: Tensor) -> bool:
    dense = tensor.layout == torch.strided and not tensor.is_quantized and tensor.device.type == "cpu"
    return dense and not tensor.is_complex()


def _kind(tensor: Tensor) -> str:
    if tensor.layout != torch.strided:
        return "a sparse tensor"
    if tensor.is_quantized:
        return "a quantised tensor"
    return "a tensor of complex numbers" if tensor.is_complex() else "a tensor without values"


def _is_pickle(file: Path) -> bool:
    with file.open("rb") as opened:
        return opened.read(1) == pickle.PROTO


@contextmanager
def _said_of(file: Path) -> Iterator[None]:
    """Inside the block, what is wrong with a file becomes one line for people."""
    try:
        yield
    except UsageError as error:
        raise UsageError(f"{file}: {error}") from None
    except (FileNotFoundError, MemoryError):
        raise
    except PermissionError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}.") from None
    except Exception as error:  # a damaged pickle can make torch raise anything
        refused = isinstance(error, pickle.UnpicklingError) and "weights_only" in str(error)
        named = _REFUSED.search(str(error)) if refused else None
        if named or (refused and _is_pickle(file)):
            code = f"code ({named[1]})" if named else "code"
            raise UsageError(
                f"{file} holds more than weights: opening it would run {code}, and that code was not run. "
                "Save its weights alone, as .safetensors or with torch.save(checkpoint['state_dict'], ...)."
            ) from None
        of_torch = any(
            words in str(error) for words in ("weights_only", "internal")
        )  # advice to run it, or inner workings
        reason = (
            "no archive of weights"
            if of_torch
            else (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        )
        raise UsageError(f"{file} is not a file of weights, or it is damaged ({reason}). {_SAVE}") from error
