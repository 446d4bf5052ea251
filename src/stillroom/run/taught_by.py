"""Who taught: whose weights each teacher of a run has, for the manifest."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from stillroom.models.licences import forbids_commercial_use
from stillroom.models.network import Network, is_opaque
from stillroom.models.origins.publication import files_of
from stillroom.models.weights import weights_digest
from stillroom.models.zoo import locate_weights, provenance, specification
from stillroom.run.workbench import Workbench
from stillroom.settings.network_names import parse


def taught_by(bench: Workbench) -> list[dict[str, Any]]:
    """One entry a teacher, ready for JSON: role, name, mode, side in pixels, millions of parameters, and of its weights
    source, revision, digest and licence with what it says of commercial use.

    The digest is SHA-256 of the file they came in, or ours of the weights where they came in none.
    """
    return list(_entries(bench))


def _entries(bench: Workbench) -> Iterator[dict[str, Any]]:
    chosen = bench.settings.teacher
    for number, teacher in enumerate(bench.teachers, start=1):
        network = teacher.network
        if network is None:
            yield _of_answers(bench)
            continue
        mode, notes = "frozen" if teacher.head is not None else "finetune", []
        spec = specification(network.name)
        if spec.says != "features":
            mode = "as_is"
            if not spec.classes:
                order = ", ".join(bench.task.classes)
                notes = [f"It does not name its answers: they were taken to be of {order}, in this order."]
        yield {
            "role": "teacher" if number == 1 else f"teacher-{number}",
            "name": network.name,
            "mode": mode,
            "notes": notes,
            "side": network.input_size[0],
            "parameters": None if is_opaque(network) else _millions(network),
            **(_weights(network, chosen.weights) if chosen.pretrained else {"source": "random weights"}),
        }


def _of_answers(bench: Workbench) -> dict[str, Any]:
    """Of a table of answers, which has no network."""
    facts = bench.run.manifest.get("answers") or {}
    return {
        "role": "teacher",
        "name": facts.get("file"),
        "mode": "answers",
        "side": None,
        "parameters": None,
        "source": "a table of answers",
        "digest": f"sha256:{facts.get('digest')}",
    }


def _weights(network: Network, given: Path | None) -> dict[str, Any]:
    name = network.name
    file = locate_weights(name, given)
    if file is None and parse(name).is_onnx:
        file = Path(parse(name).base)
    found = asdict(provenance(name, given))
    return found | {
        "digest": f"weights:{weights_digest(network)}" if file is None else f"sha256:{_sha256(file)}",
        "forbids_commercial_use": forbids_commercial_use(found["licence"]),
    }


def _millions(network: Network) -> float:
    return round(sum(parameter.numel() for parameter in network.parameters()) / 1e6, 2)


def _sha256(file: Path) -> str:
    """Of a file; of weights in several files, of all of them one after the other."""
    digest = hashlib.sha256()
    for part in files_of(file):
        with part.open("rb") as opened:
            while block := opened.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
