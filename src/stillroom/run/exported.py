"""The network that a run hands over, kept in its folder where it is not simply the student."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from stillroom.distillation.teachers import Panel
from stillroom.models.saving import load_network, save_network

EXPORTED = "exported"


def save_exported(run: Path, network: nn.Module) -> None:
    """Keep what is exported in the folder ``exported``, where it is not simply ``student``; of several, each member."""
    if isinstance(network, Panel):
        for number, member in enumerate(network.networks, start=1):
            save_network(member, run / EXPORTED / str(number))  # type: ignore[arg-type]
    else:
        save_network(network, run / EXPORTED)  # type: ignore[arg-type]


def load_exported(run: Path) -> nn.Module:
    """The network that student.onnx was made of, on the CPU and in evaluation mode."""
    folder = run / EXPORTED
    if not folder.exists():
        return load_network(run / "student")
    members = sorted((path for path in folder.iterdir() if path.is_dir()), key=lambda path: int(path.name))
    return Panel([load_network(path) for path in members]) if members else load_network(folder)
