import os
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor

from stillroom.errors import UsageError
from stillroom.models.normalisation import HALF, IMAGENET
from stillroom.models.weights import find_weights, load_weights, read_weights, weights_digest
from stillroom.models.zoo import create

NAME = "mobilenetv3_small_050"


@pytest.fixture(scope="module")
def published() -> dict[str, Tensor]:
    torch.manual_seed(3)
    return timm.create_model(NAME, num_classes=7).state_dict()


def network(classes: int = 2):
    return create(NAME, classes=classes, size=32)


def same_backbone(net, published: dict[str, Tensor]) -> bool:
    own = net.backbone.state_dict()
    return all(torch.equal(own[key], published[key]) for key in own if not key.startswith("classifier"))


def test_safetensors_in_half_precision_become_float32(published, tmp_path):
    halves = {key: value.half() if value.is_floating_point() else value for key, value in published.items()}
    save_file(halves, tmp_path / f"{NAME}.safetensors")
    net = network()
    own_head = net.classifier().weight.clone()
    assert load_weights(net, tmp_path, NAME) == tmp_path / f"{NAME}.safetensors"
    assert {p.dtype for p in net.parameters()} == {torch.float32}
    assert same_backbone(net, {key: value.to(published[key].dtype) for key, value in halves.items()})
    assert torch.equal(net.classifier().weight, own_head)  # 7 classes there, 2 here


def test_a_classifier_of_the_same_shape_is_kept(published, tmp_path):
    save_file(published, tmp_path / "any.safetensors")
    net = network(classes=7)
    load_weights(net, tmp_path / "any.safetensors", NAME)
    assert torch.equal(net.classifier().weight, published["classifier.weight"])


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin"])
@pytest.mark.parametrize("wrapper", [None, "state_dict", "model"])
def test_pickled_weights_and_their_wrappers(published, tmp_path, suffix, wrapper):
    state = {f"module.{key}": value for key, value in published.items()} if wrapper else published
    torch.save({wrapper: state, "epoch": 3} if wrapper else state, tmp_path / f"{NAME}{suffix}")
    net = network()
    load_weights(net, tmp_path, NAME)
    assert same_backbone(net, published)


class Payload:
    ran = False

    def __reduce__(self):
        return (setattr, (Payload, "ran", True))


def test_a_pickle_that_is_not_weights_is_refused_and_not_run(tmp_path):
    file = tmp_path / f"{NAME}.pth"
    torch.save({"state_dict": Payload()}, file)
    with pytest.raises(UsageError, match=r"is not a file of weights.*safetensors"):
        load_weights(network(), tmp_path, NAME)
    assert not Payload.ran
    torch.save({"epoch": 3}, file)
    with pytest.raises(UsageError, match="something else than tensors"):
        load_weights(network(), tmp_path, NAME)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_damaged_file_is_refused(tmp_path, suffix):
    file = tmp_path / f"{NAME}{suffix}"
    file.write_bytes(b"not weights at all")
    with pytest.raises(UsageError, match="damaged"):
        load_weights(network(), tmp_path, NAME)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("blocks.0.0.conv_dw.weight"), r"lacks blocks\.0\.0\.conv_dw\.weight \(16, 1, 3, 3\)"),
        (lambda s: s.update(stray=torch.zeros(2)), r"holds stray \(2,\)"),
        (
            lambda s: s.update({"conv_stem.weight": torch.zeros(32, 3, 3, 3)}),
            r"conv_stem\.weight is \(32, 3, 3, 3\) in the file, \(16, 3, 3, 3\) in the network",
        ),
    ],
)
def test_weights_of_another_architecture_are_refused(published, tmp_path, change, message):
    state = dict(published)
    change(state)
    save_file(state, tmp_path / f"{NAME}.safetensors")
    net = network()
    before = weights_digest(net)
    with pytest.raises(UsageError, match=f"{message}.*another architecture"):
        load_weights(net, tmp_path, NAME)
    assert weights_digest(net) == before


