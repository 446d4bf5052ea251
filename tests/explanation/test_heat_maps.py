"""Heat maps: against two other libraries, on every family of networks, and what they leave as it was."""

import contextlib
import io
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stillroom.data.inference import at_once
from stillroom.errors import UsageError
from stillroom.explanation.heat_maps import METHODS, heat_maps, hidden_value
from stillroom.explanation.layers import find_layer
from stillroom.models.network import Network
from stillroom.models.zoo import create


def images(side: int, count: int = 2, channels: int = 3, seed: int = 0) -> Tensor:
    """Noise with a bright square, in [0, 1]."""
    made = torch.rand(count, channels, side, side, generator=torch.Generator().manual_seed(seed)) / 2
    made[..., side // 4 : side // 2, side // 3 : side // 2] += 0.5
    return made


def network_of(name: str, side: int, *, sharpness: float = 1.0, **settings) -> Network:
    """Random, but with statistics and a head that make its logits differ from image to image."""
    network = create(name, classes=3, size=side, **settings).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.uniform_(-0.1, 0.1, generator=generator)
                module.weight.uniform_(0.5, 1.5, generator=generator)
        network.classifier().weight.normal_(std=sharpness, generator=generator)
    return network


class Small(nn.Module):
    """A CNN that is no timm network and knows of no preprocessing."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.body = nn.Sequential(
                nn.Conv2d(3, 12, 3, stride=2, padding=1),
                nn.ReLU(inplace=True),
                nn.Conv2d(12, 30, 3, stride=2, padding=1),
            )
            self.head = nn.Linear(30, 3)
            nn.init.normal_(self.head.weight, std=3)
            nn.init.constant_(self.body[2].bias, 0.5)

    def forward(self, batch: Tensor) -> Tensor:
        return self.head(self.body(batch).relu().mean(dim=(2, 3)))


class ChannelsLast(Small):
    """The same network, but the features pass through ``turned`` with their channels last."""

    def __init__(self) -> None:
        super().__init__()
        self.turned = nn.Identity()

    def forward(self, batch: Tensor) -> Tensor:
        return self.head(self.turned(self.body(batch).permute(0, 2, 3, 1)).relu().mean(dim=(1, 2)))


@pytest.fixture(scope="module")
def small() -> Small:
    return Small().eval()


def correlation(first: Tensor | np.ndarray, second: Tensor | np.ndarray) -> float:
    first, second = (np.asarray(values, dtype=np.float64).ravel() for values in (first, second))
    assert first.std() > 0.02 * abs(first).max() > 0  # not flat
    assert second.std() > 0.02 * abs(second).max() > 0
    return float(np.corrcoef(first, second)[0, 1])


# -- other libraries ----------------------------------------------------------------------------------------------
# name, side, layer
CNNS = [("resnet10t_050", 64, "layer3"), ("mobilenetv3_small_050", 96, "blocks.3")]
TRANSFORMER = ("vit_tiny_patch16_224", 64, "blocks.10.norm1")


class Normalised(nn.Module):
    """What a Stillroom network does after it has normalised its images, which is where the libraries put their masks."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.net = network.backbone

    def forward(self, batch: Tensor) -> Tensor:
        return self.net(batch)


def on_grid(tokens: Tensor) -> Tensor:
    side = int((tokens.shape[1] - 1) ** 0.5)
    return tokens[:, 1:].transpose(1, 2).reshape(len(tokens), -1, side, side)


def normalised(network: Network, batch: Tensor) -> Tensor:
    return (batch - network.mean.view(3, 1, 1)) / network.std.view(3, 1, 1)


def by_grad_cam(method: str, network: Network, batch: Tensor, classes: list[int], layer: str) -> np.ndarray:
    library = pytest.importorskip("pytorch_grad_cam", reason="grad-cam is not installed")
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    kinds = {"score_cam": "ScoreCAM", "grad_cam": "GradCAM", "grad_cam_pp": "GradCAMPlusPlus", "eigen_cam": "EigenCAM"}
    model = Normalised(network)
    reshape = on_grid if "vit" in network.name else None
    with getattr(library, kinds[method])(model, [model.net.get_submodule(layer)], reshape) as cam:
        cam.batch_size = 64
        with contextlib.redirect_stderr(io.StringIO()):  # its progress bar
            return np.stack(
                [
                    cam(normalised(network, image[None]), [ClassifierOutputTarget(number)])[0]
                    for image, number in zip(batch, classes, strict=True)
                ]
            )


@pytest.mark.parametrize(("name", "side", "layer"), [*CNNS, TRANSFORMER])
@pytest.mark.parametrize("method", ["grad_cam", "grad_cam_pp"])
def test_gradient_maps_are_those_of_pytorch_grad_cam(name, side, layer, method):
    """At the image's size: it enlarges as we do. It adds 1e-6 to a denominator of Grad-CAM++ that is made of squared
    gradients, hence the sharp head. Where features may be negative, as a transformer's, that denominator passes through 0
    and rounding decides; here it does not."""
    network = network_of(name, side, sharpness=300.0)
    classes = [0, 0] if name.startswith("vit") else [0, 2]
    found = heat_maps(network, images(side), classes, method=method, layer=layer)
    expected = by_grad_cam(method, network, images(side), classes, layer)
    assert min(map(correlation, found, expected)) > 0.999


@pytest.mark.parametrize(("name", "side", "layer"), [*CNNS, TRANSFORMER])
def test_eigen_cam_is_pytorch_grad_cams_up_to_the_sign_that_it_leaves_open(name, side, layer, monkeypatch):
    """Its sign is whatever LAPACK gives; ours is that which follows the features' energy, which is read off here."""
    pytest.importorskip("pytorch_grad_cam", reason="grad-cam is not installed")
    from pytorch_grad_cam import eigen_cam

    network, kept, energies = network_of(name, side), eigen_cam.get_2d_projection, []

    def signed(activations):
        energy = (activations**2).sum(axis=1)
        energies.append(energy)
        projection = kept(activations)
        turn = np.sign(((energy - energy.mean()) * projection).sum(axis=(1, 2)))
        return projection * turn[:, None, None]

    monkeypatch.setattr(eigen_cam, "get_2d_projection", signed)
    found = heat_maps(network, images(side), [0, 0], method="eigen_cam", layer=layer)
    expected = by_grad_cam("eigen_cam", network, images(side), [0, 0], layer)
    assert len(energies) == 2
    assert min(map(correlation, found, expected)) > 0.999


@pytest.mark.parametrize(("name", "side", "layer"), [*CNNS, TRANSFORMER])
def test_score_cam_is_that_of_pytorch_grad_cam(name, side, layer, monkeypatch):
    """Its masks are enlarged between the corners of the map, ours (as torch by default) between the places' centres; with
    that one difference taken away the maps are the same."""
    monkeypatch.setattr(nn, "UpsamplingBilinear2d", lambda size: nn.Upsample(size=size, mode="bilinear"))
    network = network_of(name, side)
    found = heat_maps(network, images(side), [0, 2], layer=layer)
    expected = by_grad_cam("score_cam", network, images(side), [0, 2], layer)
    assert min(map(correlation, found, expected)) > 0.999


def by_torchcam(kind: str, network: Network, image: Tensor, number: int, layer: str) -> Tensor:
    """Its map at the layer's own size, enlarged as ours."""
    methods = pytest.importorskip("torchcam.methods", reason="torchcam is not installed")
    model, given = Normalised(network), normalised(network, image[None]).requires_grad_()
    shape = {"input_shape": tuple(image.shape)}
    with getattr(methods, kind)(model, target_layer=model.net.get_submodule(layer), **shape) as extractor:
        (raw,) = extractor(number, model(given), normalized=False)
    return F.interpolate(raw[:1].detach()[None], image.shape[-2:], mode="bilinear", align_corners=False)[0, 0]


@pytest.mark.parametrize(("name", "side", "layer"), CNNS)
@pytest.mark.parametrize(("method", "kind"), [("grad_cam", "GradCAM"), ("score_cam", "ScoreCAM")])
def test_maps_are_those_of_torchcam(name, side, layer, method, kind):
    """Its Score-CAM stretches a channel before it is enlarged, ours (as the paper) afterwards, which hardly matters. Its
    Grad-CAM++ (0.5.0) never divides by the denominator, so it is no oracle."""
    network = network_of(name, side)
    found = heat_maps(network, images(side), [0, 2], method=method, layer=layer)
    expected = [by_torchcam(kind, network, *pair, layer) for pair in zip(images(side), [0, 2], strict=True)]
    assert min(map(correlation, found, expected)) > 0.999


def test_grad_cam_of_a_pooled_linear_head_is_the_heads_own_map():
    """CAM (Zhou et al., 2016) in closed form: the head's weights times the last map."""
    network = network_of("resnet10t_050", 64)
    found = heat_maps(network, images(64), [0, 1], method="grad_cam")
    with torch.no_grad():
        maps = network.outputs(images(64)).map
        raw = torch.einsum("bk,bkhw->bhw", network.classifier().weight[[0, 1]], maps).clamp(min=0)
    large = F.interpolate(raw[:, None], (64, 64), mode="bilinear", align_corners=False)[:, 0]
    low, high = large.amin((1, 2), keepdim=True), large.amax((1, 2), keepdim=True)
    torch.testing.assert_close(found, (large - low) / (high - low), atol=1e-4, rtol=0)


def test_eigen_cam_has_one_sign_and_one_map_for_every_class(small):
    first, second = heat_maps(small, images(32), [0, 0], method="eigen_cam", layer="body"), None
    second = heat_maps(small, images(32), [1, 2], method="eigen_cam", layer="body")
    assert torch.equal(first, second)
    turned = Small().eval()
    with torch.no_grad():  # another order of channels is the same features
        turned.body[2].weight.copy_(small.body[2].weight.flip(0))
        turned.body[2].bias.copy_(small.body[2].bias.flip(0))
    torch.testing.assert_close(
        heat_maps(turned, images(32), [0, 0], method="eigen_cam", layer="body"), first, atol=1e-4, rtol=0
    )


def test_fast_score_cam_is_nearly_the_exact_one():
    network = network_of("mobilenetv3_small_050", 64)
    exact = heat_maps(network, images(64), [1, 2], layer="blocks.3")
    fast = heat_maps(network, images(64), [1, 2], method="score_cam_fast", layer="blocks.3")
    assert min(map(correlation, exact, fast)) > 0.9


# -- which layer --------------------------------------------------------------------------------------------------
# name, side, sides of the map at `last` and at `auto`
FAMILIES = [
    ("resnet10t_050", 64, 2, 4),
    ("mobilenetv3_small_050", 64, 2, 4),
    ("convnext_femto", 64, 2, 4),
    ("mobilevitv2_050", 64, 2, 4),
    ("visformer_tiny", 64, 2, 4),
    ("densenet121", 64, 2, 4),
    ("ofa595", 64, 2, 4),
    ("test_vit", 64, 4, 4),
    ("vit_tiny_patch16_224", 32, 2, 2),  # no layer has more places, but heads have the look of it
    ("resnet18_28", 28, 4, 4),
    pytest.param("vgg11_bn", 64, 2, 4, marks=pytest.mark.prove),
    pytest.param("mobilevit_xxs", 64, 2, 4, marks=pytest.mark.slow),
    pytest.param("vit_small_patch14_reg4_dinov2", 56, 4, 4, marks=pytest.mark.slow),
    pytest.param("swin_tiny_patch4_window7_224", 64, 2, 4, marks=pytest.mark.slow),
    pytest.param("autoformerv2_tiny", 224, 7, 7, marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("name", "side", "last", "auto"), FAMILIES)
def test_every_family_gives_a_map_at_last_and_at_auto(name, side, last, auto):
    network, batch = create(name, classes=2, size=side).eval(), images(side, 1)
    for wanted, places in (("last", last), ("auto", auto)):
        layer = find_layer(network, wanted, batch)
        with torch.no_grad():
            seen = []
            handle = network.get_submodule(layer.path).register_forward_hook(
                lambda *call, kept=seen: kept.append(call[2])
            )
            expected = network.outputs(batch).map
            handle.remove()
        found = layer.as_map(seen[-1])
        assert found.shape[-2:] == (places, places)
        if wanted == "last" or last == auto:
            assert torch.equal(found, expected)
        for method in ("eigen_cam", "grad_cam"):
            heat = heat_maps(network, batch, [1], method=method, layer=wanted)
            assert heat.shape == (1, side, side)
            assert 0 <= heat.min() <= heat.max() <= 1
        if found.shape[1] <= 400:  # more take long and show nothing else
            heat = heat_maps(network, batch, [1], method="score_cam_fast", layer=wanted)
            assert heat.max() == pytest.approx(1) or not heat.any()


def test_auto_is_the_last_layer_with_four_places_a_side():
    network = create("mobilenetv3_small_050", classes=2, size=64).eval()
    shapes = {}
    for name, module in network.backbone.named_modules():
        module.register_forward_hook(lambda module, inputs, out, name=name: shapes.update({name: tuple(out.shape)}))
    layer = find_layer(network, "auto", images(64, 1))
    names = [name for name, shape in shapes.items() if name.count(".") == 1 and shape[2:] == (4, 4)]
    assert layer.name == names[-1]
    assert layer.path == f"backbone.{names[-1]}"


def test_a_plain_module_is_explained_at_its_last_map(small):
    assert find_layer(small, None, images(32, 1)).name == "body"
    assert find_layer(small, "body.1", images(32, 1)).path == "body.1"
    plain = nn.Sequential(small.body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), small.head)
    assert find_layer(plain, None, images(32, 1)).name == "0"
    for method in METHODS:
        found = heat_maps(small, images(32), [0, 1], method=method)
        assert found.shape == (2, 32, 32)
        assert found.dtype == torch.float32
        assert 0 <= found.min() <= found.max() <= 1
        assert found.any()


def test_a_layout_that_only_the_caller_knows(small):
    turned = ChannelsLast().eval()
    for method in METHODS:
        found = heat_maps(
            turned, images(32), [0, 1], method=method, layer="turned", as_map=lambda out: out.permute(0, 3, 1, 2)
        )
        expected = heat_maps(small, images(32), [0, 1], method=method, layer="body")
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    with pytest.raises(UsageError, match="name that layer as well"):
        heat_maps(turned, images(32), [0, 1], as_map=lambda out: out.permute(0, 3, 1, 2))


@pytest.mark.parametrize("wrapped", [True, False])
def test_gradients_are_followed_to_where_the_class_token_still_reads_patches(wrapped):
    network = network_of("test_vit", 64)
    model = network if wrapped else network.backbone
    for name in (None, "last", "auto") if wrapped else (None, "auto"):
        assert find_layer(model, name, images(64, 1), by_gradient=True).name == "blocks.5.norm1"
    assert heat_maps(model, images(64), [0, 1], method="grad_cam").any()
    for name in ("norm", "blocks.5", "blocks.5.mlp"):  # the patches that leave the last block go nowhere
        with pytest.raises(UsageError, match=rf"No gradient .* layer {name}\. Choose an earlier layer, or Score-CAM"):
            heat_maps(model, images(64), [0, 1], method="grad_cam_pp", layer=name)
        assert heat_maps(model, images(64), [0, 1], method="eigen_cam", layer=name).any()


@pytest.mark.parametrize("features", ["mean", "both"])
def test_a_transformer_that_reads_its_patches_is_followed_to_the_end(features):
    network = network_of("test_vit", 64, features=features)
    expected = "last" if features == "mean" else "blocks.5.norm1"
    assert find_layer(network, None, images(64, 1), by_gradient=True).name == expected
    assert heat_maps(network, images(64), [0, 1], method="grad_cam", layer="norm").any()


def test_layers_that_say_nothing_of_where(small):
    network = create("mobilenetv3_small_050", classes=2, size=32).eval()
    with pytest.raises(UsageError, match="layer last has one place for images of 32 x 32 pixels"):
        heat_maps(network, images(32), [0, 1])
    assert heat_maps(network, images(32), [0, 1], layer="auto").shape == (2, 32, 32)
    with pytest.raises(UsageError, match="layer head gives no feature map"):
        heat_maps(small, images(32), [0, 1], layer="head")
    idle = Small().eval()
    idle.unused = nn.Conv2d(3, 3, 1)
    with pytest.raises(UsageError, match="layer unused takes no part"):
        heat_maps(idle, images(32), [0, 1], layer="unused")
    with pytest.raises(UsageError, match="No layer of the network gives a feature map"):
        heat_maps(nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 2)), images(8), [0, 1])


