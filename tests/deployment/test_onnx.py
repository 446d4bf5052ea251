"""Export: one self-sufficient file, torch's answers at any batch size, and nothing of the machine in it."""

import logging
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from stillroom.deployment import onnx as exporter
from stillroom.deployment.metadata import ModelMetadata
from stillroom.deployment.onnx import check_parity, export_onnx, require_parity
from stillroom.deployment.predictor import Predictor
from stillroom.errors import RunError
from stillroom.evaluation.conformal import ConformalRule
from stillroom.evaluation.density import FeatureDensity, fit_density
from stillroom.evaluation.ood import ForeignRule
from stillroom.explanation.layers import Layer, find_layer, watched
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


def metadata(task: Task = THREE, **changes) -> ModelMetadata:
    settings = {"size": 16, "channels": 1, "white": 255.0, "fit": "pad", "temperature": 1.7, "name": "toy"}
    return ModelMetadata(task=task, **settings | {"details": {"data": "ten lines"}} | changes)


def export(network: nn.Module, path: Path, task: Task = THREE, **changes) -> Path:
    return export_onnx(network, path, metadata(task, **changes))


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


def test_the_layout_of_images_in_memory_leaves_nothing_in_the_file():
    """The exporter wrote a view of pooled features as Range and Gather, and OpenVINO took the wrong ones of an int8 file."""
    network = create("resnet10t_050", classes=3, size=32).eval()
    model = exporter.graph_of(network, metadata(size=32, channels=3))
    assert {"Conv", "ReduceMean", "Gemm"} <= {node.op_type for node in model.graph.node}
    assert not {"Gather", "Range", "Shape"} & {node.op_type for node in model.graph.node}


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


def test_what_did_not_change_is_traced_once(tmp_path, monkeypatch):
    """New notes need no new graph; another temperature does, and so do weights that were changed in place."""
    trace, traced, network = exporter._trace, [], Toy()
    monkeypatch.setattr(exporter, "_trace", lambda *asked: traced.append(1) or trace(*asked))
    first = onnx.load(export(network, tmp_path / "first.onnx"))
    noted = onnx.load(export(network, tmp_path / "noted.onnx", details={"data": "other lines"}))
    assert len(traced) == 1
    assert noted.graph == first.graph
    assert len(noted.metadata_props) == len(first.metadata_props)
    assert Predictor.load(tmp_path / "noted.onnx").metadata.details == {"data": "other lines"}
    batch = images(3)
    for count, temperature in ((2, 0.5), (3, 0.5)):
        predictor = Predictor.load(export(network, tmp_path / f"{count}.onnx", temperature=temperature))
        assert len(traced) == count
        logits = torch_logits(network, batch)
        np.testing.assert_allclose(predictor.probabilities(batch), torch.softmax(logits / temperature, 1), atol=1e-5)
        with torch.no_grad():
            network.head.weight *= 2


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


def test_the_file_states_the_lowest_version_that_holds_it_and_answers_alike(toy, tmp_path):
    path = toy[1]
    model = onnx.load(path)
    assert (model.ir_version, model.opset_import[0].version) == (8, 18)  # as by onnx's own table of versions
    onnx.checker.check_model(model, full_check=True)
    model.ir_version = 10
    found = []
    for content in (path.read_bytes(), model.SerializeToString()):
        session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
        found.append(session.run(None, {"images": images(3)}))
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_array_equal(ours, theirs)


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
    conformal = ConformalRule(0.9, True, np.array([0.1, np.inf, 1e-12]), 33)
    foreign = ForeignRule(-1.25, 0.5, 1.0, 0.125, float("inf"), 0.05, 12)
    expected = ModelMetadata(
        task=MultiClass(("keine", "Übergang", "schwer"), ordinal=True),
        name="toy",
        size=16,
        channels=3,
        white=4095.0,
        fit="resize",
        temperature=2.0,
        synthetic=True,
        layer="body.2",
        hidden=(0.1, 0.25, 1 / 3),
        explanation={"faithful": None, "statement": "Größe", "method": "score_cam", "fast": None},
        conformal=conformal.to_dict(),
        foreign=foreign.to_dict(),
        details={"run": "ä/ö", "teacher": "vit"},
    )
    path = export_onnx(Toy(channels=3), tmp_path / "m.onnx", expected)
    notes = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    metadata = ModelMetadata.from_properties(notes, str(path))
    assert metadata == expected
    np.testing.assert_array_equal(ConformalRule.from_dict(metadata.conformal).thresholds, conformal.thresholds)
    assert ForeignRule.from_dict(metadata.foreign) == foreign
    assert notes["stillroom.decision_rule"] == '"the class of highest probability"'
    assert notes["stillroom.format"] == "3"


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


