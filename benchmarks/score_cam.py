"""Score-CAM against two peers, pytorch-grad-cam and torchcam: time, memory and agreement, at 224 px.

    python benchmarks/score_cam.py --out DIR

ResNet-18, MobileNetV3-small and ViT-tiny are trained for a few epochs on $STILLROOM_DATA/otoscopy, so that their answers
depend on the image; the weights are kept in DIR. Then, for every network:

- each way of making the map explains the same images, one at a time, in a process of its own, which says how long an image
  took (median) and by how much the process grew at its peak; the ways take turns;
- maps are compared with the exact one of Stillroom by their correlation over pixels, and the fast mode on more images.

torchcam takes no tokens, so it has no ViT.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch

from stillroom.data.load import load_data
from stillroom.data.views import augment
from stillroom.evaluation.intervals import percentile
from stillroom.explanation.heat_maps import heat_maps
from stillroom.models.efficiency import machine
from stillroom.models.zoo import create
from stillroom.settings.sections import DataSettings, ViewSettings

SIZE = 224
NETWORKS = {"resnet18": 3, "mobilenetv3_small_100": 12, "vit_tiny_patch16_224": 5}
"""Epochs of training."""
WAYS = ("stillroom", "stillroom fast", "pytorch-grad-cam", "torchcam")


def images(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """``count`` images ``[n, 3, 224, 224]`` of every split but the test's, shuffled, and their classes."""
    dataset = load_data(os.environ["STILLROOM_DATA"] + "/otoscopy", DataSettings(size=SIZE), show_progress=False)
    rows = np.random.default_rng(0).permutation(np.flatnonzero(dataset.table.splits != "test"))[:count]
    pixels = torch.from_numpy(dataset.store.batch(rows).astype(np.float32) / dataset.store.white)
    return pixels, torch.from_numpy(dataset.table.targets[rows])


def trained(name: str, file: Path) -> torch.nn.Module:
    network = create(name, classes=4, size=SIZE)
    if not file.exists():
        pixels, targets = images(400)
        optimizer = torch.optim.AdamW(network.parameters(), lr=5e-4 if "vit" in name else 1e-3)
        torch.manual_seed(0)
        for epoch in range(NETWORKS[name]):
            network.train()
            order = torch.randperm(len(pixels))
            for rows in order.split(16):
                view = augment(pixels[rows], rows.numpy(), epoch, ViewSettings(), 0)
                loss = torch.nn.functional.cross_entropy(network(view), targets[rows])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            print(f"{name}, epoch {epoch + 1}: loss of the last batch {float(loss):.2f}", flush=True)
        torch.save(network.state_dict(), file)
    network.load_state_dict(torch.load(file, weights_only=True))
    return network.eval()


def maps(way: str, name: str, network: torch.nn.Module, image: torch.Tensor, number: int) -> np.ndarray:
    """``[224, 224]`` in [0, 1]. Peers explain the bare network, whose input is the normalised image, as ours does inside."""
    if way.startswith("stillroom"):
        method = "score_cam_fast" if way.endswith("fast") else "score_cam"
        return heat_maps(network, image, [number], method=method, layer="last")[0].numpy()
    backbone = network.backbone
    normalised = (image - network.mean.view(3, 1, 1)) / network.std.view(3, 1, 1)
    layer = {"resnet18": "layer4", "mobilenetv3_small_100": "blocks", "vit_tiny_patch16_224": "norm"}[name]
    if way == "torchcam":
        from torchcam.methods import ScoreCAM

        with ScoreCAM(backbone, layer, batch_size=32) as cam:
            with torch.no_grad():
                logits = backbone(normalised)
            found = cam(number, logits)[0]
        return torch.nn.functional.interpolate(found[None], (SIZE, SIZE), mode="bilinear")[0, 0].numpy()
    from pytorch_grad_cam import ScoreCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    def tokens(output: torch.Tensor) -> torch.Tensor:
        return output[:, 1:].transpose(1, 2).reshape(len(output), -1, 14, 14)

    reshape = tokens if "vit" in name else None
    with ScoreCAM(backbone, [backbone.get_submodule(layer)], reshape_transform=reshape) as cam:
        cam.batch_size = 32
        return cam(normalised, [ClassifierOutputTarget(number)])[0]


