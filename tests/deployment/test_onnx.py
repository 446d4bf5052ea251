"""Export: one self-sufficient file, torch's answers at any batch size, and nothing of the machine in it."""

import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from stillroom.deployment.metadata import ModelMetadata
from stillroom.deployment.onnx import check_parity, export_onnx, require_parity
from stillroom.deployment.predictor import Predictor
from stillroom.errors import RunError
from stillroom.models.zoo import create
from stillroom.task import MultiClass, MultiLabel, Task

THREE = MultiClass(("benign", "malignant", "normal"))


class Toy(nn.Module):
    """A small network with what exports trip over: batch norm, dropout, a buffer for the normalisation."""

    def __init__(self, channels: int = 1, classes: int = 3) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.register_buffer("mean", torch.full((1, channels, 1, 1), 0.4))
        self.body = nn.Sequential(nn.Conv2d(channels, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.5))
        self.head = nn.Linear(8, classes)
        self.body[1].running_mean.uniform_(-0.2, 0.2)
        self.body[1].running_var.uniform_(0.05, 0.2)
        nn.init.normal_(self.head.weight, std=2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(images - self.mean).mean(dim=(2, 3)))


class Untraceable(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if images.sum() > 0:
            return images.mean(dim=(1, 2, 3))[:, None] * self.weight
        return images.mean(dim=(1, 2, 3))[:, None] + self.weight


def export(network: nn.Module, path: Path, task: Task = THREE, **changes) -> Path:
    settings = {"size": 16, "channels": 1, "white": 255.0, "fit": "pad", "temperature": 1.7, "name": "toy"}
    settings |= {"synthetic": False, "details": {"data": "ten lines"}} | changes
    return export_onnx(network, path, task=task, **settings)


def images(count: int, channels: int = 1, size: int = 16) -> np.ndarray:
    return np.random.default_rng(0).random((count, channels, size, size), dtype=np.float32)


def torch_logits(network: nn.Module, batch: np.ndarray) -> torch.Tensor:
    network.eval()
    with torch.inference_mode():
        return network(torch.from_numpy(batch))


@pytest.fixture(scope="module")
def toy(tmp_path_factory) -> tuple[nn.Module, Path]:
    network = Toy().eval()
    return network, export(network, tmp_path_factory.mktemp("export") / "student.onnx")


@pytest.mark.parametrize("count", [1, 2, 5, 33])
def test_logits_and_folded_temperature_equal_torch_at_any_batch_size(toy, count):
    network, path = toy
    batch = images(count)
    expected = torch_logits(network, batch)
    predictor = Predictor.load(path)
    np.testing.assert_allclose(predictor.logits(batch), expected, atol=1e-4)
    np.testing.assert_allclose(predictor.probabilities(batch), torch.softmax(expected / 1.7, dim=1), atol=1e-5)
    assert predictor.probabilities(batch).shape == (count, 3)


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        (MultiLabel(("effusion", "mass", "nodule")), lambda logits: torch.sigmoid(logits / 0.5)),
        (MultiLabel(("effusion", "mass", "nodule"), paper_softmax=True), lambda z: (z / 0.5).softmax(1)),
        (MultiClass(("mild", "moderate", "severe"), ordinal=True), lambda z: (z / 0.5).softmax(1)),
    ],
    ids=["multilabel", "paper_softmax", "ordinal"],
)
def test_every_task_brings_its_own_probabilities(tmp_path, task, expected):
    network = Toy()
    predictor = Predictor.load(export(network, tmp_path / "m.onnx", task, temperature=0.5))
    batch = images(4)
    np.testing.assert_allclose(predictor.probabilities(batch), expected(torch_logits(network, batch)), atol=1e-5)
    assert predictor.task == task


def test_network_is_left_as_it_was_and_dropout_is_off_in_the_file(tmp_path):
    network = Toy().train()
    network.body[1].eval()  # a frozen norm inside a training network
    before = {name: value.clone() for name, value in network.state_dict().items()}
    first, second = (Predictor.load(export(network, tmp_path / name)) for name in ("a.onnx", "b.onnx"))
    assert network.training
    assert network.head.training
    assert not network.body[1].training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    np.testing.assert_array_equal(first.logits(images(3)), second.logits(images(3)))


