import numpy as np
import onnxruntime
import pytest
import timm
import torch
import torch.nn.functional as F
from torch import nn

from stillroom.errors import UsageError
from stillroom.models.zoo import create


def images(side: int, count: int = 2, channels: int = 3) -> torch.Tensor:
    return torch.rand(count, channels, side, side, generator=torch.Generator().manual_seed(2))


@pytest.fixture(scope="module")
def mobilenet():
    return create("mobilenetv3_small_050", classes=3, size=32).eval()


def test_grey_is_three_equal_channels(mobilenet):
    grey = images(32, channels=1)
    with torch.no_grad():
        assert torch.equal(mobilenet(grey), mobilenet(grey.repeat(1, 3, 1, 1)))


@pytest.mark.parametrize(("side", "antialias"), [(20, False), (77, True)])
def test_other_sizes_are_resized_first(mobilenet, side, antialias):
    batch = images(side)
    resized = F.interpolate(batch, (32, 32), mode="bilinear", antialias=antialias)
    with torch.no_grad():
        torch.testing.assert_close(mobilenet(batch), mobilenet(resized))


def test_shrinking_averages_instead_of_skipping():
    network = create("resnet18_28", classes=2, size=28)
    stripes = (torch.arange(112) % 4 == 0).float().expand(1, 1, 112, 112)  # one bright column in four
    seen = {}
    network.backbone.conv1.register_forward_hook(lambda module, args, out: seen.update(x=args[0]))
    with torch.no_grad():
        network(stripes)
    # A quarter is -0.5 at mean and std 0.5; the borders see fewer columns.
    torch.testing.assert_close(seen["x"][..., 1:-1], torch.full((1, 3, 28, 26), -0.5), atol=0.01, rtol=0)


def test_wrong_channels_are_refused(mobilenet):
    with pytest.raises(UsageError, match=r"mobilenetv3_small_050 was given \(2, 4, 32, 32\)"):
        mobilenet(images(32, channels=4))


def test_a_batch_of_one_in_evaluation_and_training(mobilenet):
    with torch.no_grad():
        torch.testing.assert_close(mobilenet(images(32))[:1], mobilenet(images(32)[:1]))
    vit = create("test_vit", classes=2, size=32).train()
    vit(images(32, 1)).sum().backward()
    assert all(p.grad is not None for p in vit.parameters())


def test_bf16_autocast_stays_close():
    network = create("convnext_femto", classes=2, size=32).eval()
    with torch.no_grad():
        full = network.outputs(images(32))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            half = network.outputs(images(32))
    assert half.logits.dtype == torch.bfloat16
    torch.testing.assert_close(half.pooled.float(), full.pooled, atol=0.1, rtol=0.05)


def test_asking_for_shapes_leaves_modes_and_statistics_alone():
    network = create("resnet18_28", classes=2, size=16).train()
    network.backbone.layer1.eval()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    assert network.map_shape == (512, 2, 2)
    assert network.training
    assert network.backbone.layer2.training
    assert not network.backbone.layer1.training
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())


@pytest.mark.parametrize(
    ("name", "settings"), [("resnet10t_050", {}), ("resnet10t_050", {"attention": True}), ("test_vit", {})]
)
def test_what_the_head_reads_passes_through_last(name, settings):
    network, seen = create(name, classes=2, size=64, **settings).eval(), []
    handle = network.last.register_forward_hook(lambda module, given, out: seen.append(out))
    with torch.no_grad():
        logits, outputs = network(images(64)), network.outputs(images(64))
    handle.remove()
    assert torch.equal(seen[0], seen[1])
    patches = seen[0] if seen[0].ndim == 4 else seen[0][:, 1:].transpose(1, 2).unflatten(2, (4, 4))
    assert torch.equal(patches, outputs.map)
    with torch.no_grad():
        assert torch.equal(network.backbone.forward_head(seen[0]), logits)
    assert not any(key.startswith("last") for key in network.state_dict())


@pytest.mark.parametrize(("features", "width"), [("cls", 64), ("mean", 64), ("both", 128)])
def test_the_classifier_sees_the_features_asked_for(features, width):
    network = create("test_vit", classes=3, size=32, features=features).eval()
    with torch.no_grad():
        outputs = network.outputs(images(32))
        expected = network.backbone_features(images(32), features)
    assert torch.equal(outputs.pooled, expected)
    assert network.classifier().weight.shape == (3, width)
    assert torch.equal(outputs.logits, F.linear(expected, network.classifier().weight, network.classifier().bias))


@pytest.mark.parametrize("features", ["cls", "mean", "both"])
@pytest.mark.parametrize("pool", ["token", "avg"])
def test_features_of_several_layers_are_those_of_each_after_the_final_norm(features, pool):
    network = create(f"test_vit?global_pool={pool}", classes=3, size=32, features=features, feature_layers=3).eval()
    body, seen = network.backbone, []
    for block in body.blocks[-3:]:
        block.register_forward_hook(lambda module, args, out: seen.append(out))
    with torch.no_grad():
        outputs = network.outputs(images(32))
        tokens = [body.norm(out) for out in seen[:3]]
        classes, means = [t[:, 0] for t in tokens], [t[:, 1:].mean(1) for t in tokens]
        parts = [body.fc_norm(part) for part in {"cls": classes, "mean": means, "both": classes + means}[features]]
    expected = torch.cat(parts, dim=1)
    torch.testing.assert_close(outputs.pooled, expected)
    assert network.classifier().weight.shape == (3, expected.shape[1])
    with torch.no_grad():
        torch.testing.assert_close(network(images(32)), outputs.logits)
        torch.testing.assert_close(network.backbone_features(images(32), features), expected)
        if features == "mean":
            torch.testing.assert_close(network.classify_map(outputs.map), outputs.logits)
    patches = torch.cat([t[:, 1:] for t in tokens], dim=2).transpose(1, 2).unflatten(2, (2, 2))
    torch.testing.assert_close(outputs.map, patches)
    assert network.map_shape == patches.shape[1:]


