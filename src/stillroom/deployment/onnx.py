"""Export of a trained network to one self-sufficient ONNX file, and the gate that it answers alike."""

from __future__ import annotations

import copy
import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stillroom.data.geometry import Fit
from stillroom.deployment.metadata import ModelMetadata
from stillroom.deployment.predictor import Predictor
from stillroom.errors import RunError
from stillroom.files import write_atomically
from stillroom.task import Task

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto
    from torch import nn

OPSET = 18
"""The opset torch's exporter is written in: any other is a conversion, and older runtimes read this one."""

PARITY_BATCHES = (1, 7, 32)
"""Batch sizes the exported file is tried with: a batch dimension frozen by the exporter shows at once."""


def export_onnx(
    network: nn.Module,
    path: Path,
    *,
    task: Task,
    size: int,
    channels: int,
    white: float,
    fit: Fit,
    temperature: float,
    name: str,
    synthetic: bool,
    details: dict[str, str],
) -> Path:
    """Write ``network`` as one ONNX file that needs nothing beside it.

    Input ``images`` ``[B, channels, size, size]`` float32 in [0, 1]; outputs ``logits`` ``[B, K]`` and
    calibrated ``probabilities`` ``[B, K]``, float32, any ``B >= 1``. Preprocessing, classes and decision rule
    stand in the file's metadata (:class:`~stillroom.deployment.metadata.ModelMetadata`). The same weights
    give the same bytes.

    Args:
        network: ``[B, C, H, W]`` float32 in [0, 1] to logits ``[B, K]``. Its mode, device and precision are
            left as they are.
        path: the file to write; replaced whole or not at all.
        task: what the logits mean.
        size: side of the square input, in pixels.
        channels: 1 or 3.
        white: the pixel value that became 1.0 in training.
        fit: ``pad`` or ``resize``, how images are made square.
        temperature: divides the logits before the probabilities, > 0.
        name: the network's name, for the metadata and for errors.
        synthetic: whether it was trained on phantoms.
        details: free notes, part of the file's bytes: no times or paths if the file is to be reproducible.

    Raises:
        RunError: the network cannot be expressed in ONNX, or the file cannot be written.
    """
    metadata = ModelMetadata(
        task=task,
        name=name,
        size=size,
        channels=channels,
        white=white,
        fit=fit,
        temperature=temperature,
        synthetic=synthetic,
        details=details,
    )
    try:
        model = _trace(network, metadata)
    except Exception as error:
        raise RunError(f"ONNX export of {name} failed: {_root_reason(error)}. Choose another student.") from error
    _strip(model)
    for key, value in metadata.to_properties().items():
        model.metadata_props.add(key=key, value=value)
    content = model.SerializeToString(deterministic=True)
    write_atomically(path, lambda target: target.write_bytes(content))
    return path


def check_parity(path: Path, network: nn.Module, images: np.ndarray, *, tolerance: float = 1e-3) -> dict[str, Any]:
    """Compare the exported file with the network it came from, at several batch sizes.

    Args:
        path: file written by :func:`export_onnx`.
        network: the network it was exported from; its mode is left as it is.
        images: ``[N, C, H, W]`` float32 in [0, 1], N >= 1: real images, as noise may pass where images fail.
        tolerance: largest difference allowed between probabilities; between logits it is multiplied by the
            largest logit where that is above 1, as float32 rounding grows with it.

    Returns:
        ``images`` (N), ``max_logit_difference``, ``max_probability_difference``, ``decisions_equal`` (share
        of images, 1.0 but for ties within the tolerance), ``tolerance`` and ``passed``.
    """
    if not len(images):
        raise ValueError("Parity is checked on at least one image.")
    predictor = Predictor.load(path)
    task = predictor.task
    expected = _network_logits(network, images)
    expected_probabilities = task.probabilities(expected, predictor.metadata.temperature)
    expected_decisions = task.one_hot(task.decide(expected_probabilities))

    logit_difference = probability_difference = 0.0
    equal = np.ones(len(images), dtype=bool)
    for batch in PARITY_BATCHES:
        parts = [predictor.run(images[start : start + batch]) for start in range(0, len(images), batch)]
        logits, probabilities = (np.concatenate(outputs) for outputs in zip(*parts, strict=True))
        # np.maximum, unlike max(), hands on a NaN.
        logit_difference = float(np.maximum(logit_difference, np.abs(logits - expected).max()))
        difference = np.abs(probabilities - expected_probabilities).max()
        probability_difference = float(np.maximum(probability_difference, difference))
        equal &= (task.one_hot(task.decide(probabilities)) == expected_decisions).all(axis=1)
    logit_tolerance = tolerance * max(1.0, float(np.abs(expected).max()))
    return {
        "images": len(images),
        "max_logit_difference": logit_difference,
        "max_probability_difference": probability_difference,
        "decisions_equal": float(equal.mean()),
        "tolerance": tolerance,
        "passed": logit_difference <= logit_tolerance and probability_difference <= tolerance,
    }