def test_a_student_of_one_place_everywhere_has_no_map():
    network = create("test_vit", classes=2, size=16).eval()
    with pytest.raises(UsageError, match="one place for images of 16 x 16 pixels"):
        find_layer(network, "auto", images(16, 1))


def test_one_class_serves_all_images(small):
    assert torch.equal(heat_maps(small, images(32), 2), heat_maps(small, images(32), [2, 2]))


# -- wrong use ----------------------------------------------------------------------------------------------------
def test_unknown_names_are_refused_with_the_nearest_ones(small):
    with pytest.raises(UsageError, match=r"no layer 'bodi'\. Did you mean body"):
        heat_maps(small, images(32), [0, 1], layer="bodi")
    network = create("resnet10t_050", classes=2, size=32)
    with pytest.raises(UsageError, match=r"no layer 'layer5'\. Did you mean .*layer4"):
        heat_maps(network, images(32), [0, 1], layer="layer5")
    with pytest.raises(UsageError, match=r"no heat map 'scorecam'\. Did you mean score_cam.*Methods: score_cam, "):
        heat_maps(small, images(32), [0, 1], method="scorecam")
    for number in (3, -1):
        with pytest.raises(UsageError, match=f"no class {number}: the network has 3, numbered from 0"):
            heat_maps(small, images(32), [0, number])
    with pytest.raises(UsageError, match="a class for every image: 2 images, 1 classes"):
        heat_maps(small, images(32), [0])
    for wrong in (images(32)[0], images(32).numpy(), (images(32) * 255).to(torch.uint8)):
        with pytest.raises(UsageError, match=r"tensor \[B, C, H, W\] of floating-point numbers"):
            heat_maps(small, wrong, [0, 1])
    for value in (float("nan"), float("inf")):
        with pytest.raises(UsageError, match="without NaN and infinite values"):
            heat_maps(small, torch.where(images(32) > 0.99, value, images(32)), [0, 1])
    with pytest.raises(UsageError, match="memory_mb must be above 0, got 0"):
        heat_maps(small, images(32), [0, 1], memory_mb=0)
    assert heat_maps(small, images(32, 0), []).shape == (0, 32, 32)


