"""Export a run's student, and let it pass only when it agrees with torch on real validation images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from stillroom.data.load import load_data
from stillroom.deployment.onnx import check_parity, export_onnx, require_parity
from stillroom.run import Run

PARITY_IMAGES = 64


def export_network(
    network: nn.Module, path: Path, run: Run, *, temperature: float, images: np.ndarray
) -> tuple[Path, dict[str, Any]]:
    """Write the ONNX file of a network trained in ``run``, and compare it with torch.

    Args:
        network: images in [0, 1] to logits.
        path: the file to write.
        run: its manifest says what the file must know of the data.
        temperature: calibrates the probabilities.
        images: ``[N, C, H, W]`` float32 in [0, 1], real validation images to compare on.

    Returns:
        The path and the comparison's figures.

    Raises:
        RunError: the network cannot be exported, or the file does not agree with it.
    """
    manifest = run.manifest
    store = manifest["store"]
    path = export_onnx(
        network,
        path,
        task=run.task,
        size=store["size"],
        channels=store["channels"],
        white=store["white"],
        fit=store["fit"],
        temperature=temperature,
        name=manifest["student"],
        synthetic=manifest["synthetic"],
        details={"data": manifest["data"], "recipe": manifest["recipe"]},
    )
    parity = check_parity(path, network, images)
    require_parity(parity, path)
    return path, parity


def export_student(run: Run, out: Path | None = None) -> tuple[Path, dict[str, Any]]:
    """Export a finished run's student once more, from its stored weights and its stored temperature.

    Raises:
        UsageError: the run has not finished, or its data are not there any more.
        RunError: the file does not agree with torch.
    """
    settings = run.settings
    temperature = run.metrics["calibration"]["student"]["temperature"]
    dataset = load_data(settings.source, settings.data, seed=settings.seed)
    rows = dataset.table.indices("val")[:PARITY_IMAGES]
    images = dataset.store.batch(rows).astype(np.float32) / np.float32(dataset.store.white)
    return export_network(run.student(), out or run.path / "student.onnx", run, temperature=temperature, images=images)
