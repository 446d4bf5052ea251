"""The catalogue's networks, held against what was looked up of each: literals, with their source."""

import argparse
import re
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
import timm
import torch
from torch import nn

from stillroom.errors import UsageError
from stillroom.models import hub, zoo
from stillroom.models.catalogue import names
from stillroom.models.conch import Conch, checkpoint_filter_fn
from stillroom.models.medical import MEDICAL, medical
from stillroom.models.network import Network
from stillroom.models.normalisation import CLIP
from stillroom.models.origins.medical import Medical
from stillroom.models.published import from_retfound
from stillroom.models.weights import read_weights

BUILT = [entry for entry in MEDICAL if entry.loader != "transformers" or find_spec("transformers")]

PUBLISHED = {
    # lazyslide-models measured them: vision/uni.py and virchow.py@e121056, h_optimus.py@f5351f2, gigapath.py@21a049a.
    "uni": (303.4, 24, {"pos_embed": (1, 197, 1024), "blocks.23.ls1.gamma": (1024,)}),
    "uni2_h": (
        681.4,
        24,
        {"pos_embed": (1, 256, 1536), "reg_token": (1, 8, 1536), "blocks.0.mlp.fc2.weight": (1536, 4096)},
    ),
    "virchow": (631.2, 32, {"pos_embed": (1, 257, 1280), "blocks.0.mlp.fc1.weight": (6832, 1280)}),
    "virchow2": (
        631.2,
        32,
        {"pos_embed": (1, 261, 1280), "reg_token": (1, 4, 1280), "blocks.0.mlp.fc2.weight": (1280, 3416)},
    ),
    # bioptimus/releases models/h-optimus/v0/README.md@c369f8f: embed_dim, depth, reg_tokens, mlp_ratio 5.33334 x 1536 = 8192.
    "h_optimus_0": (
        1130,
        40,
        {"pos_embed": (1, 256, 1536), "reg_token": (1, 4, 1536), "blocks.39.mlp.fc1.weight": (8192, 1536)},
    ),
    "h_optimus_1": (
        1130,
        40,
        {"pos_embed": (1, 256, 1536), "reg_token": (1, 4, 1536), "blocks.39.mlp.fc1.weight": (8192, 1536)},
    ),
    # TRIDENT load.py@0120b8b: patch_size 16 at 224 px, mlp_ratio 5.33334.
    "prov_gigapath": (
        1130,
        40,
        {
            "pos_embed": (1, 197, 1536),
            "patch_embed.proj.weight": (1536, 3, 16, 16),
            "blocks.0.mlp.fc1.weight": (8192, 1536),
        },
    ),
    # MB of float32 on huggingface.co/1aurent/vit_*_patch16_224.kaiko_ai_towards_large_pathology_fms/tree/main, by four.
    "kaiko_small": (86.7 / 4, 12, {"pos_embed": (1, 197, 384)}),
    "kaiko_base": (343 / 4, 12, {"pos_embed": (1, 197, 768)}),
    # mahmoodlab/CONCH model_configs/conch_ViT-B-16.json, vision_tower.py, transformer.py@e9c9e5b: torch's attention names.
    "conch": (
        None,
        12,
        {
            "trunk.pos_embed": (1, 785, 768),
            "attn_pool_contrast.query": (1, 512),
            "attn_pool_contrast.attn.q_proj_weight": (512, 512),
            "attn_pool_contrast.attn.k_proj_weight": (512, 768),
            "attn_pool_contrast.attn.v_proj_weight": (512, 768),
            "attn_pool_contrast.ln_k.weight": (768,),
            "ln_contrast.weight": (512,),
        },
    ),
    # rmaphoh/RETFound_MAE models_vit.py@05f7224: the norm after the mean, none before.
    "retfound_cfp": (
        None,
        24,
        {"pos_embed": (1, 197, 1024), "fc_norm.weight": (1024,), "blocks.0.mlp.fc1.weight": (4096, 1024)},
    ),
    "retfound_oct": (
        None,
        24,
        {"pos_embed": (1, 197, 1024), "fc_norm.weight": (1024,), "blocks.0.mlp.fc1.weight": (4096, 1024)},
    ),
    # huggingface.co/owkin/phikon config.json@e9ad8d1; lazyslide-models vision/phikon.py@19df82e measured it.
    "phikon": (
        85.8,
        12,
        {"body.embeddings.position_embeddings": (1, 197, 768), "body.layers.0.mlp.fc1.weight": (3072, 768)},
    ),
    # GB on huggingface.co/owkin/phikon-v2/tree/main, by four; ViT-L/16 by its card.
    "phikon_v2": (1210 / 4, 24, {"body.embeddings.patch_embeddings.projection.weight": (1024, 3, 16, 16)}),
    # lazyslide-models vision/midnight.py@19df82e: 1.14 billion, class token and mean of patches are 3,072.
    "midnight": (1140, 40, {"body.embeddings.cls_token": (1, 1, 1536)}),
    # MB on huggingface.co/microsoft/rad-dino/tree/main, by four; 37 x 37 patches of 14 px at 518 px and the class token.
    "rad_dino": (346 / 4, 12, {"body.embeddings.position_embeddings": (1, 1370, 768)}),
    # huggingface.co/ZiyueWang/biomedclip config.json: timm's vit_base_patch16_224, 86.57 million with 1,000 classes.
    "biomedclip": (86.57 - 0.769, 12, {"pos_embed": (1, 197, 768), "blocks.11.attn.qkv.weight": (2304, 768)}),
    # Not held against anything of its own: SigLIP so400m (huggingface.co/google/siglip-so400m-patch14-384 config.json).
    "medsiglip": (
        None,
        27,
        {
            "body.encoder.layers.26.mlp.fc1.weight": (4304, 1152),
            "body.embeddings.position_embedding.weight": (1024, 1152),
        },
    ),
    # MB on huggingface.co/timm/vit_small_patch16_dinov3.lvd1689m/tree/main; names and shapes are timm's own.
    "dinov3_small": (86.4 / 4, 12, {"reg_token": (1, 4, 384), "blocks.0.gamma_1": (384,)}),
    "dinov3_base": (None, 12, {"reg_token": (1, 4, 768), "blocks.0.gamma_1": (768,)}),
    "dinov3_large": (None, 24, {"reg_token": (1, 4, 1024), "blocks.23.gamma_1": (1024,)}),
}
"""Millions of parameters, layers, and shapes by name."""