# -- what is left alone -------------------------------------------------------------------------------------------
@pytest.mark.parametrize("method", METHODS)
def test_the_network_and_the_random_state_are_left_alone(method):
    network = network_of("resnet10t_050", 32).train()
    network.backbone.layer1.eval()
    network.requires_grad_(False)
    network.classifier().requires_grad_(True)
    batch = images(32)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    modes = [module.training for module in network.modules()]
    wanted = [parameter.requires_grad for parameter in network.parameters()]
    state, given = torch.get_rng_state(), batch.clone()
    first = heat_maps(network, batch, [1, 2], method=method, layer="layer2")
    assert torch.equal(torch.get_rng_state(), state)
    assert [module.training for module in network.modules()] == modes
    assert [parameter.requires_grad for parameter in network.parameters()] == wanted
    assert all(parameter.grad is None for parameter in network.parameters())
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert not any(module._forward_hooks for module in network.modules())
    assert torch.equal(batch, given)
    assert not batch.requires_grad
    assert torch.equal(first, heat_maps(network.eval(), batch, [1, 2], method=method, layer="layer2"))


def test_one_image_at_a_time_or_all_at_once():
    network = network_of("resnet10t_050", 32)
    counted = []
    together = heat_maps(network, images(32, 3), torch.tensor([0, 1, 2]), layer="layer2", advance=counted.append)
    assert counted == [1, 1, 1]
    for number in range(3):
        alone = heat_maps(network, images(32, 3)[number : number + 1], [number], layer="layer2")
        torch.testing.assert_close(alone[0], together[number], atol=1e-4, rtol=0)


