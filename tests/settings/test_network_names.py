"""A network's name says all that is needed to build it again."""

import pytest

from stillroom.errors import UsageError
from stillroom.settings.network_names import (
    anchored_name,
    listing,
    parse,
    require_known,
    shown,
    side_told,
    with_options,
)


@pytest.mark.parametrize(
    ("name", "scheme", "path", "brings"),
    [
        ("resnet50", "", False, False),
        ("vit_small_patch14_dinov2.lvd142m", "", False, False),
        ("hf-hub:MahmoodLab/UNI@main", "hf-hub", False, False),
        ("hf:facebook/dinov2-base", "hf", False, False),
        ("open_clip:microsoft/BiomedCLIP", "open_clip", False, False),
        ("./uni", "", True, False),
        ("folder/uni", "", True, False),
        ("C:\\nets\\uni", "", True, False),
        ("model.onnx", "", True, True),
        ("package.module:function", "function", False, True),
        ("module:Net-0123", "module", False, True),
        ("hf-hub:owner/model.onnx", "hf-hub", False, False),
    ],
)
def test_a_name_is_known_by_its_form(name, scheme, path, brings):
    found = parse(name)
    assert (found.scheme, found.is_path, found.brings_weights) == (scheme, path, brings)
    assert str(found) == name


def test_options_are_read_as_what_they_are_and_written_back():
    name = "hf-hub:a/b?init_values=1e-5&dynamic_img_size=true&mlp_layer=SwiGLUPacked&mean=0.5,0.4,0.3&classes=a b,c%26d"
    found = parse(name)
    assert found.arguments == {"init_values": 1e-5, "dynamic_img_size": True, "mlp_layer": "SwiGLUPacked"}
    assert found.listed("mean") == ("0.5", "0.4", "0.3")
    assert found.listed("classes") == ("a b", "c&d")
    assert str(parse(str(found))) == str(found)


def test_class_names_with_signs_in_them_come_back_as_they_were():
    names = ("a, b", "R&D?x", "50 %", "plain")
    assert parse(with_options("m.onnx", {"classes": listing(names)})).listed("classes") == names


def test_an_option_that_means_nothing_is_named_with_the_nearest():
    with pytest.raises(UsageError, match=r"takes no option 'maen' after the \?.*mean"):
        require_known(parse("m.onnx?maen=.5"))
    require_known(parse("m.onnx?output=x&mean=.5"), "output")


@pytest.mark.parametrize("text", ["abc", "0", "-3", "1.5"])
def test_a_size_is_a_whole_number(text):
    with pytest.raises(UsageError, match="side of its images in pixels"):
        side_told(parse(f"m.onnx?size={text}"))


@pytest.mark.parametrize(
    ("name", "called"),
    [
        ("/home/someone/nets/m.onnx?mean=.5", "m.onnx"),
        ("hf-hub:MahmoodLab/UNI?init_values=1e-5", "hf-hub:MahmoodLab/UNI"),
        ("resnet50", "resnet50"),
        ("what?", "what?"),
    ],
)
def test_pages_call_a_network_by_its_name_alone(name, called):
    assert shown(name) == called


def test_what_is_said_twice_must_agree():
    assert with_options("m.onnx", {"outputs": "logits"}) == "m.onnx?outputs=logits"
    assert with_options("m.onnx?outputs=logits", {"outputs": "logits"}) == "m.onnx?outputs=logits"
    with pytest.raises(UsageError, match=r"outputs=logits.*outputs=features.*give it once"):
        with_options("m.onnx?outputs=logits", {"outputs": "features"})


@pytest.mark.parametrize("name", ["m?", "m?a", "m?a=1&a=2", "?a=1", "m?=1", "m?a=1&"])
def test_a_name_that_is_none_is_refused(name):
    with pytest.raises(UsageError, match="key=value"):
        parse(name)


def test_paths_become_absolute_and_names_stay(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert anchored_name("./uni?a=1") == f"{tmp_path}/uni?a=1"
    assert anchored_name("m.onnx") == f"{tmp_path}/m.onnx"
    for name in ("resnet50", "hf-hub:a/b", "a.b:c", "module:a/b", ""):
        assert anchored_name(name) == name
