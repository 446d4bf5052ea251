"""Whether what is installed fits together and works: the plain install, and the extras that are there."""

from __future__ import annotations

import importlib
import os
import platform
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec

from stillroom.after.checks import Check, in_a_line

_PARTS = ("numpy", "PIL", "onnxruntime", "pydicom")
_TRAINING = ("torch", "torchvision", "timm", "lightning_fabric", "onnx", "sklearn", "pandas")
"""Modules whose import fails where a system library is missing or two packages do not fit."""

_TWICE = (
    b'\x08\x08:9\n\x0e\n\x01x\n\x01x\x12\x01y"\x03Add\x12\x05twice'
    b"Z\x0f\n\x01x\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x02b\x0f\n\x01y\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x02B\x04\n\x00\x10\x12"
)
"""An ONNX file of one addition, y = x + x of two float32, as the package onnx writes it: a device does not have that."""


def trains() -> bool:
    """Whether the extra ``train`` is here, as far as torch tells."""
    return find_spec("torch") is not None


def installation() -> Iterator[Check]:
    """Python, the packages that are needed with their versions, whether they load, and where a run computes."""
    part = "installation"
    yield Check(
        part, "well", f"Stillroom {version('stillroom')}, Python {platform.python_version()} on {sys.platform}."
    )
    unfit = list(_unfit_requirements())
    for text in unfit:
        yield Check(part, "wrong", text, "Install again: `pip install --upgrade stillroom`.")
    broken = 0
    parts = (*_PARTS, *(_TRAINING if trains() else ()))
    for name in parts:
        try:
            importlib.import_module(name)
        except Exception as error:  # a missing system library raises OSError, two packages that do not fit anything
            broken += 1
            yield Check(
                part,
                "wrong",
                f"{name} cannot be loaded: {in_a_line(error)}.",
                f"Install it again in this environment: `{sys.executable} -m pip install --force-reinstall {name}`.",
            )
    if not unfit and not broken:
        yield Check(part, "well", f"Everything that is needed is installed and loads ({', '.join(parts)}).")
    if not broken:
        yield from _machine(part)
        yield _computes(part)
    encoding = (sys.stdout.encoding or "ascii").lower().replace("_", "-")
    if encoding not in ("utf-8", "utf8"):
        text = f"This terminal or pipe takes {encoding}: letters that it lacks are shown as '?'."
        yield Check(part, "note", text, "Set PYTHONIOENCODING=utf-8 where names need more.")


def _unfit_requirements() -> Iterator[str]:
    """Requirements of the installed package that are missing or of another version, a sentence each."""
    from packaging.requirements import Requirement

    extras = ("", "evaluate", "train") if trains() else ("",)
    for text in requires("stillroom") or ():
        wanted = Requirement(text)
        if wanted.marker is not None and not any(wanted.marker.evaluate({"extra": extra}) for extra in extras):
            continue
        try:
            found = version(wanted.name)
        except PackageNotFoundError:
            yield f"{wanted.name} is not installed."
            continue
        if not wanted.specifier.contains(found, prereleases=True):
            yield f"{wanted.name} is {found}; {wanted.specifier} is needed."


def _machine(part: str) -> Iterator[Check]:
    if not trains():
        more = "" if find_spec("scipy") else "to evaluate, `pip install 'stillroom[evaluate]'`; "
        yield Check(
            part, "well", f"Classifies and explains. For more: {more}to train, `pip install 'stillroom[train]'`."
        )
        return
    import torch

    if torch.cuda.is_available():
        yield Check(part, "well", f"Trains on {torch.cuda.get_device_name()} (CUDA {torch.version.cuda}).")
    elif torch.backends.mps.is_available():
        yield Check(part, "well", "Trains on Apple's GPU (mps).")
    else:
        why = "torch was built without CUDA" if torch.version.cuda is None else "no CUDA device answers"
        yield Check(part, "well", f"Trains on the CPU, {torch.get_num_threads()} of {os.cpu_count()} cores; {why}.")


def _computes(part: str) -> Check:
    """Whether ONNX Runtime answers."""
    import numpy as np
    import onnxruntime

    try:
        session = onnxruntime.InferenceSession(_TWICE, providers=["CPUExecutionProvider"])
        (answer,) = session.run(None, {"x": np.array([1.5, -2.0], dtype=np.float32)})
    except Exception as error:  # ONNX Runtime raises a class of its own for each of its codes
        advice = f"Install it again: `{sys.executable} -m pip install --force-reinstall onnxruntime`."
        return Check(part, "wrong", f"ONNX Runtime does not answer: {in_a_line(error)}.", advice)
    if not np.array_equal(answer, [3.0, -4.0]):
        return Check(part, "wrong", "ONNX Runtime gives 2 * 1.5 as something else than 3.", "Do not use this machine.")
    return Check(part, "well", f"ONNX Runtime {onnxruntime.__version__} answers.")
