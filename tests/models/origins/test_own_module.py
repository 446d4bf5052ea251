"""A user's own module: known by its weights, asked as it says, refused in words."""

import os
import subprocess
import sys

import pytest
import timm
import torch
from torch import nn

from stillroom import FromFactory, FromModule
from stillroom.errors import UsageError
from stillroom.models.saving import load_network, save_network
from stillroom.models.weights import weights_digest
from stillroom.models.zoo import create, specification

IMAGES = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def body(seed=0):
    torch.manual_seed(seed)
    return timm.create_model("test_resnet", num_classes=0, global_pool="").eval()


def test_features_are_those_of_the_module_on_normalised_pixels():
    own = FromModule(body(), size=32, mean=(0.5, 0.4, 0.3), std=0.2)
    network = create(own.name, classes=3, pretrained=True).eval()
    pixels = (IMAGES - torch.tensor([0.5, 0.4, 0.3]).view(3, 1, 1)) / 0.2
    found = network.outputs(IMAGES)
    expected = own.module(pixels)
    assert torch.allclose(found.map, expected, atol=1e-5)
    assert torch.allclose(found.pooled, expected.mean((2, 3)), atol=1e-5)
    assert found.logits.shape == (2, 3)
    assert network.map_shape == expected.shape[1:]
    assert network.start == "pretrained"


def test_the_same_weights_have_the_same_name_and_others_another():
    names = [str(FromModule(body(seed), size=32, mean=0.5, std=0.5)) for seed in (0, 0, 1)]
    assert names[0] == names[1] != names[2]
    digests = [weights_digest(create(name, classes=2)) for name in names]
    assert digests[0] == digests[1] != digests[2]


def soft(said):
    return said.softmax(1)


def hard(said):
    return said.sigmoid()


def test_another_reading_or_code_of_the_same_weights_is_another_teacher():
    class One(nn.Conv2d):
        def forward(self, images):
            return super().forward(images).mean((2, 3)).softmax(1)

    first = One

    class One(nn.Conv2d):
        def forward(self, images):
            return super().forward(images).mean((2, 3)).sigmoid()

    def made(kind, **how):
        torch.manual_seed(0)
        return FromModule(kind(3, 2, 3), **({"size": 8, "mean": 0.5, "std": 0.5} | how)).name

    names = [made(kind) for kind in (first, One)]
    names += [made(first, outputs=outputs) for outputs in ("logits", "probabilities", soft, hard)]
    names += [made(first, classes=("a", "b")), made(first, size=9), made(first, std=0.4)]
    assert len(set(names)) == len(names)
    assert made(first) == names[0]


def test_the_name_is_the_same_in_another_process():
    code = (
        "import torch; from stillroom import FromModule; torch.manual_seed(0);"
        "print(FromModule(torch.nn.Conv2d(3, 2, 3), 8, .5, .5, lambda said: said['x'] if 'x' in {'a', 'b', 'x'} else 0))"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env=os.environ | {"PYTHONHASHSEED": str(seed)},
        ).stdout
        for seed in (1, 2)
    }
    assert len(said) == 1


