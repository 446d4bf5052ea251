"""Where a student starts as part of a large network: weight selection, with a note of what was taken."""

from __future__ import annotations

from typing import Any

from stillroom.models.network import Network
from stillroom.models.weight_selection import Elements, Layers, select_weights


def cut_out(student: Network, large: Network, *, layers: Layers, elements: Elements, seed: int) -> dict[str, Any]:
    """Fill ``student`` in place with weights of ``large``, all but its classifier, and say which for the run's manifest.

    Args:
        student: of the large network's family, no deeper and no wider.
        large: left as it is.
        layers: see :func:`~stillroom.models.weight_selection.pick_layers`.
        elements: see :func:`~stillroom.models.weight_selection.pick_elements`.
        seed: of ``random`` elements.

    Returns:
        Plain values: the ``large`` network's name, its block behind each of the student's by stage (``layers``), how many
        tensors were ``copied``, and the names of those left at their ``initial`` weights.

    Raises:
        UsageError: the two do not match; the message names the first tensor that does not.
    """
    student.start = "cut"
    found = select_weights(large, student, layers=layers, elements=elements, seed=seed)
    return {
        "large": large.name,
        "layers": {stage: list(blocks) for stage, blocks in found.layers.items()},
        "copied": len(found.copied),
        "initial": list(found.initial),
    }
