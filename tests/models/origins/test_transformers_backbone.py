"""Backbones of transformers: they answer as transformers' own classes do, and what does not fit is refused in one line."""

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
from stillroom.explanation.layers import find_layer, watched
from stillroom.models.adapters import adapt, merge
from stillroom.models.origins import origin_of
from stillroom.models.saving import load_network, save_network
from stillroom.models.weights import weights_digest
from stillroom.models.zoo import create, outline, provenance, resolve_size, specification

transformers = pytest.importorskip("transformers")
convert_image_to_patches = pytest.importorskip(
    "transformers.models.siglip2.image_processing_siglip2"
).convert_image_to_patches

MEAN, STD = [0.5, 0.4, 0.3], [0.2, 0.25, 0.3]
PREPROCESSOR = {
    "do_normalize": True,
    "do_rescale": True,
    "image_mean": MEAN,
    "image_std": STD,
    "rescale_factor": 1 / 255,
    "size": {"height": 32, "width": 32},
}
SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 32, "patch_size": 8}
WIDE = SMALL | {"intermediate_size": 48}
FLEXIBLE = {key: value for key, value in WIDE.items() if key != "image_size"} | {"num_patches": 16}


def models():
    """A tiny model of every kind as it would be published, by its class in transformers."""
    t = transformers
    vision = {"vision_config": WIDE}
    text = {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "vocab_size": 10,
    }
    text |= {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    return {
        "vit": lambda: t.ViTModel(t.ViTConfig(**WIDE)),
        "vit_classifier": lambda: t.ViTForImageClassification(t.ViTConfig(**WIDE, num_labels=7)),
        "vit_mae": lambda: t.ViTMAEForPreTraining(
            t.ViTMAEConfig(**WIDE, decoder_hidden_size=16, decoder_num_attention_heads=2, decoder_num_hidden_layers=1)
        ),
        "dinov2": lambda: t.Dinov2Model(t.Dinov2Config(**SMALL)),
        "dinov2_classifier": lambda: t.Dinov2ForImageClassification(t.Dinov2Config(**SMALL, num_labels=7)),
        "dinov2_swiglu": lambda: t.Dinov2Model(t.Dinov2Config(**SMALL, use_swiglu_ffn=True)),
        "dinov2_with_registers": lambda: t.Dinov2WithRegistersModel(t.Dinov2WithRegistersConfig(**SMALL)),
        "dinov3_vit": lambda: t.DINOv3ViTModel(t.DINOv3ViTConfig(**WIDE, num_register_tokens=3)),
        "dinov3_convnext": lambda: t.DINOv3ConvNextModel(
            t.DINOv3ConvNextConfig(hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 2, 1], image_size=32)
        ),
        "siglip": lambda: t.SiglipModel(t.SiglipConfig(text_config=text, **vision)),
        "siglip_vision_model": lambda: t.SiglipVisionModel(t.SiglipVisionConfig(**WIDE)),
        "siglip2": lambda: t.Siglip2VisionModel(t.Siglip2VisionConfig(**FLEXIBLE)),
        "clip": lambda: t.CLIPModel(t.CLIPConfig(text_config=text, projection_dim=12, **vision)),
        "clip_vision_model": lambda: t.CLIPVisionModelWithProjection(t.CLIPVisionConfig(**WIDE, projection_dim=12)),
    }


KINDS = tuple(models())


