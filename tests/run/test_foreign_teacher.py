"""Whole runs that a backbone of transformers, or an image tower of open_clip, teaches."""

import dataclasses
import json

import numpy as np
import onnxruntime
import pytest
import torch
from safetensors.torch import save_file

from stillroom import (
    DataSettings,
    EvaluationSettings,
    Settings,
    StudentSettings,
    TeacherSettings,
    TrainingSettings,
    ViewSettings,
    distill,
)
from stillroom.deployment.metadata import ModelMetadata
from stillroom.deployment.onnx import export_onnx
from stillroom.models.saving import load_network
from stillroom.models.zoo import create
from stillroom.task import MultiClass

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 32, "patch_size": 8}


def transformers_folder(folder, kind):
    transformers = pytest.importorskip("transformers")
    config = getattr(transformers, f"{kind}Config")(**SMALL, **({} if kind == "Dinov2" else {"intermediate_size": 48}))
    getattr(transformers, f"{kind}Model")(config).save_pretrained(folder)
    scaling = {"image_mean": [0.5] * 3, "image_std": [0.25] * 3, "size": {"height": 32, "width": 32}}
    (folder / "preprocessor_config.json").write_text(json.dumps(scaling))
    return folder


def open_clip_folder(folder, kind):
    open_clip = pytest.importorskip("open_clip")
    text = {"context_length": 8, "vocab_size": 16, "width": 16, "heads": 2, "layers": 1}
    vision = {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8}
    state = open_clip.CLIP(embed_dim=8, vision_cfg=vision, text_cfg=text).state_dict()
    save_file(state, folder / "open_clip_model.safetensors")
    scaling = {"mean": [0.5] * 3, "std": [0.25] * 3}
    content = {"model_cfg": {"embed_dim": 8, "vision_cfg": vision, "text_cfg": text}, "preprocess_cfg": scaling}
    (folder / "open_clip_config.json").write_text(json.dumps(content))
    return folder


@pytest.fixture
def settings(picture_folder):
    return Settings(
        str(picture_folder),
        data=DataSettings(size=32),
        views=ViewSettings(views=2),
        student=StudentSettings("resnet10t_050"),
        training=TrainingSettings(epochs=2, batch_size=16, lr=3e-3),
        evaluation=EvaluationSettings(latency=False, explain=4, resamples=100, rivals=False, control=False),
        device="cpu",
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "kind", "mode"),
    [
        (transformers_folder, "Dinov2", "frozen"),
        pytest.param(transformers_folder, "DINOv3ViT", "finetune", marks=pytest.mark.prove),
        (transformers_folder, "SiglipVision", "finetune"),
        pytest.param(open_clip_folder, "", "frozen", marks=pytest.mark.prove),
    ],
)
def test_a_run_is_taught_explained_and_kept(settings, tmp_path, make, kind, mode):
    folder = make(tmp_path, kind)
    teacher = TeacherSettings(str(folder), teacher_mode=mode)
    run = distill(dataclasses.replace(settings, teacher=teacher), tmp_path / "run", show_progress=False)
    assert {"student", "teacher"} <= run.metrics["explanation"]["faithfulness"].keys()
    if mode == "frozen":
        return  # of which the head is kept alone, as of every frozen teacher
    for file in (*folder.glob("*.json"), *folder.glob("*.safetensors")):
        file.unlink()  # the run moves to where there is neither folder nor hub
    network = load_network(tmp_path / "run" / "teacher")
    assert network.input_size == (32, 32)
    assert np.isfinite(network.classifier().weight.detach().numpy()).all()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "kind", "side"),
    [
        (transformers_folder, "Dinov2", 48),  # with positions that are interpolated
        pytest.param(transformers_folder, "DINOv3ViT", 32, marks=pytest.mark.prove),
        (transformers_folder, "SiglipVision", 32),
        (open_clip_folder, "", 32),
    ],
)
def test_one_that_is_handed_over_answers_alike_as_a_file(tmp_path, make, kind, side):
    network = create(str(make(tmp_path, kind)), classes=2, size=side, pretrained=True).eval()
    said = ModelMetadata(
        task=MultiClass(("left", "right")),
        size=32,
        channels=3,
        white=255.0,
        fit="pad",
        temperature=1.0,
        name="foreign",
        details={},
    )
    file = export_onnx(network, tmp_path / "student.onnx", said)
    images = np.random.default_rng(0).random((5, 3, 32, 32), dtype=np.float32)
    answer = onnxruntime.InferenceSession(file).run(["logits"], {"images": images})[0]
    with torch.no_grad():
        expected = network(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(answer, expected, atol=1e-5)
