"""A file of ONNX, opened: by whom it is run, and how it is opened again elsewhere."""

from __future__ import annotations

import platform
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from stillroom.deployment.exporting_again import export_again
from stillroom.deployment.metadata import ModelMetadata
from stillroom.errors import UsageError

if TYPE_CHECKING:
    from onnxruntime import InferenceSession


_LEVELS = {
    "none": "ORT_DISABLE_ALL",
    "basic": "ORT_ENABLE_BASIC",
    "extended": "ORT_ENABLE_EXTENDED",
    "all": "ORT_ENABLE_ALL",
}


@dataclass(frozen=True)
class Opened:
    """How a model was opened, so that it can be opened again elsewhere.

    Attributes:
        path: where its file was.
        threads: of a batch.
        stamp: the file's size and time of change.
        level: how far ONNX Runtime rearranges the graph, ``none``, ``basic``, ``extended`` or ``all``.
        content: the file, where it was handed over.
    """

    path: Path
    threads: int
    stamp: tuple[int, int]
    level: str = "all"
    content: bytes | None = field(default=None, repr=False)

    def read(self) -> bytes:
        """The file as it was opened. Raises UsageError where it has changed since."""
        if self.content is not None:
            return self.content
        try:
            content = self.path.read_bytes()
            same = stamp_of(self.path) == self.stamp
        except OSError:
            same = False
        if not same:
            raise UsageError(f"{self.path} is not the file any more that was opened: open it again to copy or send it.")
        return content


def stamp_of(path: Path) -> tuple[int, int]:
    """The file's size and time of change."""
    found = path.stat()
    return found.st_size, found.st_mtime_ns


def open_session(model: Path | bytes, opened: Opened) -> InferenceSession:
    """A session of ONNX Runtime on the CPU. Raises UsageError where the model is none."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = opened.threads
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, _LEVELS[opened.level])
    options.add_session_config_entry("session.x64quantprecision", "1" if _sums_overflow() else "0")
    options.log_severity_level = 4  # what fails is raised; lines of its own, with escape codes, help nobody
    given = str(model) if isinstance(model, Path) else model
    try:
        return onnxruntime.InferenceSession(given, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime's own exception types have no public base
        raise UsageError(f"{opened.path} is not an ONNX model that can be opened: {first_line(error)}.") from error


def _sums_overflow() -> bool:
    """Whether this CPU may add products of eight-bit numbers in sixteen bits, which overflow, unless the runtime takes care.

    Intel's and AMD's do without the instructions called VNNI. Where it cannot be told whether they are there, care is
    taken: it costs an int8 file its speed, and a float32 file nothing.
    """
    if platform.machine().lower() not in ("x86_64", "amd64", "x86"):
        return False
    try:
        told = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return True
    return "avx512_vnni" not in told and "avx_vnni" not in told


def first_line(error: Exception) -> str:
    """What another library's error says, in a line."""
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:300].rstrip(".")


def require_fit(session: InferenceSession, metadata: ModelMetadata, path: Path) -> None:
    """Raises UsageError where the metadata speak of another graph."""
    shapes = {output.name: output.shape for output in session.get_outputs()}
    wanted = [
        "logits",
        "probabilities",
        *(["map"] if metadata.layer else []),
        *(["distance"] if metadata.foreign else []),
    ]
    images = next((entry.shape for entry in session.get_inputs() if entry.name == "images"), None)
    _, channels, height, width = images if images and len(images) == 4 else (None,) * 4
    absent = [name for name in wanted if name not in shapes]
    classes = shapes.get("logits", [None])[-1]
    reason = ""
    if absent:
        reason = f"it has no output {absent[0]}, which its metadata speak of"
    elif isinstance(channels, int) and channels != metadata.channels:
        reason = f"it says {metadata.channels} channels, and its graph takes {channels}"
    elif isinstance(height, int) and (height, width) != (metadata.size, metadata.size):
        reason = f"it says size {metadata.size}, and its graph takes images of {height} x {width}"
    elif isinstance(classes, int) and classes != len(metadata.task.classes):
        reason = f"it says {len(metadata.task.classes)} classes, and its graph answers {classes}"
    if reason:
        raise UsageError(
            f"{path} carries damaged Stillroom metadata ({reason}). Export it again with {export_again(path)}."
        )