def randomised(model):
    """With every weight drawn, since published ones have no zeros where a fresh model has them."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator) * 0.15 + (1.0 if "norm" in name else 0.0))
    return model.eval()


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """``published(kind)`` gives a model of transformers and the folder that it was saved to; to be read only."""
    kept = {}

    def publish(kind):
        if kind not in kept:
            folder = tmp_path_factory.mktemp(kind)
            model = randomised(models()[kind]())
            model.save_pretrained(folder)
            (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR))
            kept[kind] = model, folder
        return kept[kind]

    return publish


@pytest.fixture
def own(published, tmp_path):
    """``own(kind)`` gives a copy of such a folder, to be damaged."""
    return lambda kind: shutil.copytree(published(kind)[1], tmp_path / kind)


def pictures(side):
    return torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(3))


def as_transformers(model, images):
    """Tokens and pooled vector by transformers' own model."""
    pixels = (images - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    name = type(model).__name__
    with torch.no_grad():
        if name.startswith("ViTMAE"):
            model.vit.config.mask_ratio = 0.0
            patches = (images.shape[-1] // 8) ** 2
            in_order = torch.arange(patches, dtype=torch.float32).expand(len(images), patches)
            tokens = model.vit(pixels, noise=in_order, interpolate_pos_encoding=True).last_hidden_state
            return tokens, tokens[:, 0]
        if name.startswith("Siglip2"):
            cut = [convert_image_to_patches(image, 8) for image in pixels]
            shapes = torch.tensor([[images.shape[-1] // 8] * 2] * len(images))
            said = model(torch.stack(cut), torch.ones(len(cut), len(cut[0]), dtype=torch.int32), shapes)
            return said.last_hidden_state, said.pooler_output
        body = {
            "ViTForImageClassification": "vit",
            "Dinov2ForImageClassification": "dinov2",
            "SiglipModel": "vision_model",
            "CLIPModel": "vision_model",
            "CLIPVisionModelWithProjection": "vision_model",
        }.get(name)
        body = getattr(model, body) if body else model
        keywords = {} if "ino" in name.lower() else {"interpolate_pos_encoding": True}
        said = body(pixels, **keywords)
        tokens = said.last_hidden_state
        if name.startswith("CLIP"):
            tokens = body.post_layernorm(tokens)
        pooled = tokens[:, 0] if name.startswith("ViT") else said.pooler_output
        return tokens, pooled


@pytest.mark.parametrize("side", [32, 48])
@pytest.mark.parametrize("kind", KINDS)
def test_answers_are_those_of_transformers(published, kind, side):
    model, folder = published(kind)
    network = create(str(folder), classes=3, size=side, pretrained=True).eval()
    tokens, pooled = as_transformers(model, pictures(side))
    with torch.no_grad():
        said = network.outputs(pictures(side))
        logits = network(pictures(side))
    torch.testing.assert_close(said.pooled, pooled, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(said.logits, network.classifier()(pooled), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(said.logits, logits)
    if kind == "dinov3_convnext":
        assert said.map.shape == (2, 32, max(1, side // 32), max(1, side // 32))
        return
    grid, prefix = side // 8, {"dinov2_with_registers": 5, "dinov3_vit": 4}.get(kind, 0 if "siglip" in kind else 1)
    places = tokens[:, prefix:]
    assert places.shape[1] == grid * grid
    torch.testing.assert_close(said.map.flatten(2).transpose(1, 2), places, atol=1e-5, rtol=1e-4)
    if prefix:
        with torch.no_grad():
            both = network.backbone_features(pictures(side), "both")
        # Registers belong to neither.
        torch.testing.assert_close(both, torch.cat([tokens[:, 0], places.mean(1)], 1), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_facts_are_read_from_the_folder(published, kind):
    spec = specification(str(published(kind)[1]))
    assert (spec.native_size, spec.normalisation.mean, spec.normalisation.std) == (32, tuple(MEAN), tuple(STD))
    assert (spec.says, spec.trainable, spec.brings_weights) == ("features", True, False)


def test_the_side_of_a_dinov2_is_the_one_that_it_states(own):
    assert resolve_size(str(own("dinov2")), None, 64) == 32
    assert resolve_size("vit_small_patch14_dinov2", None, 64) == 224


def test_sizes_that_are_no_multiple_of_a_patch_are_refused(published):
    folder = str(published("dinov3_vit")[1])
    assert resolve_size(folder, None, 56) == 56  # rotary positions
    with pytest.raises(UsageError, match=r"multiple of 8 pixels; 36 is none\. Nearest: 32 or 40"):
        create(folder, classes=2, size=36)


@pytest.mark.parametrize(
    ("stated", "side"),
    [
        ({"size": 24}, 24),
        ({"size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 32}, "do_center_crop": True}, 32),
        ({"size": {"height": 40, "width": 40}, "crop_size": 24, "do_center_crop": False}, 40),
        ({}, 32),
    ],
)
def test_the_side_is_what_the_published_preprocessing_ends_in(own, stated, side):
    folder = own("vit")
    rest = {key: value for key, value in PREPROCESSOR.items() if key != "size"}
    (folder / "preprocessor_config.json").write_text(json.dumps(rest | stated))
    assert specification(str(folder)).native_size == side


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rescale_factor": 1 / 127.5}, r"scales pixels by 0\.0078.*not by 1/255.*--teacher-mean"),
        ({"do_rescale": False}, r"scales pixels by nothing"),
        ({"image_mean": [0.5]}, r"mean \[0\.5\] .*not three numbers.*--teacher-mean"),
        ({"image_std": None}, r"deviation None, not three numbers"),
        ({"size": {"height": 32, "width": 40}}, r"Stillroom's are square"),
    ],
)
def test_preprocessing_that_is_not_ours_is_refused(own, change, words):
    folder = own("vit")
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR | change))
    with pytest.raises(UsageError, match=words):
        specification(str(folder))


def test_pixels_that_are_not_normalised_stay_as_they_are(own):
    folder = own("vit")
    (folder / "preprocessor_config.json").write_text(json.dumps({"do_normalize": False, "size": 32}))
    assert specification(str(folder)).normalisation.std == (1.0, 1.0, 1.0)


def test_without_preprocessing_mean_and_deviation_are_asked_for(own):
    folder = own("dinov2")
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(UsageError, match=r"does not say how its pixels are scaled: .*Give --teacher-mean and"):
        specification(str(folder))
    told = specification(f"{folder}?mean=0.5,0.4,0.3&std=0.2")
    assert (told.native_size, told.normalisation.std) == (32, (0.2, 0.2, 0.2))


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"model_type": "bert"}, r"model_type 'bert'.*takes vit, vit_mae.*package\.module:function"),
        ({"model_type": "gigavit", "auto_map": {"AutoModel": "x.Y"}}, "brings code of its own, which is never run"),
        ({"model_type": "vit", "auto_map": {"AutoModel": "x.Y"}}, "brings code of its own"),
        ({"model_type": "vit", "hidden_size": "wide"}, r"cannot build what its config\.json says: .*hidden_size"),
        ({"model_type": "vit", "patch_size": 0}, r"cannot build what its config\.json says"),
        ({"model_type": "vit", "num_channels": 1}, "images of 1 channels"),
        ({"model_type": "vit", "image_size": [32, 64]}, r"states \[32, 64\] as a side"),
        ({"model_type": "vit", "quantization_config": {}}, "quantised"),
        ({}, "names no architecture of timm"),
        ([], "holds no settings"),
    ],
)
def test_a_damaged_config_is_said_in_one_line(own, config, words):
    folder = own("vit")
    (folder / "config.json").write_text(json.dumps({**WIDE, **config} if isinstance(config, dict) else config))
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR | {"size": None}))
    with pytest.raises(UsageError, match=words) as refused:
        create(str(folder), classes=2)
    assert "\n" not in str(refused.value)


_VIT_B = {"hidden_size": 768, "num_attention_heads": 12, "num_hidden_layers": 12, "intermediate_size": 3072}
_VIT_B |= {"image_size": 224, "patch_size": 16, "layer_norm_eps": 1e-12, "qkv_bias": True, "encoder_stride": 16}
_DINOV2_B = {"model_type": "dinov2", "hidden_size": 768, "num_attention_heads": 12, "num_hidden_layers": 12}
_DINOV2_B |= {"image_size": 518, "patch_size": 14, "mlp_ratio": 4, "layerscale_value": 1.0, "layer_norm_eps": 1e-6}
_DINOV2_B |= {"out_features": ["stage12"], "out_indices": [12], "apply_layernorm": True, "torch_dtype": "float32"}
_DECODER = {"decoder_hidden_size": 512, "decoder_num_attention_heads": 16, "mask_ratio": 0.75, "norm_pix_loss": False}


@pytest.mark.parametrize(
    ("config", "width", "millions"),
    [
        # owkin/phikon config.json@e9ad8d1
        ({"model_type": "vit", "_name_or_path": "owkin/ibot", "architectures": ["ViTModel"], **_VIT_B}, 768, 85.80),
        # facebook/vit-mae-base, by davanstrien/vit-manuscripts config.json
        ({"model_type": "vit_mae", **_VIT_B, **_DECODER}, 768, 85.80),
        # facebook/dinov2-base, by erwinyonata/dinov2-base-finetuned-logo-30-epoch@63efa6e; microsoft/rad-dino is alike
        (_DINOV2_B, 768, 86.58),
        # owkin/phikon-v2: ViT-L/16
        (
            _DINOV2_B | {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "patch_size": 16},
            1024,
            None,
        ),
        # facebook/dinov2-giant config.json@cae9b8e
        (
            _DINOV2_B
            | {"hidden_size": 1536, "num_attention_heads": 24, "num_hidden_layers": 40, "use_swiglu_ffn": True}
            | {"out_features": ["stage40"], "out_indices": [40]},
            1536,
            1136.48,
        ),
        # google/siglip-base-patch16-224, by Kaspar/siglip-heritage-weaver-last@a856d1f: defaults but for its parts' types
        (
            {
                "model_type": "siglip",
                "text_config": {"model_type": "siglip_text_model"},
                "vision_config": {"model_type": "siglip_vision_model"},
            },
            768,
            92.88,
        ),
        # google/siglip2-base-patch16-512 config.json@a89f5c5
        (
            {
                "model_type": "siglip",
                "text_config": {"model_type": "siglip_text_model", "vocab_size": 256000},
                "vision_config": {"image_size": 512, "model_type": "siglip_vision_model"},
            },
            768,
            None,
        ),
        # facebook/dinov3-vits16-pretrain-lvd1689m: transformers' defaults, with 4 registers (21.6 million by its card)
        ({"model_type": "dinov3_vit", "num_register_tokens": 4}, 384, 21.6),
    ],
)
def test_published_configs_build(own, config, width, millions):
    folder = own("vit")
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR | {"size": 224}))
    made = outline(str(folder), classes=5)
    side = made.patch_embed.patch_size[0] * 4
    with torch.no_grad():
        tokens = outline(str(folder), side).forward_features(torch.empty(1, 3, side, side, device="meta"))
    assert tokens.shape == (1, 16 + made.num_prefix_tokens, width)
    assert (made.get_classifier().in_features, made.get_classifier().out_features) == (width, 5)
    if millions:
        assert sum(p.numel() for p in made.body.parameters()) / 1e6 == pytest.approx(millions, abs=0.05)


