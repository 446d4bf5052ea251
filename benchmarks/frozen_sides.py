"""How much a frozen network made for 224 px knows of images of 28 px, by the side that they are enlarged to.

    python benchmarks/frozen_sides.py --sides 64 96 224

A logistic regression, its penalty by threefold cross-validation, on the pooled features of `mobilenet_edgetpu_100`; the test
AUC is the mean over classes, one against the rest. $STILLROOM_DATA and $STILLROOM_WEIGHTS name the folders that
docs/benchmarks.md describes.
"""

from __future__ import annotations

import argparse
import os
import warnings
from pathlib import Path

import numpy as np
import timm
import torch
from plain_fine_tuning import load
from sklearn.linear_model import LogisticRegressionCV
from sklearn.metrics import roc_auc_score
from torch.nn import functional

NETWORK = "mobilenet_edgetpu_100"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", default=["breastmnist", "retinamnist"])
    parser.add_argument("--sides", type=int, nargs="+", default=[64, 96, 224])
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    network = timm.create_model(NETWORK, num_classes=0).eval().to(memory_format=torch.channels_last)
    statistics = load(network, NETWORK, Path(os.environ["STILLROOM_WEIGHTS"]))
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (statistics.mean, statistics.std))
    for name in arguments.sets:
        with np.load(Path(os.environ["STILLROOM_DATA"]) / "medmnist" / f"{name}.npz") as file:
            content = dict(file)
        for side in arguments.sides:
            found = {}
            for split in ("train", "test"):
                images = torch.from_numpy(content[f"{split}_images"])
                images = images[:, None].expand(-1, 3, -1, -1) if images.ndim == 3 else images.permute(0, 3, 1, 2)
                with torch.inference_mode():
                    shown = (
                        functional.interpolate(part.float() / 255, side, mode="bilinear") for part in images.split(16)
                    )
                    found[split] = torch.cat([network((part - mean) / std) for part in shown]).double().numpy()
            middle, spread = found["train"].mean(0), found["train"].std(0) + 1e-6
            search = LogisticRegressionCV(
                Cs=np.logspace(-5, 0, 6), cv=3, scoring="neg_log_loss", max_iter=150, tol=1e-3
            )
            search.fit((found["train"] - middle) / spread, content["train_labels"].ravel())
            said, truth = search.predict_proba((found["test"] - middle) / spread), content["test_labels"].ravel()
            area = np.mean([roc_auc_score(truth == label, said[:, label]) for label in range(said.shape[1])])
            print(f"{name} at {side} px: AUC {area:.3f}", flush=True)


if __name__ == "__main__":
    main()