def test_several_layers_are_refused_where_they_cannot_be_had():
    for name, layers, message in (
        ("test_resnet", 2, r"test_resnet is none.*--feature-layers"),
        ("swin_tiny_patch4_window7_224", 2, "swin_tiny_patch4_window7_224 is none"),
        ("test_vit", 99, r"test_vit has \d+ blocks"),
    ):
        with pytest.raises(UsageError, match=message):
            create(name, classes=2, features="cls", feature_layers=layers)


@pytest.mark.parametrize("name", ["test_vit", "test_resnet", "test_convnext", "swin_tiny_patch4_window7_224"])
def test_in_bf16_it_answers_nearly_alike_in_float32(name):
    full, half = (
        create(name, classes=2, size=224 if "swin" in name else 64, precision=p).eval() for p in ("32", "bf16")
    )
    assert {p.dtype for p in half.backbone.parameters()} == {torch.bfloat16, torch.float32}
    assert half.classifier().weight.dtype == torch.float32
    assert torch.equal(half.classifier().weight, full.classifier().weight)
    with torch.no_grad():
        expected, found = full.outputs(images(64)), half.outputs(images(64))
        assert {found.logits.dtype, found.pooled.dtype, found.map.dtype} == {torch.float32}
        assert F.cosine_similarity(found.pooled, expected.pooled).min() > 0.999
        assert torch.equal(half(images(64)), found.logits)
        torch.testing.assert_close(half.classify_map(found.map).shape, found.logits.shape)
        again = half.float()
        torch.testing.assert_close(again(images(64)), expected.logits, atol=0.02, rtol=0.02)
    assert again.precision == "32"


def test_features_are_ignored_by_networks_without_a_class_token():
    network = create("resnet18_28", classes=2, features="both")
    assert network.features is None
    assert network.classifier().in_features == 512


@pytest.mark.parametrize(
    "name",
    [
        "resnet18",  # ImageNet's
        "vit_tiny_patch16_224",  # 0.5
        "mobilevitv2_050",  # none at all
        "efficientnet_lite0",
        "mobilenetv3_small_050",
        "vit_xsmall_patch16_clip_224",  # CLIP's own
    ],
)
def test_each_network_normalises_by_its_own_mean_and_std(name):
    config = timm.data.resolve_data_config({}, model=_configured(name))
    side = 32
    network = create(name, classes=2, size=side)
    seen = {}

    def catch(features: torch.Tensor) -> torch.Tensor:
        seen["x"] = features
        raise StopIteration

    network.backbone.forward_features = catch
    with pytest.raises(StopIteration):
        network(images(side))
    mean, std = (np.array(config[key], np.float32).reshape(3, 1, 1) for key in ("mean", "std"))
    np.testing.assert_allclose(seen["x"].numpy(), (images(side).numpy() - mean) / std, rtol=1e-5, atol=1e-6)


def _configured(name: str) -> nn.Module:
    with torch.device("meta"):
        return timm.create_model(name)


@pytest.mark.parametrize(
    "name", [pytest.param("mobilenetv3_small_050", marks=pytest.mark.slow), "resnet18", "test_vit"]
)
def test_exports_to_onnx_with_any_batch_and_no_resize(name, tmp_path):
    network = create(name, classes=3, size=32).eval()
    batch = torch.export.Dim("batch")
    program = torch.onnx.export(
        network, (images(32),), dynamo=True, dynamic_shapes=({0: batch},), verbose=False, opset_version=18
    )
    assert "Resize" not in {node.op_type for node in program.model.graph}
    program.save(tmp_path / "network.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "network.onnx", providers=["CPUExecutionProvider"])
    for count in (1, 5):
        given = images(32, count)
        (got,) = session.run(None, {session.get_inputs()[0].name: given.numpy()})
        with torch.no_grad():
            np.testing.assert_allclose(got, network(given).numpy(), atol=1e-4)


@pytest.mark.slow
def test_a_resize_exports_as_well(tmp_path):
    network = create("mobilenetv3_small_050", classes=2, size=32).eval()
    for side in (20, 48):
        given = images(side)
        program = torch.onnx.export(network, (given,), dynamo=True, verbose=False)
        program.save(tmp_path / "network.onnx")
        session = onnxruntime.InferenceSession(tmp_path / "network.onnx", providers=["CPUExecutionProvider"])
        (got,) = session.run(None, {session.get_inputs()[0].name: given.numpy()})
        with torch.no_grad():
            np.testing.assert_allclose(got, network(given).numpy(), atol=1e-3)
