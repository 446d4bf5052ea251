"""A folder in timm's form: config.json says what is built, the file beside it fills it, and names add what is lacking."""

import json

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from timm.models._hub import save_config_for_hf

from stillroom.errors import UsageError
from stillroom.models.normalisation import Normalisation
from stillroom.models.weights import weights_digest
from stillroom.models.zoo import create, specification

IMAGES = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
SMALL = {"embed_dim": 24, "depth": 2, "num_heads": 2, "img_size": 32, "patch_size": 8, "init_values": 0.1}


@pytest.fixture
def folder(tmp_path):
    """A tiny transformer as timm itself writes it for the hub."""
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", num_classes=3, **SMALL)
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    stated = {"mean": (0.7, 0.6, 0.5), "std": (0.2, 0.2, 0.2), "input_size": (3, 32, 32), "license": "cc-by-nc-4.0"}
    model.pretrained_cfg |= stated
    save_config_for_hf(model, tmp_path / "config.json", model_args=SMALL)
    return tmp_path, model.eval()


def test_it_answers_as_timm_does(folder):
    path, model = folder
    network = create(str(path), classes=3, pretrained=True).eval()
    assert network.input_size == (32, 32)
    assert network.normalisation.mean == pytest.approx((0.7, 0.6, 0.5))
    pixels = (IMAGES - torch.tensor([0.7, 0.6, 0.5]).view(3, 1, 1)) / 0.2
    assert torch.allclose(network(IMAGES), model(pixels), atol=1e-5)
    spec = specification(str(path))
    assert spec.licence == "cc-by-nc-4.0"


def test_weights_may_stand_in_several_files(folder):
    path, _ = folder
    whole = create(str(path), classes=3, pretrained=True)
    state = load_file(path / "model.safetensors")
    (path / "model.safetensors").unlink()
    places = {name: f"model-{len(name) % 2 + 1:05d}-of-00002.safetensors" for name in state}
    for part in set(places.values()):
        save_file({name: state[name] for name in state if places[name] == part}, path / part)
    (path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    assert weights_digest(create(str(path), classes=3, pretrained=True)) == weights_digest(whole)


def test_another_head_is_made_for_other_classes(folder):
    path, model = folder
    network = create(str(path), classes=2, pretrained=True).eval()
    assert network.classifier().out_features == 2
    pixels = (IMAGES - network.mean.view(3, 1, 1)) / network.std.view(3, 1, 1)
    tokens = model.forward_features(pixels)
    assert torch.allclose(network.backbone_features(IMAGES, "cls"), tokens[:, 0], atol=1e-5)


def test_keywords_that_the_config_lacks_are_given_by_name(folder):
    path, _ = folder
    config = json.loads((path / "config.json").read_text())
    del config["model_args"]["init_values"]
    (path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UsageError, match="does not fit"):
        create(str(path), classes=3, pretrained=True)
    create(f"{path}?init_values=1e-5", classes=3, pretrained=True)
    with pytest.raises(UsageError, match=r"cannot be built with .*init_valuez=1e-05"):
        create(f"{path}?init_valuez=1e-5", classes=3, pretrained=True)
    with pytest.raises(UsageError, match=r"neither timm\.layers nor torch.nn has a class"):
        create(f"{path}?mlp_layer=NoLayer", classes=3)
    assert create(f"{path}?init_values=1e-5&mlp_layer=SwiGLUPacked&act_layer=SiLU", classes=3).classes == 3


def test_what_the_user_says_of_pixels_wins(folder):
    path, _ = folder
    spec = specification(f"{path}?mean=0.5&std=0.1,0.2,0.3")
    assert spec.normalisation == Normalisation((0.5,) * 3, (0.1, 0.2, 0.3))
    with pytest.raises(UsageError, match="mean is one number or three"):
        specification(f"{path}?mean=half")


@pytest.mark.parametrize(
    ("config", "match"),
    [
        ("{", "not valid JSON"),
        ("[]", "no settings by name"),
        ('{"architecture": "vit_tiny_patch16_22"}', "does not know.*vit_tiny_patch16_224"),
        ('{"num_classes": 3}', "names no architecture of timm's"),
        ('{"model_type": "bert"}', "model_type 'bert'"),
        (None, "config.json cannot be read"),
    ],
)
def test_a_folder_that_says_nothing_is_refused(tmp_path, config, match):
    if config is not None:
        (tmp_path / "config.json").write_text(config)
    with pytest.raises(UsageError, match=match):
        specification(str(tmp_path))
    with pytest.raises(UsageError, match="there is no such folder"):
        specification(str(tmp_path / "nowhere"))
