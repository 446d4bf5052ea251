"""Heat maps of any torch network: Score-CAM, exact and fast, Grad-CAM, Grad-CAM++, Eigen-CAM and RISE.

Score-CAM and RISE need no gradients, so the exported model draws them as well. Which finds evidence best stands in
docs/evidence.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stillroom.data.inference import at_once, evaluating
from stillroom.errors import UsageError, nearest
from stillroom.explanation.layers import Layer, find_layer, slopes, watched
from stillroom.explanation.rise import rise
from stillroom.explanation.score_cam import finished, score_cam
from stillroom.models.network import Network
from stillroom.progress import Advance
from stillroom.settings.methods import BY_MASKS, METHODS, Method

BY_GRADIENT: tuple[Method, ...] = ("grad_cam", "grad_cam_pp")

MEMORY_MB = 512.0
_COPIES = 4  # a layer's input, its output and what it needs in between, with some reserve


def heat_maps(
    network: nn.Module,
    images: Tensor,
    classes: int | Sequence[int] | Tensor,
    *,
    method: Method = "score_cam",
    layer: str | None = None,
    as_map: Callable[[Tensor], Tensor] | None = None,
    memory_mb: float = MEMORY_MB,
    advance: Advance | None = None,
) -> Tensor:
    """Where the network sees each image's class.

    Args:
        network: from images ``[B, C, H, W]`` to logits ``[B, K]``; evaluated as it is, where it is.
        images: ``[B, C, H, W]`` float, as the network takes them: in [0, 1] for a Stillroom network.
        classes: ``[B]`` numbers of the classes to explain, or one for all images.
        method: ``score_cam`` (Wang et al., CVPR 2020), ``score_cam_fast`` (an estimate of it from a sixth of the
            passes), ``grad_cam`` (Selvaraju et al., ICCV 2017), ``grad_cam_pp`` (Chattopadhay et al., WACV 2018, with the
            exponential that makes its weights a closed form), ``eigen_cam`` (Muhammad and Yeasin, IJCNN 2020; the same for
            every class) or ``rise`` (Petsiuk et al., BMVC 2018, see :mod:`~stillroom.explanation.rise`).
        layer: see :mod:`~stillroom.explanation.layers`; ``rise`` asks for none. Default: the last feature map.
        as_map: makes ``[B, C', H', W']`` of the layer's output, for a network of unusual layout.
        memory_mb: what Score-CAM's masked images and their passes may take, in MB, about.
        advance: called with 1 after each image.

    Returns:
        ``[B, H, W]`` float32 in [0, 1] on the images' device: 0 for the least evidence, 1 for the most; all 0 where nothing
        speaks for the class.

    Raises:
        UsageError: an unknown method, layer or class, or a layer that gives no map or that gradients do not reach.
    """
    if method not in METHODS:
        raise UsageError(f"There is no heat map {method!r}.{nearest(method, METHODS)} Methods: {', '.join(METHODS)}.")
    if not isinstance(images, Tensor) or images.ndim != 4 or not images.is_floating_point():
        raise UsageError("Heat maps need images as a tensor [B, C, H, W] of floating-point numbers.")
    if not images.isfinite().all():
        raise UsageError("Heat maps need images without NaN and infinite values.")
    numbers = [int(classes)] * len(images) if isinstance(classes, int) else [int(number) for number in classes]
    if len(numbers) != len(images):
        raise UsageError(f"Heat maps need a class for every image: {len(images)} images, {len(numbers)} classes.")
    if not numbers:
        return images.new_zeros((0, *images.shape[-2:]), dtype=torch.float32)
    _check_classes(network, images[:1], numbers)
    if method in BY_MASKS:
        at_once = _at_once(network, images[:1], memory_mb)
    by_gradient = method in BY_GRADIENT
    if method != "rise":
        place = find_layer(network, layer, images[:1], by_gradient=by_gradient, as_map=as_map)
    maps = []
    for image, number in zip(images, numbers, strict=True):
        if method == "rise":
            evidence = _by_random_masks(network, image[None], number, at_once=at_once)
        elif by_gradient:
            evidence = _by_gradient(network, place, image[None], number, plus=method == "grad_cam_pp")
        elif method == "eigen_cam":
            evidence = _eigen(_seen(network, place, image[None])[0])
        else:
            fast = method == "score_cam_fast"
            evidence = _by_scores(network, place, image[None], number, at_once=at_once, fast=fast)
        maps.append(torch.from_numpy(finished(evidence, (image.shape[-2], image.shape[-1]))))
        if advance:
            advance(1)
    return torch.stack(maps).to(images.device)


def _by_random_masks(network: nn.Module, image: Tensor, number: int, *, at_once: int) -> np.ndarray:
    hidden = hidden_value(network, image)

    def ask(masks: np.ndarray) -> np.ndarray:
        parts = torch.from_numpy(masks).to(image)[:, None].split(at_once)
        answers = [network(hidden + (image - hidden) * part)[:, number].float() for part in parts]
        return torch.cat(answers).cpu().numpy()

    with evaluating(network):
        return rise((image.shape[-2], image.shape[-1]), ask)


def _by_scores(network: nn.Module, layer: Layer, image: Tensor, number: int, *, at_once: int, fast: bool) -> np.ndarray:
    height, width = image.shape[-2:]
    hidden = hidden_value(network, image)

    def score(channels: np.ndarray) -> np.ndarray:
        scores = []
        for part in torch.from_numpy(channels).to(image.device).split(at_once):
            masks = F.interpolate(part[:, None], (height, width), mode="bilinear", align_corners=False)
            low, high = masks.amin(dim=(2, 3), keepdim=True), masks.amax(dim=(2, 3), keepdim=True)
            masks = (masks - low) / torch.where(high > low, high - low, torch.ones_like(high))
            masked = hidden + (image - hidden) * masks.to(image.dtype)
            scores.append(network(masked)[:, number].float())
        return torch.cat(scores).cpu().numpy()

    channels = _seen(network, layer, image)[0]
    with evaluating(network):
        return score_cam(channels, score, fast=fast)


def hidden_value(network: nn.Module, image: Tensor) -> Tensor:
    """What Score-CAM hides pixels behind, ``[1, C, 1, 1]``: what a network sees as 0.

    A Stillroom network normalises inside, so that is its mean; the paper's masks multiply normalised images.
    """
    channels = image.shape[1]
    if not isinstance(network, Network):
        return image.new_zeros(1, channels, 1, 1)
    mean = network.mean if channels == 3 else network.mean.mean(dim=0, keepdim=True)
    return mean.to(image).view(1, channels, 1, 1)


def _by_gradient(network: nn.Module, layer: Layer, image: Tensor, number: int, *, plus: bool) -> np.ndarray:
    found = slopes(network, layer, image, lambda logits: logits[0, number])
    channels, slope = (part[0].float().cpu().numpy() for part in found)
    if plus:
        second, third = slope**2, slope**3
        below = 2 * second + channels.sum(axis=(1, 2), keepdims=True) * third
        share = np.divide(second, below, out=np.zeros_like(second), where=(slope != 0) & (below != 0))
        weights = (share * np.maximum(slope, 0)).sum(axis=(1, 2))
    else:
        weights = slope.mean(axis=(1, 2))
    return np.maximum(np.tensordot(weights, channels, axes=1), 0.0)


def _eigen(channels: np.ndarray) -> np.ndarray:
    """The first principal component of ``[K, h, w]`` over places, with the sign that follows the map's energy."""
    flat = channels.reshape(len(channels), -1).astype(np.float64)
    centred = flat - flat.mean(axis=1, keepdims=True)
    left, _, _ = np.linalg.svd(centred, full_matrices=False)
    component = left[:, 0] @ centred
    energy = (flat**2).sum(axis=0)
    if component @ (energy - energy.mean()) < 0:
        component = -component
    return np.maximum(component, 0.0).reshape(channels.shape[1:])


def _seen(network: nn.Module, layer: Layer, images: Tensor) -> np.ndarray:
    """``[B, C', H', W']`` float32, the layer's maps."""
    with evaluating(network), watched(layer) as seen:
        network(images)
        return layer.as_map(seen[-1]).float().cpu().numpy()


def _at_once(network: nn.Module, image: Tensor, memory_mb: float) -> int:
    """How many masked images fit into the memory, by the largest output of any layer for one image."""
    if not memory_mb > 0:
        raise UsageError(f"memory_mb must be above 0, got {memory_mb}.")
    largest = image.numel()

    def note(module: nn.Module, inputs: object, output: object) -> None:
        nonlocal largest
        if isinstance(output, Tensor):
            largest = max(largest, output.numel())

    handles = [module.register_forward_hook(note) for module in network.modules()]
    try:
        with evaluating(network):
            network(image)
    finally:
        for handle in handles:
            handle.remove()
    fitting = int(memory_mb * 1e6 / (_COPIES * 4 * largest))
    return max(1, min(fitting, at_once(max(image.shape[-2:]), image.device) if image.device.type == "cpu" else fitting))


def _check_classes(network: nn.Module, image: Tensor, numbers: list[int]) -> None:
    with evaluating(network):
        count = network(image).shape[-1]
    wrong = [number for number in numbers if not 0 <= number < count]
    if wrong:
        raise UsageError(f"There is no class {wrong[0]}: the network has {count}, numbered from 0.")