def require_parity(parity: dict[str, Any], path: Path) -> None:
    """Raise :class:`RunError` with the figures where :func:`check_parity` did not pass."""
    if not parity["passed"]:
        raise RunError(
            f"{path} does not answer as the network it was exported from: on {parity['images']} images,"
            f" logits differ by up to {parity['max_logit_difference']:.2g} and probabilities by up to"
            f" {parity['max_probability_difference']:.2g} (tolerance {parity['tolerance']:.2g}),"
            f" {parity['decisions_equal']:.1%} of the decisions agree. Do not use this file;"
            " choose another student."
        )


def _trace(network: nn.Module, metadata: ModelMetadata) -> ModelProto:
    import torch

    class Exported(torch.nn.Module):
        """The network with its calibrated probabilities beside its logits."""

        def __init__(self, network: nn.Module) -> None:
            super().__init__()
            self.network = network

        def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            logits = self.network(images)
            return logits, metadata.task.torch_probabilities(logits, metadata.temperature)

    # A copy, so that neither mode, device nor precision of the caller's network is touched, even on failure.
    exported = Exported(copy.deepcopy(network).float().cpu()).eval()
    # Two images: the exporter takes a batch of one for a constant.
    images = torch.rand(2, metadata.channels, metadata.size, metadata.size)
    with _quiet():
        program = torch.onnx.export(
            exported,
            (images,),
            dynamo=True,
            opset_version=OPSET,
            input_names=["images"],
            output_names=["logits", "probabilities"],
            dynamic_shapes={"images": {0: torch.export.Dim("batch")}},
            external_data=False,
            verbose=False,
        )
    assert program is not None  # None only of the exporter that dynamo=True replaces
    return program.model_proto


def _network_logits(network: nn.Module, images: np.ndarray) -> np.ndarray:
    import torch

    reference = copy.deepcopy(network).float().cpu().eval()
    with torch.inference_mode():
        batches = torch.from_numpy(np.ascontiguousarray(images, dtype=np.float32)).split(max(PARITY_BATCHES))
        return torch.cat([reference(batch) for batch in batches]).numpy()


def _strip(model: ModelProto) -> None:
    """Drop what the exporter notes for debugging: stack traces, source lines and paths of this machine."""
    model.ClearField("metadata_props")
    model.ClearField("doc_string")
    model.graph.name = "stillroom"
    _strip_graph(model.graph)
    for function in model.functions:
        function.ClearField("metadata_props")
        function.ClearField("doc_string")
        _strip_nodes(function.node)


def _strip_graph(graph: GraphProto) -> None:
    for part in (graph, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    _strip_nodes(graph.node)


def _strip_nodes(nodes: Any) -> None:
    for node in nodes:
        node.ClearField("metadata_props")
        node.ClearField("doc_string")
        for attribute in node.attribute:
            attribute.ClearField("doc_string")
            for subgraph in (attribute.g, *attribute.graphs) if attribute.HasField("g") else attribute.graphs:
                _strip_graph(subgraph)


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter logs, warns and prints whole graphs; what matters of its failures is in its exceptions."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with (
            warnings.catch_warnings(),
            redirect_stdout(io.StringIO()),
            redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _root_reason(error: BaseException) -> str:
    """First line of the innermost cause: the exporter wraps it in pages of advice."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines()
    reason = lines[0].strip() if lines else type(error).__name__
    return reason.rstrip(".")
