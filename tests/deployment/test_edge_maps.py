"""Score-CAM from the exported file alone: the map that torch draws, without torch."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from stillroom.deployment.edge_maps import edge_map
from stillroom.deployment.metadata import ModelMetadata
from stillroom.deployment.onnx import export_onnx
from stillroom.deployment.predictor import Predictor
from stillroom.errors import UsageError
from stillroom.explanation.heat_maps import heat_maps, hidden_value
from stillroom.explanation.layers import find_layer
from stillroom.models.zoo import create
from stillroom.task import MultiClass

THREE = MultiClass(("benign", "malignant", "normal"))


def images(side: int, channels: int) -> np.ndarray:
    made = np.random.default_rng(0).random((2, channels, side, side), dtype=np.float32) / 2
    made[:, :, side // 4 : side // 2, side // 3 : side // 2] += 0.5
    return made


def exported(path, name: str, side: int, channels: int, wanted: str):
    """A network whose logits differ from mask to mask, its layer, and its predictor."""
    network = create(name, classes=3, size=side).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.uniform_(-0.1, 0.1, generator=generator)
                module.weight.uniform_(0.5, 1.5, generator=generator)
        network.classifier().weight.normal_(generator=generator)
    batch = torch.from_numpy(images(side, channels))
    layer = find_layer(network, wanted, batch[:1])
    metadata = ModelMetadata(
        task=THREE,
        name=name,
        size=side,
        channels=channels,
        white=255.0,
        fit="pad",
        temperature=1.5,
        layer=layer.name,
        hidden=tuple(hidden_value(network, batch).flatten().tolist()),
    )
    return network, layer, Predictor.load(export_onnx(network, path / "student.onnx", metadata, layer=layer), threads=1)


@pytest.fixture(
    scope="module",
    params=[
        ("resnet10t_050", 64, 1, "auto"),
        ("test_vit", 64, 3, "last"),
        pytest.param(("mobilenetv3_small_050", 64, 3, "auto"), marks=pytest.mark.slow),
        pytest.param(("vit_tiny_patch16_224", 64, 1, "auto"), marks=pytest.mark.slow),
    ],
    ids=lambda row: row[0],
)
def student(request, tmp_path_factory):
    name, side, channels, wanted = request.param
    return *exported(tmp_path_factory.mktemp(name), name, side, channels, wanted), images(side, channels)


@pytest.mark.parametrize("fast", [False, True])
def test_the_map_is_that_of_torch(student, fast):
    network, layer, predictor, batch = student
    method = "score_cam_fast" if fast else "score_cam"
    expected = heat_maps(network, torch.from_numpy(batch), [0, 2], method=method, layer=layer.name).numpy()
    for image, number, heat in zip(batch, (0, 2), expected, strict=True):
        found = edge_map(predictor, image, number, fast=fast)
        assert (found.shape, found.dtype) == (image.shape[1:], np.float32)
        assert found.std() > 0.02
        np.testing.assert_allclose(found, heat, atol=1e-3)


def test_the_class_matters(student):
    _, _, predictor, batch = student
    first, second = (edge_map(predictor, batch[0], number) for number in (0, 2))
    assert np.abs(first - second).max() > 1e-3


def test_fast_asks_less(student, monkeypatch):
    _, _, predictor, batch = student
    counts, ask = [], predictor.logits
    monkeypatch.setattr(predictor, "logits", lambda part: counts.append(len(part)) or ask(part))
    edge_map(predictor, batch[0], 0)
    exact = sum(counts)
    assert exact == predictor.ask(batch[:1], "map")["map"].shape[1]
    assert max(counts) <= 32
    edge_map(predictor, batch[0], 0, fast=True)
    assert sum(counts) - exact <= max(8, exact / 5)


def test_a_file_without_a_map_says_so(tmp_path):
    network = create("resnet10t_050", classes=3, size=32).eval()
    metadata = ModelMetadata(
        task=THREE, name="resnet10t_050", size=32, channels=1, white=255.0, fit="pad", temperature=1.0
    )
    predictor = Predictor.load(export_onnx(network, tmp_path / "m.onnx", metadata))
    with pytest.raises(UsageError, match="exported resnet10t_050 has no feature map of more than one place"):
        edge_map(predictor, images(32, 1)[0], 0)


def test_no_torch_is_imported(student, tmp_path):
    *_, predictor, batch = student
    path = predictor._session._model_path
    np.save(tmp_path / "image.npy", batch[0])
    code = (
        "import sys, numpy as np\n"
        "from stillroom.deployment.edge_maps import edge_map\n"
        "from stillroom.deployment.predictor import Predictor\n"
        f"found = edge_map(Predictor.load({str(path)!r}), np.load({str(tmp_path / 'image.npy')!r}), 1, fast=True)\n"
        "assert found.any()\n"
        "print(*{'torch', 'pandas', 'sklearn', 'scipy', 'onnx', 'matplotlib', 'timm'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("\n", "")
