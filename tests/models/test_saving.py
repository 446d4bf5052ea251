import json

import pytest
import torch

from stillroom.errors import UsageError
from stillroom.models.normalisation import Normalisation
from stillroom.models.saving import load_network, save_network
from stillroom.models.weights import weights_digest
from stillroom.models.zoo import create


def images(side: int) -> torch.Tensor:
    return torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(4))


@pytest.mark.parametrize(
    ("name", "size", "features"),
    [
        ("resnet18_28", 28, None),
        ("mobilenetv3_small_050", 32, None),
        ("test_vit", 48, "both"),
        ("test_vit", 32, "mean"),
    ],
)
def test_a_round_trip_is_exact(tmp_path, name, size, features):
    own = Normalisation((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    network = create(name, classes=3, size=size, seed=9, features=features, normalisation=own).train()
    network(images(size))  # batch statistics move
    save_network(network, tmp_path / "student")
    assert sorted(file.name for file in (tmp_path / "student").iterdir()) == ["model.json", "model.safetensors"]
    loaded = load_network(tmp_path / "student")
    assert not loaded.training
    assert weights_digest(loaded) == weights_digest(network)
    assert (loaded.name, loaded.classes, loaded.input_size, loaded.features) == (name, 3, (size, size), features)
    with torch.no_grad():
        assert torch.equal(loaded(images(size)), network.eval()(images(size)))


def test_saving_again_replaces(tmp_path):
    for seed in (1, 2):
        save_network(create("resnet18_28", classes=2, seed=seed), tmp_path)
    assert weights_digest(load_network(tmp_path)) == weights_digest(create("resnet18_28", classes=2, seed=2))


def test_loading_leaves_the_random_state_alone(tmp_path):
    save_network(create("resnet18_28", classes=2), tmp_path)
    before = torch.get_rng_state()
    load_network(tmp_path)
    assert torch.equal(torch.get_rng_state(), before)


def test_files_of_two_saves_are_told_apart(tmp_path):
    for seed in (1, 2):
        save_network(create("resnet18_28", classes=2, seed=seed), tmp_path / str(seed))
    (tmp_path / "1" / "model.safetensors").replace(tmp_path / "2" / "model.safetensors")
    with pytest.raises(UsageError, match="do not belong together"):
        load_network(tmp_path / "2")
    with pytest.raises(UsageError, match=r"holds no network: model\.safetensors is missing"):
        load_network(tmp_path / "1")
    with pytest.raises(UsageError, match=r"holds no network: model\.json is missing"):
        load_network(tmp_path / "nowhere")


def test_damage_is_said_in_one_line(tmp_path):
    save_network(create("resnet18_28", classes=2), tmp_path)
    description = json.loads((tmp_path / "model.json").read_text())
    (tmp_path / "model.json").write_text(json.dumps({**description, "classes": 5}))
    with pytest.raises(UsageError, match="cannot be read"):
        load_network(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"x" * 100)
    with pytest.raises(UsageError, match="cannot be read") as caught:
        load_network(tmp_path)
    assert "\n" not in str(caught.value)


def test_layers_and_precision_come_back(tmp_path):
    network = create("test_vit", classes=3, size=32, features="both", feature_layers=2, precision="bf16").eval()
    save_network(network, tmp_path)
    loaded = load_network(tmp_path)
    assert (loaded.feature_layers, loaded.precision) == (2, "bf16")
    assert weights_digest(loaded) == weights_digest(network)
    with torch.no_grad():
        assert torch.equal(loaded(images(32)), network(images(32)))
