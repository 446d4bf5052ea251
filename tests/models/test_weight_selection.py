from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from timm.models._efficientnet_builder import decode_arch_def, round_channels
from timm.models.convnext import ConvNeXt
from timm.models.efficientnet import EfficientNet
from timm.models.resnet import Bottleneck, ResNet
from timm.models.swin_transformer import SwinTransformer
from timm.models.vision_transformer import VisionTransformer

from stillroom.errors import UsageError
from stillroom.models.network import Network
from stillroom.models.normalisation import HALF, IMAGENET, Normalisation
from stillroom.models.weight_selection import pick_elements, pick_layers, select_weights
from stillroom.models.zoo import create

ELEMENTS = ("uniform", "consecutive", "random", "complement")


def network(backbone, size=16, name="toy", normalisation=HALF):
    return Network(backbone, name=name, classes=2, input_size=(size, size), normalisation=normalisation)


def shaken(net: Network, seed: int) -> Network:
    """Every weight and statistic random, biases and norms too, so that no mistake hides behind a zero or a one."""
    generator = torch.Generator().manual_seed(seed)
    for key, value in net.backbone.state_dict().items():
        if value.is_floating_point():
            noise = torch.randn(value.shape, generator=generator)
            value.copy_(noise.abs() + 0.5 if key.endswith("running_var") else noise / max(1, value[0].numel()) ** 0.5)
    return net.eval()


# -- which channels, which blocks -------------------------------------------------------------------------------
@st.composite
def widths(draw):
    width = draw(st.integers(1, 400))
    return width, draw(st.integers(1, width))


@given(widths(), st.sampled_from(ELEMENTS), st.integers(0, 5))
def test_chosen_channels_are_sorted_distinct_in_range_and_as_many_as_wanted(sizes, elements, seed):
    width, wanted = sizes
    index = pick_elements(width, wanted, elements, seed)
    assert index.shape == (wanted,)
    assert (np.diff(index) > 0).all()
    assert set(index) <= set(range(width))
    assert np.array_equal(index, pick_elements(width, wanted, elements, seed))


@given(widths())
def test_uniform_and_complement_overlap_only_where_they_must(sizes):
    width, wanted = sizes
    both = set(pick_elements(width, wanted, "uniform")) | set(pick_elements(width, wanted, "complement"))
    assert len(both) == (width if width == wanted else min(width, 2 * wanted))


@given(widths(), st.sampled_from(("first", "uniform", "last")))
def test_chosen_blocks_are_sorted_distinct_and_in_range(sizes, layers):
    depth, wanted = sizes
    chosen = pick_layers(depth, wanted, layers)
    assert len(chosen) == wanted
    assert chosen == sorted(set(chosen) & set(range(depth)))


def test_channels_in_closed_form():
    assert pick_elements(384, 192, "uniform").tolist() == list(range(0, 384, 2))
    assert pick_elements(384, 192, "complement").tolist() == list(range(1, 384, 2))
    assert pick_elements(12, 4, "complement").tolist() == [1, 4, 7, 10]
    assert pick_elements(10, 4, "uniform").tolist() == [0, 3, 6, 9]
    assert pick_elements(5, 3, "uniform").tolist() == [0, 2, 4]
    assert pick_elements(5, 3, "complement").tolist() == [0, 1, 3]  # two are left, so one is shared
    assert pick_elements(384, 192, "consecutive").tolist() == list(range(192))
    assert pick_elements(384, 192, "random", 0).tolist() != pick_elements(384, 192, "random", 1).tolist()
    assert pick_layers(12, 6, "uniform") == [0, 2, 4, 7, 9, 11]


