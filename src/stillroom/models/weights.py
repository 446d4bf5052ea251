"""Pretrained weights from files, without a network connection and without silent mismatches."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from stillroom.errors import UsageError
from stillroom.files.walk import not_a_file
from stillroom.models.network import Network
from stillroom.models.normalisation import Normalisation
from stillroom.models.published import PUBLISHED
from stillroom.models.stored import INDICES, SUFFIXES, copy_into, is_weights, mapped, stated_normalisation
from stillroom.models.taps import linear_classifier

_STEMS = ("model", "pytorch_model")
"""What the hub's repositories call a file of weights."""
_OLD_RULES = ("_filter_fn", "_filter_torchvision_pretrained")
"""timm's names for the rules that read torchvision's VGG and DenseNet files."""


def load_weights(network: Network, path: Path, name: str) -> Path:
    """Fill the network's backbone from a file, or from a folder that holds a file for ``name``.

    Weights take the network's own precision, position embeddings are resampled to the network's grid, and
    original key names are understood: DINOv2's and torchvision's by timm's own rules, those of networks that
    timm lacks by :data:`~stillroom.models.published.PUBLISHED`. A classifier of another shape is left out: the
    network keeps its own. Where the file's header states ``mean`` and ``std``, the network takes them over.

    Args:
        network: changed in place.
        path: see :func:`find_weights`.
        name: the model's name, with or without timm's tag.

    Returns:
        The file that was read.

    Raises:
        UsageError: no such file, not a file of weights, or weights of another architecture.
    """
    file = find_weights(path, name)
    stored, normalisation = read_weights(file)
    load_state(network, dict(stored), name, file, stored)
    if normalisation is not None:
        network.normalise_by(normalisation)
    return file


def load_state(
    network: Network, state: dict[str, Tensor], name: str, file: Path, stored: dict[str, Tensor] | None = None
) -> None:
    """Fill the network's backbone from tensors by name; see :func:`load_weights` for what is understood and raised.

    Args:
        network: changed in place.
        state: what was read.
        name: the model's, by timm.
        file: where it was read from.
        stored: of :func:`read_weights`, emptied: what of the state is read from the file again, so that it need not be held.
    """
    backbone = network.backbone
    target = backbone.state_dict()
    state = _precise(state, target)
    rename = next((rule for prefix, rule in PUBLISHED.items() if name.startswith(prefix)), None)
    if rename is not None and not state.keys() <= target.keys():
        state = rename(state)
    state = _adapt(state, backbone, file)

    head = linear_classifier(backbone)
    own: set[str] = set()
    if head is not None:
        own = {key for key in target if key.startswith(f"{head[0]}.")}
        if any(key not in state or state[key].shape != target[key].shape for key in own):
            state = {key: value for key, value in state.items() if not key.startswith(f"{head[0]}.")}
    _check(state, {key: value for key, value in target.items() if key in state or key not in own}, name, file)
    copy_into(target, state, file, stored or {})


def find_weights(path: Path, name: str) -> Path:
    """The file of weights for ``name``: ``path`` itself, or in that folder the first of

    ``<name>.<suffix>``, ``<name>/model.<suffix>``, ``<architecture>.<any tag>.<suffix>``, ``model.<suffix>``,
    ``pytorch_model.<suffix>``; at last an index of several files (``model.safetensors.index.json``).

    Raises:
        UsageError: there is none (the message lists what was tried), or several tags fit equally well.
    """
    path = path.expanduser()
    if path.is_file():
        if not is_weights(path):
            raise UsageError(f"{path} is not a file of weights: its name must end in {', '.join(SUFFIXES)}.")
        return path
    if not path.is_dir():
        kind = not_a_file(path)
        raise UsageError(f"No weights at {path}: {f'it is {kind}' if kind else 'there is no such file or folder'}.")
    architecture = name.split(".")[0]
    stems = list(dict.fromkeys([name, architecture]))
    exact = [f"{stem}{suffix}" for stem in stems for suffix in SUFFIXES]
    exact += [f"{stem}/model{suffix}" for stem in stems for suffix in SUFFIXES]
    for candidate in exact:
        if (path / candidate).is_file():
            return path / candidate
    if name == architecture:
        tagged = [
            file for suffix in SUFFIXES for file in sorted(path.glob(f"{architecture}.*{suffix}")) if file.is_file()
        ]
        if len(tagged) > 1:
            found = ", ".join(file.name for file in tagged)
            raise UsageError(f"{path} holds several weights for {name}: {found}. Give the one you mean.")
        if tagged:
            return tagged[0]
    for stem in _STEMS:
        for suffix in SUFFIXES:
            if (path / f"{stem}{suffix}").is_file():
                return path / f"{stem}{suffix}"
    for index in INDICES:
        if (path / index).is_file():
            return path / index
    suffixes = "|".join(suffix[1:] for suffix in SUFFIXES)
    tried = ", ".join([*stems, *(f"{stem}/model" for stem in stems), f"{architecture}.<tag>", *_STEMS])
    raise UsageError(f"No weights for {name} in {path}: none of {tried} with .{suffixes} is there.")