@pytest.mark.parametrize("entry", BUILT, ids=lambda entry: entry.name)
def test_a_network_of_the_catalogue_is_what_its_publisher_says(entry):
    millions, layers, shapes = PUBLISHED[entry.name]
    network = zoo.outline(entry.name)
    state = network.state_dict()
    assert sum(parameter.numel() for parameter in network.parameters()) / 1e6 == pytest.approx(
        entry.parameters, rel=0.01
    )
    assert millions is None or entry.parameters == pytest.approx(millions, rel=0.01)
    assert {name: tuple(state[name].shape) for name in shapes} == shapes
    blocks = {found[1] for name in state if (found := re.search(r"(?:blocks|layers?)\.(\d+)\.", name))}
    assert len(blocks) == layers
    images = torch.empty(1, 3, entry.size, entry.size, device="meta")
    tokens = network.forward_features(images)
    assert network.num_prefix_tokens == (
        0 if entry.name == "medsiglip" else 1 + entry.registers
    )  # SigLIP has no class token
    wide = 2 if entry.features == "both" else 1
    given = network.forward_head(tokens, pre_logits=True) if entry.features == "own" else tokens[:, 0]
    assert given.shape == (1, entry.width // wide)


@pytest.mark.parametrize("entry", BUILT, ids=lambda entry: entry.name)
def test_its_specification_is_that_of_its_entry(entry):
    spec = zoo.specification(entry.name)
    assert (spec.native_size, spec.normalisation, spec.licence) == (entry.size, entry.normalisation, entry.licence)
    assert spec.hub == entry.repository
    assert spec.features == ("cls" if entry.features == "own" else entry.features)
    assert zoo.resolve_size(entry.name, None, 64) == entry.size
    assert zoo.provenance(entry.name, Path("here.pth")).licence == entry.licence


def test_no_entry_is_left_out():
    assert PUBLISHED.keys() == {entry.name for entry in MEDICAL}
    assert {entry.name for entry in BUILT} <= set(names())


@pytest.mark.parametrize("name", ["kaiko_small", "dinov3_small"])
def test_a_teacher_answers_at_the_side_that_is_asked_for(name):
    network = zoo.create(name, classes=3, size=32, features="both")
    assert network(torch.rand(2, 1, 40, 40)).shape == (2, 3)
    assert network.pooled_dim == 2 * medical(name).width
    assert network.map_shape == (medical(name).width, 2, 2)
    with pytest.raises(UsageError, match=r"multiple of 16 pixels; 40 is none. Nearest: 32 or 48"):
        zoo.create(name, classes=3, size=40)


def test_keywords_of_the_name_go_before_those_of_the_entry():
    assert len(zoo.outline("kaiko_small?depth=2").blocks) == 2
    for name in ("conch", "biomedclip", "phikon"):
        with pytest.raises(UsageError, match=rf"{name}\?depth=2: depth cannot be set"):
            zoo.outline(f"{name}?depth=2")


def test_weights_are_fetched_from_the_entry_s_repository(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(hub, "fetch_any", lambda *arguments, **more: asked.append(arguments) or tmp_path)
    zoo.locate_weights("retfound_cfp", None)
    zoo.locate_weights("virchow2", None)
    assert asked[0][:2] == ("retfound_cfp", "YukunZhou/RETFound_mae_natureCFP")
    assert asked[0][2][0] == "RETFound_mae_natureCFP.pth"
    assert asked[1][1] == "paige-ai/Virchow2"
    assert "pytorch_model.bin" in asked[1][2]
    zoo.locate_weights("phikon_v2", None)
    zoo.locate_weights("biomedclip", None)
    assert [arguments[1].split("/")[0] for arguments in asked[2:]] == ["owkin", "microsoft"]
    with pytest.raises(UsageError, match=r"retfound_oct has no repository. Bring RETFound's .pth for OCT"):
        zoo.locate_weights("retfound_oct", None)


def test_a_network_takes_a_file_of_its_own_names(tmp_path):
    torch.manual_seed(1)
    state = {
        name: torch.rand_like(value)
        for name, value in zoo.create("kaiko_small", classes=1).backbone.state_dict().items()
    }
    state = {name: value for name, value in state.items() if not name.startswith("head.")}
    torch.save(state, tmp_path / "pytorch_model.bin")
    network = zoo.create(
        "kaiko_small", classes=2, size=64, pretrained=True, weights=tmp_path
    )  # named as the hub names it
    assert torch.equal(network.backbone.blocks[3].mlp.fc1.weight, state["blocks.3.mlp.fc1.weight"])
    assert network.backbone.pos_embed.shape == (1, 17, 384)
    assert network.normalisation.mean == (0.5, 0.5, 0.5)


# -- networks of other libraries ----------------------------------------------------------------------------------
def filled(entry, file, classes=2):
    """The entry's network at 32 px with the weights of a file."""
    origin = Medical(entry.name, entry)
    spec = origin.specification
    backbone = origin.build(classes, (32, 32))
    made = Network(backbone, name=entry.name, classes=classes, input_size=(32, 32), normalisation=spec.normalisation)
    origin.fill(made, file, entry.name)
    return made.eval()


@pytest.mark.parametrize(("name", "maker"), [("phikon", "ViT"), ("rad_dino", "Dinov2")])
def test_a_network_of_transformers_takes_what_its_publisher_saved(tmp_path, name, maker):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(5)
    small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 32, "patch_size": 16}
    small |= {"intermediate_size": 64} if maker == "ViT" else {"mlp_ratio": 2}
    entry = replace(medical(name), arguments=small)
    theirs = getattr(transformers, f"{maker}Model")(getattr(transformers, f"{maker}Config")(**small)).eval()
    theirs.save_pretrained(tmp_path)
    network, images = filled(entry, tmp_path / "model.safetensors"), torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        expected = theirs(network._prepare(images)).last_hidden_state[:, 0]
        assert torch.allclose(network.backbone_features(images, "cls"), expected, atol=1e-5)


def test_biomedclip_takes_the_trunk_of_its_tower(tmp_path):
    torch.manual_seed(6)
    entry = replace(medical("biomedclip"), architecture="test_vit")
    entry = replace(entry, arguments={**entry.arguments, "timm_model_name": "test_vit"})
    trunk = timm.create_model("test_vit", num_classes=0, img_size=32).eval()
    state = {f"visual.trunk.{key}": value for key, value in trunk.state_dict().items()}
    state |= {
        "visual.head.proj.weight": torch.rand(8, 64),
        "text.proj.weight": torch.rand(4, 4),
        "logit_scale": torch.ones([]),
    }
    torch.save(state, tmp_path / "open_clip_pytorch_model.bin")
    network, images = filled(entry, tmp_path / "open_clip_pytorch_model.bin"), torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        expected = trunk(network._prepare(images))
        assert torch.allclose(network.backbone_features(images, "cls"), expected, atol=1e-5)


# -- RETFound -----------------------------------------------------------------------------------------------------
def masked_autoencoder(width=8):
    """The names in a file of MAE's (facebookresearch/mae models_mae.py), with its flags beside the weights."""
    names = ("cls_token", "pos_embed", "mask_token", "decoder_pos_embed")
    state = {name: torch.rand(1, 5, width) for name in names}
    state |= {f"blocks.0.norm1.{part}": torch.rand(width) for part in ("weight", "bias")}
    return state | {
        f"{norm}.{part}": torch.rand(width) for norm in ("norm", "decoder_norm") for part in ("weight", "bias")
    }


def test_retfound_is_read_without_its_decoder_and_its_flags_are_no_danger(tmp_path):
    state = masked_autoencoder()
    flags = argparse.Namespace(lr=1e-3, task="./finetune/")
    torch.save({"model": state, "optimizer": {"state": {}}, "epoch": 799, "args": flags}, tmp_path / "RETFound.pth")
    found = from_retfound(read_weights(tmp_path / "RETFound.pth")[0])
    assert set(found) == {
        "cls_token",
        "pos_embed",
        "blocks.0.norm1.weight",
        "blocks.0.norm1.bias",
        "fc_norm.weight",
        "fc_norm.bias",
    }
    assert torch.equal(found["fc_norm.weight"], torch.ones(8))
    assert torch.equal(found["cls_token"], state["cls_token"])
    tuned = from_retfound(state | {"fc_norm.weight": torch.full((8,), 2.0)})
    assert torch.equal(tuned["fc_norm.weight"], torch.full((8,), 2.0))


class Evil:
    def __reduce__(self):
        return (print, ("run",))


def test_a_pickle_that_runs_something_is_still_refused(tmp_path, capsys):
    torch.save({"model": masked_autoencoder(), "args": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(UsageError, match="is not a file of weights"):
        read_weights(tmp_path / "evil.pth")
    assert capsys.readouterr().out == ""


def test_retfound_features_are_those_of_its_authors(tmp_path):
    """``models_vit.py`` with ``global_pool=True``: mean of the patches, then a norm; here of two layers at 32 px."""
    torch.manual_seed(2)
    name = "retfound_cfp?depth=2&embed_dim=32&num_heads=2"
    encoder = zoo.create("vit_large_patch16_224?depth=2&embed_dim=32&num_heads=2", classes=1, size=32).backbone
    state = {key: value for key, value in encoder.state_dict().items() if not key.startswith("head.")}
    torch.save({"model": state | {"mask_token": torch.rand(1, 1, 8)}}, tmp_path / "RETFound_mae_natureCFP.pth")
    network = zoo.create(
        name, classes=2, size=32, pretrained=True, weights=tmp_path / "RETFound_mae_natureCFP.pth"
    ).eval()
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        tokens = encoder.patch_embed(network._prepare(images))
        tokens = torch.cat([encoder.cls_token.expand(2, -1, -1), tokens], dim=1) + encoder.pos_embed
        for block in encoder.eval().blocks:
            tokens = block(tokens)
        expected = nn.functional.layer_norm(tokens[:, 1:].mean(1), (32,), eps=1e-6)
        assert torch.allclose(network.backbone_features(images, "mean"), expected, atol=1e-6)


# -- CONCH --------------------------------------------------------------------------------------------------------
def test_conch_pools_as_its_authors_write(tmp_path):
    """``vision_tower.py`` and ``transformer.py``: LayerNorm of query and keys, torch's attention, LayerNorm."""
    torch.manual_seed(3)
    model = Conch(2, (32, 32), width=32, depth=1, heads=2, pooled=16).eval()
    pool = model.attn_pool_contrast
    nn.init.normal_(pool.ln_q.weight)
    nn.init.normal_(pool.ln_k.bias)
    tokens = torch.rand(3, 5, 32)
    keys = pool.ln_k(tokens).permute(1, 0, 2)
    theirs = nn.MultiheadAttention(16, 8, kdim=32, vdim=32)
    theirs.load_state_dict(pool.attn.state_dict())
    query = pool.ln_q(pool.query).unsqueeze(1).repeat(1, 3, 1)
    expected = model.ln_contrast(theirs(query, keys, keys, need_weights=False)[0].permute(1, 0, 2)[:, 0])
    assert torch.allclose(model.forward_head(tokens, pre_logits=True), expected, atol=1e-6)


def test_conch_reads_its_authors_file_and_leaves_out_what_reads_texts():
    torch.manual_seed(4)
    large = Conch(0, (64, 64), width=32, depth=1, heads=2, pooled=16)
    theirs = {f"visual.{name}": torch.rand_like(value) for name, value in large.state_dict().items()}
    theirs |= {"visual.proj_contrast": torch.rand(16, 16), "visual.attn_pool_caption.query": torch.rand(256, 24)}
    theirs |= {"text.cls_emb": torch.rand(24), "logit_scale": torch.ones([])}
    small = Conch(0, (32, 32), width=32, depth=1, heads=2, pooled=16)
    found = checkpoint_filter_fn(theirs, small)
    assert found.keys() == small.state_dict().keys()
    assert found["trunk.pos_embed"].shape == (1, 5, 32)
    small.load_state_dict(found)
    assert torch.equal(small.attn_pool_contrast.query, theirs["visual.attn_pool_contrast.query"])


def test_conch_is_explained_and_classified_like_any_network():
    network = zoo.create("conch", classes=2, size=32, features="cls")
    outputs = network.outputs(torch.rand(1, 3, 32, 32))
    assert outputs.logits.shape == (1, 2)
    assert outputs.pooled.shape == (1, 512)
    assert outputs.map.shape == (1, 768, 2, 2)
    assert network.features is None  # it has no class token of its own to choose
    assert network.normalisation.mean == pytest.approx(CLIP.mean)
