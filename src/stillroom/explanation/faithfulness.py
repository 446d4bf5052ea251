"""Does the network use what the map marks? Change pixels in the map's order and watch the probability."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice, pairwise
from typing import Literal

import numpy as np
import torch
from scipy import sparse
from scipy.sparse.linalg import splu
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from stillroom.data.inference import BATCH, at_once
from stillroom.errors import RunError, UsageError
from stillroom.explanation.controls import blur

Probability = Callable[[Tensor], Tensor]
"""Images ``[n, C, H, W]`` to probabilities ``[n, K]``."""

Baseline = Literal["blur", "mean"]

_FIRST = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32)
SHARES = (*_FIRST, *(1 - share for share in reversed(_FIRST)))
"""Shares of the pixels at which curves are read, beside 0 and 1: each twice the one before, from either end.

In equal steps of a tenth, a map that marks 2 % of the image is read where it has long been used up, and one that needs 10 %
for the same looks as good. Alike from both ends, an order that says nothing has a gap of 0."""

_BLUR = 0.1  # standard deviation as a share of the side: what is left are patches of light and dark
_NOISE = 0.01  # of the imputed pixels, so that no network can tell them by their smoothness


@dataclass(frozen=True)
class Curves:
    """Probability of the explained class while pixels go and come, at ``P`` shares; see :func:`deletion_insertion`.

    Attributes:
        deletion: ``[..., B, P]``, from the image to the baseline.
        insertion: ``[..., B, P]``, from the baseline to the image.
    """

    deletion: Tensor
    insertion: Tensor

    @property
    def areas(self) -> tuple[Tensor, Tensor]:
        """Area under deletion (low is good) and insertion (high is good), ``[..., B]`` each in [0, 1]; every step counts
        alike, however many pixels it changes."""
        steps = self.deletion.shape[-1] - 1
        deletion, insertion = (torch.trapezoid(curve, dx=1 / steps) for curve in (self.deletion, self.insertion))
        return deletion, insertion

    @property
    def gap(self) -> Tensor:
        """``[..., B]`` in [-1, 1]: insertion's area minus deletion's; about 0 for an order that says nothing."""
        deletion, insertion = self.areas
        return insertion - deletion

    @property
    def reach(self) -> Tensor:
        """``[..., B]`` in [-1, 1]: what hiding everything takes from the probability, the most that a gap can be."""
        return self.deletion[..., 0] - self.deletion[..., -1]


def deletion_insertion(
    probability: Probability,
    images: Tensor,
    maps: Tensor,
    classes: Sequence[int] | Tensor,
    *,
    baseline: Baseline,
    shares: Sequence[float] = SHARES,
    seed: int = 0,
) -> Curves:
    """Deletion and insertion (Petsiuk et al., RISE, BMVC 2018), most important pixels first.

    Both ends of the curves are asked once, so ``M`` maps cost ``2 M len(shares) + 2`` passes an image.

    Args:
        probability: the network, in evaluation mode.
        images: ``[B, C, H, W]`` in [0, 1].
        maps: ``[B, H, W]``, or ``[M, B, H, W]`` for several maps of the same images. Only their order counts; pixels of
            equal value come in random order, for a flat map must not profit from the order of rows.
        classes: ``[B]`` the classes explained.
        baseline: what stands where pixels are missing: the image after a strong blur, or its mean colour.
        shares: of the pixels at which the network is asked, rising, each between 0 and 1.
        seed: of the order of equal pixels.
    """
    _check(images, maps, classes)
    if not all(first < second for first, second in pairwise((0, *shares, 1))):
        raise UsageError(f"Deletion and insertion need rising shares between 0 and 1, got {list(shares)}.")
    empty = _baseline(images, baseline)
    ranks = _ranks(maps, seed)
    pixels = ranks.shape[-2] * ranks.shape[-1]
    series = ranks.reshape(-1, *ranks.shape[-3:])

    def changed() -> Iterator[Tensor]:
        yield images
        yield empty
        for ranked in series:
            for share in shares:
                first = (ranked < round(share * pixels))[:, None]
                yield torch.where(first, empty, images)
                yield torch.where(first, images, empty)

    answers = _asked(probability, changed(), classes)
    whole, gone = answers[0].expand(len(series), 1, -1), answers[1].expand(len(series), 1, -1)
    between = answers[2:].view(len(series), len(shares), 2, len(images))
    deletion = torch.cat([whole, between[:, :, 0], gone], dim=1).transpose(1, 2)
    insertion = torch.cat([gone, between[:, :, 1], whole], dim=1).transpose(1, 2)
    shape = (*maps.shape[:-2], len(shares) + 2)
    return Curves(deletion.reshape(shape), insertion.reshape(shape))


def joined_curves(parts: Sequence[Curves]) -> Curves:
    """Curves ``[..., b, P]`` of batches as those of all their images."""
    return Curves(
        torch.cat([part.deletion for part in parts], dim=-2), torch.cat([part.insertion for part in parts], dim=-2)
    )


def drop_and_increase(
    probability: Probability, images: Tensor, maps: Tensor, classes: Sequence[int] | Tensor
) -> tuple[Tensor, Tensor]:
    """Drop and increase in confidence when the image is multiplied by its map (Chattopadhay et al., Grad-CAM++, WACV 2018).

    Args:
        probability: the network, in evaluation mode.
        images: ``[B, C, H, W]`` in [0, 1].
        maps: ``[B, H, W]`` in [0, 1], or ``[M, B, H, W]``.
        classes: ``[B]`` the classes explained.

    Returns:
        ``max(0, p - p_masked) / p`` in [0, 1] (low is good) and whether ``p_masked > p`` as 0 or 1, each ``[..., B]``.
    """
    _check(images, maps, classes)
    masks = maps.reshape(-1, *maps.shape[-3:])
    variants = (images if mask is None else images * mask[:, None].to(images.dtype) for mask in (None, *masks))
    before, *answers = _asked(probability, variants, classes)
    after = torch.stack(answers).reshape(maps.shape[:-2])
    drop = (before - after).clamp(min=0) / before.clamp(min=torch.finfo(before.dtype).tiny)
    return drop, (after > before).to(before.dtype)


def road(
    probability: Probability,
    images: Tensor,
    maps: Tensor,
    classes: Sequence[int] | Tensor,
    *,
    percentiles: Sequence[float] = (20, 40, 60, 80),
    seed: int = 0,
) -> Tensor:
    """Remove and debias (Rong et al., ICML 2022): ``[B]`` in [-1, 1], higher is better.

    The mean over the shares removed of the probability without the least relevant pixels minus that without the most
    relevant ones. What is removed is filled in from its neighbours (:func:`imputed`), so that the hole's shape itself tells
    the network little. The cost beside ``2 * len(percentiles)`` passes is a sparse linear system for each.

    Args:
        probability: the network, in evaluation mode.
        images: ``[B, C, H, W]`` in [0, 1].
        maps: ``[B, H, W]``; pixels of equal value come in random order.
        classes: ``[B]`` the classes explained.
        percentiles: shares removed, in percent, each in (0, 100).
        seed: of the order of equal pixels and of the noise on what is filled in.
    """
    _check(images, maps, classes)
    if not percentiles or not all(0 < percentile < 100 for percentile in percentiles):
        raise UsageError(f"ROAD needs percentiles between 0 and 100, got {list(percentiles)}.")
    ranks = _ranks(maps, seed)
    pixels = ranks.shape[-2] * ranks.shape[-1]
    generator = torch.Generator().manual_seed(seed)

    def filled(removed: Tensor) -> Tensor:
        batch = torch.stack([imputed(*pair) for pair in zip(images, removed, strict=True)])
        noise = _NOISE * torch.randn(batch.shape, generator=generator).to(batch)
        return torch.where(removed[:, None], batch + noise, batch)

    def changed() -> Iterator[Tensor]:
        for percentile in percentiles:
            count = round(percentile / 100 * pixels)
            yield filled(ranks >= pixels - count)
            yield filled(ranks < count)

    answers = _asked(probability, changed(), classes).view(len(percentiles), 2, -1)
    return (answers[:, 0] - answers[:, 1]).mean(dim=0)


def imputed(image: Tensor, removed: Tensor) -> Tensor:
    """``[C, H, W]`` with every removed pixel a weighted mean of its neighbours, removed ones included.

    Rong et al. 2022: weights 1/6 beside and 1/12 across, and over what lies inside at the border.

    Args:
        image: ``[C, H, W]``.
        removed: ``[H, W]`` bool; at least one pixel must be kept.
    """
    gone = removed.flatten().cpu().numpy()
    if gone.all():
        raise UsageError("Nothing can be filled in where every pixel of an image is removed.")
    if not gone.any():
        return image
    weights, system = _neighbours(*removed.shape)
    known = image.flatten(1)[:, torch.from_numpy(~gone).to(image.device)].cpu().numpy().astype(np.float64)
    # Symmetric and diagonally dominant: no pivoting is needed, and the ordering for such matrices is twice as fast.
    solver = splu(
        sparse.csc_array(system[gone][:, gone]),
        permc_spec="MMD_AT_PLUS_A",
        diag_pivot_thresh=0.0,
        options={"SymmetricMode": True},
    )
    solution = solver.solve(weights[gone][:, ~gone] @ known.T)
    result = image.flatten(1).clone()
    result[:, torch.from_numpy(gone).to(image.device)] = torch.from_numpy(solution.T).to(image)
    return result.view_as(image)


def randomised(network: nn.Module, images: Tensor, *, seed: int = 0) -> nn.Module:
    """A copy that has learnt nothing (the model parameter test of Adebayo et al., NeurIPS 2018).

    Every layer that can initialise itself does; the values of any other parameter change places. The batch norms'
    statistics are those of ``images``, without which a random network would hardly react to its input.

    Args:
        network: left as it is.
        images: ``[n, C, H, W]`` in [0, 1], such as those to be explained.
        seed: of the initialisation.

    Returns:
        The copy, in evaluation mode, where the images are.
    """
    twin = deepcopy(network).cpu()
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        for module in twin.modules():
            if callable(reset := getattr(module, "reset_parameters", None)):
                reset()
                continue
            for parameter in module.parameters(recurse=False):
                order = torch.randperm(parameter.numel())
                parameter.copy_(parameter.flatten()[order].view_as(parameter))
    twin.eval().to(images.device)
    norms = [module for module in twin.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    if norms:
        _estimate(twin, norms, images)
    return twin


def _estimate(network: nn.Module, norms: list[_BatchNorm], images: Tensor) -> None:
    """Give batch norms the statistics of images, each layer's as the layers before it now are."""
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.train()
        norm.momentum = None  # a plain mean over batches
    # Batch norm cannot use a single image; its mirror image is as good.
    images = torch.cat([images, images.flip(-1)]) if len(images) == 1 else images
    with torch.no_grad():
        for part in images.chunk(max(1, len(images) // BATCH)):
            network(part)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.eval()


def _asked(probability: Probability, variants: Iterable[Tensor], classes: Sequence[int] | Tensor) -> Tensor:
    """Probability of each image's class under each of ``V`` variants ``[B, C, H, W]``, ``[V, B]``, in full batches."""
    variants, chosen = iter(variants), torch.as_tensor(classes)
    answers = []
    with torch.inference_mode():
        for first in variants:
            most = at_once(max(first.shape[-2:]), first.device)
            group = [first, *islice(variants, max(0, most // len(chosen) - 1))]
            given = torch.cat([probability(part) for part in torch.cat(group).split(most)])
            given = given.reshape(len(group), len(chosen), -1)
            index = chosen.to(given.device, torch.int64)[None, :, None].expand(len(group), -1, 1)
            answers.append(given.gather(2, index)[..., 0])
    found = torch.cat(answers).float()
    if not found.isfinite().all():
        raise RunError(
            "A network gave a probability that is not a number on changed images. Its weights may be broken."
        )
    return found


def _ranks(maps: Tensor, seed: int) -> Tensor:
    """Each pixel's place in the order of importance, ``[..., H, W]`` int64 from 0; equal pixels in random order."""
    flat = maps.flatten(-2)
    generator = torch.Generator().manual_seed(seed)
    shuffled = torch.rand(flat.shape[-2:], generator=generator).argsort(dim=-1).to(maps.device).expand(flat.shape)
    order = flat.gather(-1, shuffled).argsort(dim=-1, descending=True, stable=True)
    places = torch.arange(flat.shape[-1], device=maps.device).expand(flat.shape)
    ranks = torch.empty_like(places, memory_format=torch.contiguous_format)
    return ranks.scatter_(-1, shuffled.gather(-1, order), places).view(maps.shape)


def _baseline(images: Tensor, kind: Baseline) -> Tensor:
    if kind == "blur":
        return blur(images, _BLUR * max(images.shape[-2:]))
    return images.mean(dim=(-2, -1), keepdim=True).expand_as(images)


@lru_cache(maxsize=4)
def _neighbours(height: int, width: int) -> tuple[sparse.csr_array, sparse.csr_array]:
    """Weights of neighbours, ``[HW, HW]``, and the system that says that every pixel is the weighted mean of its own."""
    rows, columns = (sparse.diags_array([np.ones(side - 1)] * 2, offsets=[-1, 1]) for side in (height, width))
    beside = sparse.kron(rows, sparse.eye_array(width)) + sparse.kron(sparse.eye_array(height), columns)
    weights = sparse.csr_array(beside / 6 + sparse.kron(rows, columns) / 12)
    return weights, sparse.csr_array(sparse.diags_array(weights.sum(axis=1)) - weights)


def _check(images: Tensor, maps: Tensor, classes: Sequence[int] | Tensor) -> None:
    fits = images.ndim == 4 and maps.ndim in (3, 4) and maps.shape[-3:] == (len(images), *images.shape[-2:])
    if not fits or len(classes) != len(images):
        raise UsageError(
            f"Expected a map and a class for every image: images {list(images.shape)}, maps {list(maps.shape)}, "
            f"{len(classes)} classes."
        )
