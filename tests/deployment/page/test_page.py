"""The file that `stillroom page` writes: that nothing leaves it, nothing breaks out of it, and it opens from anywhere."""

import io
import socket
import threading
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from page_window import changed, data_in
from PIL import Image

import stillroom
from stillroom.cli.app import main
from stillroom.deployment.page import page_of, write_page
from stillroom.deployment.page.runtime import packages
from stillroom.deployment.predictor import Predictor
from stillroom.errors import UsageError
from stillroom.task import MultiClass

pytestmark = pytest.mark.slow

SHARE = 1.3
"""Of the model's size, that the page may be larger for it; beside 7 MB."""


def test_the_page_is_no_larger_than_it_may_be(student, tmp_path):
    page = write_page(student, tmp_path / "classifier.html")
    assert page.stat().st_size <= 7e6 + SHARE * student.stat().st_size


def test_nothing_leaves_and_nothing_is_stored(show, student, browser):
    page = show(student)
    browser.requests.clear()
    browser.goto(page.file.as_uri())
    browser.evaluate("driver.ready()")
    own = {page.file.as_uri()}
    assert {address for address in browser.requests if not address.startswith("blob:")} <= own
    kept = browser.evaluate(
        "(async () => [location.protocol, document.cookie, Object.keys(localStorage).length,"
        " Object.keys(sessionStorage).length, (await indexedDB.databases()).length])()"
    )
    assert kept == ["file:", "", 0, 0, 0]
    assert browser.complaints == []


@pytest.fixture
def served(tmp_path):
    """``served(page)`` is its address at a server on this machine, and what was asked of it."""
    asked = []

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            asked.append(self.path)

    with serving("127.0.0.1", partial(Handler, directory=tmp_path)) as address:
        yield address, asked


