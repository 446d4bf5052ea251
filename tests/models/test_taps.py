import pytest
import timm
import torch
from torch import nn

from stillroom.errors import UsageError
from stillroom.models.network import Network
from stillroom.models.normalisation import HALF
from stillroom.models.taps import layer_map
from stillroom.models.zoo import create

# name, side, last feature map, pooled features
SHAPES = [
    ("resnet18", 64, (512, 2, 2), 512),
    ("skresnet18", 64, (512, 2, 2), 512),
    ("legacy_seresnet18", 64, (512, 2, 2), 512),
    ("seresnet50", 64, (2048, 2, 2), 2048),
    ("densenet121", 64, (1024, 2, 2), 1024),
    ("vgg11_bn", 32, (512, 1, 1), 4096),
    ("mobilenetv2_050", 64, (1280, 2, 2), 1280),
    ("mobilenetv3_small_050", 64, (288, 2, 2), 1024),
    ("efficientnet_lite0", 64, (1280, 2, 2), 1280),
    ("mobilevitv2_050", 64, (256, 2, 2), 256),
    ("convnext_femto", 64, (384, 2, 2), 384),
    ("visformer_tiny", 64, (384, 2, 2), 384),
    ("swin_tiny_patch4_window7_224", 64, (768, 2, 2), 768),
    ("test_vit", 64, (64, 4, 4), 64),
    ("vit_tiny_patch16_224", 64, (192, 4, 4), 192),
    ("vit_small_patch14_reg4_dinov2", 56, (384, 4, 4), 384),
    ("deit_tiny_distilled_patch16_224", 64, (192, 4, 4), 192),  # two heads
    ("efficientformer_l1", 224, (448, 7, 7), 448),  # tokens without a stated grid, two heads
    ("resnetv2_18", 64, (512, 2, 2), 512),  # ends in a 1x1 convolution
    ("resnet18_28", 28, (512, 4, 4), 512),
]
POOLED_IS_MEAN_OF_MAP = {
    "resnet18",
    "skresnet18",
    "densenet121",
    "mobilenetv2_050",
    "efficientnet_lite0",
    "visformer_tiny",
    "swin_tiny_patch4_window7_224",
    "resnet18_28",
}


def images(side: int, count: int = 2, channels: int = 3) -> torch.Tensor:
    return torch.rand(count, channels, side, side, generator=torch.Generator().manual_seed(1))


CASES = [pytest.param(*row, id=row[0], marks=[pytest.mark.slow] if "vgg" in row[0] else []) for row in SHAPES]


@pytest.mark.parametrize(("name", "side", "map_shape", "pooled_dim"), CASES)
def test_outputs_of_every_family(name, side, map_shape, pooled_dim):
    network = create(name, classes=3, size=side).eval()
    batch = images(side)
    with torch.no_grad():
        outputs = network.outputs(batch)
        mean, std = network.mean.view(3, 1, 1), network.std.view(3, 1, 1)
        normalised = ((batch - mean) / std).contiguous(memory_format=torch.channels_last)  # sums in the same order
        plain = network.backbone(normalised)  # timm's own way through
        assert torch.equal(outputs.logits, network(batch))
        assert torch.equal(outputs.logits, plain)
        assert torch.equal(network.backbone_features(batch, "cls"), outputs.pooled) or "distilled" in name
    assert outputs.logits.shape == (2, 3)
    assert outputs.pooled.shape == (2, pooled_dim)
    assert outputs.map.shape == (2, *map_shape)
    assert (network.pooled_dim, network.map_shape) == (pooled_dim, map_shape)
    if name in POOLED_IS_MEAN_OF_MAP:
        torch.testing.assert_close(outputs.map.mean((2, 3)), outputs.pooled)


@pytest.mark.parametrize("name", ["test_vit", "vit_small_patch14_reg4_dinov2"])
def test_patch_tokens_lie_on_their_grid_also_when_it_is_not_square(name):
    patch = 14 if "14" in name else 16
    size = (2 * patch, 5 * patch)
    backbone = timm.create_model(name, img_size=size, num_classes=2).eval()
    network = Network(backbone, name=name, classes=2, input_size=size, normalisation=HALF)
    batch = torch.rand(2, 3, *size)
    with torch.no_grad():
        got = network.outputs(batch).map
        oracle = backbone.forward_intermediates((batch - 0.5) / 0.5, indices=1, norm=True, output_fmt="NCHW")
    assert got.shape[-2:] == (2, 5)
    torch.testing.assert_close(got, oracle[1][-1])


