import math

import pytest
import timm
import torch

from stillroom.errors import UsageError
from stillroom.models.catalogue import short_list
from stillroom.models.normalisation import HALF, Normalisation
from stillroom.models.taps import classifiers
from stillroom.models.zoo import check_size, create, native_size, outline, resolve_size, specification


def test_the_seed_decides_the_weights_and_nothing_else():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = create("test_vit", classes=2, size=32, seed=1)
    torch.testing.assert_close(torch.rand(3), expected)
    torch.manual_seed(77)
    again, other = (create("test_vit", classes=2, size=32, seed=seed) for seed in (1, 2))
    name = "backbone.blocks.0.attn.qkv.weight"
    for key, tensor in first.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[key]), key
    assert not torch.equal(first.state_dict()[name], other.state_dict()[name])


def test_the_widened_classifier_follows_the_seed_too():
    heads = [create("test_vit", classes=2, size=32, features="both").classifier().weight for _ in range(2)]
    assert torch.equal(*heads)


def test_unknown_names_are_answered_with_near_ones():
    with pytest.raises(UsageError, match=r"No network is called mobilenetv2_50\. Did you mean mobilenetv2_050"):
        create("mobilenetv2_50", classes=2)
    with pytest.raises(UsageError, match=r"published as resnet18\.a1_in1k"):
        create("resnet18.nobodys", classes=2)


def test_a_tag_chooses_among_published_weights():
    assert specification("resnet18").hub == "timm/resnet18.a1_in1k"
    assert specification("resnet18.tv_in1k").hub == "timm/resnet18.tv_in1k"


@pytest.mark.parametrize(
    ("name", "size", "nearest"),
    [
        ("vit_small_patch14_dinov2", 64, "multiple of 14 pixels; 64 is none. Nearest: 56 or 70"),
        ("vit_small_patch14_dinov2", 10, "Nearest: 14."),
        ("vit_tiny_patch16_224", 28, "Nearest: 16 or 32"),
        ("swin_tiny_patch4_window7_224", 62, "Nearest: 60 or 64"),
        ("densenet121", 28, "it takes 32 or 224"),
        ("visformer_tiny", 28, "it takes 32 or 224"),
        ("efficientformer_l1", 64, "it takes 224"),
        ("resnet18", 0, "at least 1 pixel"),
    ],
)
def test_sizes_that_cannot_be_are_refused_with_sizes_that_can(name, size, nearest):
    with pytest.raises(UsageError, match=nearest.replace(".", r"\.")):
        check_size(name, size)


@pytest.mark.parametrize(
    ("name", "sizes"),
    [("vit_small_patch14_dinov2", (56, 224)), ("swin_tiny_patch4_window7_224", (60, 64)), ("resnet18", (28,))],
)
def test_sizes_said_to_fit_do_fit(name, sizes):
    for size in sizes:
        network = create(name, classes=2, size=size).eval()
        if size < 100:
            with torch.no_grad():
                assert network(torch.rand(1, 3, size, size)).shape == (1, 2)


def test_the_size_of_a_network_left_to_itself():
    assert native_size("vit_small_patch14_dinov2") == 518
    assert resolve_size("vit_small_patch14_dinov2", None, 64) == 224  # as its probes are published
    assert resolve_size("vit_small_patch14_dinov2", 56, 64) == 56
    assert resolve_size("vit_tiny_patch16_224", None, 64) == 224  # position embeddings fix it
    assert resolve_size("resnet18", None, 64) == 64
    assert resolve_size("resnet18", 96, 64) == 96
    assert create("resnet18_28", classes=2).input_size == (28, 28)


def test_small_image_resnets_are_the_published_ones():
    # Parameters of the CIFAR ResNets with ten classes, as their PyTorch implementations state them.
    for name, parameters in (("resnet18_28", 11_173_962), ("resnet50_28", 23_520_842)):
        network = create(name, classes=10)
        assert sum(p.numel() for p in network.parameters()) == parameters
        assert network.map_shape[1:] == (4, 4)
        assert network.normalisation == HALF


def test_an_outline_has_shapes_and_no_memory():
    backbone = outline("vit_large_patch14_dinov2")
    assert {parameter.device.type for parameter in backbone.parameters()} == {"meta"}
    assert sum(p.numel() for p in backbone.parameters()) == pytest.approx(304.37e6, rel=1e-4)


