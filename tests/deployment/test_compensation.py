import numpy as np
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from stillroom.deployment.compensation import compensated
from stillroom.deployment.graph import Graph, rounded
from stillroom.deployment.int8 import asked
from stillroom.deployment.metadata import ModelMetadata
from stillroom.deployment.onnx import graph_of
from stillroom.deployment.quantisation import quantised
from stillroom.task import MultiClass

TASK = MultiClass(("a", "b", "c"))
METADATA = ModelMetadata(task=TASK, name="toy", size=24, channels=3, white=255.0, fit="pad", temperature=1.0)


class Every(nn.Module):
    """A convolution of every kind that a network has, and products of matrices."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(
            nn.Conv2d(3, 16, 3, stride=2, padding=(0, 1)), nn.ReLU(),
            nn.Conv2d(16, 16, (3, 1), padding=1, groups=16), nn.ReLU(),
            nn.Conv2d(16, 12, 3, dilation=2, padding=2, groups=4, bias=False), nn.ReLU(),
            nn.Conv2d(12, 16, 1),
        )  # fmt: skip
        self.tokens, self.mix, self.head = nn.Linear(16, 24), nn.Linear(24, 8), nn.Linear(8, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        tokens = self.tokens(self.layers(images).flatten(2).transpose(1, 2)).relu()
        return self.head(self.mix(tokens.mean(dim=1)).relu())


@pytest.fixture(scope="module")
def graph() -> Graph:
    return Graph(graph_of(Every().eval(), METADATA))


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    """Smooth, as pictures are: neighbours tell of each other, which the compensation lives on."""
    noise = np.random.default_rng(0).random((48, 3, 12, 12), dtype=np.float32)
    return noise.repeat(2, axis=2).repeat(2, axis=3)


@pytest.fixture(scope="module")
def weights(graph, images) -> dict[int, np.ndarray]:
    return compensated(graph, images[:24])


def moved(graph, images, model) -> float:
    """By how much logits of images that were not looked at differ, root mean square."""
    held_out = images[24:]
    return float(np.sqrt(((asked(model, held_out).logits - asked(graph.model, held_out).logits) ** 2).mean()))


def test_answers_move_less_than_with_each_weight_rounded_to_the_nearest(graph, images, weights):
    nearest = moved(graph, images, graph.with_rounded(graph.layers))
    assert moved(graph, images, graph.with_rounded(graph.layers, weights)) < 0.5 * nearest


def test_every_layer_of_whatever_kind_makes_up_for_its_own_rounding(graph, images, weights):
    assert len(graph.layers) == len(weights) == 6
    for layer in graph.layers:
        others = [one for one in graph.layers if one != layer]
        alone = compensated(graph, images[:24], others)
        assert list(alone) == [layer.number]
        assert moved(graph, images, graph.with_rounded([layer], alone)) < moved(
            graph, images, graph.with_rounded([layer])
        )


def test_weights_are_whole_steps_of_which_the_largest_is_127(graph, weights):
    for layer in graph.layers:
        found = np.moveaxis(weights[layer.number], layer.axis, 0).reshape(-1)
        assert weights[layer.number].shape == graph.weights(layer).shape
        assert np.allclose(rounded(weights[layer.number], layer.axis), weights[layer.number], atol=1e-7)
        assert np.isfinite(found).all()


def test_a_file_holds_just_these_weights(graph, images, weights):
    model = quantised(graph, images, (), weights)
    held = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    for layer in graph.layers:
        if layer.stored_only:
            continue
        whole, step = held[f"{layer.weight}_quantized"], held[f"{layer.weight}_scale"]
        shape = [-1 if axis == layer.axis else 1 for axis in range(whole.ndim)]
        assert np.allclose(whole * step.reshape(shape), weights[layer.number], atol=1e-6)


def test_a_layer_takes_back_what_those_before_it_did(images):
    """Planted: of each channel's three weights one is so large that the others are hardly told, and nothing else can make up
    for them but the layers behind."""
    network = Every().eval()
    with torch.no_grad():
        network.layers[2].weight[:, :, 0] *= 50
    graph = Graph(graph_of(network, METADATA))
    together = compensated(graph, images[:24])
    each = {}
    for layer in graph.layers:
        each |= compensated(graph, images[:24], [one for one in graph.layers if one != layer])
    alone, in_turn = (moved(graph, images, graph.with_rounded(graph.layers, found)) for found in (each, together))
    assert in_turn < 0.8 * alone


def test_a_layer_along_one_axis_is_rounded_like_any_other(images):
    class Along(nn.Module):
        """A gate by a convolution over channels, as ECA has it."""

        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.first, self.along = nn.Conv2d(3, 16, 3), nn.Conv1d(1, 1, 3, padding=1, bias=False)
            self.last, self.head = nn.Conv2d(16, 8, 1), nn.Linear(8, 3)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            seen = self.first(images).relu()
            gate = self.along(seen.mean(dim=(2, 3)).unsqueeze(1)).transpose(1, 2).unsqueeze(-1).sigmoid()
            return self.head(self.last(seen * gate).mean(dim=(2, 3)))

    graph = Graph(graph_of(Along().eval(), METADATA))
    weights = compensated(graph, images[:24])
    assert (1, 1, 3) in {values.shape for values in weights.values()}
    nearest = moved(graph, images, graph.with_rounded(graph.layers))
    assert moved(graph, images, graph.with_rounded(graph.layers, weights)) < nearest
    assert np.isfinite(asked(quantised(graph, images, (), weights), images).logits).all()


def test_inputs_that_are_always_nought_move_nothing(images):
    network = Every().eval()
    with torch.no_grad():
        network.layers[0].weight[:8] = 0
        network.layers[0].bias[:8] = 0  # of eight channels that are nought everywhere the depthwise layer sees nothing
    graph = Graph(graph_of(network, METADATA))
    weights = compensated(graph, images[:4])
    assert all(np.isfinite(values).all() for values in weights.values())
    depthwise = graph.layers[1]
    assert np.allclose(weights[1][:8], rounded(graph.weights(depthwise), 0)[:8], atol=1e-6)


def test_the_same_images_give_the_same_weights(graph, images, weights):
    again = compensated(graph, images[:24])
    assert all((again[number] == values).all() for number, values in weights.items())
