"""Export of a trained network to one self-sufficient ONNX file, and the gate that it answers alike."""

from __future__ import annotations

import copy
import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np

from stillroom.deployment.metadata import ModelMetadata
from stillroom.deployment.predictor import Predictor
from stillroom.errors import RunError
from stillroom.files.atomic import write_atomically
from stillroom.files.own_digest import with_own_digest

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto
    from torch import Tensor, nn

    from stillroom.evaluation.density import FeatureDensity
    from stillroom.explanation.layers import Layer

OPSET = 18
"""The opset torch's exporter is written in: any other is a conversion, and older runtimes read this one."""

PARITY_BATCHES = (1, 7, 32)
"""Batch sizes the exported file is tried with: a batch dimension frozen by the exporter shows at once."""

_TRACED: WeakKeyDictionary[nn.Module, tuple[str, ModelProto]] = WeakKeyDictionary()
"""The last graph of each network that is still held, and what it was traced of: see :func:`_graph`."""


def export_onnx(
    network: nn.Module,
    path: Path,
    metadata: ModelMetadata,
    *,
    layer: Layer | None = None,
    density: FeatureDensity | None = None,
) -> Path:
    """Write ``network`` as one ONNX file that needs nothing beside it.

    Input ``images`` ``[B, channels, size, size]`` float32 in [0, 1]; outputs ``logits`` ``[B, K]`` and
    calibrated ``probabilities`` ``[B, K]``, and where asked for ``map`` ``[B, C', H', W']``, from which heat maps are made,
    and ``distance`` ``[B]``, how far an image's features lie from those of training; float32, any ``B >= 1``. Preprocessing,
    classes and rules stand in the file's metadata (:class:`~stillroom.deployment.metadata.ModelMetadata`), and its own digest
    (:mod:`~stillroom.files.own_digest`). The same weights give the same bytes.

    Args:
        network: ``[B, C, H, W]`` float32 in [0, 1] to logits ``[B, K]``. Its mode, device and precision are
            left as they are.
        path: the file to write; replaced whole or not at all.
        metadata: what the file says of itself. Its details are part of the file's bytes: no times or paths if the file is
            to be reproducible.
        layer: the network's layer whose output becomes ``map``.
        density: of the pooled features of training images; the network is then one of Stillroom's own.

    Raises:
        RunError: the network cannot be expressed in ONNX, or the file cannot be written.
    """
    return write_graph(graph_of(network, metadata, layer=layer, density=density), metadata, path)


def write_graph(model: ModelProto, metadata: ModelMetadata, path: Path) -> Path:
    """Write a graph with what it says of itself, and with its own digest; ``path`` is replaced whole or not at all."""
    for key, value in metadata.to_properties().items():
        model.metadata_props.add(key=key, value=value)
    content = with_own_digest(model.SerializeToString(deterministic=True))
    write_atomically(path, lambda target: target.write_bytes(content))
    return path