@pytest.mark.parametrize("name", ["test_vit", "vit_small_patch14_reg4_dinov2"])
def test_any_layer_of_a_transformer_lies_on_its_grid_with_and_without_the_class_token(name):
    patch = 14 if "14" in name else 16
    size = (2 * patch, 5 * patch)
    backbone = timm.create_model(name, img_size=size, num_classes=2).eval()
    with torch.no_grad():
        tokens = backbone.patch_embed(torch.rand(1, 3, *size))
        grid = layer_map(backbone, tokens, size)
        whole = backbone._pos_embed(tokens)
        behind = layer_map(backbone, whole, size)
    assert grid.shape[-2:] == behind.shape[-2:] == (2, 5)
    assert torch.equal(grid[0, :, 1, 3], tokens[0, 8] if tokens.ndim == 3 else tokens[0, 1, 3])
    assert torch.equal(behind[0, :, 1, 3], whole[0, backbone.num_prefix_tokens + 8])
    with pytest.raises(UsageError, match="no last feature map"):
        layer_map(backbone, whole[:, 0], size)


def test_layers_in_other_layouts_are_turned():
    swin = timm.create_model("swin_tiny_patch4_window7_224", img_size=64, num_classes=2).eval()
    features = torch.rand(1, 4, 6, 192)
    assert torch.equal(layer_map(swin, features, (64, 64)), features.permute(0, 3, 1, 2))
    resnet = timm.create_model("test_resnet", num_classes=2)
    assert layer_map(resnet, features, (64, 64)) is features


def test_densenet_map_is_after_the_final_norm_and_relu():
    network = create("densenet121", classes=2, size=64).eval()
    seen = {}
    network.backbone.features.norm5.register_forward_hook(lambda module, args, out: seen.update(out=out))
    with torch.no_grad():
        got = network.outputs(images(64)).map
    assert torch.equal(got, seen["out"])
    assert got.min() == 0


def test_features_of_a_transformer_leave_the_registers_out():
    network = create("vit_small_patch14_reg4_dinov2", classes=2, size=56).eval()
    batch = images(56)
    with torch.no_grad():
        tokens = network.backbone.forward_features((batch - network.mean.view(3, 1, 1)) / network.std.view(3, 1, 1))
        assert tokens.shape[1] == 1 + 4 + 16
        cls, mean = tokens[:, 0], tokens[:, 5:].mean(1)
        torch.testing.assert_close(network.backbone_features(batch, "cls"), cls)
        torch.testing.assert_close(network.backbone_features(batch, "mean"), mean)
        torch.testing.assert_close(network.backbone_features(batch, "both"), torch.cat([cls, mean], 1))
    # After the final norm (freshly made: weight 1, bias 0), every token is standardised.
    torch.testing.assert_close(cls.mean(1), torch.zeros(2), atol=1e-5, rtol=0)


def test_a_transformer_that_pools_the_mean_norms_after_pooling():
    backbone = timm.create_model("test_vit", img_size=32, num_classes=2, global_pool="avg").eval()
    nn.init.normal_(backbone.fc_norm.weight)
    network = Network(backbone, name="test_vit", classes=2, input_size=(32, 32), normalisation=HALF)
    with torch.no_grad():
        outputs = network.outputs(images(32))
        torch.testing.assert_close(network.backbone_features(images(32), "mean"), outputs.pooled)


def test_a_convolutional_network_gives_one_vector_whatever_the_kind():
    network = create("resnet18", classes=2, size=32).eval()
    with torch.no_grad():
        vectors = [network.backbone_features(images(32), kind) for kind in ("cls", "mean", "both")]
    assert torch.equal(vectors[0], vectors[1])
    assert torch.equal(vectors[0], vectors[2])
    with pytest.raises(UsageError, match="cls, mean, both"):
        network.backbone_features(images(32), "max")


def test_a_network_without_a_map_still_classifies_but_says_why_it_cannot_be_tapped():
    network = create("crossvit_9_240", classes=2).eval()
    with torch.no_grad():
        assert network(images(240, 1)).shape == (1, 2)
        with pytest.raises(UsageError, match="no last feature map"):
            network.outputs(images(240, 1))
    with pytest.raises(UsageError, match="one linear layer"):
        network.classifier()
