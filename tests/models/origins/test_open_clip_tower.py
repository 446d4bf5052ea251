"""Image towers of open_clip: they answer as open_clip's own do before the projection, and no text tower is built."""

from __future__ import annotations

import json
import shutil
import sys

import pytest
import torch
from hub_server import Hub
from huggingface_hub import constants
from safetensors.torch import load_file, save_file
from timm.optim import param_groups_layer_decay

from stillroom.errors import UsageError
from stillroom.explanation.layers import find_layer
from stillroom.models.saving import load_network, save_network
from stillroom.models.weights import weights_digest
from stillroom.models.zoo import create, outline, provenance, specification

open_clip = pytest.importorskip("open_clip")

MEAN, STD = [0.5, 0.4, 0.3], [0.2, 0.25, 0.3]
TEXT = {"context_length": 8, "vocab_size": 16, "width": 16, "heads": 2, "layers": 1}
OWN = {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8}
TIMM = {"timm_model_name": "test_vit", "image_size": 160, "timm_pool": "", "timm_proj": "linear"}
MODELS = {
    "own": {"embed_dim": 12, "vision_cfg": OWN, "text_cfg": TEXT},
    "quick_gelu": {"embed_dim": 12, "quick_gelu": True, "vision_cfg": OWN, "text_cfg": TEXT},
    "own_mean": {"embed_dim": 12, "vision_cfg": OWN | {"pool_type": "avg"}, "text_cfg": TEXT},
    "timm": {"embed_dim": 12, "vision_cfg": TIMM, "text_cfg": TEXT, "custom_text": True},
    "timm_mean": {"embed_dim": 12, "vision_cfg": TIMM | {"timm_pool": "avg", "timm_proj": "mlp"}, "text_cfg": TEXT},
    "timm_map": {"embed_dim": 12, "vision_cfg": TIMM | {"timm_pool": "map", "timm_proj": "none"}, "text_cfg": TEXT},
    "timm_bare": {"embed_dim": 12, "vision_cfg": TIMM | {"timm_pool": "avg", "timm_proj": ""}, "text_cfg": TEXT},
}
NATIVE = {key: 160 if key.startswith("timm") else 32 for key in MODELS}


def whole(kind):
    """open_clip's model of both towers, with random weights."""
    config = dict(MODELS[kind])
    maker = open_clip.CustomTextCLIP if config.pop("custom_text", False) else open_clip.CLIP
    torch.manual_seed(0)
    return maker(**config).eval()


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """``published(kind)`` gives open_clip's model and the folder it was published in; to be read only."""
    kept = {}

    def publish(kind):
        if kind not in kept:
            folder, model = tmp_path_factory.mktemp(kind), whole(kind)
            content = {"model_cfg": MODELS[kind], "preprocess_cfg": {"mean": MEAN, "std": STD}}
            (folder / "open_clip_config.json").write_text(json.dumps(content))
            save_file(
                {k: v.contiguous() for k, v in model.state_dict().items()}, folder / "open_clip_model.safetensors"
            )
            kept[kind] = model, folder
        return kept[kind]

    return publish


@pytest.fixture
def own(published, tmp_path):
    """``own(kind)`` gives a copy of such a folder, to be damaged."""
    return lambda kind: shutil.copytree(published(kind)[1], tmp_path / kind)


def pictures(side):
    return torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(3))


