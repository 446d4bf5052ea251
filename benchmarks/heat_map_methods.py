"""Which heat map finds evidence best, per kind of network? Where the evidence is known.

    python benchmarks/heat_map_methods.py --out DIR [--images 48]

Planted networks are built: a convolution that answers to a pattern, fifteen that answer to others, the largest answers of
8 x 8 places, and a head on their mean (`mean`) or on the largest (`largest`); `distractor` is `mean` with images that also
show a pattern which fires a channel of weight 0. Trained ones learn from random weights at 64 px: a ResNet phantoms (1,000
films with lesions drawn by the same program; normal, nodule, consolidation, effusion), a MobileNet and a ViT, which learn
less from so few, whether there is a bright disc anywhere (1,000 images). Weights are kept in DIR. Explained are images that
a network decides positive, of trained ones those held back that it is right about: by every method of Stillroom at its usual
layer, and by integrated gradients (16 steps from the mean, absolute, blurred), which it does not have. Figures are means with
95 % bootstrap intervals over images: share of the heat on the truth, pointing game, and insertion minus deletion as a run
measures it.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stillroom.data.load import load_data
from stillroom.explanation.controls import blur, stretched, trivial_maps
from stillroom.explanation.faithfulness import deletion_insertion
from stillroom.explanation.heat_maps import heat_maps as draw
from stillroom.explanation.heat_maps import hidden_value
from stillroom.explanation.judging import BASELINES
from stillroom.explanation.lesions import mask_energy, mask_share, pointing
from stillroom.explanation.means import SHARE, mean_with_interval
from stillroom.models.zoo import create
from stillroom.settings.methods import METHODS
from stillroom.settings.sections import DataSettings

SIDE, SQUARE, CHANNELS = 64, 9, 16
PLANTED = ("mean", "largest", "distractor")
TRAINED = {
    "resnet10t_050": ("phantoms", 12, 3e-3),
    "mobilenetv2_050": ("discs", 8, 3e-3),
    "test_vit": ("discs", 20, 1e-3),
}
"""What is learnt, passes of training, and the learning rate."""


@dataclass(frozen=True)
class Case:
    """A network, images that it decides positive, ``[n, C, S, S]``, their truth ``[n, S, S]`` bool and their classes."""

    network: nn.Module
    layer: str
    images: Tensor
    truth: Tensor
    classes: Tensor


class Planted(nn.Module):
    """Finds one pattern; its last map has a channel for each of 16."""

    def __init__(self, head: str, luck: torch.Generator) -> None:
        super().__init__()
        patterns = torch.randn(CHANNELS, 1, SQUARE, SQUARE, generator=luck).sign()
        patterns -= patterns.mean(dim=(2, 3), keepdim=True)
        self.patterns, self.head = nn.Parameter(patterns / SQUARE**2, requires_grad=False), head
        self.map = nn.AdaptiveMaxPool2d(8)
        weights = torch.zeros(CHANNELS)
        weights[0] = {"largest": 60.0}.get(head, 60.0 * 16)
        self.weights = nn.Parameter(weights, requires_grad=False)

    def forward(self, images: Tensor) -> Tensor:
        answers = self.map(F.relu(F.conv2d(images, self.patterns, padding=SQUARE // 2) - 0.04))
        pooled = answers.amax(dim=(2, 3)) if self.head == "largest" else answers.mean(dim=(2, 3))
        found = pooled @ self.weights - 3.0
        return torch.stack([-found / 2, found / 2], dim=1)


def planted(head: str, count: int) -> Case:
    luck = torch.Generator().manual_seed(0)
    network = Planted(head, luck).eval()
    wanted, count = (
        count,
        count * (4 if head == "mean" else 1),
    )  # whose network finds its pattern in a third of the images
    field = stretched(F.interpolate(torch.randn(count, 1, 7, 7, generator=luck), (SIDE, SIDE), mode="bicubic"))[:, 0]
    images = 0.3 + 0.3 * field + 0.05 * torch.randn(count, SIDE, SIDE, generator=luck)
    truth = torch.zeros(count, SIDE, SIDE, dtype=torch.bool)
    signs = network.patterns[:2, 0] * SQUARE**2
    for image, mask in zip(images, truth, strict=True):
        places = torch.randperm((SIDE // SQUARE) ** 2, generator=luck)[:2]
        for number, place in enumerate(places.tolist()):
            rows, columns = (slice(SQUARE * at, SQUARE * (at + 1)) for at in divmod(place, SIDE // SQUARE))
            if number == 0:
                image[rows, columns] += 0.17 * signs[0]
                mask[rows, columns] = True
            elif head == "distractor":
                image[rows, columns] += 0.3 * signs[1]
    images = images[:, None]
    with torch.no_grad():
        found = network(images).argmax(dim=1) == 1
    images, truth = images[found][:wanted], truth[found][:wanted]
    return Case(network, "map", images, truth, torch.ones(len(images), dtype=torch.int64))


def trained(name: str, folder: Path, count: int) -> Case:
    data, passes, lr = TRAINED[name]
    pixels, targets, masks, train, held = phantoms() if data == "phantoms" else discs()
    torch.manual_seed(0)
    network = create(name, classes=int(targets.max()) + 1, size=SIDE)
    file = folder / f"{name}.pt"
    if not file.exists():
        fit(network, pixels, targets, train, passes, lr)
        torch.save(network.state_dict(), file)
    network.load_state_dict(torch.load(file, weights_only=True))
    network.eval()
    with torch.no_grad():
        decided = network(pixels[held]).argmax(dim=1)
    print(f"{name}: accuracy {float((decided == targets[held]).float().mean()):.3f} on {len(held)} images", flush=True)
    right = held[(decided == targets[held]) & (decided > 0)][:count]
    return Case(network, "auto", pixels[right], masks[right], targets[right])


Learnt = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]
"""Images ``[N, 1, S, S]``, classes ``[N]``, masks ``[N, S, S]`` bool, rows to learn from and rows held back."""


def phantoms() -> Learnt:
    dataset = load_data("phantoms:1000", DataSettings(size=SIDE), show_progress=False)
    table, store = dataset.table, dataset.store
    pixels = torch.from_numpy(store.batch(np.arange(len(table))).astype(np.float32) / store.white)
    assert store.mask_pixels is not None
    masks = torch.from_numpy(np.asarray(store.mask_pixels[store.rows]) > 0)
    held = np.concatenate([table.indices("test"), table.indices("val")])
    rows = torch.from_numpy(table.indices("train")), torch.from_numpy(held)
    return pixels, torch.from_numpy(table.targets), masks, *rows


def discs(count: int = 1000) -> Learnt:
    """Half of the images hold a disc of 1 to 4 % of the area, as bright as the brightest parts of the others."""
    luck = torch.Generator().manual_seed(0)
    field = torch.randn(count, 1, 7, 7, generator=luck)
    images = 0.2 + 0.5 * stretched(F.interpolate(field, (SIDE, SIDE), mode="bicubic")[:, 0])
    targets = torch.arange(count) % 2
    places, rows = 8 + (SIDE - 16) * torch.rand(count, 2, generator=luck), torch.arange(SIDE)
    far = (rows[:, None] - places[:, :1, None]) ** 2 + (rows[None] - places[:, 1:, None]) ** 2
    masks = (far < (4 + 3 * torch.rand(count, generator=luck))[:, None, None] ** 2) & (targets[:, None, None] == 1)
    images = images + 0.3 * masks + 0.03 * torch.randn(images.shape, generator=luck)
    return images[:, None], targets, masks, torch.arange(700), torch.arange(700, count)


def fit(network: nn.Module, pixels: Tensor, targets: Tensor, rows: Tensor, passes: int, lr: float) -> None:
    optimizer = torch.optim.AdamW(network.parameters(), lr=lr, weight_decay=0.05)
    steps = passes * (len(rows) // 32)
    plan = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps)
    network.train()
    for number in range(passes):
        for part in rows[torch.randperm(len(rows))][: len(rows) // 32 * 32].split(32):
            view = pixels[part].roll(tuple(torch.randint(-4, 5, (2,)).tolist()), dims=(2, 3))
            loss = F.cross_entropy(network(view), targets[part])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            plan.step()
        print(f"pass {number + 1} of {passes}: loss of the last batch {loss.item():.2f}", flush=True)


def integrated_gradients(case: Case, steps: int = 16) -> Tensor:
    """Sundararajan et al., ICML 2017."""
    maps = []
    for image, number in zip(case.images, case.classes.tolist(), strict=True):
        hidden = hidden_value(case.network, image[None]).expand_as(image[None])
        shares = (torch.arange(steps) + 0.5)[:, None, None, None] / steps
        path = (hidden + shares * (image - hidden)).requires_grad_()
        slope = torch.autograd.grad(case.network(path)[:, number].sum(), path)[0].mean(dim=0)
        maps.append(blur(((image - hidden[0]) * slope).sum(dim=0).abs(), SIDE / 32))
    return stretched(torch.stack(maps))


def every_map(case: Case) -> dict[str, Tensor]:
    """Maps ``[n, S, S]`` by method."""
    found: dict[str, Tensor] = {
        name: draw(case.network, case.images, case.classes, method=name, layer=case.layer) for name in METHODS
    }
    found["integrated gradients"] = integrated_gradients(case)
    return found | {f"*{name}*": heat for name, heat in trivial_maps(case.images, seed=0).items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--images", type=int, default=48)
    parser.add_argument("--only", nargs="+", help="networks, by name")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    results: dict[str, dict] = {}
    for name in arguments.only or [*PLANTED, *TRAINED]:
        if name in PLANTED:
            case = planted(name, arguments.images)
        else:
            case = trained(name, arguments.out, arguments.images)
        share = float(mask_share(case.truth).mean())
        print(f"\n{name}: {len(case.images)} images, the truth is {share:.1%} of the image\n")
        print("| map | heat on the truth | pointing game | insertion - deletion |\n|---|---|---|---|")

        def chance(images: Tensor, network: nn.Module = case.network) -> Tensor:
            with torch.inference_mode():
                return network(images).softmax(dim=1)

        results[name] = {"images": len(case.images), "share": share}
        for method, maps in every_map(case).items():
            gaps = [
                deletion_insertion(chance, case.images, maps, case.classes, baseline=baseline).gap
                for baseline in BASELINES
            ]
            values = {
                "energy": mask_energy(maps, case.truth).nan_to_num(),
                "pointing": pointing(maps, case.truth),
                "gap": torch.stack(gaps).mean(dim=0),
            }
            figures = {
                key: mean_with_interval(value.double().numpy(), None, None if key == "gap" else SHARE)
                for key, value in values.items()
            }
            results[name][method] = figures
            text = (f"{each['value']:.3f} ({each['low']:.3f} to {each['high']:.3f})" for each in figures.values())
            print(f"| {method} | {' | '.join(text)} |", flush=True)
        (arguments.out / "heat_map_methods.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
