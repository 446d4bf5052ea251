"""Pages of small networks with every kind of rule, open in real browsers: one window of each for all tests of a file."""

import base64
import json
import shutil
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from browsers import Browser, opened, program_of
from page_window import CARD, POINTS, STATES, Window, with_mock
from PIL import Image
from torch import nn

import stillroom
from stillroom.deployment.metadata import ModelMetadata
from stillroom.deployment.onnx import export_onnx
from stillroom.deployment.page import write_page
from stillroom.deployment.page.runtime import packages
from stillroom.deployment.predictor import Predictor
from stillroom.evaluation.density import FeatureDensity
from stillroom.explanation.heat_maps import hidden_value
from stillroom.explanation.layers import find_layer
from stillroom.models.zoo import create
from stillroom.task import MultiClass

DRIVER = (Path(__file__).parents[2] / "servers" / "page_driver.js").read_text("utf-8")


@pytest.fixture(scope="session", autouse=True)
def _runtime():
    """Every test here needs what runs in the page; it is skipped without."""
    lacking = [one.name for one in packages().values() if not all(one.kept(file).is_file() for file in one.files)]
    if lacking:
        pytest.skip(f"{', '.join(lacking)} is not here: `python -m stillroom.deployment.page.bring` brings it")


@pytest.fixture
def by_node(tmp_path):
    """``by_node(before, *modules)``: what gives the value of an expression of JavaScript that stands behind ``before`` and
    uses these modules of the engine. Skipped without node."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("node, which runs the page's scripts here, is not installed")

    def make(before: str, *modules: str):
        for module in modules:
            shutil.copy(Path(stillroom.__file__).parent / "deployment" / "page" / "engine" / f"{module}.js", tmp_path)
        (tmp_path / "package.json").write_text('{"type": "module"}', "utf-8")

        def run(expression: str):
            (tmp_path / "run.js").write_text(f"{before}\nconsole.log(JSON.stringify(await {expression}));", "utf-8")
            done = subprocess.run([node, tmp_path / "run.js"], capture_output=True, text=True, check=True, timeout=60)
            return json.loads(done.stdout)

        return run

    return make


THREE = MultiClass(("benign", "malignant", "normal"))
SIDE = 64


@pytest.fixture(scope="session")
def student(tmp_path_factory) -> Path:
    """An exported network with random weights, whose answers differ from image to image, with maps and rules."""
    return exported("resnet10t_050", tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="session")
def wide(tmp_path_factory) -> Path:
    """The same of a network whose layer has 256 channels."""
    return exported("resnet10t", tmp_path_factory.mktemp("model"))


def exported(name: str, folder: Path) -> Path:
    network = create(name, classes=3, size=SIDE).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.uniform_(-0.1, 0.1, generator=generator)
                module.weight.uniform_(0.5, 1.5, generator=generator)
        network.classifier().weight.normal_(generator=generator)
    batch = torch.rand((2, 3, SIDE, SIDE), generator=generator)
    layer = find_layer(network, "auto", batch[:1])
    width = network.classifier().weight.shape[1]
    centres = torch.rand((2, width), generator=generator).numpy()
    density = FeatureDensity(centres, np.eye(width, 3, dtype=np.float32), np.array([2.0, 1.0, 0.5]), 1.5)
    places = {"energy_location": -2.0, "energy_scale": 1.5, "distance_location": 3.0, "distance_scale": 2.0}
    metadata = ModelMetadata(
        task=THREE, name=name, size=SIDE, channels=3, white=65535.0, fit="pad", temperature=1.5, layer=layer.name,
        hidden=tuple(hidden_value(network, batch).flatten().tolist()),
        explanation={"method": "rise", "faithful": True, "verdict": "faithful", "statement": "They are.", "fast": None},
        conformal={"coverage": 0.9, "class_conditional": False, "thresholds": [1.2, 1.4, None], "images": 50},
        foreign={**places, "threshold": 2.5, "refusals": 0.05, "images": 50},
    )  # fmt: skip
    return export_onnx(network, folder / "student.onnx", metadata, layer=layer, density=density)


@pytest.fixture
def saying(student, reseal, tmp_path):
    """``saying(name=..., task=...)`` is the same network in a file that says other things of itself."""

    def make(**changes) -> Path:
        model = onnx.load(student)
        said = replace(Predictor.load(student).metadata, **changes).to_properties()
        del model.metadata_props[:]
        onnx.helper.set_model_props(model, said)
        reseal(model, tmp_path / "student.onnx")
        return tmp_path / "student.onnx"

    return make


@pytest.fixture(scope="module", params=["chromium", "firefox"])
def browser(request, tmp_path_factory):
    """A window of each browser; skipped without it."""
    if program_of(request.param) is None:
        pytest.skip(f"no {request.param} on this machine")
    with opened(request.param, tmp_path_factory.mktemp(request.param)) as window:
        window.before(DRIVER)
        yield window


@dataclass(frozen=True)
class OpenPage:
    """A page of a model in a browser, driven by the messages that its face sends."""

    browser: Browser
    predictor: Predictor
    file: Path

    def read(self, name: str, content: bytes) -> dict:
        found = self.browser.evaluate(f"driver.read({json.dumps(name)}, '{base64.b64encode(content).decode()}')")
        for one in found.get("images", []):
            if "refused" in one:
                continue
            shape = (self.predictor.channels, self.predictor.size, self.predictor.size)
            one["prepared"] = floats(one["prepared"]).reshape(shape)
        return found

    def predict(self, number: int) -> dict:
        return self.browser.evaluate(f"driver.ask({{do: 'predict', image: {number}}})")["prediction"]

    def explain(
        self, number: int, of: str | None = None, method: str | None = None, cancel_after: int | None = None, **more
    ) -> dict:
        given = ", ".join(map(json.dumps, (number, of, method, cancel_after, more)))
        found = self.browser.evaluate(f"driver.explain({given})")
        if "map" in found:
            found["map"] = floats(found["map"]).reshape(self.predictor.size, self.predictor.size)
            found["original"] = floats(found["original"])
        return found


def floats(text: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), "<f4")


@pytest.fixture(scope="module")
def show(browser, tmp_path_factory):
    """``show(model)`` opens the page of a model and waits until it is ready."""

    def make(model: Path, address: str | None = None) -> OpenPage:
        target = write_page(model, tmp_path_factory.mktemp("page") / "classifier.html", language="en")
        browser.goto(address or target.as_uri())
        browser.evaluate("driver.ready()")
        return OpenPage(browser, Predictor.load(model, threads=1), target)

    return make


# -- the face -----------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def window(tmp_path_factory):
    if program_of("chromium") is None:
        pytest.skip("no Chromium on this machine")
    with opened("chromium", tmp_path_factory.mktemp("profile")) as browser:
        yield Window(browser, tmp_path_factory.mktemp("pages"))


@pytest.fixture(scope="module")
def real(student, tmp_path_factory) -> Path:
    """The page of a small network, with the engine that it has."""
    return write_page(student, tmp_path_factory.mktemp("page") / "classifier.html", language="en")


@pytest.fixture(scope="module")
def mocked(real, window):
    """``mocked(language, **meta)``: the same page with a worker that answers by the names of files."""
    page, mock = real.read_text("utf-8"), (Path(__file__).parent / "mock_worker.js").read_text("utf-8")

    def make(language="en", **meta) -> Path:
        target = window.folder / "classifier.html"
        target.write_text(with_mock(page, mock, language, meta), "utf-8")
        return target

    return make


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """``pictures(*names)``: images of these names; of one that begins with broken, a file that is none."""
    folder = tmp_path_factory.mktemp("pictures")

    def make(*names, shape=(40, 60, 3)) -> list[Path]:
        for number, name in enumerate(names):
            smooth = np.add.outer(np.arange(shape[0]) * (2 + number), np.arange(shape[1]) * 3)[..., None] + [0, 60, 120]
            Image.fromarray((smooth % 256).astype(np.uint8)).save(folder / name, "PNG")
            if name.startswith("broken"):
                (folder / name).write_bytes(b"\x89PNG\r\n\x1a\n")
        return [folder / name for name in names]

    return make


@pytest.fixture
def state(window, mocked, pictures):
    """``state(name)`` brings the page into it."""

    def bring(name, language="en", **meta):
        slow = {"busy": {"opening": 60_000}, "drawing": {"steps": 100, "step": 300}}.get(name, {})
        page = mocked(language, mock=slow, points=POINTS, card=CARD, synthetic=True, **meta)
        window.browser.goto(page.as_uri())
        if name != "busy":
            window.until("document.body.dataset.ready === 'yes'")
        if STATES[name]:
            window.give(*pictures(*STATES[name]))
        if name == "busy":
            window.until("!document.getElementById('working').hidden")
        elif name == "drawing":
            window.until("document.querySelector('.drawing progress')?.value > 0")
        elif STATES[name]:
            window.settled()
        if name == "card":
            window.value("document.getElementById('show-card').click()")

    return bring
