"""A model made by hand, images of many kinds, and servers in processes of their own."""

import numpy as np
import pytest
from answering import Answering
from dicom_files import write_dicom
from hand_made import write_model
from PIL import Image

from stillroom.evaluation.conformal import ConformalRule
from stillroom.evaluation.ood import ForeignRule
from stillroom.evaluation.operating_points import OperatingPoint

SETS = ConformalRule(0.9, False, np.array([0.8, 0.8]), 100).to_dict()
FOREIGN = ForeignRule(-1.0, 1.0, 0.0, 0.1, 5.0, 0.05, 100).to_dict()
POINT = OperatingPoint("bright", "sensitivity", 0.95, 0.3, 0.949, 57, 57.0).to_dict()


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    """An exported file that has every rule: sets, refusals of foreign images, a threshold."""
    folder = tmp_path_factory.mktemp("models") / "first"
    folder.mkdir()
    return write_model(folder / "student.onnx", conformal=SETS, foreign=FOREIGN, points=(POINT,), white=65535)


@pytest.fixture(scope="session")
def images(tmp_path_factory):
    """Files: grey, colour and 16 bits, sure, unsure and foreign, DICOM of one and of three frames, and no image."""
    folder, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for number, level in enumerate((20, 120, 130, 240)):
        grey = np.clip(rng.normal(level, 6, (40, 31)), 0, 255).astype(np.uint8)
        Image.fromarray(grey).save(folder / f"grey{number}.png")
        Image.fromarray(np.repeat(grey[..., None], 3, axis=2) + np.array([0, 3, 5], np.uint8)).save(
            folder / f"colour{number}.jpg"
        )
    spot = np.full((40, 40), 10, np.uint8)
    spot[10:22, 10:22] = 250
    Image.fromarray(spot).save(folder / "spot.png")
    Image.fromarray(rng.integers(0, 65536, (30, 30)).astype(np.uint16)).save(folder / "deep.png")
    write_dicom(folder / "one", rng.integers(0, 4096, (24, 24)).astype(np.uint16), BitsStored=12)
    write_dicom(folder / "three", rng.integers(0, 4096, (3, 24, 24)).astype(np.uint16), BitsStored=12)
    (folder / "none.png").write_bytes(b"this is no image")
    return sorted(folder.iterdir())


@pytest.fixture(scope="session")
def server(model):
    """One that is shared by tests that leave it as it is."""
    with Answering(model) as running:
        yield running
