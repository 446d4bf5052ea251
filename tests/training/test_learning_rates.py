"""Pretrained weights move slower than the head, layer by layer in a transformer; random ones all at one rate."""

from itertools import pairwise

import pytest
import torch

from stillroom.models.adapters import adapt
from stillroom.models.zoo import create
from stillroom.settings.sections import TrainingSettings
from stillroom.training.learning_rates import optimizer_of, set_learning_rate


def rates(network, settings, others=None):
    """The learning rate of every parameter by name, when the step's is 1."""
    optimizer = optimizer_of(network, others or torch.nn.Identity(), settings)
    set_learning_rate(optimizer, 1.0)
    by_id = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert len(by_id) == sum(len(group["params"]) for group in optimizer.param_groups)
    return {name: by_id[id(p)] for name, p in network.named_parameters()}


def test_random_weights_move_at_one_rate():
    assert set(rates(create("test_resnet", classes=3, size=32), TrainingSettings()).values()) == {1.0}


def test_pretrained_weights_move_slower_than_the_head():
    network = create("test_resnet", classes=3, size=32)
    network.start = "pretrained"
    found = rates(network, TrainingSettings(pretrained_lr=0.2), others=torch.nn.Linear(2, 2))
    assert {rate for name, rate in found.items() if name.startswith("backbone.fc.")} == {1.0}
    assert {rate for name, rate in found.items() if not name.startswith("backbone.fc.")} == {0.2}


def test_a_transformers_layers_move_the_slower_the_deeper():
    network = create("test_vit", classes=3, size=64)
    network.start = "pretrained"
    found = rates(network, TrainingSettings(pretrained_lr=0.5))
    blocks = [found[f"backbone.blocks.{n}.attn.qkv.weight"] for n in range(len(network.backbone.blocks))]
    assert found["backbone.head.weight"] == 1.0
    assert [b / a for a, b in pairwise(blocks)] == pytest.approx([1 / 0.75] * (len(blocks) - 1))
    assert found["backbone.patch_embed.proj.weight"] < blocks[0]
    flat = rates(network, TrainingSettings(pretrained_lr=0.5, layer_decay=1.0))
    assert {rate for name, rate in flat.items() if "head" not in name} == {0.5}


def test_adapters_learn_at_the_full_rate_and_nothing_beside_them_but_the_head():
    pytest.importorskip("peft")
    network = create("test_vit", classes=3, size=64)
    network.start = "pretrained"
    adapt(network, 2, seed=0)
    optimizer = optimizer_of(network, torch.nn.Identity(), TrainingSettings(pretrained_lr=0.1))
    trained = {id(p): group["lr_scale"] for group in optimizer.param_groups for p in group["params"]}
    names = {name for name, p in network.named_parameters() if id(p) in trained}
    assert set(trained.values()) == {1.0}
    assert {name.rpartition(".lora_")[0] or name for name in names} == {
        *(
            f"backbone.blocks.{n}.attn.{layer}"
            for n in range(len(network.backbone.blocks))
            for layer in ("qkv", "proj")
        ),
        "backbone.head.weight",
        "backbone.head.bias",
    }


@pytest.mark.parametrize("start", ["random", "pretrained"])
def test_only_matrices_and_kernels_decay(start):
    network = create("test_vit", classes=3, size=64)
    network.start = start
    optimizer = optimizer_of(network, torch.nn.Identity(), TrainingSettings(weight_decay=0.1))
    for group in optimizer.param_groups:
        assert all((p.ndim > 1) == (group["weight_decay"] > 0) for p in group["params"] if p.ndim <= 1)