def check_parity(
    path: Path,
    network: nn.Module,
    images: np.ndarray,
    *,
    layer: Layer | None = None,
    density: FeatureDensity | None = None,
    tolerance: float = 1e-3,
) -> dict[str, Any]:
    """Compare the exported file with the network it came from, at several batch sizes.

    Args:
        path: file written by :func:`export_onnx`.
        network: the network it was exported from; its mode is left as it is.
        images: ``[N, C, H, W]`` float32 in [0, 1], N >= 1: real images, as noise may pass where images fail.
        layer, density: as the file was exported with.
        tolerance: largest difference allowed between probabilities; between logits, maps and distances it is multiplied
            by the largest of them where that is above 1, as float32 rounding grows with it.

    Returns:
        ``images`` (N), ``max_logit_difference``, ``max_probability_difference``, ``max_map_difference`` and
        ``max_distance_difference`` (None where the file does not answer these), ``decisions_equal`` (share
        of images, 1.0 but for ties within the tolerance), ``tolerance`` and ``passed``.
    """
    if not len(images):
        raise ValueError("Parity is checked on at least one image.")
    predictor = Predictor.load(path)
    task = predictor.task
    expected = _torch_answers(network, images, layer, density)
    expected["probabilities"] = task.probabilities(expected["logits"], predictor.metadata.temperature)
    expected_decisions = task.one_hot(task.decide(expected["probabilities"]))

    differences = dict.fromkeys(expected, 0.0)
    equal = np.ones(len(images), dtype=bool)
    for batch in PARITY_BATCHES:
        parts = [
            predictor.outputs(images[start : start + batch], list(expected)) for start in range(0, len(images), batch)
        ]
        found = {name: np.concatenate([part[name] for part in parts]) for name in expected}
        for name, values in found.items():
            # np.maximum, unlike max(), hands on a NaN.
            differences[name] = float(np.maximum(differences[name], np.abs(values - expected[name]).max()))
        equal &= (task.one_hot(task.decide(found["probabilities"])) == expected_decisions).all(axis=1)
    allowed = {name: tolerance * max(1.0, float(np.abs(values).max())) for name, values in expected.items()}
    return {
        "images": len(images),
        "max_logit_difference": differences["logits"],
        "max_probability_difference": differences["probabilities"],
        "max_map_difference": differences.get("map"),
        "max_distance_difference": differences.get("distance"),
        "decisions_equal": float(equal.mean()),
        "tolerance": tolerance,
        "passed": all(differences[name] <= allowed[name] for name in expected),
    }


def require_parity(parity: dict[str, Any], path: Path) -> None:
    """Raise :class:`RunError` with the figures where :func:`check_parity` did not pass."""
    if not parity["passed"]:
        raise RunError(
            f"{path} does not answer as the network it was exported from: on {parity['images']} images,"
            f" logits differ by up to {parity['max_logit_difference']:.2g} and probabilities by up to"
            f" {parity['max_probability_difference']:.2g}{_also(parity)} (tolerance {parity['tolerance']:.2g}),"
            f" {parity['decisions_equal']:.1%} of the decisions agree. Do not use this file;"
            " choose another student."
        )


def _also(parity: dict[str, Any]) -> str:
    more = {"maps": parity["max_map_difference"], "distances": parity["max_distance_difference"]}
    return "".join(f", {what} by up to {value:.2g}" for what, value in more.items() if value is not None)


def graph_of(
    network: nn.Module,
    metadata: ModelMetadata,
    *,
    layer: Layer | None = None,
    density: FeatureDensity | None = None,
) -> ModelProto:
    """The graph that :func:`export_onnx` writes, without any notes; it takes and raises what that does.

    A run exports its student twice, as soon as it is trained and with what its heat maps are worth, and tracing is nearly all
    that an export costs: what did not change in between is traced once.
    """
    of = _traced_of(network, metadata, layer, density)
    if network not in _TRACED or _TRACED[network][0] != of:
        try:
            model = _trace(network, metadata, layer, density)
        except Exception as error:
            raise RunError(
                f"ONNX export of {metadata.name} failed: {_root_reason(error)}. Choose another student."
            ) from error
        _strip(model)
        model.ir_version = _lowest_ir_version(model)
        _TRACED[network] = of, model
    kept = _TRACED[network][1]
    copied = type(kept)()
    copied.CopyFrom(kept)
    return copied