def test_code_of_a_repository_is_refused_although_its_type_is_known(own):
    folder = own("vit")  # histai/hibou-b config.json@5cc6343: registers, under the type of a network without
    code = {"AutoConfig": "configuration_dinov2.Dinov2Config", "AutoModel": "modeling_dinov2.Dinov2ModelWithRegisters"}
    (folder / "config.json").write_text(json.dumps(_DINOV2_B | {"auto_map": code, "num_register_tokens": 4}))
    with pytest.raises(UsageError, match="brings code of its own, which is never run"):
        create(str(folder), classes=2)


def test_weights_of_another_architecture_are_refused(own, published):
    folder = own("vit")
    shutil.copy(published("clip")[1] / "model.safetensors", folder)
    with pytest.raises(UsageError, match=r"does not fit .*: it (lacks|holds) .*weights of another architecture\.$"):
        create(str(folder), classes=2, pretrained=True)
    state = load_file(published("vit")[1] / "model.safetensors")
    save_file(state | {"layernorm.weight": torch.ones(5)}, folder / "model.safetensors")
    with pytest.raises(UsageError, match=r"layernorm\.weight is \(5,\) in the file, \(32,\) in the network"):
        create(str(folder), classes=2, pretrained=True)
    save_file(state | {"surprise": torch.ones(5)}, folder / "model.safetensors")
    with pytest.raises(UsageError, match=r"it holds surprise, which the network lacks"):
        create(str(folder), classes=2, pretrained=True)
    save_file({k: v for k, v in state.items() if k != "layernorm.bias"}, folder / "model.safetensors")
    with pytest.raises(UsageError, match=r"it lacks layernorm\.bias"):
        create(str(folder), classes=2, pretrained=True)
    (folder / "model.safetensors").unlink()
    with pytest.raises(UsageError, match=r"has no model\.safetensors and no model\.safetensors\.index\.json"):
        create(str(folder), classes=2, pretrained=True)


