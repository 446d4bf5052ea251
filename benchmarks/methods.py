"""Which heat map, and of which layer? Every method on several layers of a finished run's networks, on test lesions.

    python benchmarks/methods.py RUN --layers last auto layer2

Needs a run whose data have lesion masks. For up to 48 test images with a lesion, and for the class that the network decides
for: insertion minus deletion (mean of both baselines), the share of the map's energy in the lesion and the pointing game,
with bootstrap intervals over images; the trivial maps beside them.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

import numpy as np
import torch

from stillroom import Run
from stillroom.data.inference import evaluating
from stillroom.data.load import load_data
from stillroom.errors import UsageError
from stillroom.explanation.controls import trivial_maps
from stillroom.explanation.faithfulness import deletion_insertion
from stillroom.explanation.heat_maps import METHODS, heat_maps
from stillroom.explanation.lesions import mask_energy, mask_share, pointing
from stillroom.explanation.means import mean_with_interval
from stillroom.models.saving import load_network

MOST = 48


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--layers", nargs="+", default=["last", "auto"])
    parser.add_argument("--roles", nargs="+", default=["student", "teacher"])
    arguments = parser.parse_args()
    run = Run.open(arguments.run)
    dataset = load_data(run.settings.source, run.settings.data, seed=run.settings.seed, show_progress=False)
    table, store, task = dataset.table, dataset.store, run.task
    rows = table.indices("test")[store.has_mask[table.indices("test")]][:MOST]
    assert store.mask_pixels is not None, "The run's data have no lesion masks."
    images = torch.from_numpy(store.batch(rows).astype(np.float32) / store.white)
    masks = torch.from_numpy(np.asarray(store.mask_pixels[store.rows[rows]]) > 0)
    mean = partial(
        mean_with_interval,
        patients=None if table.patients is None else table.patients[rows],
    )

    def text(values: torch.Tensor) -> str:
        found = mean(np.asarray(values, dtype=np.float64))
        return f"{found['value']:.3f} ({found['low']:.3f} to {found['high']:.3f})"

    print(f"{len(rows)} images; a flat map's energy in the lesion is {text(mask_share(masks))}\n")
    print(
        "| network | layer | map | insertion - deletion | energy in the lesion | pointing game |\n|---|---|---|---|---|---|"
    )
    for role in arguments.roles:
        network = load_network(run.path / role)
        with evaluating(network):
            classes = task.torch_probabilities(network(images)).argmax(dim=1)

        def probability(batch: torch.Tensor, network: torch.nn.Module = network) -> torch.Tensor:
            return task.torch_probabilities(network(batch))

        def show(layer: str, name: str, maps: torch.Tensor) -> None:
            with evaluating(network):  # noqa: B023
                gaps = [
                    deletion_insertion(probability, images, maps, classes, baseline=baseline).gap  # noqa: B023
                    for baseline in ("blur", "mean")
                ]
            figures = (torch.stack(gaps).mean(dim=0), mask_energy(maps, masks), pointing(maps, masks))
            print(f"| {role} | {layer} | {name} | {' | '.join(map(text, figures))} |", flush=True)  # noqa: B023

        for name, maps in trivial_maps(images, seed=0).items():
            show("", f"*{name}*", maps)
        for layer in arguments.layers:
            for method in METHODS:
                try:
                    show(layer, method, heat_maps(network, images, classes, method=method, layer=layer))
                except UsageError as error:
                    print(f"| {role} | {layer} | {method} | {error} | | |")


if __name__ == "__main__":
    main()