def test_batch_counters_may_be_missing(published, tmp_path):
    save_file({k: v for k, v in published.items() if "num_batches" not in k}, tmp_path / f"{NAME}.safetensors")
    net = network()
    load_weights(net, tmp_path, NAME)
    assert torch.equal(net.backbone.conv_stem.weight, published["conv_stem.weight"])


def test_the_header_of_a_file_sets_the_normalisation(published, tmp_path):
    save_file(published, tmp_path / f"{NAME}.safetensors", {"mean": "0.5,0.5,0.5", "std": "0.5,0.5,0.5"})
    assert network().normalisation.mean == pytest.approx(IMAGENET.mean)
    arguments = {"classes": 2, "size": 32, "pretrained": True, "weights": tmp_path}
    assert create(NAME, **arguments).normalisation == HALF
    overridden = create(NAME, **arguments, normalisation=IMAGENET)
    assert overridden.normalisation.std == pytest.approx(IMAGENET.std)


def test_random_weights_are_asked_for_by_pretrained_false(tmp_path):
    assert create(NAME, classes=2, size=32, pretrained=False, weights=tmp_path / "nowhere") is not None


def touch(folder: Path, *files: str) -> None:
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).touch()


def test_where_weights_are_looked_for(tmp_path):
    tagged = "vit_tiny_patch16_224.augreg_in21k"
    touch(tmp_path, "model.pth", "a.tag.bin", "b/model.safetensors", "c.safetensors", "c.pth", f"{tagged}.pt")
    assert find_weights(tmp_path, "a").name == "a.tag.bin"
    assert find_weights(tmp_path, "b") == tmp_path / "b" / "model.safetensors"
    assert find_weights(tmp_path, "c").name == "c.safetensors"
    assert find_weights(tmp_path, "c.any_tag").name == "c.safetensors"
    assert find_weights(tmp_path, tagged).name == f"{tagged}.pt"
    assert find_weights(tmp_path, "vit_tiny_patch16_224").name == f"{tagged}.pt"
    assert find_weights(tmp_path, "unheard_of").name == "model.pth"
    assert find_weights(tmp_path / "c.pth", "a") == tmp_path / "c.pth"


def test_where_weights_are_not_found(tmp_path):
    touch(tmp_path, "resnet18.one.pth", "resnet18.two.pth", "notes.txt")
    with pytest.raises(UsageError, match=r"several weights for resnet18: resnet18\.one\.pth, resnet18\.two\.pth"):
        find_weights(tmp_path, "resnet18")
    with pytest.raises(
        UsageError, match=r"none of vgg19, vgg19/model, vgg19\.<tag>, model, pytorch_model with \.safetensors"
    ):
        find_weights(tmp_path, "vgg19")
    with pytest.raises(UsageError, match="must end in"):
        find_weights(tmp_path / "notes.txt", "vgg19")
    with pytest.raises(UsageError, match="no such file or folder"):
        find_weights(tmp_path / "nowhere", "vgg19")


def test_the_digest_follows_weights_normalisation_and_size(published):
    net, again = network(), network()
    assert weights_digest(net) == weights_digest(again)
    with torch.no_grad():
        again.backbone.conv_stem.weight[0, 0, 0, 0] += 1e-6
    assert weights_digest(net) != weights_digest(again)
    assert weights_digest(net) != weights_digest(create(NAME, classes=2, size=64))
    digest = weights_digest(net)
    net.normalise_by(HALF)
    assert weights_digest(net) != digest
    assert weights_digest(net.bfloat16()) != weights_digest(net.float())


def test_the_digest_follows_what_the_head_sees():
    one, two = (create("test_vit", classes=2, size=32, features="cls", feature_layers=layers) for layers in (2, 3))
    for network in (one, two):
        network.backbone.head = torch.nn.Identity()  # all weights are equal now
    assert weights_digest(one) != weights_digest(two)


# -- position embeddings ----------------------------------------------------------------------------------------


