"""What a network costs: parameters, multiply-accumulates, size and latency on this machine."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stillroom.errors import UsageError

if TYPE_CHECKING:
    import torch

BATCHES = (1, 32)
FEWEST_REPEATS, MOST_REPEATS = 10, 50
SECONDS = 2.0
# A large teacher on a small machine needs seconds per batch: then three repeats must do.
PATIENCE = 20.0


def profile(
    network: torch.nn.Module,
    *,
    channels: int,
    size: int,
    latency: bool = True,
    device: str = "cpu",
    batches: tuple[int, ...] = BATCHES,
) -> dict[str, Any]:
    """Parameters, multiply-accumulates, size and latency of a network, ready for JSON.

    The network is moved to ``device`` and put in evaluation mode while it is measured, then left as it was
    found.

    Args:
        network: takes ``[B, channels, size, size]`` float32 in [0, 1].
        channels: of the input image.
        size: side of the square input image, in pixels.
        latency: whether to time it. False leaves ``latency_ms`` None.
        device: where to time it, e.g. ``cpu`` or ``cuda``; ``meta`` counts without computing anything.
        batches: how many images at once to time it with.

    Returns:
        ``parameters``; ``macs`` (of convolutions, matrix products and attention, for one image); ``size_mb``
        (float32 parameters and buffers, 10^6 bytes); ``latency_ms`` with ``median``, ``p95`` and ``repeats``
        per batch (``batch_1``, ``batch_32``, ...), in milliseconds for the whole batch; ``threads``; ``machine``
        (what timed it). What cannot be counted, of a network that is computed elsewhere, is None.
    """
    import torch

    from stillroom.models.multiply_adds import count_macs
    from stillroom.models.network import is_opaque

    place = torch.device(device)
    was = {module: module.training for module in network.modules()}
    tensors = [*network.parameters(), *network.buffers()]
    home = tensors[0].device if tensors else place
    network.to(place).eval()
    try:
        macs = count_macs(network, torch.zeros(1, channels, size, size, device=place))
        timed = None
        if latency:
            # A generator of its own: measuring must not move the random state that training depends on.
            images = torch.rand(max(batches), channels, size, size, generator=torch.Generator().manual_seed(0))
            timed = {f"batch_{batch}": _time(_forward(network, images[:batch], place)) for batch in batches}
    finally:
        network.to(home)
        for module, training in was.items():
            module.training = training
    known = not is_opaque(network)
    return {
        "parameters": sum(parameter.numel() for parameter in network.parameters()) if known else None,
        "macs": macs if known else None,
        "size_mb": sum(tensor.numel() for tensor in tensors) * 4 / 1e6 if known else None,
        "latency_ms": timed,
        "threads": torch.get_num_threads(),
        "machine": torch.cuda.get_device_name(place) if place.type == "cuda" else _cpu(),
    }


def profile_onnx(
    path: Path | str, *, channels: int, size: int, latency: bool = True, threads: int | None = None
) -> dict[str, Any]:
    """Size and latency of an ONNX file through ONNX Runtime on the CPU: the student as it is deployed.

    Args:
        path: the model; its first input takes ``[B, channels, size, size]`` float32 in [0, 1].
        threads: of ONNX Runtime. Default: the cores this process may use.

    Returns:
        ``size_mb`` (file, 10^6 bytes), ``latency_ms``, ``threads`` and ``machine`` as :func:`profile` gives
        them. A batch that the model's fixed batch size refuses is None.

    Raises:
        UsageError: no such file, or not a model that ONNX Runtime can load.
    """
    import onnxruntime

    path = Path(path)
    if not path.is_file():
        raise UsageError(f"There is no ONNX model at {path}.")
    threads = _cores() if threads is None else threads
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's own errors share no base class of their own.
        raise UsageError(f"{path} is not an ONNX model that ONNX Runtime can load: {error}") from error
    taken = session.get_inputs()[0]
    generator = np.random.default_rng(0)

    def timed(batch: int) -> dict[str, float] | None:
        if isinstance(taken.shape[0], int) and taken.shape[0] != batch:
            return None
        images = generator.random((batch, channels, size, size), dtype=np.float32)
        return _time(lambda: session.run(None, {taken.name: images}))

    return {
        "size_mb": path.stat().st_size / 1e6,
        "latency_ms": {f"batch_{batch}": timed(batch) for batch in BATCHES} if latency else None,
        "threads": threads,
        "machine": _cpu(),
    }


def machine() -> dict[str, Any]:
    """The machine as far as figures depend on it; no name of host or user."""
    import torch

    return {
        "cpu": _cpu(),
        "cores": _cores(),
        "threads": torch.get_num_threads(),
        "torch": str(torch.__version__),
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
    }


def _forward(network: torch.nn.Module, images: torch.Tensor, place: torch.device) -> Callable[[], object]:
    import torch

    images = images.to(place)

    @torch.inference_mode()
    def forward() -> None:
        network(images)
        if place.type == "cuda":
            torch.cuda.synchronize(place)

    return forward


def _time(call: Callable[[], object]) -> dict[str, float]:
    """Median and 95th percentile of a call's duration in ms, after warm-up: 10 to 50 repeats in about 2 s,
    fewer (but at least 3) where 10 would take longer than 20 s."""
    call()
    call()
    durations: list[float] = []
    start = time.perf_counter()
    while len(durations) < MOST_REPEATS:
        before = time.perf_counter()
        call()
        after = time.perf_counter()
        durations.append((after - before) * 1000)
        enough = len(durations) >= FEWEST_REPEATS and after - start > SECONDS
        if enough or (len(durations) >= 3 and after - start > PATIENCE):
            break
    median, p95 = np.percentile(durations, [50, 95])
    return {"median": float(median), "p95": float(p95), "repeats": len(durations)}


def _cpu() -> str:
    """The processor's model name, or its architecture where the system does not tell."""
    listing = Path("/proc/cpuinfo")
    if listing.is_file():
        for line in listing.read_text(errors="replace").splitlines():
            if line.lower().startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
