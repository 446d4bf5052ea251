"""The mean of several trainings' weights, with statistics of its own."""

import numpy as np
import pytest
import torch

from stillroom.models.zoo import create
from stillroom.training.averaging import average


@pytest.fixture
def networks():
    made = [create("test_resnet", classes=3, size=32, seed=seed).train() for seed in (0, 1, 2)]
    for number, network in enumerate(made):
        for name, buffer in network.named_buffers():
            if name.endswith("num_batches_tracked"):
                buffer.fill_(number)
    return made


def batches(count=4):
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(8, 3, 32, 32, generator=generator) for _ in range(count)]


def test_weights_are_the_mean_and_statistics_are_taken_anew(networks):
    before = [{name: value.clone() for name, value in network.state_dict().items()} for network in networks]
    averaged = average(networks, batches())
    for name, parameter in averaged.named_parameters():
        mean = torch.stack([state[name] for state in before]).mean(dim=0)
        torch.testing.assert_close(parameter, mean, rtol=0, atol=1e-6)
    first = next(name for name in before[0] if name.endswith("running_mean"))
    mean = torch.stack([state[first] for state in before]).mean(dim=0)
    assert not torch.allclose(averaged.state_dict()[first], mean, atol=1e-4)
    assert not averaged.training
    for network, state in zip(networks, before, strict=True):  # they are left as they are
        assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())


def test_the_mean_of_equal_networks_is_the_network(networks):
    alike = average([networks[0], networks[0]], batches())
    for name, parameter in networks[0].named_parameters():
        torch.testing.assert_close(dict(alike.named_parameters())[name], parameter)
    with torch.no_grad():
        answers = alike(batches(1)[0]).numpy()
    assert np.isfinite(answers).all()
