"""What to do where an exported file is damaged: the command that writes such a file again."""

from __future__ import annotations

from pathlib import Path

PRECISIONS = ("int8", "fp16")
"""Of files beside the float32 one, as names and metadata have them; each is a flag of `stillroom export`."""


def precision_named(name: str) -> str:
    """``int8`` of ``student.int8.onnx``, ``fp16`` of such a name, else nothing."""
    return next((one for one in PRECISIONS if name.endswith(f".{one}.onnx")), "")


def export_again(path: Path, run: str = "RUN") -> str:
    """The command that writes such a file, e.g. ``stillroom export RUN --int8``, in backticks.

    Args:
        path: the file. Its precision is told by its name, else by what of its metadata can be read still.
        run: the run folder as the command names it.
    """
    precision = precision_named(path.name) or _precision_within(path)
    return f"`stillroom export {run}{f' --{precision}' if precision else ''}`"


def _precision_within(path: Path) -> str:
    try:
        content = path.read_bytes()
    except OSError:
        return ""
    return next((one for one in PRECISIONS if f'"precision": "{one}"'.encode() in content), "")
