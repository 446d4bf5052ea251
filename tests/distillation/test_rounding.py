"""Rounding in torch: what int8 holds, with gradients through it, and back into the network's own form."""

import numpy as np
import pytest
import torch

from stillroom.deployment.graph import rounded as rounded_by_graph
from stillroom.distillation.rounding import AsBefore, roundable, rounded, rounding, taken_back
from stillroom.distillation.step import Step
from stillroom.models.zoo import create
from stillroom.task import MultiClass

TASK = MultiClass(("a", "b", "c"))


@pytest.fixture(scope="module")
def network():
    made = create("mobilenetv3_small_050", classes=3, size=32)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, values in made.named_buffers():
            if name.endswith("running_var"):
                values.copy_(torch.rand(values.shape, generator=generator) + 0.5)
    return made.eval()


def images(count=4):
    return torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def test_weights_are_rounded_to_127_steps_of_each_channels_largest():
    weight = torch.randn(5, 3, 3, 3, generator=torch.Generator().manual_seed(0))
    steps = rounded(weight) / (weight.abs().amax(dim=(1, 2, 3), keepdim=True) / 127)
    assert torch.allclose(steps, steps.round(), atol=1e-3)
    assert steps.abs().amax(dim=(1, 2, 3)).tolist() == pytest.approx([127] * 5, abs=1e-3)
    assert torch.equal(rounded(rounded(weight)).round(decimals=5), rounded(weight).round(decimals=5))
    assert np.allclose(rounded(weight).numpy(), rounded_by_graph(weight.numpy(), 0), atol=1e-6)


def test_a_channel_of_zeros_stays_zero():
    assert torch.equal(rounded(torch.zeros(2, 3)), torch.zeros(2, 3))


def test_the_classifier_is_not_rounded(network):
    names = set(roundable(network))
    assert "backbone.conv_stem" in names
    assert not any(name.endswith("classifier") for name in names)


def test_the_copy_answers_as_rounded_weights_do_and_the_network_is_left_as_it_was(network):
    before = network(images()).detach().clone()
    learner = rounding(network, [images()])
    assert torch.equal(network(images()), before)
    assert not torch.equal(learner.eval()(images()), before)
    own = taken_back(learner, network)
    for name, layer in roundable(own).items():
        expected = rounded(dict(network.named_modules())[name].weight)
        assert torch.allclose(layer.weight, expected, atol=1e-7), name


def test_a_network_that_was_frozen_learns_again(network):
    AsBefore(network)  # which freezes what it asks
    assert all(parameter.requires_grad for parameter in rounding(network, [images()]).parameters())


def test_batch_normalisation_stands_still_while_it_learns(network):
    learner = rounding(network, [images()])
    learner.train()
    kept = {name: values.clone() for name, values in learner.named_buffers() if "running" in name}
    learner(images(8))
    assert all(torch.equal(values, kept[name]) for name, values in learner.named_buffers() if name in kept)


def test_a_short_training_brings_the_answers_back(network, monkeypatch):
    monkeypatch.setattr("stillroom.distillation.rounding.STEPS", 7)  # four bits, which nobody bears without training
    learner, objective = rounding(network, [images(16)]), AsBefore(network)
    optimizer = torch.optim.Adam([p for p in learner.parameters() if p.requires_grad], lr=1e-4)

    def loss():
        shown = images(16)
        step = Step(shown, torch.zeros(16, dtype=torch.long), learner.outputs(shown), None, TASK, 0.0)
        return sum(objective(step).values())

    first = loss().item()
    for _ in range(25):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
    assert loss().item() < 0.5 * first
    assert not list(objective.parameters())  # the network that it asks is not trained with it