def test_an_edited_function_leaves_no_stale_bank(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    digests = []
    for answer in ("softmax(1)", "sigmoid()"):
        (tmp_path / "edited_nets.py").write_text(
            "import torch\n"
            "class Net(torch.nn.Linear):\n"
            f"    def forward(self, images): return super().forward(images.flatten(1)).{answer}\n"
            "def make():\n"
            "    torch.manual_seed(0)\n"
            "    return Net(192, 2)\n"
        )
        code = (
            "from stillroom.models.zoo import create; from stillroom.models.weights import weights_digest;"
            "print(weights_digest(create('edited_nets:make?size=8&mean=0&std=1&outputs=features', classes=2)))"
        )
        ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
        digests.append(ran.stdout)
    assert digests[0] != digests[1]


def test_training_the_network_leaves_the_users_module_alone():
    own = FromModule(body(), size=32, mean=0.5, std=0.5)
    before = weights_digest(own.module)
    network = create(own.name, classes=2)
    for parameter in network.parameters():
        parameter.data.add_(1)
    assert weights_digest(own.module) == before


def test_a_function_takes_features_out_of_whatever_the_module_gives():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.part = nn.Conv2d(3, 5, 3)

        def forward(self, images):
            return {"hidden": self.part(images).mean((2, 3))}

    own = FromModule(Odd(), size=32, mean=0.0, std=1.0, outputs=lambda said: said["hidden"])
    network = create(own.name, classes=2)
    assert network.pooled_dim == 5
    with pytest.raises(UsageError, match="no last feature map"):
        _ = network.map_shape
    bare = FromModule(Odd(), size=32, mean=0.0, std=1.0)
    with pytest.raises(UsageError, match=r"gives a dict, not a tensor. Give outputs a function"):
        create(bare.name, classes=2)


def test_a_factory_makes_another_student_for_every_seed_and_is_saved_and_read(tmp_path):
    own = FromFactory(lambda: timm.create_model("test_resnet", num_classes=0, global_pool=""), size=32)
    one, same, other = (create(own.name, classes=2, seed=seed) for seed in (0, 0, 1))
    assert weights_digest(one) == weights_digest(same) != weights_digest(other)
    assert one.start == "random"
    assert one(IMAGES).std() < 0.5  # a head that starts undecided
    save_network(one, tmp_path)
    assert torch.equal(load_network(tmp_path)(IMAGES), one.eval()(IMAGES))


def test_a_function_is_named_as_python_imports_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_nets.py").write_text(
        "import torch, stillroom\n"
        "def teacher():\n"
        "    torch.manual_seed(0)\n"
        "    return stillroom.FromModule(torch.nn.Conv2d(3, 4, 3), size=16, mean=.5, std=.5)\n"
        "def bare(): return torch.nn.Conv2d(3, 4, 3)\n"
        "def broken(): raise ValueError('no luck')\n"
        "def wrong(): return 7\n"
        "number = 7\n"
    )
    sys.modules.pop("my_nets", None)
    assert create("my_nets:teacher", classes=2).pooled_dim == 4
    assert specification("my_nets:bare?size=16&mean=0&std=1&outputs=features").native_size == 16
    for name, match in {
        "my_nets:bare": "does not say how it is read. Say size and mean and std and outputs by --teacher-size",
        "my_nets:broken": r"my_nets:broken\(\) failed: ValueError: no luck",
        "my_nets:wrong": "gives a int",
        "my_nets:number": "not a function",
        "my_nets:teachr": "has no 'teachr'.*teacher",
        "my_netz:teacher": "no Python module 'my_netz'",
        "my_nets:bare?size=abc&mean=0&std=1&outputs=features": "side of its images in pixels, got 'abc'",
        "my_nets:teacher?typo=1": "takes no option 'typo'",
    }.items():
        with pytest.raises(UsageError, match=match):
            specification(name)


def test_a_module_of_another_process_is_asked_for():
    with pytest.raises(UsageError, match="was handed over in Python, and this process was not given it"):
        create("module:Net-000000000000", classes=2)


def test_factories_of_other_shapes_are_not_taken_for_each_other():
    one, other = (FromFactory(lambda width=width: nn.Conv2d(3, width, 3), size=16) for width in (4, 5))
    assert create(one.name, classes=2).pooled_dim == 4
    assert create(other.name, classes=2).pooled_dim == 5
    with pytest.raises(UsageError, match="this one makes a int"):
        FromFactory(lambda: 3, size=16)


@pytest.mark.parametrize(
    ("changed", "match"),
    [
        ({"module": 3}, "takes a torch.nn.Module"),
        ({"size": 0}, "side of the images"),
        ({"std": 0.0}, "positive standard deviations"),
        ({"mean": (0.1, 0.2)}, "three means"),
        ({"outputs": "feature"}, "outputs is one of"),
        ({"classes": "benign"}, "takes a list of names"),
        ({"mean": "grey"}, "three numbers each, or one"),
    ],
)
def test_what_cannot_be_is_refused(changed, match):
    given = {"module": nn.Conv2d(3, 4, 3), "size": 16, "mean": 0.5, "std": 0.5} | changed
    with pytest.raises(UsageError, match=match):
        FromModule(**given)


def test_a_module_that_fails_or_gives_tokens_is_refused_in_a_line():
    small = FromModule(nn.Conv2d(3, 4, 9), size=4, mean=0.5, std=0.5)
    with pytest.raises(UsageError, match=r"fails on one image \[1, 3, 4, 4\]"):
        create(small.name, classes=2)
    tokens = FromModule(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(2)), size=8, mean=0.5, std=0.5)
    with pytest.raises(UsageError, match=r"gives \(1, 4, 36\) for one image; wanted"):
        create(tokens.name, classes=2)
    with pytest.raises(UsageError, match="takes images of 8 pixels"):
        create(tokens.name, classes=2, size=9)