@contextmanager
def serving(host, handler):
    server = ThreadingHTTPServer((host, 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://{host}:{server.server_port}/"
    server.shutdown()


ATTEMPTS = {
    "fetch": "fetch('{address}')",
    "image": """new Promise((done, failed) => {
        const image = new Image(); image.onload = done; image.onerror = failed; image.src = '{address}x.png';
    })""",
    "beacon": "Promise.resolve(navigator.sendBeacon('{address}', 'x'))",
    "socket": """new Promise((done, failed) => {
        const socket = new WebSocket('{address}'.replace('http', 'ws')); socket.onopen = done; socket.onerror = failed;
    })""",
    "form": """(() => {
        const form = document.createElement('form'); form.action = '{address}'; form.method = 'post'; form.target = '_blank';
        document.body.append(form); form.submit();
    })()""",
    "script": """new Promise((done, failed) => {
        window.broken = done; const script = document.createElement('script'); script.textContent = 'window.broken()';
        document.body.append(script); setTimeout(failed, 300);
    })""",
}


def test_no_worker_makes_workers():
    """Firefox keeps what a worker made when the page is left: a hundred megabytes for each time that it is opened."""
    engine = Path(stillroom.__file__).parent / "deployment" / "page" / "engine"
    making = [file.name for file in sorted(engine.glob("*.js")) if "new Worker(" in file.read_text("utf-8")]
    assert making == ["start.js"]


def test_the_policy_forbids_to_send_and_to_run_anything_else(show, student, browser, served):
    address, asked = served
    show(student)
    for name, attempt in ATTEMPTS.items():
        code = attempt.replace("{address}", address)
        done = browser.evaluate(
            f"(async () => {{ try {{ await ({code}); return 'done'; }} catch {{ return 'refused'; }} }})()"
        )
        assert done == "refused" or name in ("beacon", "form"), (
            name
        )  # of these a page does not learn what became of them
    browser.evaluate("new Promise((resolve) => setTimeout(resolve, 300))")
    assert asked == []
    browser.complaints.clear()


def test_it_opens_from_a_server_and_asks_for_nothing_else(browser, student, served, tmp_path):
    address, asked = served
    write_page(student, tmp_path / "classifier.html")
    browser.goto(f"{address}classifier.html")
    browser.evaluate("driver.ready()")
    assert set(asked) <= {"/classifier.html", "/favicon.ico"}  # a browser asks for the latter of itself


def own_address():
    """Of this machine in its network; where it has none, that of itself."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        try:
            asked.connect(("192.0.2.1", 9))  # sends nothing: it chooses the way
        except OSError:
            return "127.0.0.1"
        return asked.getsockname()[0]


def test_damage_is_found_also_where_browsers_give_no_digests(browser, student, tmp_path):
    """`crypto.subtle` is only there from a file, from this machine, and by https."""
    if (host := own_address()).startswith("127."):
        pytest.skip("this machine has no address but its own")
    whole = page_of(student)
    pages = {
        "whole": whole,
        "words": changed(whole, "data", b"not this kind", b"all this kind"),
        "model": changed(whole, "model", b"resnet10t_050", b"resnet10t_051"),
    }
    for name, page in pages.items():
        (tmp_path / f"{name}.html").write_text(page, "utf-8")
    with serving(host, partial(SimpleHTTPRequestHandler, directory=tmp_path)) as address:
        browser.goto(f"{address}whole.html")
        browser.evaluate("driver.ready()")
        assert browser.evaluate("[isSecureContext, document.getElementById('damaged')]") == [False, None]
        for name, place in (("words", "damaged"), ("model", "trouble")):
            browser.goto(f"{address}{name}.html")
            browser.evaluate("new Promise((resolve) => setTimeout(resolve, 1000))")
            said = f"document.getElementById('{place}').innerText"
            told = (
                f"(async () => {{ while (!{said}) await new Promise((go) => setTimeout(go, 50)); return {said}; }})()"
            )
            assert "damaged or was not copied whole" in browser.evaluate(told), name
            assert browser.evaluate("document.body.dataset.ready ?? null") is None


def test_names_cannot_break_out(show, saying, browser):
    nasty = ("</script><script>window.broken = 1</script>", "<b>bold</b> & $script", "__proto__")
    model = saying(
        task=MultiClass(nasty), name="<img src=x onerror='window.broken = 1'>", details={"data": "<!-- <script>"}
    )
    page = show(model)
    assert browser.evaluate("typeof window.broken") == "undefined"
    assert browser.evaluate("document.querySelectorAll('body b, img[src=x]').length") == 0
    assert all(name in browser.evaluate("document.body.textContent") for name in nasty)
    picture = io.BytesIO()
    Image.new("RGB", (50, 60), (200, 90, 30)).save(picture, "PNG")
    number = page.read("picture.png", picture.getvalue())["images"][0]["image"]
    assert set(page.predict(number)["probabilities"]) == set(nasty)


def test_the_card_and_every_licence_are_inside(student, tmp_path):
    (tmp_path / "MODEL_CARD.md").write_text("# A card\n\nfor <everybody>", "utf-8")
    (tmp_path / "student.onnx").write_bytes(student.read_bytes())
    data = data_in(page_of(tmp_path))
    assert data["meta"]["card"] == "# A card\n\nfor <everybody>"
    assert data["meta"]["digest"] == Predictor.load(student).digest
    for package in packages().values():
        assert f"{package.name} {package.version} ({package.licence})" in data["meta"]["licences"]
    assert "Permission is hereby granted" in data["meta"]["licences"]


def test_the_command_writes_it(student, tmp_path, capsys):
    main(["page", str(student), "--out", str(tmp_path / "here.html"), "--language", "de"])
    assert "here.html" in capsys.readouterr().out
    assert '<html lang="de">' in (tmp_path / "here.html").read_text("utf-8")


def test_an_ensemble_is_refused(saying):
    with pytest.raises(UsageError, match="ensemble"):
        page_of(saying(details={"members": "3"}))


def test_without_the_runtime_it_says_how_to_get_it(student, tmp_path, monkeypatch):
    monkeypatch.setattr("stillroom.deployment.page.runtime.VENDOR", tmp_path)
    with pytest.raises(UsageError, match=r"python -m stillroom\.deployment\.page\.bring"):
        page_of(student)


def test_a_folder_is_no_file_to_write(student, tmp_path):
    with pytest.raises(UsageError, match="name a file"):
        write_page(student, tmp_path)
