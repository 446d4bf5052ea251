"""Low-rank adapters learn beside weights that stand still, and leave an ordinary network."""

import sys

import pytest
import torch

from stillroom.errors import UsageError
from stillroom.models.adapters import adapt, learnt, merge, take_up
from stillroom.models.zoo import create

pytest.importorskip("peft")
IMAGES = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def network(name="test_vit", **settings):
    return create(name, classes=3, size=32, **settings)


def train(net, steps=3):
    net.train()
    optimizer = torch.optim.AdamW([p for p in net.parameters() if p.requires_grad], lr=0.05)
    for _ in range(steps):
        optimizer.zero_grad()
        net(IMAGES).square().sum().backward()
        optimizer.step()
    return net.eval()


@pytest.mark.parametrize("name", ["test_vit", "swin_s3_tiny_224"])
def test_merged_it_answers_alike_under_the_plain_networks_names(name):
    size = 32 if name == "test_vit" else 224
    images = torch.rand(2, 3, size, size)
    plain = create(name, classes=3, size=size)
    adapted = create(name, classes=3, size=size).eval()
    adapt(adapted, 4, seed=0)
    with torch.no_grad():
        torch.testing.assert_close(adapted(images), plain.eval()(images), atol=0, rtol=0)  # B starts at 0
        for key, parameter in adapted.named_parameters():
            if "lora_B" in key:
                parameter.normal_(0, 0.05)
        before = adapted(images)
        merge(adapted)
        torch.testing.assert_close(adapted(images), before, atol=1e-5, rtol=1e-5)
        assert not torch.allclose(before, plain(images), atol=1e-3)
    assert list(adapted.state_dict()) == list(plain.state_dict())
    assert [type(m) for m in adapted.modules()] == [type(m) for m in plain.modules()]
    assert all(p.requires_grad for p in adapted.parameters())
    assert not hasattr(adapted.backbone, "peft_config")


def test_a_layer_becomes_w_plus_b_a():
    net = network()
    own = net.backbone.blocks[1].attn.qkv.weight.detach().clone()
    adapt(net, 2, seed=0)
    train(net)
    layer = net.backbone.blocks[1].attn.qkv
    product = layer.lora_B["default"].weight @ layer.lora_A["default"].weight
    assert product.shape == own.shape
    assert product.abs().max() > 0.01
    merge(net)
    torch.testing.assert_close(net.backbone.blocks[1].attn.qkv.weight, own + product)


def test_nothing_but_adapters_and_head_is_trained():
    net = network()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    adapt(net, 2, seed=0)
    moving = {key for key, parameter in net.named_parameters() if parameter.requires_grad}
    blocks = range(len(net.backbone.blocks))
    layers = [f"backbone.blocks.{block}.attn.{layer}" for block in blocks for layer in ("qkv", "proj")]
    expected = {f"{layer}.lora_{part}.default.weight" for layer in layers for part in "AB"}
    assert moving == expected | {"backbone.head.weight", "backbone.head.bias"}
    train(net)
    merge(net)
    changed = {key for key, value in net.state_dict().items() if not torch.equal(value, before[key])}
    assert changed == {f"{layer}.weight" for layer in layers} | {"backbone.head.weight", "backbone.head.bias"}


def test_the_seed_decides_the_adapters_and_the_global_state_is_left_alone():
    state = torch.get_rng_state()
    found = []
    for seed in (1, 1, 2):
        net = network()
        adapt(net, 2, seed)
        found.append(net.backbone.blocks[0].attn.qkv.lora_A["default"].weight)
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])
    assert torch.equal(torch.get_rng_state(), state)


def test_what_is_learnt_is_little_and_goes_on_exactly():
    net, again = network(), network()
    adapt(net, 2, seed=0)
    adapt(again, 2, seed=0)
    train(net)
    state = learnt(net)
    assert sum(tensor.numel() for tensor in state.values()) < sum(p.numel() for p in net.parameters()) / 4
    take_up(again, state)
    assert all(torch.equal(a, b) for a, b in zip(net.state_dict().values(), again.state_dict().values(), strict=True))
    with pytest.raises(RuntimeError):
        take_up(network(), state)


def test_layers_that_are_asked_for_their_weights_alone_are_left_out():
    net = create("beit_base_patch16_224", classes=2, size=224)  # reads attn.qkv.weight, and never calls attn.qkv
    adapt(net, 2, seed=0)
    adapted = {name.rpartition(".")[2] for name, module in net.named_modules() if hasattr(module, "lora_A")}
    assert adapted == {"proj"}


def test_a_network_without_attention_is_refused():
    with pytest.raises(UsageError, match=r"test_resnet has no linear layers of attention.*--teacher-lora"):
        adapt(network("test_resnet"), 2, seed=0)


def test_without_peft_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(UsageError, match=r"pip install 'stillroom\[peft\]'"):
        adapt(network(), 2, seed=0)