def test_a_mask_token_need_not_be_there(own, published):
    folder = own("dinov2")
    state = load_file(folder / "model.safetensors")
    save_file({k: v for k, v in state.items() if not k.endswith("mask_token")}, folder / "model.safetensors")
    for side in (32, 48):
        whole = create(str(published("dinov2")[1]), classes=2, size=side, pretrained=True).eval()
        part = create(str(folder), classes=2, size=side, pretrained=True).eval()
        assert torch.equal(whole(pictures(side)), part(pictures(side)))


@pytest.mark.parametrize("form", ["bin", "shards", "half"])
def test_weights_are_read_in_every_form(own, published, form):
    folder = own("dinov2")
    file = folder / "model.safetensors"
    state = load_file(file)
    if form == "bin":
        torch.save(state, folder / "pytorch_model.bin")
        file.unlink()
    elif form == "shards":
        places = {key: f"model-{n % 2}.safetensors" for n, key in enumerate(state)}
        for shard in set(places.values()):
            save_file({key: state[key] for key in state if places[key] == shard}, folder / shard)
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
        file.unlink()
    else:
        save_file({key: tensor.bfloat16() for key, tensor in state.items()}, file)
    network = create(str(folder), classes=2, pretrained=True).eval()
    assert {tensor.dtype for tensor in network.parameters()} == {torch.float32}
    expected, _ = as_transformers(published("dinov2")[0], pictures(32))
    with torch.no_grad():
        found = network.outputs(pictures(32)).pooled
    torch.testing.assert_close(found, expected[:, 0], atol=0.1 if form == "half" else 1e-5, rtol=1e-4)
    if form == "shards":
        (folder / "model-1.safetensors").unlink()
        with pytest.raises(UsageError, match=r"model-1\.safetensors is not there, and model\.safetensors\.index\.json"):
            create(str(folder), classes=2, pretrained=True)