def test_normalisation_can_be_overridden():
    own = Normalisation((0.25, 0.5, 0.75), (0.5, 0.25, 0.125))
    assert create("resnet18_28", classes=2, normalisation=own).normalisation == own


def test_no_published_weights():
    for name in ("skresnet50", "resnet18_28"):
        with pytest.raises(UsageError, match=f"has no weights for {name}"):
            create(name, classes=2, pretrained=True)


def test_an_unreachable_hub_is_said_at_once(monkeypatch, tmp_path):
    from huggingface_hub import constants

    nobody = "http://127.0.0.1:9"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "ENDPOINT", nobody)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", nobody + "/{repo_id}/resolve/{revision}/{filename}")
    with pytest.raises(UsageError, match=r"timm/resnet18\.a1_in1k\): http://127.* cannot be reached .*--weights"):
        create("resnet18", classes=2, pretrained=True)


def test_cached_weights_need_no_network(monkeypatch, tmp_path):
    from huggingface_hub import file_download
    from safetensors.torch import save_file

    published = timm.create_model("test_vit")
    snapshot = tmp_path / "models--timm--test_vit.r160_in1k"
    (snapshot / "snapshots" / "abc").mkdir(parents=True)
    (snapshot / "refs").mkdir()
    (snapshot / "refs" / "main").write_text("abc")
    save_file(published.state_dict(), snapshot / "snapshots" / "abc" / "model.safetensors")
    monkeypatch.setattr(file_download, "HF_HUB_CACHE", str(tmp_path), raising=False)
    monkeypatch.setattr(file_download.constants, "HF_HUB_CACHE", str(tmp_path))
    network = create("test_vit", classes=2, pretrained=True)
    assert torch.equal(network.backbone.blocks[0].mlp.fc1.weight, published.blocks[0].mlp.fc1.weight)


# -- where a network starts ---------------------------------------------------------------------------------------
def first_losses(network, images, features_of=lambda pooled: pooled):
    """Mean cross-entropy over every class, in units of ln K, of an untrained head on the network's own features."""
    network.train()
    with torch.no_grad():
        pooled = network.outputs(images).pooled
        logits = classifiers(network.backbone)[0](features_of(pooled))
    losses = [torch.nn.functional.cross_entropy(logits, torch.full((len(logits),), k)) for k in range(network.classes)]
    return torch.stack(losses).mean().item() / math.log(network.classes)


def pictures(size):
    return torch.rand(8, 3, size, size, generator=torch.Generator().manual_seed(0))


def pretrained_size(pooled):
    """As large as features of published weights are at the most: DINOv2's have a mean square of 4, convolutions' less."""
    return 2 * pooled / pooled.square().mean().sqrt().clamp(min=1e-6)


@pytest.mark.parametrize("classes", [2, 9])
@pytest.mark.parametrize(
    "name", ["mobilenetv2_100", "mobilenetv4_conv_small", "efficientnet_b0", "vit_tiny_patch16_224"]
)
def test_the_first_loss_is_ln_k(name, classes):
    network = create(name, classes=classes, size=64)
    assert first_losses(network, pictures(64)) == pytest.approx(1, abs=0.05)
    assert first_losses(network, pictures(64), pretrained_size) == pytest.approx(1, abs=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("name", short_list())
def test_the_first_loss_is_ln_k_for_every_name_of_the_catalogue(name):
    spec = specification(name)
    size = 56 if "dinov2" in name else spec.native_size if spec.fixed_size and "vit_" not in name else 64
    network = create(name, classes=4, size=size)
    assert first_losses(network, pictures(size)) == pytest.approx(1, abs=0.05)
    assert first_losses(network, pictures(size), pretrained_size) == pytest.approx(1, abs=0.05)


def test_the_first_loss_is_ln_2_for_each_of_several_labels():
    network = create("mobilenetv2_050", classes=5, size=64).train()
    with torch.no_grad():
        logits = network(pictures(64))
    for truth in (torch.zeros_like(logits), torch.ones_like(logits)):
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, truth).item()
        assert loss == pytest.approx(math.log(2), rel=0.05)


@pytest.mark.parametrize("name", ["mobilenetv2_100", "mobilenet_edgetpu_100"])
def test_the_first_loss_is_ln_k_from_real_pretrained_weights(real_weights, name):
    network = create(name, classes=4, size=64, pretrained=True, weights=real_weights())
    assert network.start == "pretrained"
    assert first_losses(network, pictures(64)) == pytest.approx(1, abs=0.05)
