"""Spatial attention in any network's last feature map, and the head on a map of another origin."""

import pytest
import torch

from stillroom.errors import UsageError
from stillroom.models.attention import SpatialAttention
from stillroom.models.saving import load_network, save_network
from stillroom.models.taps import feature_map, unmapped
from stillroom.models.zoo import create

MAPPED = ("test_resnet", "test_efficientnet", "swin_tiny_patch4_window7_224", "test_vit")


def images(size, batch=2):
    return torch.rand(batch, 3, size, size, generator=torch.Generator().manual_seed(0))


def network(name, **options):
    size = 64 if "swin" in name else 32
    features = "mean" if "vit" in name else None
    return create(name, classes=3, size=size, features=features, **options).eval(), images(size)


def test_the_formula():
    attention, features = SpatialAttention(), torch.randn(2, 5, 6, 6)
    pooled = torch.stack([features.mean(1), features.max(1).values], dim=1)
    expected = torch.nn.functional.conv2d(pooled, attention.conv.weight, padding=3).sigmoid()
    assert torch.allclose(attention(features), expected)


@pytest.mark.parametrize("name", MAPPED)
def test_the_map_is_weighed_and_the_answer_comes_from_it(name):
    plain, x = network(name)
    weighed, _ = network(name, attention=True)
    weighed.attention.conv.weight.data.zero_()  # a half everywhere
    with torch.no_grad():
        before, after = plain.outputs(x), weighed.outputs(x)
    assert before.attention is None
    assert after.attention.shape == (2, 1, *after.map.shape[2:])
    assert torch.allclose(after.attention, torch.full_like(after.attention, 0.5))
    assert torch.allclose(after.map, before.map / 2, atol=1e-6)
    assert not torch.allclose(after.logits, before.logits)
    assert torch.allclose(weighed(x), after.logits, atol=1e-6)


@pytest.mark.parametrize("name", MAPPED)
def test_the_head_answers_to_a_map_as_to_its_own(name):
    net, x = network(name)
    with torch.no_grad():
        found = net.outputs(x)
        assert torch.allclose(net.classify_map(found.map), found.logits, atol=1e-5)


@pytest.mark.parametrize("features", ["cls", "both"])
def test_the_mean_of_the_patches_stands_in_for_a_class_token(features):
    net = create("test_vit", classes=3, size=32, features=features).eval()
    with torch.no_grad():
        found = net.outputs(images(32)).map
        mean = found.mean(dim=(2, 3))
        pooled = torch.cat([mean, mean], dim=1) if features == "both" else mean
        assert torch.allclose(net.classify_map(found), net.classifier()(pooled), atol=1e-6)


@pytest.mark.parametrize("name", MAPPED)
def test_a_map_goes_back_to_where_it_came_from(name):
    net, x = network(name)
    with torch.no_grad():
        features = net.backbone.forward_features(x)
        found = feature_map(net.backbone, features, net.input_size)
        assert torch.equal(unmapped(net.backbone, features, found), features)


def test_it_is_saved_and_the_rest_starts_as_without_it(tmp_path):
    plain, x = network("test_resnet", seed=3)
    net, _ = network("test_resnet", seed=3, attention=True)
    assert all(torch.equal(value, net.state_dict()[name]) for name, value in plain.state_dict().items())
    again = load_network(save_network(net, tmp_path))
    with torch.no_grad():
        assert torch.equal(again(x), net(x))


def test_a_network_that_answers_from_its_class_token_is_refused():
    with pytest.raises(UsageError, match="class token"):
        create("test_vit", classes=3, size=32, attention=True, features="cls")