def test_the_missing_extra_is_named(published, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UsageError, match=r"needs transformers: pip install 'stillroom\[transformers\]'"):
        origin_of(str(published("vit")[1]))


def test_keywords_are_refused(published):
    with pytest.raises(UsageError, match="init_values cannot be set"):
        specification(f"{published('vit')[1]}?init_values=1")


def test_random_weights_are_those_of_the_seed_and_nothing_is_said(published, capfd):
    name = str(published("dinov3_vit")[1])
    before = torch.get_rng_state()
    one, same, other = (create(name, classes=2, seed=seed) for seed in (1, 1, 2))
    assert weights_digest(one) == weights_digest(same) != weights_digest(other)
    create(name, classes=2, pretrained=True)
    assert torch.equal(torch.get_rng_state(), before)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("kind", ["vit", "dinov2_with_registers", "dinov3_vit", "siglip", "clip", "dinov3_convnext"])
def test_a_saved_one_is_built_again_where_its_folder_is_gone(own, tmp_path, kind):
    folder = own(kind)
    network = create(str(folder), classes=3, pretrained=True).train()
    network(pictures(32)).square().sum().backward()
    with torch.no_grad():
        for weight in network.parameters():
            if weight.grad is not None:
                weight -= 0.01 * weight.grad
    save_network(network.eval(), tmp_path / "saved")
    shutil.rmtree(folder)
    loaded = load_network(tmp_path / "saved")
    assert weights_digest(loaded) == weights_digest(network)
    with torch.no_grad():
        assert torch.equal(loaded(pictures(48)), network(pictures(48)))
    save_network(loaded, tmp_path / "again")
    assert weights_digest(load_network(tmp_path / "again")) == weights_digest(network)


