"""How large and how fast the networks and the exported file are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from stillroom.evaluation.roles import STUDENT
from stillroom.models.efficiency import profile, profile_onnx
from stillroom.run.stage import Evidence, Stage
from stillroom.run.workbench import Workbench


def measure(bench: Workbench, networks: dict[str, nn.Module], exported: str, onnx: Path) -> dict[str, Any]:
    """The part ``efficiency`` of metrics.json."""
    latency, channels = bench.settings.evaluation.latency, bench.dataset.store.pixels.shape[1]

    def shape(network: nn.Module) -> dict[str, Any]:
        side = bench.seen_by(network).images.store.size
        return {"channels": channels, "size": side, "latency": latency}

    measured = {
        role: profile(network, **shape(network))
        for role, network in networks.items()
        if role in (STUDENT, "teacher", exported)  # the others are the student's twins
    }
    threads = torch.get_num_threads()
    return measured | {"onnx": profile_onnx(onnx, threads=threads, **shape(networks[exported]))}


def work(evidence: Evidence) -> dict[str, Any]:
    assert evidence.onnx is not None
    return {"efficiency": measure(evidence.bench, evidence.networks, evidence.exported, evidence.onnx)}


STAGE = Stage("profile", work)
