"""Networks that answer by class: each answer reaches its class, and probabilities become logits that mean the same."""

import pytest
import torch
from torch import nn

from stillroom.errors import UsageError
from stillroom.models.answers import ByClass, answer_by
from stillroom.models.network import Network
from stillroom.models.normalisation import Normalisation
from stillroom.models.origins.brought import Backbone
from stillroom.models.specification import Specification
from stillroom.models.weights import weights_digest

PLAIN = Normalisation((0.0,) * 3, (1.0,) * 3)
IMAGES = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Says(nn.Module):
    """The same answer to every image."""

    def __init__(self, values):
        super().__init__()
        self.register_buffer("values", torch.tensor(values))

    def forward(self, images):
        return self.values.expand(len(images), -1)


def network(values, classes):
    backbone = Backbone(Says(values), lambda said: said, nn.Identity())
    return Network(backbone, name="net", classes=classes, input_size=(8, 8), normalisation=PLAIN)


def spec(says, classes=()):
    return Specification(8, True, PLAIN, "own", None, says=says, classes=classes, brings_weights=True)


def test_answers_are_put_into_the_order_of_the_run():
    found = network([1.0, 2.0, 3.0], 2)
    answer_by(found, spec("logits", ("b", "other", "a")), ("a", "b"), True, IMAGES)
    assert found(IMAGES).tolist() == [[3.0, 1.0]] * 4
    assert found.outputs(IMAGES).logits.tolist() == [[3.0, 1.0]] * 4
    assert not found.rebuilds


def test_probabilities_become_logits_whose_softmax_they_are():
    found = network([0.7, 0.2, 0.1], 3)
    answer_by(found, spec("probabilities"), ("a", "b", "c"), True, IMAGES)
    assert torch.allclose(found(IMAGES).softmax(1), torch.tensor([0.7, 0.2, 0.1]).expand(4, -1))


def test_probabilities_of_labels_become_log_odds():
    found = network([0.7, 0.7], 2)
    answer_by(found, spec("probabilities"), ("a", "b"), False, IMAGES)
    assert torch.allclose(found(IMAGES).sigmoid(), torch.full((4, 2), 0.7))


def test_certainty_stays_finite():
    for exclusive in (True, False):
        said = ByClass([0, 1], "probabilities", exclusive)(torch.tensor([[0.0, 1.0]]))
        assert torch.isfinite(said).all()
        assert torch.isfinite(said.half()).all()


def test_another_reading_is_another_digest():
    digests = set()
    for says, exclusive in (("logits", True), ("probabilities", True), ("probabilities", False)):
        found = network([0.5, 0.5], 2)
        answer_by(found, spec(says), ("a", "b"), exclusive, IMAGES)
        digests.add(weights_digest(found))
    assert len(digests) == 3


@pytest.mark.parametrize(
    ("values", "says", "known", "match"),
    [
        ([1.0, 2.0], "logits", ("a", "c"), "There is no answer for b"),
        ([1.0, 2.0, 3.0], "logits", (), "gives 3 numbers.*run has 2 classes"),
        ([1.0, 2.0, 3.0], "logits", ("a", "b"), "3 numbers an image, and names of 2"),
        ([1.5, -0.5], "probabilities", (), "outside of"),
        ([0.9, 0.9], "probabilities", (), "sum to 1.8"),
        ([float("nan"), 1.0], "logits", (), "not finite"),
    ],
)
def test_answers_that_are_not_what_was_said_are_refused(values, says, known, match):
    with pytest.raises(UsageError, match=match):
        answer_by(network(values, 2), spec(says, known), ("a", "b"), True, IMAGES)