def _traced_of(network: nn.Module, metadata: ModelMetadata, layer: Layer | None, density: FeatureDensity | None) -> str:
    """Digest of all that stands in the graph: the network's parts and weights, and what is asked of it."""
    asked = (metadata.task.describe(), metadata.temperature, metadata.size, metadata.channels, layer and layer.path)
    digest = sha256(repr((asked, density and density.residual_precision, network)).encode())
    tensors = dict(network.named_parameters()) | dict(network.named_buffers())
    arrays = {name: tensor.detach().float().cpu().numpy() for name, tensor in tensors.items()}
    if density is not None:
        arrays |= {name: getattr(density, name) for name in ("centres", "directions", "precisions")}
    for name, values in arrays.items():
        digest.update(f"{name}{values.shape}".encode() + np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()


def _trace(
    network: nn.Module, metadata: ModelMetadata, layer: Layer | None, density: FeatureDensity | None
) -> ModelProto:
    import torch

    # A copy, so that neither mode, device nor precision of the caller's network is touched, even on failure.
    copied = copy.deepcopy(network).float().cpu()
    seen: list[Tensor] = []
    if layer is not None:
        copied.get_submodule(layer.path).register_forward_hook(lambda module, inputs, output: seen.append(output))

    class Exported(torch.nn.Module):
        """The network with what else the file answers beside its logits."""

        def __init__(self) -> None:
            super().__init__()
            self.network = copied
            self.distance = None if density is None else _distance(density)

        def forward(self, images: Tensor) -> dict[str, Tensor]:
            seen.clear()
            outputs = None if self.distance is None else self.network.outputs(images)  # type: ignore[operator]
            logits = self.network(images) if outputs is None else outputs.logits
            answers = {
                "logits": logits,
                "probabilities": metadata.task.torch_probabilities(logits, metadata.temperature),
            }
            if layer is not None:
                answers["map"] = layer.as_map(seen[-1]).contiguous()
            if outputs is not None and self.distance is not None:
                answers["distance"] = self.distance(outputs.pooled)
            return answers

    # Two images: the exporter takes a batch of one for a constant.
    images = torch.rand(2, metadata.channels, metadata.size, metadata.size)
    names = ["logits", "probabilities", *(["map"] if layer else []), *(["distance"] if density else [])]
    with _quiet():
        program = torch.onnx.export(
            Exported().eval(),
            (images,),
            dynamo=True,
            opset_version=OPSET,
            input_names=["images"],
            output_names=names,
            dynamic_shapes={"images": {0: torch.export.Dim("batch")}},
            external_data=False,
            verbose=False,
        )
    assert program is not None  # None only of the exporter that dynamo=True replaces
    return program.model_proto


def _distance(density: FeatureDensity) -> nn.Module:
    """:meth:`FeatureDensity.distances` as a part of the graph."""
    import torch

    class Distance(torch.nn.Module):
        centres: Tensor
        directions: Tensor
        precisions: Tensor

        def __init__(self) -> None:
            super().__init__()
            for name in ("centres", "directions", "precisions"):
                self.register_buffer(name, torch.from_numpy(np.asarray(getattr(density, name), dtype=np.float32)))

        def forward(self, features: Tensor) -> Tensor:
            apart = features[:, None] - self.centres[None]
            along = apart @ self.directions
            rest = (apart.square().sum(dim=2) - along.square().sum(dim=2)).clamp(min=0)
            squared = (along.square() * self.precisions).sum(dim=2) + density.residual_precision * rest
            return (squared.amin(dim=1) / features.shape[1]).sqrt()

    return Distance()


def _torch_answers(
    network: nn.Module, images: np.ndarray, layer: Layer | None, density: FeatureDensity | None
) -> dict[str, np.ndarray]:
    import torch

    reference = copy.deepcopy(network).float().cpu().eval()
    seen: list[Tensor] = []
    answers: dict[str, list[Tensor]] = {"logits": []}
    if layer is not None:
        answers["map"] = []
        reference.get_submodule(layer.path).register_forward_hook(lambda module, inputs, output: seen.append(output))
    pooled = []
    with torch.inference_mode():
        for batch in torch.from_numpy(np.ascontiguousarray(images, dtype=np.float32)).split(max(PARITY_BATCHES)):
            if density is None:
                answers["logits"].append(reference(batch))
            else:
                outputs = reference.outputs(batch)  # type: ignore[operator]
                answers["logits"].append(outputs.logits)
                pooled.append(outputs.pooled)
            if layer is not None:
                answers["map"].append(layer.as_map(seen[-1]))  # of several calls in a pass the last one counts
    found = {name: torch.cat(parts).numpy() for name, parts in answers.items()}
    if density is not None:
        found["distance"] = density.distances(torch.cat(pooled).numpy())
    return found


def _lowest_ir_version(model: ModelProto) -> int:
    """The lowest version of the file's form that holds it: older runtimes refuse a higher one."""
    from onnx.helper import find_min_ir_version_for

    return max(find_min_ir_version_for(model.opset_import, ignore_unknown=True), 8 if model.functions else 3)


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
