"""Large networks are filled from files without a second copy of what stands in them."""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from stillroom.errors import UsageError
from stillroom.models.network import Network
from stillroom.models.stored import mapped
from stillroom.models.weights import load_weights, weights_digest
from stillroom.models.zoo import create

NAME = "test_vit"


@pytest.fixture(scope="module")
def published():
    torch.manual_seed(3)
    return timm.create_model(NAME, num_classes=7, img_size=32).state_dict()


def fresh() -> Network:
    return create(NAME, classes=2, size=32)


def in_shards(state, folder, suffix="safetensors", stem="model"):
    """The state in two files and an index, as the hub holds large networks."""
    names = sorted(state)
    halves, places = (names[: len(names) // 2], names[len(names) // 2 :]), {}
    for number, half in enumerate(halves, start=1):
        file = folder / f"{stem}-{number:05d}-of-00002.{suffix}"
        part = {name: state[name].contiguous() for name in half}
        save_file(part, file) if suffix == "safetensors" else torch.save(part, file)
        places |= dict.fromkeys(half, file.name)
    index = folder / f"{stem}.{suffix}.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return index


@pytest.mark.parametrize(("suffix", "stem"), [("safetensors", "model"), ("bin", "pytorch_model")])
def test_shards_give_the_same_network_as_one_file(published, tmp_path, suffix, stem):
    save_file(published, tmp_path / "whole.safetensors")
    (tmp_path / "parts").mkdir()
    index = in_shards(published, tmp_path / "parts", suffix, stem)
    whole, by_index, by_folder = fresh(), fresh(), fresh()
    load_weights(whole, tmp_path / "whole.safetensors", NAME)
    assert load_weights(by_index, index, NAME) == index
    assert load_weights(by_folder, tmp_path / "parts", NAME) == index
    assert weights_digest(whole) == weights_digest(by_index) == weights_digest(by_folder)
    assert torch.equal(by_index.backbone.blocks[3].mlp.fc1.weight, published["blocks.3.mlp.fc1.weight"])


def test_shards_that_do_not_belong_together_are_refused(published, tmp_path):
    index = in_shards(published, tmp_path)
    content = json.loads(index.read_text())
    outside = dict.fromkeys(content["weight_map"], "../model.safetensors")
    for changed, message in (
        ({"weight_map": outside}, r"names model\.safetensors, which is not beside it"),
        ({"weight_map": {"a": "model-00009-of-00002.safetensors"}}, "model-00009.* is not beside it"),
        ({"weight_map": [1]}, "no table weight_map"),
        ({}, "no table weight_map"),
    ):
        index.write_text(json.dumps(changed))
        with pytest.raises(UsageError, match=message):
            load_weights(fresh(), tmp_path, NAME)
    index.write_text(json.dumps(content))
    first, second = sorted(tmp_path.glob("*.safetensors"))
    second.write_bytes(first.read_bytes())
    with pytest.raises(UsageError, match="and so does another file"):
        load_weights(fresh(), tmp_path, NAME)


def test_half_precision_is_widened_by_the_network_not_by_the_file(published, tmp_path):
    save_file({k: v.bfloat16() for k, v in published.items()}, tmp_path / f"{NAME}.safetensors")
    assert {tensor.dtype for tensor in mapped(tmp_path / f"{NAME}.safetensors").values()} == {torch.bfloat16}
    network = fresh()
    load_weights(network, tmp_path, NAME)
    assert torch.equal(network.backbone.pos_embed, published["pos_embed"].bfloat16().float())


def test_positions_of_half_precision_are_resampled_in_float32(tmp_path):
    source = timm.create_model(NAME, num_classes=0, img_size=96)
    half = {key: value.half() for key, value in source.state_dict().items()}
    save_file(half, tmp_path / f"{NAME}.safetensors")
    network = fresh()
    load_weights(network, tmp_path, NAME)
    grid = half["pos_embed"][:, 1:].float().reshape(1, 6, 6, -1).permute(0, 3, 1, 2)
    expected = torch.nn.functional.interpolate(grid, (2, 2), mode="bicubic", antialias=True).flatten(2).transpose(1, 2)
    assert torch.equal(network.backbone.pos_embed[:, 1:], expected)


def test_what_a_rule_changes_in_place_is_taken_from_the_rule(published, tmp_path, monkeypatch):
    def rule(state, model):
        state["cls_token"].mul_(2)
        return {("head.bias" if k == "head.weight.bias" else k): v for k, v in state.items()}

    monkeypatch.setattr(timm.models.vision_transformer, "checkpoint_filter_fn", rule)
    save_file(published, tmp_path / f"{NAME}.safetensors")
    network = fresh()
    load_weights(network, tmp_path, NAME)
    assert torch.equal(network.backbone.cls_token, 2 * published["cls_token"])
    assert torch.equal(network.backbone.pos_embed, published["pos_embed"])
    assert torch.equal(
        mapped(tmp_path / f"{NAME}.safetensors")["cls_token"], published["cls_token"]
    )  # the file is as it was


def test_old_pickles_are_read_too(published, tmp_path):
    torch.save(published, tmp_path / f"{NAME}.pth", _use_new_zipfile_serialization=False)
    network = fresh()
    load_weights(network, tmp_path, NAME)
    assert torch.equal(network.backbone.blocks[0].attn.qkv.weight, published["blocks.0.attn.qkv.weight"])


_CHILD = """
import pathlib, resource, sys, torch
from stillroom.models.zoo import create
torch.set_num_threads(1)
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
create("vit_tiny_patch16_224", classes=2, pretrained=False)  # what is loaded on first use
before = peak()
network = create("vit_base_patch16_224", classes=2, pretrained=True, weights=pathlib.Path(sys.argv[1]), precision=sys.argv[2])
print(peak() - before, sum(p.numel() * p.element_size() for p in network.parameters()) / 2**20)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="peaks are told in another unit")
@pytest.mark.parametrize(("suffix", "precision"), [("safetensors", "32"), ("pth", "32"), ("safetensors", "bf16")])
def test_a_network_takes_no_more_memory_than_its_weights_and_a_part_of_the_file(tmp_path, suffix, precision):
    with torch.device("meta"):
        shapes = timm.create_model("vit_base_patch16_224", num_classes=0).state_dict()
    state = {key: torch.zeros(value.shape) for key, value in shapes.items()}
    file = tmp_path / f"vit_base_patch16_224.{suffix}"
    save_file(state, file) if suffix == "safetensors" else torch.save(state, file)
    told = subprocess.run(
        [sys.executable, "-c", _CHILD, str(file), precision], check=True, stdout=subprocess.PIPE, env=os.environ
    ).stdout
    extra, weights = map(float, told.split())
    assert weights == pytest.approx(327 if precision == "32" else 164, abs=1)
    assert extra < weights + 290  # a group of 256 MiB


class _Code:
    def __reduce__(self):
        return os.system, ("echo it ran",)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "the file is empty"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
            "pointer of Git LFS.*git lfs pull",
        ),
        (bytes(1000), r"or it is damaged \(no archive of weights\)"),
        (b"<!DOCTYPE html>", "not a file of weights, or it is damaged"),
        ({1: torch.ones(2)}, "something else than tensors by name"),
        ({"a": torch.eye(3).to_sparse()}, "a is a sparse tensor"),
        ({"a": torch.ones(2, dtype=torch.complex64)}, "a is a tensor of complex numbers"),
        ({"a": torch.ones(2, device="meta")}, "a is a tensor without values"),
        ({"a": torch.ones(2), "b": _Code()}, r"would run code \(\w+.system\), and that code was not run"),
        ({"state_dict": {"a": torch.ones(2)}, "args": argparse.Namespace(out=Path("x"))}, "would run code .*Path"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_every_odd_file_is_named_and_no_code_is_run(tmp_path, capfd, content, said):
    file = tmp_path / "odd.pth"
    file.write_bytes(content) if isinstance(content, bytes) else torch.save(content, file)
    with pytest.raises(UsageError, match=said) as caught:
        mapped(file)
    assert str(file) in str(caught.value)
    assert not {"\n", "\x1b"} & set(str(caught.value))
    assert "weights_only" not in str(caught.value)
    assert "it ran" not in capfd.readouterr().out


def test_wrappers_of_training_are_taken_off(published, tmp_path):
    for prefix in ("module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."):
        torch.save({f"{prefix}{name}": tensor for name, tensor in published.items()}, tmp_path / "a.pth")
        assert mapped(tmp_path / "a.pth").keys() == published.keys()
    torch.save({"state_dict": published, "epoch": 3, "args": argparse.Namespace(lr=1e-3)}, tmp_path / "a.pth")
    assert mapped(tmp_path / "a.pth").keys() == published.keys()


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_numbers_that_are_none_are_blamed_on_the_file(published, tmp_path, suffix, bad):
    state = {name: tensor.clone() for name, tensor in published.items()}
    state["blocks.0.attn.qkv.weight"].view(-1)[5] = bad
    file = tmp_path / f"{NAME}.{suffix}"
    save_file(state, file) if suffix == "safetensors" else torch.save(state, file)
    with pytest.raises(UsageError, match=r"blocks.0.attn.qkv.weight holds values that are not finite") as caught:
        load_weights(fresh(), file, NAME)
    assert str(file) in str(caught.value)