@pytest.mark.parametrize("method", METHODS)
def test_it_works_where_gradients_are_off(method):
    network = network_of("resnet10t_050", 32)
    expected = heat_maps(network, images(32), [1, 2], method=method, layer="layer2")
    with torch.inference_mode():
        found = heat_maps(network, images(32), [1, 2], method=method, layer="layer2")
    assert torch.equal(found, expected)


class Failing(Small):
    """Answers some passes, then fails as a full accelerator would."""

    def __init__(self, passes: int) -> None:
        super().__init__()
        self.left = passes

    def forward(self, batch: Tensor) -> Tensor:
        answer = super().forward(batch)
        self.left -= 1
        if self.left < 0:
            raise MemoryError("full")
        return answer


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("passes", range(4))
def test_no_hook_is_left_behind_whatever_fails(method, passes):
    network = Failing(passes).train()
    with contextlib.suppress(MemoryError):
        heat_maps(network, images(32), [0, 1], method=method)
    assert not any(module._forward_hooks for module in network.modules())
    assert network.training
    assert network.body.training


# -- what is hidden, and how much at once -------------------------------------------------------------------------
@pytest.mark.parametrize("channels", [1, 3])
def test_a_stillroom_network_hides_behind_its_own_mean(channels):
    network = create("resnet10t_050", classes=2, size=32)
    value = hidden_value(network, images(32, channels=channels))
    expected = network.mean if channels == 3 else network.mean.mean()[None]
    torch.testing.assert_close(value, expected.view(1, channels, 1, 1))
    assert not hidden_value(Small(), images(32)).any()


