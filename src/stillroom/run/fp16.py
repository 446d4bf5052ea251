"""A run's network in half precision: made of the float32 file, compared with it on test, and kept or refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from stillroom.deployment.graph import Graph
from stillroom.deployment.half import FP16_FILE, HOLDS, halved, largest
from stillroom.deployment.likeness import downgrades_of, refusals_of
from stillroom.deployment.onnx import write_graph
from stillroom.errors import UsageError
from stillroom.files.digests import record, remove
from stillroom.models.network import Network
from stillroom.run.int8 import Handed, compared, said_of_maps
from stillroom.run.workbench import Workbench

_LOOKED_AT = 64
ROLE = "fp16"


def make_fp16(bench: Workbench, handed: Handed) -> tuple[Path | None, dict[str, Any]]:
    """Write student.fp16.onnx beside the float32 file, if it keeps what that promises.

    It is the same network with the same temperature and rules. Numbers that float16 does not hold are looked for on
    validation images; both files are shown the test images.

    Args:
        bench: the run.
        handed: the network and its float32 file.

    Returns:
        The file, None where it was refused, and an earlier one is removed; and the part ``fp16`` of metrics.json.

    Raises:
        UsageError: an ensemble, or a network with no layer to halve.
    """
    import onnx

    if not isinstance(handed.network, Network):
        raise UsageError("An ensemble has no fp16 file. Give --keep average or student.")
    graph = Graph(onnx.load(handed.path))
    path = handed.path.with_name(FP16_FILE)
    hidden = path.with_name(f".{path.name}.untried.tmp")
    noted = replace(handed.noted, explanation=None, details={**handed.noted.details, "precision": ROLE})
    data = bench.seen_by(handed.network)
    rows = np.sort(np.random.default_rng(0).permutation(data.val)[:_LOOKED_AT])
    figures: dict[str, Any] = {"largest": largest(graph, data.images.batch(rows).cpu().numpy())}
    try:
        write_graph(halved(graph), noted, hidden)
        figures |= compared(bench, handed, hidden, ROLE)
        figures |= {"refused": [*_too_large(figures), *refusals_of(figures)], "downgraded": downgrades_of(figures)}
        if figures["refused"]:
            remove(path)  # an earlier one: what is told is of the one that was refused
            return None, figures
        write_graph(halved(graph), replace(noted, explanation=said_of_maps(handed.noted, figures)), hidden)
        record(path, hidden)
        hidden.replace(path)
    finally:
        hidden.unlink(missing_ok=True)
    return path, figures


def _too_large(figures: dict[str, Any]) -> list[str]:
    """Half of what float16 holds is the limit: validation has not seen the largest number that there will be."""
    if figures["largest"] <= HOLDS / 2:
        return []
    return [f"Between its layers stand numbers up to {figures['largest']:.3g}, and float16 ends at {HOLDS:.0f}."]
