"""What explaining costs in passes, counted; and what is given up where it would cost more than training did."""

import numpy as np
import pytest
import torch
from torch import nn

from stillroom.explanation.effort import Effort, affordable, efforts, passes
from stillroom.explanation.evidence import Explained, gather
from stillroom.explanation.layers import find_layer
from stillroom.models.zoo import create

SIDE = 32


class Counting(nn.Module):
    """Counts the images that a network is asked about."""

    def __init__(self, network):
        super().__init__()
        self.network, self.asked = network, 0
        network.register_forward_pre_hook(self.note)

    def note(self, module, given):
        self.asked += len(given[0])


def explained(count):
    generator = torch.Generator().manual_seed(0)
    return Explained(
        images=torch.rand(count, 3, SIDE, SIDE, generator=generator),
        rows=np.arange(count),
        classes=np.arange(count) % 2,
        right=np.ones(count, dtype=bool),
        masks=None,
        has_mask=np.zeros(count, dtype=bool),
        patients=None,
    )


@pytest.mark.parametrize("judged", [True, False])
@pytest.mark.parametrize("method", ["score_cam", "score_cam_fast", "grad_cam", "eigen_cam", "rise"])
def test_passes_are_those_that_are_made(method, judged):
    """The control's: a student is always judged. What finds the layer and looks at shapes comes to a few more."""
    count = 5
    networks = {"student": create("resnet10t_050", classes=2, size=SIDE), "control": None}
    networks["control"] = create("resnet10t_050", classes=2, size=SIDE, seed=1)
    counting = Counting(networks["control"])
    gather(
        networks,
        explained(count),
        probability=lambda role: lambda images: networks[role](images).softmax(dim=1),
        methods=dict.fromkeys(networks, method),
        layers=dict.fromkeys(networks, "layer2"),
        seed=0,
        show_progress=False,
        judged={"student", "control"} if judged else {"student"},
    )
    layer = find_layer(networks["control"], "layer2", torch.zeros(1, 3, SIDE, SIDE))
    said = passes(count, SIDE, method, layer.channels, judged=judged)
    if method == "grad_cam":  # a hook does not see the way back
        said -= 3 * count
    if judged:  # the random twin is another network: what its maps ask is not counted here
        said -= {"score_cam": 65, "score_cam_fast": 12, "grad_cam": 4, "eigen_cam": 1, "rise": 160}[method] * count
    assert said <= counting.asked <= said + 12


def test_what_is_given_up_first():
    roles, needed = ("student", "control", "teacher"), ("student",)
    assert efforts(roles, needed, most=32, fewest=20) == [
        Effort(32, roles, roles),
        Effort(32, roles, ("student", "control")),
        Effort(32, roles, needed),
        Effort(20, roles, needed),
        Effort(20, needed, needed),
    ]
    assert efforts(needed, needed, most=4, fewest=20)[-1] == Effort(4, needed, needed)


def test_the_first_that_is_affordable_or_the_least():
    choices = efforts(("student", "control"), ("student",), most=32, fewest=20)
    costs = dict(zip(choices, (100, 60, 40, 20), strict=True))
    assert affordable(choices, costs.__getitem__, 1000) == choices[0]
    assert affordable(choices, costs.__getitem__, 60) == choices[1]
    assert affordable(choices, costs.__getitem__, 59) == choices[2]
    assert affordable(choices, costs.__getitem__, 1) == choices[-1]
