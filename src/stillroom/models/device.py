"""The device that networks run on."""

from __future__ import annotations

import torch

from stillroom.errors import UsageError


def pick_device(wanted: str) -> torch.device:
    """The device for ``auto``, ``cpu``, ``cuda`` or ``mps``. Raises UsageError where the machine lacks it."""
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if wanted == "auto":
        return torch.device(next(name for name in ("cuda", "mps", "cpu") if there[name]))
    if not there[wanted]:
        raise UsageError(f"This machine has no {wanted} device that torch can use. Give --device cpu or auto.")
    return torch.device(wanted)