# -- what else the file answers -----------------------------------------------------------------------------------
class Shared(nn.Module):
    """One activation, changed in place and used twice: its last call is the map."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Conv2d(1, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.norm, self.act, self.head = nn.BatchNorm2d(6), nn.ReLU(inplace=True), nn.Linear(6, 3)
        self.norm.bias.data.uniform_(-1, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.act(self.norm(self.second(self.act(self.first(images))))).mean(dim=(2, 3)))


def at(network: nn.Module, name: str, side: int = 16, channels: int = 1) -> Layer:
    return find_layer(network, name, torch.from_numpy(images(1, channels, side)))


@pytest.mark.parametrize("name", ["norm", "act", "second"])
def test_the_map_is_what_the_layer_answered_last_whatever_comes_after_it(tmp_path, name):
    network, batch = Shared().eval(), images(5)
    layer = at(network, name)
    path = export_onnx(network, tmp_path / "m.onnx", metadata(layer=name), layer=layer)
    with watched(layer) as seen, torch.inference_mode():
        network(torch.from_numpy(batch))
    np.testing.assert_allclose(Predictor.load(path).ask(batch, "map")["map"], seen[-1], atol=1e-5)
    require_parity(check_parity(path, network, batch, layer=layer), path)


def density(network: nn.Module, channels: int, side: int) -> FeatureDensity:
    with torch.inference_mode():
        features = network.outputs(torch.from_numpy(images(40, channels, side))).pooled.numpy()
    return fit_density(THREE, features, np.arange(40) % 3)


@pytest.fixture(scope="module")
def complete(tmp_path_factory):
    """Network, layer, density and file of a student that answers everything."""
    network = create("resnet10t_050", classes=3, size=32).eval()
    layer, known = at(network, "auto", 32), density(network, 1, 32)
    path = tmp_path_factory.mktemp("complete") / "student.onnx"
    export_onnx(network, path, metadata(size=32, layer=layer.name), layer=layer, density=known)
    return network, layer, known, path


@pytest.mark.parametrize("count", [1, 3, 33])
def test_map_and_distance_equal_torch_at_any_batch_size(complete, count):
    network, layer, known, path = complete
    batch = images(count, size=32)
    with watched(layer) as seen, torch.inference_mode():
        outputs = network.outputs(torch.from_numpy(batch))
    found = Predictor.load(path).ask(batch, "map", "distance", "logits")
    assert found["map"].shape == (count, 64, 4, 4)
    np.testing.assert_allclose(found["map"], seen[-1], atol=1e-3)
    assert found["distance"].shape == (count,)
    np.testing.assert_allclose(found["distance"], known.distances(outputs.pooled.numpy()), rtol=1e-3)
    np.testing.assert_allclose(found["logits"], outputs.logits, atol=1e-4)


def test_outputs_are_named_and_none_is_frozen_to_a_batch(complete, toy):
    sizes = {}
    for output in onnx.load(complete[-1]).graph.output:
        sizes[output.name] = [part.dim_param or part.dim_value for part in output.type.tensor_type.shape.dim]
    assert sizes == {"logits": ["batch", 3], "probabilities": ["batch", 3], "map": ["batch", 64, 4, 4]} | {
        "distance": ["batch"]
    }
    assert [output.name for output in onnx.load(toy[1]).graph.output] == ["logits", "probabilities"]


def test_parity_counts_maps_and_distances(complete):
    network, layer, known, path = complete
    batch = images(9, size=32)
    parity = check_parity(path, network, batch, layer=layer, density=known)
    require_parity(parity, path)
    assert 0 <= parity["max_map_difference"] < 1e-2
    assert 0 <= parity["max_distance_difference"] < 1e-2
    without = check_parity(path, network, batch)
    assert without["passed"]
    assert without["max_map_difference"] is without["max_distance_difference"] is None


@pytest.mark.parametrize("what", ["map", "distance"])
def test_parity_refuses_a_file_whose_map_or_distance_differs(complete, what):
    """The file of another layer or density: logits agree all the same."""
    network, layer, known, path = complete
    batch = images(9, size=32)
    if what == "map":
        layer = replace(layer, as_map=lambda output: output.flip(-1))
    else:
        known = replace(known, residual_precision=1.1 * known.residual_precision)
    parity = check_parity(path, network, batch, layer=layer, density=known)
    assert not parity["passed"]
    assert parity["max_logit_difference"] < 1e-3
    with pytest.raises(RunError, match=rf"{what}s by up to \d.*choose another student"):
        require_parity(parity, path)


@pytest.mark.parametrize(
    ("name", "size"),
    [("mobilenetv3_small_050", 64), ("vit_tiny_patch16_224", 64), ("swin_tiny_patch4_window7_224", 64)],
)
@pytest.mark.slow
def test_real_students_answer_everything(tmp_path, name, size):
    network = create(name, classes=3, size=size).eval()
    layer, known = at(network, "auto", size), density(network, 1, size)
    path = export_onnx(network, tmp_path / "m.onnx", metadata(size=size), layer=layer, density=known)
    require_parity(check_parity(path, network, images(9, size=size), layer=layer, density=known), path)


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


@pytest.mark.slow
def test_a_probe_of_several_layers_exports_and_agrees(tmp_path):
    network = create("test_vit", classes=3, size=32, features="both", feature_layers=3)
    path = export(network, tmp_path / "student.onnx", size=32)
    require_parity(check_parity(path, network.eval(), images(9, size=32), tolerance=1e-4), path)
