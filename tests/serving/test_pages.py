"""At `/` stands the page that classifies in the browser: that of the model which is served."""

import base64
import shutil

import numpy as np
import pytest
from answering import Answering
from browsers import opened, program_of
from hand_made import write_model

from stillroom.deployment.page import page_of
from stillroom.deployment.page.runtime import packages
from stillroom.serving.shelf import NOTICE


@pytest.fixture(scope="module", autouse=True)
def _runtime():
    """What runs in the page is brought when Stillroom is installed; without it these tests are skipped."""
    if not all(one.kept(file).is_file() for one in packages().values() for file in one.files):
        pytest.skip("what runs in the page is not here: `python -m stillroom.deployment.page.bring` brings it")


@pytest.mark.parametrize(("asked", "language"), [({}, "en"), ({"Accept-Language": "fr, de-AT;q=.9, en"}, "de")])
def test_the_page_is_that_of_the_command(server, model, asked, language):
    reply = server.get("/", **asked)
    assert reply.body.decode() == page_of(model, language=language)
    assert "connect-src 'none'" in reply.headers["content-security-policy"]
    assert server.get("/models/first", **asked).body == reply.body


def test_a_page_of_another_file_than_the_one_served_is_not_shown(model, tmp_path):
    own = shutil.copy(model, tmp_path / "own.onnx")
    with Answering(f"m={own}") as server:
        write_model(tmp_path / "new.onnx", temperature=2.0).replace(own)
        shown = server.get("/").body.decode()
        assert NOTICE in shown
        assert "is not the file any more that was opened" in shown
        assert len(shown) < 2000


def test_it_classifies_in_a_browser_as_the_server_does(server, images, tmp_path):
    if program_of("chromium") is None:
        pytest.skip("no Chromium on this machine")
    content = next(path for path in images if path.name == "grey3.png").read_bytes()
    said = server.post("/v1/predict", content).json["predictions"][0]
    with opened("chromium", tmp_path / "profile") as browser:
        browser.goto(f"http://127.0.0.1:{server.port}/")
        encoded = base64.b64encode(content).decode()
        shown = browser.evaluate(
            f"""(async () => {{
                const bytes = Uint8Array.from(atob("{encoded}"), (letter) => letter.charCodeAt(0));
                const given = new DataTransfer();
                given.items.add(new File([bytes], "grey3.png", {{type: "image/png"}}));
                const end = Date.now() + 20000;
                let field = null;
                while (!(field = document.querySelector("input[type=file]")) && Date.now() < end)
                    await new Promise((done) => setTimeout(done, 100));
                field.files = given.files;
                field.dispatchEvent(new Event("change", {{bubbles: true}}));
                while (!document.body.innerText.includes("%") && Date.now() < end)
                    await new Promise((done) => setTimeout(done, 100));
                return document.body.innerText;
            }})()"""
        )
        assert said["answer"] in shown
        assert np.any([f"{said['probabilities']['bright']:.{digits}%}" in shown for digits in (0, 1, 2)]), shown
        assert {address.split(":")[0] for address in browser.requests} <= {"http", "blob", "data"}
        assert {address for address in browser.requests if address.startswith("http")} <= {
            f"http://127.0.0.1:{server.port}/",
            f"http://127.0.0.1:{server.port}/favicon.ico",
        }