def normalised(images):
    return (images - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


@pytest.mark.parametrize("kind", MODELS)
def test_projected_features_are_those_of_open_clip(published, kind):
    model, folder = published(kind)
    network = create(str(folder), classes=3, pretrained=True).eval()
    spec = specification(str(folder))
    assert (spec.native_size, spec.normalisation.mean, spec.normalisation.std) == (
        NATIVE[kind],
        tuple(MEAN),
        tuple(STD),
    )
    images = pictures(NATIVE[kind])
    with torch.no_grad():
        expected = model.visual(normalised(images))
        said = network.outputs(images)
        if kind.startswith("own") or kind == "quick_gelu":
            found = said.pooled @ model.visual.proj
        elif kind == "timm_map":
            found = said.pooled
        elif kind == "timm_bare":
            found = model.visual.trunk.head(said.pooled)
        else:
            found = model.visual.head(said.pooled)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    side = NATIVE[kind] // (8 if NATIVE[kind] == 32 else 16)
    assert said.map.shape[2:] == (side, side)
    assert not [key for key in network.state_dict() if "text" in key or "token_embedding" in key]


def test_tokens_are_those_that_open_clip_pools(published):
    model, folder = published("own")
    network = create(str(folder), classes=3, pretrained=True).eval()
    tower = model.visual
    with torch.no_grad():
        said = tower.forward_intermediates(
            normalised(pictures(32)), indices=1, normalize_intermediates=True, output_extra_tokens=True
        )
        both = network.backbone_features(pictures(32), "both")
        found = network.outputs(pictures(32)).map
    torch.testing.assert_close(found, said["image_intermediates"][0], atol=1e-5, rtol=1e-4)
    expected = torch.cat([said["image_intermediates_prefix"][0][:, 0], found.mean((2, 3))], 1)
    torch.testing.assert_close(both, expected, atol=1e-5, rtol=1e-4)


def test_another_size_has_the_positions_that_open_clip_would_give(published):
    model, folder = published("own")
    network = create(str(folder), classes=3, size=48, pretrained=True).eval()
    other = open_clip.CLIP(**MODELS["own"] | {"vision_cfg": OWN | {"image_size": 48}}).eval()
    state = dict(model.state_dict())
    open_clip.model.resize_pos_embed(state, other)
    other.load_state_dict(state)
    with torch.no_grad():
        torch.testing.assert_close(
            network.pooled(pictures(48)) @ model.visual.proj,
            other.visual(normalised(pictures(48))),
            atol=1e-5,
            rtol=1e-4,
        )


@pytest.mark.parametrize(
    ("kind", "features"), [("own", "cls"), ("own_mean", "mean"), ("timm", "cls"), ("timm_bare", "mean")]
)
def test_a_head_sees_what_the_tower_was_pooled_by(published, kind, features):
    folder = str(published(kind)[1])
    assert specification(folder).features == features
    network = create(folder, classes=3, pretrained=True).eval()
    images = pictures(NATIVE[kind])
    with torch.no_grad():
        torch.testing.assert_close(network.backbone_features(images, features), network.pooled(images))


def test_a_repository_is_the_folder_that_was_published(published, tmp_path, monkeypatch):
    folder, server = published("own")[1], Hub()
    monkeypatch.setattr(constants, "ENDPOINT", server.address)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.address + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    card = {"README.md": b"---\nlicense: mit\n---\n"}
    commit = server.publish("clinic/tower", {file.name: file.read_bytes() for file in folder.iterdir()} | card)
    network = create("open_clip:clinic/tower", classes=3, pretrained=True).eval()
    known = provenance("open_clip:clinic/tower", None)
    server.stop()
    with torch.no_grad():
        expected = create(str(folder), classes=3, pretrained=True).eval()(pictures(32))
        assert torch.equal(network(pictures(32)), expected)
    assert (known.source, known.revision, known.licence) == ("clinic/tower", commit, "mit")


def test_layer_decay_is_by_block(published):
    network = create(str(published("own")[1]), classes=3)
    groups = param_groups_layer_decay(network.backbone, layer_decay=0.5)
    assert sorted({group["lr_scale"] for group in groups}) == [0.125, 0.25, 0.5, 1.0]


def test_gradients_reach_the_map_that_is_explained(published):
    network = create(str(published("own")[1]), classes=3, pretrained=True).eval()
    found = find_layer(network, "auto", pictures(32)[:1], by_gradient=True)
    assert found.name == "body.transformer.resblocks.1.ln_1"


@pytest.mark.parametrize("kind", ["own", "timm_mean"])
def test_a_saved_one_is_built_again_where_its_folder_is_gone(own, tmp_path, kind):
    folder = own(kind)
    network = create(str(folder), classes=3, pretrained=True)
    with torch.no_grad():
        for weight in network.parameters():
            weight += 0.01
    save_network(network.eval(), tmp_path / "saved")
    shutil.rmtree(folder)
    loaded = load_network(tmp_path / "saved")
    assert weights_digest(loaded) == weights_digest(network)
    with torch.no_grad():
        assert torch.equal(loaded(pictures(32)), network(pictures(32)))


@pytest.mark.parametrize("kind", ["own", "timm"])
def test_weights_of_another_architecture_are_refused(own, published, kind):
    folder = own(kind)
    file = folder / "open_clip_model.safetensors"
    state = load_file(file)
    some = next(key for key in state if key.startswith("visual") and key.endswith(("norm1.weight", "ln_1.weight")))
    save_file(state | {some: torch.ones(5)}, file)
    with pytest.raises(UsageError, match=r"is \(5,\) in the file, .*another architecture"):
        create(str(folder), classes=2, pretrained=True)
    save_file({key: value for key, value in state.items() if key != some}, file)
    with pytest.raises(UsageError, match=r"does not fit .*another architecture"):
        create(str(folder), classes=2, pretrained=True)
    save_file({"text.weight": torch.ones(2)}, file)
    with pytest.raises(UsageError, match=r"has no weights called visual\."):
        create(str(folder), classes=2, pretrained=True)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({}, "has no model_cfg with embed_dim and vision_cfg"),
        (
            {"model_cfg": {"embed_dim": 12, "vision_cfg": OWN}},
            r"does not say how its pixels are scaled.*--teacher-mean",
        ),
        (
            MODELS["timm"]["vision_cfg"] | {"timm_model_name": "test_vat"},
            r"trunk 'test_vat', which timm .* Did you mean",
        ),
        (MODELS["timm"]["vision_cfg"] | {"timm_pool": "abs_attn"}, "by open_clip's abs_attn"),
        (OWN | {"layers": [1, 1, 1, 1]}, "image tower is a ResNet"),
        (OWN | {"attentional_pool": True}, "image tower is pooled by attention"),
        (OWN | {"final_ln_after_pool": True, "pool_type": "avg"}, "image tower is normed after it is pooled"),
        (OWN | {"pool_type": "none"}, "image tower is not pooled"),
        (OWN | {"surprise": 1}, "open_clip cannot build what its open_clip_config.json says"),
        (OWN | {"image_size": [32, 48]}, r"images of \[32, 48\] pixels"),
    ],
)
def test_what_cannot_be_built_is_said_in_one_line(own, config, words):
    folder = own("own")
    scaling = {"preprocess_cfg": {"mean": MEAN, "std": STD}}
    stated = (
        config
        if "model_cfg" in config or not config
        else {"model_cfg": {"embed_dim": 12, "vision_cfg": config}} | scaling
    )
    (folder / "open_clip_config.json").write_text(json.dumps(stated))
    with pytest.raises(UsageError, match=words) as refused:
        create(str(folder), classes=2)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("vision", "width"),
    [
        # microsoft/BiomedCLIP-PubMedBERT_256-vit_base_patch16_224, open_clip_config.json
        (
            {
                "timm_model_name": "vit_base_patch16_224",
                "timm_model_pretrained": False,
                "timm_pool": "",
                "timm_proj": "linear",
                "image_size": 224,
            },
            768,
        ),
        # imageomics/bioclip's shape, by ReefNet/finetuned-bioclip@a6aea4f
        ({"image_size": 224, "layers": 12, "width": 768, "patch_size": 16}, 768),
        # ViT-H-14 of open_clip's model_configs
        ({"image_size": 224, "layers": 32, "width": 1280, "head_width": 80, "patch_size": 14}, 1280),
    ],
)
def test_published_configs_build(tmp_path, vision, width):
    content = {"model_cfg": {"embed_dim": 512, "vision_cfg": vision}, "preprocess_cfg": {"mean": MEAN, "std": STD}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(content))
    made = outline(str(tmp_path), classes=5)
    with torch.no_grad():
        tokens = made.forward_features(torch.empty(1, 3, 224, 224, device="meta"))
        assert tokens.shape[2] == made.forward_head(tokens, pre_logits=True).shape[1] == width
        assert made.forward_head(tokens).shape == (1, 5)


def test_mean_and_deviation_can_be_told(own):
    folder = own("own")
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": MODELS["own"]}))
    assert specification(f"{folder}?mean=0.5&std=0.2").normalisation.std == (0.2, 0.2, 0.2)
    with pytest.raises(UsageError, match="layers cannot be set"):
        specification(f"{folder}?layers=3")


def test_the_missing_extra_is_named_where_it_is_needed(published, monkeypatch):
    monkeypatch.setitem(sys.modules, "open_clip", None)
    create(str(published("timm")[1]), classes=2, pretrained=True)  # a trunk of timm's needs timm alone
    with pytest.raises(UsageError, match=r"needs open_clip: pip install 'stillroom\[openclip\]'"):
        create(str(published("own")[1]), classes=2)
