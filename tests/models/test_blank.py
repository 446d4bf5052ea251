"""A network that is built without drawing its weights is, once filled, the one that is built with them."""

import pytest
import timm
import torch
from torch import nn

from stillroom.models.blank import build_blank
from stillroom.models.saving import load_network, save_network
from stillroom.models.weights import weights_digest
from stillroom.models.zoo import create

FAMILIES = (
    "test_vit",
    "test_vit3",
    "vit_relpos_small_patch16_224",
    "beit_base_patch16_224",
    "eva02_tiny_patch14_224",
    "vit_small_patch16_dinov3",
    "swin_tiny_patch4_window7_224",
    "swinv2_tiny_window8_256",
    "maxvit_rmlp_pico_rw_256",
    "test_convnext",
    "test_resnet",
    "test_efficientnet",
    "levit_128s",
    "cait_xxs24_224",
    "xcit_nano_12_p8_224",
    "convit_tiny",
    "deit_tiny_distilled_patch16_224",
    "mobilevit_xxs",
    "resnetv2_50x1_bit",
    "tiny_vit_5m_224",
)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name.startswith("test") else pytest.mark.slow) for name in FAMILIES]
)
def test_it_is_the_same_network_once_filled(name):
    torch.manual_seed(0)
    plain = timm.create_model(name, num_classes=3).eval()
    blank = build_blank(lambda: timm.create_model(name, num_classes=3)).eval()
    buffers = dict(plain.named_buffers())
    assert buffers.keys() == dict(blank.named_buffers()).keys()
    for key, buffer in blank.named_buffers():
        assert torch.equal(buffer, buffers[key]), key
    assert not any(p.is_meta for p in blank.parameters())
    assert [p.requires_grad for p in plain.parameters()] == [p.requires_grad for p in blank.parameters()]
    target = blank.state_dict()
    for key, tensor in plain.state_dict().items():
        target[key].copy_(tensor)
    images = torch.rand(1, *plain.pretrained_cfg["input_size"])
    with torch.no_grad():
        assert torch.equal(plain(images), blank(images))


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.one = nn.Linear(4, 4)
        self.two = nn.Linear(4, 4)
        self.two.weight = self.one.weight


def test_shared_parameters_stay_shared():
    network = build_blank(Tied)
    assert network.two.weight is network.one.weight
    assert len(list(network.parameters())) == 3


class Computes(nn.Module):
    """Makes a buffer of its parameters."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.full((3,), 2.0))
        self.register_buffer("total", torch.tensor(self.scale.sum().item()))


def test_what_computes_with_its_parameters_is_built_in_the_ordinary_way():
    network = build_blank(Computes)
    assert float(network.total) == 6.0
    assert network.scale.tolist() == [2.0, 2.0, 2.0]


def test_afterwards_networks_are_drawn_as_ever():
    build_blank(lambda: nn.Linear(2, 2))
    assert not nn.Linear(2, 2).weight.is_meta


def test_pretrained_networks_and_saved_ones_draw_nothing(tmp_path, monkeypatch):
    network = create("test_vit", classes=3, size=32, seed=4)
    save_network(network, tmp_path / "saved")
    torch.save(network.backbone.state_dict(), tmp_path / "test_vit.pth")
    drawn = []
    ordinary = nn.init.xavier_uniform_
    monkeypatch.setattr(nn.init, "xavier_uniform_", lambda *a, **k: drawn.append(a[0].is_meta) or ordinary(*a, **k))
    monkeypatch.setattr(timm.layers.weight_init, "_trunc_normal_", lambda tensor, *_: drawn.append(tensor.is_meta))
    assert weights_digest(load_network(tmp_path / "saved")) == weights_digest(network)
    filled = create("test_vit", classes=3, size=32, pretrained=True, weights=tmp_path, seed=4)
    assert weights_digest(filled) == weights_digest(network)
    assert drawn
    assert all(drawn)


def test_the_head_is_drawn_from_the_seed_whatever_the_body(tmp_path):
    torch.save(create("test_vit", classes=9, size=32).backbone.state_dict(), tmp_path / "test_vit.pth")
    heads = [
        create("test_vit", classes=3, size=32, seed=4, **start).classifier().weight
        for start in ({}, {"pretrained": True, "weights": tmp_path})
    ]
    assert torch.equal(*heads)