def test_grey_images_of_another_size_are_explained_at_their_own():
    network = network_of("resnet10t_050", 32)
    found = heat_maps(network, images(45, channels=1), [1, 2], layer="layer2")
    assert found.shape == (2, 45, 45)
    assert found.amax((1, 2)) == pytest.approx([1, 1])


def batches_asked(network: nn.Module, side: int, memory_mb: float) -> list[int]:
    counts = []
    handle = network.register_forward_pre_hook(lambda module, given: counts.append(len(given[0])))
    heat_maps(network, images(side, 1), [1], layer="layer3", memory_mb=memory_mb)
    handle.remove()
    return [count for count in counts if count > 1] or [1]


def test_how_many_masked_images_go_at_once_follows_the_memory():
    network = network_of("resnet10t_050", 64)
    asked = {memory: max(batches_asked(network, 64, memory)) for memory in (1e-6, 3.0, 6.0, 512.0)}
    assert asked[1e-6] == 1
    assert 1 < asked[3.0] <= asked[6.0] // 2 + 1
    assert asked[512.0] == at_once(64, torch.device("cpu")) == 36  # more gains nothing on a CPU
    assert sum(batches_asked(network, 64, 6.0)) in range(100, 129)  # each of layer3's channels once


MEASURE = """
import re, torch
from pathlib import Path
from stillroom.explanation.heat_maps import heat_maps
from stillroom.models.zoo import create
torch.set_num_threads(1)
network = create({name!r}, classes=2, size={side}).eval()
image = torch.rand(1, 3, {side}, {side})

def resident(key):
    return int(re.search(key + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024 / 1e6

heat_maps(network, image, [1], layer={layer!r}, memory_mb=1e-6)
Path("/proc/self/clear_refs").write_text("5")  # the high-water mark begins anew
before = resident("VmRSS")
heat_maps(network, image, [1], layer={layer!r}, memory_mb={memory})
print(resident("VmHWM") - before)
"""


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="needs Linux's /proc")
@pytest.mark.parametrize(
    ("name", "side", "layer"),
    [
        ("resnet10t_050", 256, "layer1"),
        pytest.param("densenet121", 128, "features.pool0", marks=pytest.mark.slow),
    ],
)
def test_the_real_peak_stays_below_the_memory_that_was_stated(name, side, layer):
    memory = 100
    code = MEASURE.format(name=name, side=side, layer=layer, memory=memory)
    at_once_returned = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=at_once_returned
    )
    assert memory / 4 < float(done.stdout) < memory
