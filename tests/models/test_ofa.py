import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from stillroom.deployment.metadata import ModelMetadata
from stillroom.deployment.onnx import check_parity, export_onnx
from stillroom.errors import UsageError
from stillroom.models.cards import describe
from stillroom.models.catalogue import find
from stillroom.models.normalisation import IMAGENET
from stillroom.models.ofa import Ofa
from stillroom.models.ofa_space import OFA595, config_of, sample
from stillroom.models.saving import load_network, save_network
from stillroom.models.zoo import check_size, create, outline, resolve_size, specification
from stillroom.task import MultiClass

SMALLEST = "ofa_w100_k33-33-33-33-33_e33-33-33-33-33"
SAMPLED = [config.name for config in sample(7)]


def count(network: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def macs(network: torch.nn.Module, size: int) -> int:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(torch.empty(1, 3, size, size, device="meta"))
    return counter.get_total_flops() // 2


@pytest.mark.parametrize(("classes", "parameters"), [(1000, 9_135_928), (14, 7_620_446), (3, 7_603_539)])
def test_ofa595_has_the_published_parameters(classes, parameters):
    assert count(outline("ofa595", classes=classes)) == parameters
    assert OFA595.parameters(classes) == parameters


def test_ofa595_has_the_published_multiply_adds():
    network = outline("ofa595")
    assert round(macs(network, 236) / 1e6, 1) == 595.2
    assert round(macs(network, 224) / 1e9, 3) == 0.513
    assert specification("ofa595").native_size == 236
    assert specification("ofa595").normalisation == IMAGENET
    assert resolve_size("ofa595", None, 64) == 64


def closed_form(name: str, classes: int) -> int:
    """Parameters, layer by layer, read off the name: what the published description says, written once more."""
    width, kernels, expansions = re.fullmatch(r"ofa_w(\d+)_k([\d-]+)_e([\d-]+)", name).groups()
    channels = {"100": (16, 24, 40, 80, 112, 160, 960, 1280), "120": (24, 32, 48, 96, 136, 192, 1152, 1536)}[width]
    convolution = lambda inputs, outputs, kernel, groups=1: outputs * inputs // groups * kernel**2 + 2 * outputs  # noqa: E731
    stem = channels[0]
    total = convolution(3, stem, 3) + convolution(stem, stem, 3, stem) + convolution(stem, stem, 1)
    inputs = stem
    for stage, (outputs, ks, es) in enumerate(
        zip(channels[1:6], kernels.split("-"), expansions.split("-"), strict=True), 2
    ):
        for k, e in zip(map(int, ks), map(int, es), strict=True):
            middle = e * inputs
            total += convolution(inputs, middle, 1) + convolution(middle, middle, k, middle)
            total += convolution(middle, outputs, 1)
            if stage in (3, 5, 6):
                hidden = 8 * ((middle // 4 + 4) // 8)
                hidden += 8 if 10 * hidden < 9 * (middle // 4) else 0
                total += middle * hidden + hidden + hidden * middle + middle
            inputs = outputs
    total += convolution(inputs, channels[6], 1) + channels[6] * channels[7]
    return total + channels[7] * classes + classes


@pytest.mark.parametrize("name", SAMPLED)
def test_points_of_the_space_cost_what_the_formulas_say(name):
    config = config_of(name)
    network = Ofa(config, 5).to("meta").eval()
    assert count(network) == config.parameters(5) == closed_form(name, 5)
    for size in (28, 61, 224):
        assert macs(network, size) == config.macs(size, 5)


@pytest.mark.parametrize(("name", "size", "side"), [(SAMPLED[0], 28, 1), (SAMPLED[-1], 50, 2)])
def test_points_of_the_space_run_by_name_at_any_size(name, size, side):
    check_size(name, size)
    network = create(name, classes=4, size=size, seed=3).eval()
    with torch.no_grad():
        outputs = network.outputs(torch.rand(2, 1, size, size))
        head = network.backbone.forward_head(outputs.map, pre_logits=True)
        torch.testing.assert_close(network.classify_map(outputs.map), outputs.logits)
    assert outputs.logits.shape == (2, 4)
    assert outputs.logits.std() > 0
    assert outputs.map.shape[1:] == (config_of(name).final, side, side)
    torch.testing.assert_close(head, outputs.pooled)
    assert network.classifier().in_features == outputs.pooled.shape[1] == config_of(name).mix


def test_a_student_of_the_space_trains_and_its_dropout_is_off_in_evaluation():
    network = create(SMALLEST, classes=2, size=28)
    images = torch.rand(4, 3, 28, 28)
    network(images).sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    network.eval()
    with torch.no_grad():
        assert torch.equal(network(images), network(images))


def test_a_point_is_restored_from_its_name(tmp_path):
    network = create(SAMPLED[4], classes=2, size=32, seed=1).eval()
    again = load_network(save_network(network, tmp_path / "student"))
    assert again.name == SAMPLED[4]
    with torch.no_grad():
        images = torch.rand(1, 1, 32, 32)
        assert torch.equal(again(images), network(images))


def test_points_are_found_by_their_name_alone():
    assert find("ofa595") == ["ofa595"]
    assert find(SMALLEST) == [SMALLEST]
    (card,) = describe([SMALLEST], size=64, classes=2)
    assert (card.family, card.native_size, card.pretrained) == ("ofa", 224, False)
    assert card.parameters == round(closed_form(SMALLEST, 2) / 1e6, 2)
    with pytest.raises(UsageError, match=r"No network is called 'ofa_w100\*'.*full names.*budget"):
        find("ofa_w100*")
    for refused in (find, specification, outline):
        with pytest.raises(UsageError, match="width is w100 or w120"):
            refused(SMALLEST.replace("w100", "w150"))


@pytest.mark.parametrize("name", [SMALLEST, pytest.param("ofa595", marks=pytest.mark.slow)])
def test_the_exported_file_answers_alike_at_any_batch_size(tmp_path, name):
    network = create(name, classes=3, size=32, seed=2).eval()
    metadata = ModelMetadata(
        task=MultiClass(("benign", "malignant", "normal")),
        size=32,
        channels=1,
        white=255.0,
        fit="pad",
        temperature=1.3,
        name=name,
        synthetic=False,
        details={},
    )
    path = export_onnx(network, tmp_path / "student.onnx", metadata)
    images = np.random.default_rng(0).random((9, 1, 32, 32), dtype=np.float32)
    parity = check_parity(path, network, images, tolerance=1e-4)
    assert parity["passed"]
    assert parity["max_logit_difference"] <= 1e-4


# -- the authors' files -------------------------------------------------------------------------------------------
# ofa595 as its authors describe it: out, stride, hard swish, squeeze, kernels, middle channels.
PUBLISHED = (
    (24, 1, False, False, (3,), (24,)),
    (32, 2, False, False, (3, 5, 3), (72, 128, 96)),
    (48, 2, False, True, (5, 5, 3, 5), (128, 192, 288, 144)),
    (96, 2, True, False, (7, 5, 3, 5), (288, 576, 288, 384)),
    (136, 1, True, True, (3, 5, 7, 3), (576, 816, 816, 544)),
    (192, 2, True, True, (3, 3, 5, 3), (816, 1152, 1152, 576)),
)


def authors_state(classes: int = 1000) -> dict[str, torch.Tensor]:
    """Weights under the names, and in the shapes, of the authors' file."""
    chance = torch.Generator().manual_seed(0)
    state: dict[str, torch.Tensor] = {}

    def put(name: str, *shape: int, norm: bool = True) -> None:
        state[f"{name}.conv.weight"] = torch.randn(shape, generator=chance) * (2 / np.prod(shape[1:])) ** 0.5
        if norm:
            for part in ("weight", "running_var"):
                state[f"{name}.bn.{part}"] = 0.8 + 0.4 * torch.rand(shape[0], generator=chance)
            for part in ("bias", "running_mean"):
                state[f"{name}.bn.{part}"] = 0.1 * torch.randn(shape[0], generator=chance)
            state[f"{name}.bn.num_batches_tracked"] = torch.tensor(7)

    put("first_conv", 24, 3, 3, 3)
    inputs, number = 24, 0
    for out, _, _, squeeze, kernels, middles in PUBLISHED:
        for kernel, middle in zip(kernels, middles, strict=True):
            block = f"blocks.{number}.mobile_inverted_conv"
            if number:
                put(f"{block}.inverted_bottleneck", middle, inputs, 1, 1)
            put(f"{block}.depth_conv", middle, 1, kernel, kernel)
            if squeeze:
                hidden = {128: 32, 144: 40, 192: 48, 288: 72, 544: 136, 576: 144, 816: 208, 1152: 288}[middle]
                for layer, shape in (("reduce", (hidden, middle)), ("expand", (middle, hidden))):
                    name = f"{block}.depth_conv.se.fc.{layer}"
                    state[f"{name}.weight"] = torch.randn(*shape, 1, 1, generator=chance) / shape[1] ** 0.5
                    state[f"{name}.bias"] = torch.randn(shape[0], generator=chance)
            put(f"{block}.point_linear", out, middle, 1, 1)
            inputs, number = out, number + 1
    put("final_expand_layer", 1152, 192, 1, 1)
    put("feature_mix_layer", 1536, 1152, 1, 1, norm=False)
    state["classifier.linear.weight"] = torch.randn(classes, 1536, generator=chance) / 40
    state["classifier.linear.bias"] = torch.randn(classes, generator=chance)
    return state


def authors_answer(state: dict[str, torch.Tensor], images: torch.Tensor) -> torch.Tensor:
    """A plain reading of the authors' network, from its file alone."""

    def convolve(x, name, stride=1, groups=1):
        weight = state[f"{name}.conv.weight"]
        x = F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2, groups=groups)
        mean, variance, scale, shift = (
            state[f"{name}.bn.{part}"].view(1, -1, 1, 1) for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (variance + 1e-5).sqrt() * scale + shift

    def hard_sigmoid(x):
        return (x + 3).clamp(0, 6) / 6

    def hard_swish(x):
        return x * hard_sigmoid(x)

    x = hard_swish(convolve(images, "first_conv", 2))
    number = 0
    for out, stage_stride, swish, squeeze, kernels, middles in PUBLISHED:
        act = hard_swish if swish else torch.relu
        for position, middle in enumerate(middles[: len(kernels)]):
            block, stride, before = f"blocks.{number}.mobile_inverted_conv", stage_stride if position == 0 else 1, x
            if number:
                x = act(convolve(x, f"{block}.inverted_bottleneck"))
            x = act(convolve(x, f"{block}.depth_conv", stride, middle))
            if squeeze:
                fc = f"{block}.depth_conv.se.fc"
                pooled = x.mean((2, 3))
                pooled = torch.relu(pooled @ state[f"{fc}.reduce.weight"].flatten(1).T + state[f"{fc}.reduce.bias"])
                pooled = pooled @ state[f"{fc}.expand.weight"].flatten(1).T + state[f"{fc}.expand.bias"]
                x = x * hard_sigmoid(pooled)[:, :, None, None]
            x = convolve(x, f"{block}.point_linear")
            if stride == 1 and before.shape[1] == out:
                x = before + x
            number += 1
    x = hard_swish(convolve(x, "final_expand_layer")).mean((2, 3))
    x = hard_swish(x @ state["feature_mix_layer.conv.weight"].flatten(1).T)
    return x @ state["classifier.linear.weight"].T + state["classifier.linear.bias"]


def test_the_authors_file_gives_the_authors_answers(tmp_path):
    state = authors_state()
    assert sum(value.numel() for key, value in state.items() if "running" not in key and "num" not in key) == 9_135_928
    torch.save({"state_dict": state}, tmp_path / "ofa595.pth")
    network = create("ofa595", classes=1000, size=32, pretrained=True, weights=tmp_path).eval().double()
    images = torch.rand(2, 3, 32, 32, dtype=torch.float64)
    with torch.no_grad():
        normalised = (images - network.mean.view(3, 1, 1)) / network.std.view(3, 1, 1)
        expected = authors_answer({key: value.double() for key, value in state.items()}, normalised)
        answer = network(images)
    assert expected.std(0).mean() > 0.01
    torch.testing.assert_close(answer, expected, atol=1e-9, rtol=1e-9)


def test_the_authors_file_serves_other_classes_and_the_points_full_name(tmp_path):
    state = authors_state(7)
    torch.save({"state_dict": state}, tmp_path / "authors.pth")
    for name in ("ofa595", OFA595.name):
        network = create(name, classes=2, size=32, pretrained=True, weights=tmp_path / "authors.pth")
        final = network.backbone.final.conv.weight
        assert torch.equal(final, state["final_expand_layer.conv.weight"])
        assert network.classifier().out_features == 2
    # Our own file is read as it is.
    torch.save(network.backbone.state_dict(), tmp_path / "ours.pth")
    again = create("ofa595", classes=2, size=32, seed=5, pretrained=True, weights=tmp_path / "ours.pth")
    assert torch.equal(again.classifier().weight, network.classifier().weight)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s: s.pop("first_conv.conv.weight"), r"lacks stem\.conv\.weight \(24, 3, 3, 3\)"),
        (lambda s: s.pop("blocks.9.mobile_inverted_conv.point_linear.bn.bias"), r"lacks blocks\.9\.project\.bn\.bias"),
        (
            lambda s: s.update({"blocks.20.shortcut.weight": torch.zeros(2)}),
            r"holds blocks\.20\.shortcut\.weight \(2,\)",
        ),
        (
            lambda s: s.update({"feature_mix_layer.conv.weight": torch.zeros(1280, 1152, 1, 1)}),
            r"mix\.weight is \(1280, 1152, 1, 1\) in the file, \(1536, 1152, 1, 1\) in the network",
        ),
    ],
    ids=["missing", "missing in a block", "surplus", "of another shape"],
)
def test_an_authors_file_that_does_not_fit_is_refused(tmp_path, change, said):
    state = authors_state(2)
    change(state)
    torch.save({"state_dict": state}, tmp_path / "ofa595.pth")
    with pytest.raises(UsageError, match=f"does not fit ofa595: .*{said}.*another architecture"):
        create("ofa595", classes=2, size=32, pretrained=True, weights=tmp_path)