# -- the paper's pairs ------------------------------------------------------------------------------------------
def paper(large: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The paper's rule where one width divides the other: a step on every dimension, whatever it means."""
    return large[tuple(slice(None, None, wide // narrow) for wide, narrow in zip(large.shape, shape, strict=True))]


def states(large, small):
    return [{key: value.numpy() for key, value in net.backbone.state_dict().items()} for net in (large, small)]


def test_vit_small_to_vit_tiny_is_the_papers_rule_on_every_tensor():
    large = shaken(create("vit_small_patch16_224", classes=3, size=32), 0)
    small = create("vit_tiny_patch16_224", classes=2, size=32)
    small.normalise_by(IMAGENET)
    head = small.classifier().weight.clone()
    found = select_weights(large, small)
    source, target = states(large, small)
    assert found.initial == ("head.weight", "head.bias")
    assert found.copied == tuple(key for key in target if not key.startswith("head."))
    assert found.layers == {"blocks": tuple(range(12))}
    for key in found.copied:
        assert np.array_equal(target[key], paper(source[key], target[key].shape)), key
    assert torch.equal(small.classifier().weight, head)
    assert small.normalisation == large.normalisation == HALF


def test_consecutive_takes_whole_heads_of_queries_keys_and_values():
    large = shaken(create("vit_small_patch16_224", classes=3, size=32), 0)
    small = create("vit_tiny_patch16_224", classes=2, size=32)
    select_weights(large, small, elements="consecutive")
    source, target = states(large, small)
    rows = [*range(192), *range(384, 576), *range(768, 960)]
    for block in range(12):
        name = f"blocks.{block}.attn.qkv"
        assert np.array_equal(target[f"{name}.weight"], source[f"{name}.weight"][rows, :192])
        assert np.array_equal(target[f"{name}.bias"], source[f"{name}.bias"][rows])


@pytest.mark.parametrize(
    ("layers", "third"),
    [("first", (0, 1, 2, 3, 4, 5)), ("uniform", (0, 2, 3, 5, 6, 8)), ("last", (3, 4, 5, 6, 7, 8))],
)
def test_convnext_tiny_to_convnext_femto(layers, third):
    large = shaken(create("convnext_tiny", classes=3, size=64), 0)
    small = create("convnext_femto", classes=2, size=64)
    found = select_weights(large, small, layers=layers)
    source, target = states(large, small)
    outer = {"first": (0, 1), "uniform": (0, 2), "last": (1, 2)}[layers]
    numbers = {0: outer, 1: outer, 2: third, 3: outer}
    assert found.layers == {f"stages.{stage}.blocks": blocks for stage, blocks in numbers.items()}
    assert found.initial == ("head.fc.weight", "head.fc.bias")
    for key in found.copied:
        parts = key.split(".")
        if parts[2:3] == ["blocks"]:
            parts[3] = str(numbers[int(parts[1])][int(parts[3])])
        wide = source[".".join(parts)]
        if wide.ndim == 2:  # femto's MLPs are 1x1 convolutions, tiny's are linear
            wide = wide[:, :, None, None]
        assert np.array_equal(target[key], paper(wide, target[key].shape)), key


def test_a_linear_small_network_takes_1x1_convolutions():
    large, small = (network(ConvNeXt(depths=(1,) * 4, dims=(w,) * 4, num_classes=2, conv_mlp=w == 8)) for w in (8, 4))
    select_weights(shaken(large, 0), small)
    source, target = states(large, small)
    key = "stages.0.blocks.0.mlp.fc1.weight"
    assert np.array_equal(target[key], source[key][::2, ::2, 0, 0])


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ("first", ((0, 1), (0, 1), (0, 1), (0, 1))),
        ("uniform", ((0, 2), (0, 1), (0, 1), (0, 1))),
        ("last", ((1, 2), (0, 3), (0, 5), (0, 2))),
    ],
)
def test_the_block_that_downsamples_stays_the_first_of_its_stage(layers, expected):
    large = shaken(create("resnet34", classes=3, size=32), 0)
    small = create("resnet18", classes=2, size=32)
    found = select_weights(large, small, layers=layers)
    # ResNet-34's first stage does not downsample: its three blocks are alike.
    assert tuple(found.layers.values()) == expected
    source, target = states(large, small)
    for stage, blocks in enumerate(expected, start=1):
        for place, block in enumerate(blocks):
            name = "bn2.running_var"
            assert np.array_equal(target[f"layer{stage}.{place}.{name}"], source[f"layer{stage}.{block}.{name}"])


def test_a_block_that_only_strides_stays_the_first_too():
    # 8 channels in, 8 out: the striding block has the same tensors as those behind it.
    large, small = (
        network(EfficientNet(decode_arch_def([[f"ir_r{r}_k3_s2_e2_c8"]]), num_classes=2, stem_size=8, num_features=8))
        for r in (4, 2)
    )
    assert select_weights(large, small, layers="last").layers == {"blocks.0": (0, 3)}


# -- end to end: a large network that holds the small one twice -------------------------------------------------
def vit(width):
    return network(
        VisionTransformer(
            img_size=16, patch_size=8, embed_dim=width, depth=2, num_heads=width // 4, num_classes=2, reg_tokens=2
        )
    )


def swin(width):
    heads = (width // 4, width // 2)
    return network(
        SwinTransformer(
            img_size=16, patch_size=2, embed_dim=width, depths=(2, 2), num_heads=heads, window_size=4, num_classes=2
        )
    )


def convnext(width):
    dims = (width, width, 2 * width, 2 * width)
    return network(ConvNeXt(depths=(1, 1, 2, 1), dims=dims, num_classes=2, conv_mlp=width == 8, ls_init_value=0.5), 32)


def resnet(width):
    channels = (width, 2 * width, 4 * width, 8 * width)
    return network(
        ResNet(Bottleneck, (2, 1, 1, 1), num_classes=2, stem_type="deep", stem_width=width, channels=channels), 32
    )


def slim_resnet(width):
    return network(create({8: "resnet10t_050", 16: "resnet10t"}[width], classes=2, size=32).backbone, 32)


def efficientnet(width):
    definition = [
        ["ds_r1_k3_s1_e1_c8_se0.25"],
        ["ir_r2_k5_s2_e4_c16_se0.25"],
        ["er_r1_k3_s2_e2_c32"],
        ["cn_r1_k1_s1_c32"],
    ]
    return network(
        EfficientNet(
            decode_arch_def(definition),
            num_classes=2,
            stem_size=8,
            num_features=24,  # as in MobileNetV2, not scaled
            round_chs_fn=partial(round_channels, multiplier=width / 8),
        )
    )


def copies(key: str, dimension: int, wide: int, narrow: int, elements: str) -> tuple[np.ndarray, np.ndarray]:
    """For each large channel: which small one it repeats, and whether in the chosen copy (0) or the other (1)."""
    parts = 1
    if "attn.qkv" in key and dimension == 0:
        parts = 3
    if "downsample.norm" in key or ("downsample.reduction" in key and dimension == 1):
        parts = 4
    wide, narrow = wide // parts, narrow // parts
    index = pick_elements(wide, narrow, elements)
    which, copy = np.empty(wide, int), np.ones(wide, int)
    which[index], which[np.setdiff1d(np.arange(wide), index)] = np.arange(narrow), np.arange(narrow)
    copy[index] = 0
    return np.concatenate([part * narrow + which for part in range(parts)]), np.tile(copy, parts)


def hold_twice(large: Network, small: Network, elements: str) -> None:
    """Fill ``large`` with two copies of ``small``, uncoupled, on the chosen channels and on the others."""
    source, target = small.backbone.state_dict(), large.backbone.state_dict()
    for key, wide in target.items():
        if key.startswith(("head.fc", "head.w", "head.b", "fc.", "classifier.")):
            continue
        narrow = source[key].numpy()
        if narrow.ndim == 4 and wide.ndim == 2:
            narrow = narrow[:, :, 0, 0]
        doubled = {}
        for dimension, (more, fewer) in enumerate(zip(wide.shape, narrow.shape, strict=True)):
            if more != fewer:
                which, doubled[dimension] = copies(key, dimension, more, fewer, elements)
                narrow = np.take(narrow, which, axis=dimension)
        coupled = torch.from_numpy(np.array(narrow))
        if set(doubled) == {0, 1}:
            apart = torch.from_numpy(doubled[0][:, None] == doubled[1][None, :])
            coupled *= apart.reshape(apart.shape + (1,) * (coupled.ndim - 2))
        elif set(doubled) == {1} and coupled.ndim in (2, 4) and "bias_table" not in key:
            first = torch.from_numpy(doubled[1] == 0)  # one output, fed by the chosen copy alone
            coupled *= first.reshape((1, -1) + (1,) * (coupled.ndim - 2))
        wide.copy_(coupled)


WHOLE = [(make, elements) for make in (convnext, resnet, slim_resnet, efficientnet) for elements in ELEMENTS]
HEADS = [(make, elements) for make in (vit, swin) for elements in ("consecutive", "uniform", "complement")]


@pytest.mark.parametrize(("make", "elements"), WHOLE + HEADS)
def test_what_is_cut_out_computes_what_it_computed_within(make, elements):
    large, hidden, small = make(16), shaken(make(8), 1), shaken(make(8), 2)
    if make in (vit, swin) and elements != "consecutive":
        # A step mixes two heads, whose attention differs from that of either; without queries it is the same.
        for key, value in hidden.backbone.state_dict().items():
            if "attn.qkv" in key:
                value[: value.shape[0] // 3] = 0
    hold_twice(large, hidden, elements)
    select_weights(large, small, elements=elements)
    images = torch.rand(2, 3, *small.input_size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        whole, cut = large.eval().outputs(images), small.eval().outputs(images)
    width, narrow = whole.pooled.shape[1], cut.pooled.shape[1]
    index = pick_elements(width, narrow, elements)
    assert cut.pooled.std() > 1e-3
    torch.testing.assert_close(cut.pooled, whole.pooled[:, index], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(cut.map, whole.map[:, index], rtol=1e-4, atol=1e-5)


def test_networks_of_one_size_are_copied_whole():
    large = shaken(create("deit_tiny_distilled_patch16_224", classes=3, size=32), 0)
    small = create("deit_tiny_distilled_patch16_224", classes=2, size=32)
    found = select_weights(large, small, elements="random", seed=3)
    assert found.initial == ("head.weight", "head.bias", "head_dist.weight", "head_dist.bias")
    source, target = states(large, small)
    assert all(np.array_equal(source[key], target[key]) for key in found.copied)


@pytest.mark.parametrize("name", ["mobilenetv2_050", "mobilenetv2_035"])
@pytest.mark.parametrize("elements", ELEMENTS)
def test_real_weights(real_weights, name, elements):
    large = create("mobilenetv2_100", classes=2, size=64, pretrained=True, weights=real_weights())
    small = create(name, classes=2, size=64, normalisation=Normalisation((0.1, 0.2, 0.3), (1.0, 1.0, 1.0)))
    found = select_weights(large, small, elements=elements)
    assert found.initial == ("classifier.weight", "classifier.bias")
    assert small.normalisation == large.normalisation
    source, target = states(large, small)
    index = pick_elements(32, 16, elements)
    assert np.array_equal(target["bn1.running_var"], source["bn1.running_var"][index])
    with torch.no_grad():
        logits = small.eval()(torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(0)))
    assert logits.isfinite().all()
    assert (logits.std(dim=0) > 0).all()


# -- refusals ---------------------------------------------------------------------------------------------------
def refusal(large: Network, small: Network, **choices) -> str:
    before = {key: value.clone() for key, value in small.state_dict().items()}
    with pytest.raises(UsageError) as caught:
        select_weights(large, small, **choices)
    assert all(torch.equal(value, before[key]) for key, value in small.state_dict().items())
    return str(caught.value)


@pytest.mark.parametrize(
    ("large", "small", "expected"),
    [
        ("resnet50", "deit_tiny_patch16_224", "be cut out of resnet50: cls_token stands in the small one alone"),
        ("seresnet50", "resnet50", "layer1.0.se.fc1.weight stands in the large one alone"),
        ("resnet18", "resnet34", "layer1 has 3 blocks in the small one, 2 in the large one"),
        ("resnet18", "resnet18_28", "conv1.weight has 3 kernel rows in the small one, 7 in the large one"),
        (
            "mobilenetv2_050",
            "mobilenetv2_100",
            "conv_stem.weight has 32 channels in the small one, 16 in the large one",
        ),
        ("mobilenetv3_large_100", "mobilenetv3_small_100", "none can be left out: blocks 1 and 2 differ in structure"),
        ("resnext50_32x4d", "resnet50", "resnext50_32x4d: layer1.0.conv2 is a convolution in 32 groups"),
        ("resnet50", "densenet121", "densenet121: it is not made like those that are known, ViT, DeiT"),
        ("skresnet18", "resnet18", "skresnet18: it is not made like those that are known"),
        ("mobilevit_xs", "mobilevit_xxs", "mobilevit_xs: it is not made like"),  # it has ViT's blocks, and concatenates
        ("mobilenetv4_hybrid_medium", "mobilenetv2_050", "is a LayerScale2d, whose channels are not known"),
        ("mixnet_s", "mobilenetv2_050", "is a MixedConv2d, whose channels come in groups"),
        ("ecaresnet26t", "resnet26t", "layer1.0.se.conv is a Conv1d, whose channels are not known"),
    ],
)
def test_networks_that_do_not_match_are_refused(large, small, expected):
    assert expected in refusal(create(large, classes=2, size=32), create(small, classes=2, size=32))


def test_another_grid_is_refused_with_both_sizes():
    large, small = (
        create(f"vit_{kind}_patch16_224", classes=2, size=size) for kind, size in (("small", 64), ("tiny", 32))
    )
    message = refusal(large, small)
    assert "pos_embed has 5 tokens in the small one, 17 in the large one" in message
    assert message.endswith("They take images of 32x32 and 64x64 pixels: build both for one size.")


def toy_swin(depths, window):
    heads = (2,) * len(depths)
    return network(SwinTransformer(32, 2, embed_dim=8, depths=depths, num_heads=heads, window_size=window), 32)


def test_other_windows_are_refused():
    large, small = (toy_swin((1,), window) for window in (4, 2))
    assert "relative_position_bias_table has 9 window offsets in the small one, 49 in the large" in refusal(
        large, small
    )


def test_other_numbers_of_stages_are_refused():
    large, small = (toy_swin((1,) * stages, 2) for stages in (3, 2))
    expected = "layers.2.downsample.norm.weight stands in the large one alone (stages of blocks: 2 against 3)"
    assert expected in refusal(large, small)
    assert "stands in the small one alone (stages of blocks: 3 against 2)" in refusal(small, large)


def test_gates_and_norms_within_heads_are_refused():
    from timm.layers import GluMlp

    plain = network(VisionTransformer(16, 8, embed_dim=8, depth=1, num_heads=2, num_classes=2))
    gated = network(VisionTransformer(16, 8, embed_dim=8, depth=1, num_heads=2, num_classes=2, mlp_layer=GluMlp))
    normed = network(VisionTransformer(16, 8, embed_dim=8, depth=1, num_heads=2, num_classes=2, qk_norm=True))
    assert "blocks.0.mlp is a GluMlp, whose channels come in groups" in refusal(gated, plain)
    assert "blocks.0.attn is attention that normalises within heads" in refusal(plain, normed)


def test_unknown_choices_are_refused():
    net = convnext(8)
    assert refusal(net, net, layers="middle") == "Layers to select are first, uniform, last; got 'middle'."
    assert refusal(net, net, elements="odd").startswith(
        "Elements to select are uniform, consecutive, random, complement"
    )
