"""AutoFormerV2 against published figures, and against a plain reading of the authors' files, written without windows."""

import math

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from stillroom.deployment.metadata import ModelMetadata
from stillroom.deployment.onnx import export_onnx
from stillroom.deployment.predictor import Predictor
from stillroom.errors import UsageError
from stillroom.models.autoformer_v2 import autoformerv2_tiny, checkpoint_filter_fn
from stillroom.models.zoo import create, outline, specification
from stillroom.task import MultiClass

TINY, SMALL, BASE = "autoformerv2_tiny", "autoformerv2_small", "autoformerv2_base"
DIMS, HEADS = (96, 192, 384, 768), (3, 6, 12, 24)
DEPTHS = {TINY: (2, 2, 6, 2), SMALL: (2, 2, 18, 2), BASE: (2, 2, 30, 2)}
# At 224 px, where the last stage's map is 7 tokens wide.
WINDOWS = {TINY: (7, 7, 14, 7), SMALL: (14, 14, 14, 7), BASE: (7, 7, 14, 7)}


def published_shapes(name: str, classes: int = 1000) -> dict[str, tuple[int, ...]]:
    """Names and shapes in the authors' files, buffers included, from their published configurations."""
    shapes: dict[str, tuple[int, ...]] = {"patch_embed.proj.weight": (96, 3, 4, 4), "patch_embed.proj.bias": (96,)}
    shapes |= {f"patch_embed.norm.{part}": (96,) for part in ("weight", "bias")}
    for stage, (dim, heads, window) in enumerate(zip(DIMS, HEADS, WINDOWS[name], strict=True)):
        area, grid = window**2, 56 // 2**stage
        for number in range(DEPTHS[name][stage]):
            block = f"layers.{stage}.blocks.{number}"
            for norm in ("norm1", "norm2"):
                shapes |= {f"{block}.{norm}.weight": (dim,), f"{block}.{norm}.bias": (dim,)}
            shapes[f"{block}.attn.relative_position_bias_table"] = ((2 * window - 1) ** 2, heads)
            shapes[f"{block}.attn.relative_position_index"] = (area, area)
            if number % 2 and grid > window:
                shapes[f"{block}.attn_mask"] = ((grid // window) ** 2, area, area)
            linear = {"attn.qkv": (3 * dim, dim), "attn.proj": (dim, dim)}
            linear |= {"mlp.fc1": (4 * dim, dim), "mlp.fc2": (dim, 4 * dim)}
            for layer, shape in linear.items():
                shapes |= {f"{block}.{layer}.weight": shape, f"{block}.{layer}.bias": shape[:1]}
        if stage < 3:
            merge = f"layers.{stage}.downsample"
            shapes |= {f"{merge}.norm.weight": (4 * dim,), f"{merge}.norm.bias": (4 * dim,)}
            shapes[f"{merge}.reduction.weight"] = (2 * dim, 4 * dim)
    return shapes | {"norm.weight": (768,), "norm.bias": (768,), "head.weight": (classes, 768), "head.bias": (classes,)}


def is_buffer(key: str) -> bool:
    return key.endswith(("relative_position_index", "attn_mask"))


def published_state(name: str) -> dict[str, Tensor]:
    """Random weights of which every one matters: large tables of positions, no bias at zero."""
    generator = torch.Generator().manual_seed(0)
    state = {}
    for key, shape in published_shapes(name).items():
        if key.endswith("relative_position_index"):
            state[key] = torch.zeros(shape, dtype=torch.long)
            continue
        spread = 1.0 if key.endswith("table") else 0.1 if len(shape) == 1 else 0.7 / math.sqrt(math.prod(shape[1:]))
        state[key] = spread * torch.randn(shape, generator=generator)
        if "norm" in key and key.endswith("weight"):
            state[key] += 1
    return state


@pytest.fixture(scope="module")
def published() -> dict[str, Tensor]:
    return published_state(TINY)


@pytest.fixture(scope="module")
def file(published, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "S3-T.pth"
    torch.save({"model": published}, path)
    return path


def load(file, classes: int = 1000, size: int = 224):
    return create(TINY, classes=classes, size=size, pretrained=True, weights=file).eval()


# -- published figures ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "millions"), [(TINY, 28.1), (SMALL, 50), (BASE, 71)])
def test_parameters_are_the_published_ones(name, millions):
    parameters = sum(parameter.numel() for parameter in outline(name).parameters())
    assert parameters == sum(math.prod(shape) for key, shape in published_shapes(name).items() if not is_buffer(key))
    assert parameters / 1e6 == pytest.approx(millions, rel=0.01)


def test_multiplications_are_the_published_ones():
    backbone = outline(TINY)
    with FlopCounterMode(display=False) as counter:
        backbone(torch.empty(1, 3, 224, 224, device="meta"))
    assert counter.get_total_flops() / 2e9 == pytest.approx(4.7, rel=0.03)


# -- the authors' files -----------------------------------------------------------------------------------------


def linear(state: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    return F.linear(x, state[f"{name}.weight"], state.get(f"{name}.bias"))


def norm(state: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"])


def attention(state: dict[str, Tensor], name: str, x: Tensor, heads: int, window: int, shift: int) -> Tensor:
    """``[H, W, C]``: every token attends to those of its own cell.

    Cells are counted from ``shift`` tokens into the map, around its border; one that the border cuts is two.
    """
    position = torch.arange(x.shape[0])
    cell = 2 * ((position - shift) % x.shape[0] // window) + (position < shift)
    table = state[f"{name}.relative_position_bias_table"].view(2 * window - 1, 2 * window - 1, heads)
    out = torch.zeros_like(x)
    for row in cell.unique():
        for column in cell.unique():
            rows, columns = torch.meshgrid(
                (cell == row).nonzero()[:, 0], (cell == column).nonzero()[:, 0], indexing="ij"
            )
            rows, columns = rows.flatten(), columns.flatten()
            q, k, v = linear(state, f"{name}.qkv", x[rows, columns]).chunk(3, dim=-1)
            down, right = rows[:, None] - rows[None], columns[:, None] - columns[None]
            bias = table[down + window - 1, right + window - 1]
            parts = []
            for head in range(heads):
                part = slice(32 * head, 32 * head + 32)
                scores = q[:, part] @ k[:, part].T / math.sqrt(32) + bias[..., head]
                parts.append(scores.softmax(dim=1) @ v[:, part])
            out[rows, columns] = linear(state, f"{name}.proj", torch.cat(parts, dim=1))
    return out


def reference(state: dict[str, Tensor], name: str, image: Tensor) -> Tensor:
    """Logits ``[K]`` of one normalised image ``[3, H, H]``."""
    x = F.conv2d(image[None], state["patch_embed.proj.weight"], state["patch_embed.proj.bias"], stride=4)
    x = norm(state, "patch_embed.norm", x[0].permute(1, 2, 0))
    for stage, window in enumerate(WINDOWS[name]):
        for number in range(DEPTHS[name][stage]):
            block = f"layers.{stage}.blocks.{number}"
            shift = window // 2 if number % 2 and x.shape[0] > window else 0
            normed = norm(state, f"{block}.norm1", x)
            x = x + attention(state, f"{block}.attn", normed, HEADS[stage], min(window, x.shape[0]), shift)
            hidden = F.gelu(linear(state, f"{block}.mlp.fc1", norm(state, f"{block}.norm2", x)))
            x = x + linear(state, f"{block}.mlp.fc2", hidden)
        if stage < 3:
            x = F.pad(x, (0, 0, 0, x.shape[0] % 2, 0, x.shape[0] % 2))
            corners = [x[row::2, column::2] for column in (0, 1) for row in (0, 1)]
            merge = f"layers.{stage}.downsample"
            x = linear(state, f"{merge}.reduction", norm(state, f"{merge}.norm", torch.cat(corners, dim=-1)))
    return linear(state, "head", norm(state, "norm", x).mean(dim=(0, 1)))


@pytest.mark.parametrize("size", [224, 64, 36])
def test_the_authors_weights_answer_as_a_plain_reading_of_them(published, file, size):
    """At 64 px windows of 7 meet maps of 16 and 8 tokens, at 36 px maps of 9; the smaller maps shrink the windows."""
    network = load(file, size=size)
    tables = {key: value for key, value in network.backbone.state_dict().items() if key.endswith("bias_table")}
    if size == 224:
        assert all(torch.equal(value, published[key]) for key, value in tables.items())
    image = torch.rand(3, size, size, generator=torch.Generator().manual_seed(1))
    normalised = (image - network.mean.view(3, 1, 1)) / network.std.view(3, 1, 1)
    with torch.no_grad():
        expected, found = reference(published | tables, TINY, normalised), network(image[None])[0]
    assert expected.std() > 0.1
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", [TINY, SMALL, BASE])
def test_every_parameter_is_filled_from_the_authors_names(name):
    state = {key: torch.empty(shape, device="meta") for key, shape in published_shapes(name).items()}
    target = outline(name)
    found = {key: value.shape for key, value in checkpoint_filter_fn(state, target).items()}
    assert found == {key: value.shape for key, value in target.state_dict().items()}


@pytest.mark.parametrize(("name", "twin"), [(TINY, "tiny"), (SMALL, "small"), (BASE, "base")])
def test_timms_published_weights_fit_too(name, twin):
    """timm's hub has the authors' weights under timm's names."""
    with torch.device("meta"):
        other = timm.create_model(f"swin_s3_{twin}_224").state_dict()
    target = outline(name)
    found = checkpoint_filter_fn(dict(other), target)
    assert {key: value.shape for key, value in found.items()} == {k: v.shape for k, v in target.state_dict().items()}
    hub = timm.models.get_pretrained_cfg(f"swin_s3_{twin}_224").hf_hub_id
    assert specification(name).hub == hub


def test_another_number_of_classes_keeps_its_own_head(published, file):
    network = load(file, classes=3)
    assert torch.equal(network.classifier().weight, create(TINY, classes=3).classifier().weight)
    assert torch.equal(
        network.backbone.layers[3].blocks[1].mlp.fc2.weight, published["layers.3.blocks.1.mlp.fc2.weight"]
    )


def test_other_sizes_resample_positions_and_keep_the_centre(published, file):
    backbone = load(file, classes=3, size=64).backbone
    for stage, side in enumerate((7, 7, 4, 2)):
        key = f"layers.{stage}.blocks.1.attn.relative_position_bias_table"
        own, whole = backbone.state_dict()[key], published[key]
        assert own.shape == ((2 * side - 1) ** 2, HEADS[stage])
        torch.testing.assert_close(own[len(own) // 2], whole[len(whole) // 2])
    table = "layers.0.blocks.0.attn.relative_position_bias_table"
    assert torch.equal(backbone.state_dict()[table], published[table])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("layers.1.downsample.norm.bias"), r"lacks layers\.2\.downsample\.norm\.bias"),
        (
            lambda s: s.update({"layers.4.blocks.0.norm1.bias": torch.zeros(2)}),
            r"holds layers\.4\.blocks\.0\.norm1\.bias",
        ),
        (lambda s: s.update({"norm.weight": torch.ones(96)}), r"norm\.weight is \(96,\) in the file, \(768,\)"),
        (
            lambda s: s.update({"layers.2.blocks.0.attn.relative_position_bias_table": torch.zeros(169, 12)}),
            r"layers\.2\.blocks\.0\.attn\.relative_position_bias_table is \(169, 12\) in the file, published .*\(729, 12\)",
        ),
    ],
    ids=["missing", "unknown", "shape", "windows"],
)
def test_what_does_not_fit_is_refused_by_name(published, tmp_path, change, message):
    state = {key: value for key, value in published.items() if not key.endswith("attn_mask")}
    change(state)
    torch.save({"model": state}, tmp_path / "S3-T.pth")
    with pytest.raises(UsageError, match=message):
        load(tmp_path / "S3-T.pth", size=64)


def test_swins_weights_do_not_pass_for_these(tmp_path):
    """All but the third stage's windows are alike, and resampling would hide that."""
    torch.save(timm.create_model("swin_tiny_patch4_window7_224").state_dict(), tmp_path / "swin.pth")
    with pytest.raises(UsageError, match=r"layers\.2.*\(169, 12\)"):
        load(tmp_path / "swin.pth")


# -- behaviour --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "side"), [(32, 1), (36, 2), (64, 2), (224, 7)])
def test_sizes_and_a_batch_of_one(size, side):
    network = create(TINY, classes=3, size=size).eval()
    with torch.no_grad():
        outputs = network.outputs(torch.rand(1, 1, 28, 28))
    assert outputs.map.shape == (1, 768, side, side)
    torch.testing.assert_close(outputs.pooled, outputs.map.mean(dim=(2, 3)))
    assert outputs.logits.shape == (1, 3)
    assert outputs.logits.isfinite().all()


def test_the_seed_decides():
    first, again, other = (create(TINY, classes=2, size=32, seed=seed).classifier().weight for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_gradients_reach_every_parameter():
    network = create(TINY, classes=3, size=64).train()
    network.backbone.eval()  # stochastic depth would leave blocks out
    F.cross_entropy(network(torch.rand(2, 3, 64, 64)), torch.tensor([0, 2])).backward()
    without = [key for key, parameter in network.named_parameters() if parameter.grad is None]
    assert not without
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters())


def test_stochastic_depth_in_training_alone():
    torch.manual_seed(0)
    images = torch.rand(8, 3, 32, 32)
    deep, plain = autoformerv2_tiny(2, (32, 32), drop_path=0.9), autoformerv2_tiny(2, (32, 32), drop_path=0.0)
    with torch.no_grad():
        assert not torch.equal(deep.train()(images), deep(images))
        assert torch.equal(deep.eval()(images), deep(images))
        assert torch.equal(plain.train()(images), plain(images))


@pytest.mark.slow
def test_onnx_answers_as_torch_at_any_batch_size(tmp_path):
    network = create(TINY, classes=3, size=64).eval()
    with torch.no_grad():
        network.classifier().weight.mul_(20)
    metadata = ModelMetadata(
        task=MultiClass(("benign", "malignant", "normal")),
        size=64,
        channels=1,
        white=255.0,
        fit="pad",
        temperature=1.0,
        name=TINY,
        synthetic=True,
        details={},
    )
    path = export_onnx(network, tmp_path / "teacher.onnx", metadata)
    predictor = Predictor.load(path)
    for count in (1, 3):
        batch = np.random.default_rng(count).random((count, 1, 64, 64), dtype=np.float32)
        with torch.no_grad():
            expected = network(torch.from_numpy(batch))
        np.testing.assert_allclose(predictor.logits(batch), expected, atol=1e-4)