def test_every_weight_learns_after_the_network_was_asked(published):
    # What rotary positions keep between calls must not be an inference tensor later.
    network = create(str(published("dinov3_vit")[1]), classes=2, pretrained=True)
    with torch.inference_mode():
        network.eval()(pictures(32))
    network.train()(pictures(32)).square().sum().backward()
    lacking = [name for name, weight in network.named_parameters() if weight.grad is None]
    assert lacking == ["backbone.body.embeddings.mask_token"]


@pytest.mark.parametrize("kind", ["vit", "dinov2_with_registers", "dinov3_vit", "clip_vision_model"])
def test_features_of_several_layers_are_their_normed_tokens(published, kind):
    model, folder = published(kind)
    network = create(str(folder), classes=3, pretrained=True, features="both", feature_layers=2).eval()
    pixels = (pictures(32) - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    body = getattr(model, "vision_model", model)
    norm = next(getattr(body, name) for name in ("post_layernorm", "layernorm", "norm") if hasattr(body, name))
    prefix = {"dinov2_with_registers": 5, "dinov3_vit": 4}.get(kind, 1)
    with torch.no_grad():
        first, last = map(norm, body(pixels, output_hidden_states=True).hidden_states[-2:])
        places = [tokens[:, prefix:].mean(1) for tokens in (first, last)]
        expected = torch.cat([first[:, 0], last[:, 0], *places], 1)
        found = network.pooled(pictures(32))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    assert network(pictures(32)).shape == (2, 3)


@pytest.mark.parametrize("kind", ["vit", "dinov2", "dinov3_vit", "siglip", "clip"])
def test_adapters_stand_beside_queries_keys_values_and_outputs_of_every_block(published, kind):
    pytest.importorskip("peft")
    network = create(str(published(kind)[1]), classes=3, pretrained=True).eval()
    before = network(pictures(32))
    adapt(network, 2, seed=0)
    trained = {name for name, weight in network.named_parameters() if weight.requires_grad}
    assert len(trained) == 2 * 4 * 2 + 2  # of two blocks four layers, each with A and B; and the head
    assert all("lora_" in name or name.startswith("backbone.head.") for name in trained)
    torch.testing.assert_close(network(pictures(32)), before)
    merge(network)
    torch.testing.assert_close(network(pictures(32)), before)


@pytest.mark.parametrize("kind", ["dinov2", "siglip", "clip", "dinov3_vit"])
def test_a_backbone_in_bf16_answers_nearly_alike(published, kind):
    folder = str(published(kind)[1])
    full, half = (create(folder, classes=3, pretrained=True, precision=of).eval() for of in ("32", "bf16"))
    with torch.no_grad():
        expected, found = full.pooled(pictures(32)), half.pooled(pictures(32))
    assert found.dtype == torch.float32
    assert 0 < (found - expected).norm() / expected.norm() < 0.05


@pytest.mark.parametrize(
    ("kind", "layer"),
    [
        ("vit", "body.layers.1.layernorm_before"),
        ("dinov2", "body.encoder.layer.1.norm1"),
        ("dinov3_vit", "body.model.layer.1.norm1"),
        ("clip", "body.encoder.layers.1.layer_norm1"),
        ("siglip", "last"),
    ],
)
def test_gradients_reach_the_map_that_is_explained(published, kind, layer):
    network = create(str(published(kind)[1]), classes=3, pretrained=True).eval()
    found = find_layer(network, "auto", pictures(32)[:1], by_gradient=True)
    assert found.name == layer
    with watched(found) as seen, torch.no_grad():
        network(pictures(32))
    assert found.as_map(seen[-1]).shape == (2, 32, 4, 4)


@pytest.mark.parametrize("kind", ["vit", "dinov2", "dinov3_vit", "siglip", "clip"])
def test_layer_decay_is_by_block(published, kind):
    network = create(str(published(kind)[1]), classes=3, pretrained=True)
    rates = {
        id(weight): group["lr_scale"]
        for group in param_groups_layer_decay(network.backbone, layer_decay=0.5)
        for weight in group["params"]
    }
    by_part = {name: rates[id(weight)] for name, weight in network.backbone.named_parameters()}
    stem = {rate for name, rate in by_part.items() if "embedding" in name}
    first, second = (
        {rate for name, rate in by_part.items() if f"layer.{n}." in name or f"layers.{n}." in name} for n in (0, 1)
    )
    assert len(stem) == len(first) == len(second) == 1
    assert stem.pop() < first.pop() < second.pop() <= by_part["head.weight"]


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub on loopback, which the client takes for the hub; its cache is empty and nobody is logged in."""
    server = Hub()
    monkeypatch.setattr(constants, "ENDPOINT", server.address)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.address + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    yield server
    server.stop()


def test_a_repository_is_the_folder_that_was_published(published, hub):
    model, folder = published("dinov2_with_registers")
    files = {file.name: file.read_bytes() for file in folder.iterdir()}
    card = b"---\nlicense: other\nlicense_name: clinic-research\ntags:\n- x\n---\n# Eye\nlicense: not this one\n"
    commit = hub.publish("clinic/registers", files | {"README.md": card}, tag="v1")
    hub.publish("clinic/registers", {"config.json": b"{}"})
    name = "hf:clinic/registers@v1"
    network = create(name, classes=3, pretrained=True).eval()
    _, pooled = as_transformers(model, pictures(32))
    with torch.no_grad():
        torch.testing.assert_close(network.pooled(pictures(32)), pooled, atol=1e-5, rtol=1e-4)
    known = provenance(name, None)
    assert (known.source, known.revision, known.licence) == ("clinic/registers", commit, "clinic-research")
    seen = len(hub.requests)
    hub.stop()
    assert weights_digest(create(name, classes=3, pretrained=True)) == weights_digest(network)
    assert len(hub.requests) == seen
    assert provenance(name, None) == known


def test_shards_of_a_repository_are_all_fetched(published, hub):
    model, folder = published("vit")
    state = load_file(folder / "model.safetensors")
    files = {name: (folder / name).read_bytes() for name in ("config.json", "preprocessor_config.json")}
    places = {key: f"model-{n % 2}.safetensors" for n, key in enumerate(state)}
    for shard in set(places.values()):
        save_file({key: state[key] for key in state if places[key] == shard}, folder.parent / shard)
        files[shard] = (folder.parent / shard).read_bytes()
    files["model.safetensors.index.json"] = json.dumps({"weight_map": places}).encode()
    hub.publish("clinic/shards", files)
    network = create("hf:clinic/shards", classes=3, pretrained=True).eval()
    _, pooled = as_transformers(model, pictures(32))
    with torch.no_grad():
        torch.testing.assert_close(network.pooled(pictures(32)), pooled, atol=1e-5, rtol=1e-4)
    assert provenance("hf:clinic/shards", None).licence is None


def test_a_repository_without_preprocessing_asks_for_mean_and_deviation(published, hub):
    folder = published("vit")[1]
    files = {name: (folder / name).read_bytes() for name in ("config.json", "model.safetensors")}
    hub.publish("clinic/bare", files)
    with pytest.raises(
        UsageError, match=r"scaled: clinic/bare has no preprocessor_config\.json\..*Give --teacher-mean"
    ):
        specification("hf:clinic/bare")
    assert create("hf:clinic/bare?mean=0.5&std=0.5", classes=2, pretrained=True).normalisation.mean == (0.5, 0.5, 0.5)


def test_a_repository_of_timms_form_is_told_apart(hub):
    hub.publish("clinic/timm", {"config.json": b'{"architecture": "test_vit"}'})
    with pytest.raises(UsageError, match=r"of timm's form: write hf-hub: in front instead"):
        specification("hf:clinic/timm")
