"""A device: a clean environment with the plain install, and an exported file with what torch says of its answers."""

import os
from pathlib import Path

import numpy as np
import pytest


@pytest.fixture(scope="session")
def device() -> Path:
    """The folder that make_device.py made; the test is skipped without it."""
    folder = os.environ.get("STILLROOM_EDGE")
    if not folder:
        pytest.skip("STILLROOM_EDGE is not set: `make edge` runs these tests where torch is not")
    return Path(folder)


@pytest.fixture(scope="session")
def known(device) -> dict[str, np.ndarray]:
    with np.load(device / "known.npz") as arrays:
        return dict(arrays)
