"""A linear probe: the backbone stays as it was, the head is fitted, and random weights are the control."""

import dataclasses

import pytest
import torch

import stillroom
from stillroom import LinearProbe, UsageError
from stillroom.models.zoo import create
from stillroom.run.folder import Run


@pytest.fixture
def settings(quick, tmp_path):
    """A probe of weights that were made on the spot."""
    backbone = create("test_vit", classes=1000, size=160, seed=5).backbone
    torch.save(backbone.state_dict(), tmp_path / "test_vit.pth")
    changed = {"student": "test_vit", "student_size": 32, "student_pretrained": True, "student_weights": tmp_path}
    return quick(LinearProbe(), student=changed)


def test_only_the_head_is_fitted(settings, tmp_path):
    run = stillroom.distill(settings, tmp_path / "run", show_progress=False)
    again = create("test_vit", classes=2, size=32, pretrained=True, weights=tmp_path, features="cls")
    student, control = (stillroom.Run.open(run.path).student(), _control(run))
    for name, value in again.state_dict().items():
        same = torch.equal(student.state_dict()[name], value)
        assert same == (".head." not in f".{name}"), name
    assert not torch.equal(student.backbone.cls_token, control.backbone.cls_token)
    assert set(run.metrics["test"]) == {"student", "control"}
    assert run.manifest["teacher"] is None
    assert run.manifest["student_head"]["chosen"]
    assert run.metrics["test"]["student"]["auc"]["value"] > 0.6


@pytest.mark.prove
def test_a_stopped_probe_goes_on(settings, tmp_path, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("stillroom.run.stages.evaluation.assess", stop)
        with pytest.raises(KeyboardInterrupt):
            stillroom.distill(settings, tmp_path / "run", show_progress=False)
    before = (tmp_path / "run" / "student" / "model.safetensors").read_bytes()
    assert stillroom.resume(tmp_path / "run", show_progress=False).finished
    assert (tmp_path / "run" / "student" / "model.safetensors").read_bytes() == before


def test_random_weights_are_the_control_not_the_probe(settings, tmp_path):
    plain = dataclasses.replace(settings, student=dataclasses.replace(settings.student, student_pretrained=False))
    with pytest.raises(UsageError, match="--student-pretrained"):
        stillroom.distill(plain, tmp_path / "run", show_progress=False)
    assert not (tmp_path / "run").exists()


def _control(run: Run):
    from stillroom.models.saving import load_network

    return load_network(run.path / "control")
