"""A network in a folder: ``model.safetensors`` and ``model.json``. No pickle: opening it runs no code."""

from __future__ import annotations

import json
from pathlib import Path

import timm
import torch
from safetensors.torch import save_file

from stillroom.errors import UsageError
from stillroom.files.atomic import write_atomically, write_json
from stillroom.files.digests import require_whole
from stillroom.models.network import Network
from stillroom.models.weights import fill_exactly, weights_digest
from stillroom.models.zoo import restore

WEIGHTS = "model.safetensors"
DESCRIPTION = "model.json"


def save_network(network: Network, folder: Path) -> Path:
    """Write the network into ``folder`` (made if need be), replacing what was there. Returns the folder.

    Raises:
        RunError: the disk is full or the folder cannot be written to.
    """
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    description = {
        "format": 1,
        "name": network.name,
        "classes": network.classes,
        "input_size": list(network.input_size),
        "features": network.features,
        "feature_layers": network.feature_layers,
        "precision": network.precision,
        "attention": network.attention is not None,
        "mean": list(network.normalisation.mean),
        "std": list(network.normalisation.std),
        "published": network.published,
        # Two files cannot be replaced at one instant; the digest tells a matching pair.
        "digest": weights_digest(network),
        "versions": {"torch": torch.__version__, "timm": timm.__version__},
    }
    write_atomically(folder / WEIGHTS, lambda target: save_file(state, target))
    write_json(folder / DESCRIPTION, description)
    return folder


def load_network(folder: Path) -> Network:
    """The network that :func:`save_network` wrote, to the last bit, on the CPU and in evaluation mode.

    Raises:
        UsageError: there is none, or its files are damaged or do not belong together.
    """
    for name in (WEIGHTS, DESCRIPTION):
        require_whole(folder / name, "put back a copy of it, or train the network again")
    try:
        description = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
        height, width = description["input_size"]
        network = restore(
            description["name"],
            classes=description["classes"],
            input_size=(height, width),
            features=description["features"],
            feature_layers=description.get("feature_layers", 1),
            attention=description.get("attention", False),
            published=description.get("published"),
        )
        if description.get("precision") == "bf16":
            network.hold_in_bf16()
        try:
            fill_exactly(network, folder / WEIGHTS)
        except UsageError as error:
            raise ValueError(str(error).rstrip(".")) from error
    except FileNotFoundError as error:
        missing = Path(str(error.filename or folder / WEIGHTS))
        raise UsageError(f"{folder} holds no network: {missing.name} is missing.") from error
    except (RuntimeError, KeyError, TypeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"The network in {folder} cannot be read ({reason}). Train or save it again.") from error
    if weights_digest(network) != description.get("digest"):
        raise UsageError(
            f"{folder / WEIGHTS} and {DESCRIPTION} do not belong together: a save was interrupted or a file "
            "was changed. Train or save it again."
        )
    return network.eval()