def test_position_embeddings_are_resampled(tmp_path):
    torch.manual_seed(0)
    source = timm.create_model("test_vit", num_classes=0)  # 160 px: a grid of 10 x 10
    save_file(source.state_dict(), tmp_path / "test_vit.safetensors")
    net = create("test_vit", classes=2, size=160, pretrained=True, weights=tmp_path)
    assert torch.equal(net.backbone.pos_embed, source.pos_embed)
    small = create("test_vit", classes=2, size=64, pretrained=True, weights=tmp_path)
    assert small.backbone.pos_embed.shape[1] == 16 + source.pos_embed.shape[1] - 100
    patches = small.backbone.pos_embed[:, -16:].reshape(1, 4, 4, -1).permute(0, 3, 1, 2)
    grid = source.pos_embed[:, -100:].reshape(1, 10, 10, -1).permute(0, 3, 1, 2)
    expected = torch.nn.functional.interpolate(grid, (4, 4), mode="bicubic", antialias=True)
    torch.testing.assert_close(patches, expected)


def original_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A ViT's weights under the key names of DINOv2's own files."""
    return {**state, "mask_token": torch.zeros(1, state["cls_token"].shape[-1])}


@pytest.mark.slow
@pytest.mark.parametrize("original", [False, True])
def test_dinov2_at_518_px_loads_at_other_sizes(tmp_path, original):
    name = "vit_small_patch14_dinov2"
    torch.manual_seed(0)
    source = timm.create_model(name, num_classes=0).eval()
    assert source.pos_embed.shape == (1, 1 + 37 * 37, 384)
    state = source.state_dict()
    if original:
        torch.save(original_names(state), tmp_path / f"{name}.pth")
    else:
        save_file(state, tmp_path / f"{name}.lvd142m.safetensors")
    for size, grid in ((56, 4), (224, 16)):
        net = create(name, classes=3, size=size, pretrained=True, weights=tmp_path).eval()
        assert net.backbone.pos_embed.shape == (1, 1 + grid * grid, 384)
        assert torch.equal(net.backbone.blocks[11].mlp.fc2.weight, source.blocks[11].mlp.fc2.weight)
        resized = timm.create_model(name, num_classes=0, img_size=size).eval()
        resized.load_state_dict(timm.models.vision_transformer.checkpoint_filter_fn(dict(state), resized))
        images = torch.rand(1, 3, size, size)
        with torch.no_grad():
            expected = resized((images - net.mean.view(3, 1, 1)) / net.std.view(3, 1, 1))
            torch.testing.assert_close(net.backbone_features(images, "cls"), expected)
            assert net.outputs(images).map.shape == (1, 384, grid, grid)


# -- real weights -----------------------------------------------------------------------------------------------

needs_weights = pytest.mark.skipif(
    "STILLROOM_WEIGHTS" not in os.environ, reason="STILLROOM_WEIGHTS names no folder of real weights"
)


@needs_weights
@pytest.mark.parametrize("name", ["mobilenetv2_100", "mobilenet_edgetpu_100"])
def test_real_weights(name):
    folder = Path(os.environ["STILLROOM_WEIGHTS"])
    file = folder / f"{name}.safetensors"
    state, normalisation = read_weights(file)
    assert normalisation == HALF
    probe = create(name, classes=4, size=96, pretrained=True, weights=folder)
    assert probe.normalisation == HALF
    assert probe.classifier().out_features == 4
    whole = create(name, classes=1000, pretrained=True, weights=file).eval()
    plain = timm.create_model(name)
    plain.load_state_dict(state)
    images = torch.rand(1, 1, 224, 224)
    with torch.no_grad():
        torch.testing.assert_close(whole(images), plain.eval()(images.repeat(1, 3, 1, 1) * 2 - 1), atol=1e-4, rtol=1e-4)
    with pytest.raises(UsageError, match="another architecture"):
        create("mobilenetv2_050", classes=2, pretrained=True, weights=file)