def read_weights(file: Path) -> tuple[dict[str, Tensor], Normalisation | None]:
    """A file's tensors by name, see :func:`~stillroom.models.stored.mapped`, and the normalisation its header states."""
    return mapped(file), stated_normalisation(file)


def fill_exactly(network: nn.Module, file: Path) -> None:
    """Fill a network from a file that holds the same names and shapes, and nothing else. Raises UsageError otherwise."""
    target, stored = network.state_dict(), mapped(file)
    _check(stored, target, "the network that it was saved from", file, exactly=True)
    copy_into(target, dict(stored), file, stored)


def weights_digest(network: nn.Module) -> str:
    """32 hex digits that change with any weight, buffer (so with the normalisation) or tensor name.

    For a :class:`Network` they also change with the input size and the pooling, as its answers do.
    """
    digest = hashlib.blake2b(digest_size=16)
    for module in network.modules():
        if isinstance(module, Network):
            layers = f" {module.feature_layers} layers" if module.feature_layers > 1 else ""
            digest.update(f"{module.name} {module.input_size} {module.features}{layers}".encode())
    for name, tensor in network.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        # Bytes, not numbers: bfloat16 has no NumPy type.
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _adapt(state: dict[str, Tensor], backbone: nn.Module, file: Path) -> dict[str, Tensor]:
    """The state in the backbone's own key names and grid: timm keeps the rules beside each model."""
    rules = vars(sys.modules[type(backbone).__module__])
    try:
        if "checkpoint_filter_fn" in rules:
            return rules["checkpoint_filter_fn"](state, backbone)
        old = next((rules[name] for name in _OLD_RULES if name in rules), None)
        return state if old is None else old(state)
    except (KeyError, RuntimeError, AttributeError, ValueError, AssertionError, IndexError) as error:
        raise UsageError(
            f"{file} cannot be read as {type(backbone).__name__} weights ({error}): "
            "these look like weights of another architecture."
        ) from error


def _precise(state: dict[str, Tensor], target: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What a rule may compute with, in float32: all but what fits as it is, which stays where it is stored."""
    fits = {key for key, value in state.items() if key in target and value.shape == target[key].shape}
    return {k: v if k in fits or not v.is_floating_point() else v.float() for k, v in state.items()}


def _check(
    state: Mapping[str, Tensor], target: Mapping[str, Tensor], name: str, file: Path, exactly: bool = False
) -> None:
    for key, expected in target.items():
        if key not in state:
            # Files from before batch norm counted its batches lack that one number; it is not read in evaluation.
            if key.endswith("num_batches_tracked") and not exactly:
                continue
            found = f"it lacks {key} {tuple(expected.shape)}"
        elif state[key].shape != expected.shape:
            found = f"{key} is {tuple(state[key].shape)} in the file, {tuple(expected.shape)} in the network"
        else:
            continue
        raise UsageError(f"{file} does not fit {name}: {found}; these look like weights of another architecture.")
    extra = next((key for key in state if key not in target), None)
    if extra is not None:
        raise UsageError(
            f"{file} does not fit {name}: it holds {extra} {tuple(state[extra].shape)}, which the network "
            "lacks; these look like weights of another architecture."
        )