def test_same_weights_give_the_same_bytes_in_another_process_and_another_file(toy, tmp_path):
    _, path = toy
    other = tmp_path / "elsewhere" / "renamed.onnx"
    script = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        f"from pathlib import Path; from test_onnx import Toy, export\n"
        f"export(Toy(), Path({str(other)!r}))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert other.read_bytes() == path.read_bytes()
    assert (done.stdout, done.stderr) == ("", "")
    assert [file.name for file in other.parent.iterdir()] == ["renamed.onnx"]


def test_file_names_no_path_and_no_source_line_of_the_machine_that_wrote_it(toy):
    _, path = toy
    content = path.read_bytes()
    places = [Path(torch.__file__).parents[1], Path(__file__).parents[2], Path.home(), path.parent]
    for trace in (*(str(place) for place in places), "site-packages", ".py", "stack_trace", 'File "'):
        assert trace.encode() not in content, trace
    model = onnx.load_from_string(content)
    onnx.checker.check_model(model, full_check=True)
    assert all(not node.metadata_props and not node.doc_string for node in model.graph.node)
    assert all(tensor.data_location == onnx.TensorProto.DEFAULT for tensor in model.graph.initializer)


def test_export_is_quiet_and_leaves_logging_as_it_was(tmp_path, capfd):
    logging.disable(logging.DEBUG)
    try:
        export(Toy().train(), tmp_path / "m.onnx")
        assert logging.root.manager.disable == logging.DEBUG
    finally:
        logging.disable(logging.NOTSET)
    assert capfd.readouterr() == ("", "")


def test_metadata_round_trip_through_the_file(tmp_path):
    task = MultiClass(("keine", "Übergang", "schwer"), ordinal=True)
    path = export(
        Toy(channels=3),
        tmp_path / "m.onnx",
        task,
        channels=3,
        white=4095.0,
        fit="resize",
        temperature=2.0,
        synthetic=True,
        details={"run": "ä/ö", "teacher": "vit"},
    )
    expected = ModelMetadata(
        task=task,
        name="toy",
        size=16,
        channels=3,
        white=4095.0,
        fit="resize",
        temperature=2.0,
        synthetic=True,
        details={"run": "ä/ö", "teacher": "vit"},
    )
    assert Predictor.load(path).metadata == expected
    notes = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    assert notes["stillroom.decision_rule"] == '"the class of highest probability"'


def test_failed_export_is_one_line_with_the_name_and_keeps_the_old_file(tmp_path, capfd, caplog):
    path = tmp_path / "m.onnx"
    path.write_bytes(b"the last good one")
    with pytest.raises(RunError, match="ONNX export of odd_net failed: ") as caught:
        export(Untraceable(), path, name="odd_net")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400
    assert capfd.readouterr() == ("", "")
    assert not [record for record in caplog.records if record.levelno >= logging.INFO]
    assert path.read_bytes() == b"the last good one"
    assert list(tmp_path.iterdir()) == [path]


def test_parity_passes_on_the_network_and_names_figures_for_another_one(toy):
    network, path = toy
    batch = images(40)
    parity = check_parity(path, network, batch)
    require_parity(parity, path)
    assert parity["passed"]
    assert parity["images"] == 40
    assert parity["decisions_equal"] == 1.0
    assert 0 <= parity["max_logit_difference"] < 1e-4

    other = Toy()
    with torch.no_grad():
        other.head.bias += torch.tensor([0.0, 0.25, 0.0])
    parity = check_parity(path, other, batch)
    assert parity["max_logit_difference"] == pytest.approx(0.25, abs=1e-4)
    assert not parity["passed"]
    with pytest.raises(RunError, match=r"on 40 images, logits differ by up to 0\.25 and probabilities by up"):
        require_parity(parity, path)


def test_parity_does_not_pass_on_nan(toy):
    network, path = toy
    batch = images(3)
    batch[1] = np.nan
    assert not check_parity(path, network, batch)["passed"]


@pytest.mark.parametrize(
    ("name", "network_size", "image_size"),
    [
        ("mobilenetv3_small_050", 64, 64),
        ("resnet18", 32, 32),
        # The resizing before the network, with antialiasing, becomes part of the file.
        pytest.param("vit_tiny_patch16_224", 32, 64, marks=pytest.mark.slow),
    ],
)
def test_real_students_export_and_agree(tmp_path, name, network_size, image_size):
    network = create(name, classes=3, size=network_size)
    path = export(network, tmp_path / "student.onnx", size=image_size, name=name)
    parity = check_parity(path, network, images(9, size=image_size), tolerance=1e-4)
    require_parity(parity, path)
    weights = sum(parameter.numel() for parameter in network.parameters()) * 4
    assert path.stat().st_size < weights + 200_000