def one(way: str, name: str, out: Path, count: int) -> None:
    """In a process of its own: seconds per image and growth in MB, as a line of JSON; the maps go to a file."""
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    network, (pixels, targets) = trained(name, out / f"{name}.pt"), images(count)
    with torch.no_grad():
        network(pixels[:1])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds, found = [], []
    with Path(os.devnull).open("w") as nothing:
        stderr, sys.stderr = sys.stderr, nothing  # a peer's progress bar
        for image, target in zip(pixels, targets, strict=True):
            start = time.perf_counter()
            found.append(maps(way, name, network, image[None], int(target)))
            seconds.append(time.perf_counter() - start)
        sys.stderr = stderr
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    np.save(out / f"{name}.{way.replace(' ', '-')}.npy", np.stack(found))
    print(json.dumps({"seconds": seconds, "mb": grown}))


def correlation(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """``[n]`` over the pixels of ``[n, H, W]``."""
    pairs = zip(first.reshape(len(first), -1), second.reshape(len(second), -1), strict=True)
    return np.array([np.corrcoef(*pair)[0, 1] for pair in pairs])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--images", type=int, default=3, help="images to time each way on, per turn")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument(
        "--agreement", type=int, default=24, help="images to compare the fast mode with the exact one on"
    )
    parser.add_argument("--one", nargs=2, metavar=("WAY", "NETWORK"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    if arguments.one:
        one(*arguments.one, arguments.out, arguments.images)
        return
    results: dict[str, object] = {"machine": machine()}
    for name in NETWORKS:
        network = trained(name, arguments.out / f"{name}.pt")
        runs: dict[str, list[dict]] = {way: [] for way in WAYS if not ("vit" in name and way == "torchcam")}
        for _ in range(arguments.turns):
            for way, done in runs.items():
                command = [sys.executable, __file__, "--out", str(arguments.out), "--images", str(arguments.images)]
                said = subprocess.run([*command, "--one", way, name], capture_output=True, text=True, check=True)
                done.append(json.loads(said.stdout.splitlines()[-1]))
        exact = np.load(arguments.out / f"{name}.stillroom.npy")
        table = {}
        for way, done in runs.items():
            seconds = float(np.median([second for run in done for second in run["seconds"]]))
            agreed = correlation(np.load(arguments.out / f"{name}.{way.replace(' ', '-')}.npy"), exact)
            table[way] = {"seconds": seconds, "mb": max(run["mb"] for run in done), "correlation": agreed.min()}
        for way, row in table.items():
            row["ratio"] = row["seconds"] / table["stillroom"]["seconds"]
            print(
                f"{name}, {way}: {row['seconds']:.2f} s an image ({row['ratio']:.2f}x), {row['mb']:.0f} MB, least "
                f"correlation with the exact map {row['correlation']:.4f}",
                flush=True,
            )
        pixels, targets = images(arguments.agreement)
        both = [heat_maps(network, pixels, targets, method=method) for method in ("score_cam", "score_cam_fast")]
        agreed = correlation(both[0].numpy(), both[1].numpy())
        drawn = np.random.default_rng(0).choice(agreed, (1000, len(agreed))).mean(axis=1)
        low, high = percentile(drawn)
        print(
            f"{name}, fast against exact on {len(agreed)} images: mean correlation {agreed.mean():.3f} "
            f"({low:.3f} to {high:.3f}), least {agreed.min():.3f}",
            flush=True,
        )
        results[name] = {"ways": table, "fast": {"correlations": agreed.tolist()}}
    (arguments.out / "score_cam.json").write_text(json.dumps(results, indent=2, default=float) + "\n")


if __name__ == "__main__":
    main()
