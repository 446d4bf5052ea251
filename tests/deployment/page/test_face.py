"""The face of the page in Chromium: what it shows, says and lets one do, by mouse and by keys, and to whom."""

import base64
import csv
import gzip
import json
import re
import shutil
import subprocess
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
from browsers import opened, program_of
from PIL import Image

import stillroom
from stillroom.deployment.page import write_page
from stillroom.deployment.page.scripts import lean
from stillroom.deployment.predictor import Predictor

FACE = Path(stillroom.__file__).parent / "deployment" / "page" / "face"
TEXTS = {name: json.loads((FACE.parent / "texts" / f"{name}.json").read_text("utf-8")) for name in ("en", "de")}
MOCK = (Path(__file__).parent / "mock_worker.js").read_text("utf-8")
AXE = "axe-core@4.11.0"
WIDTHS = (390, 768, 1440)
CLASSES = ["benign", "malignant_tumor_of_a_long_name", "normal", "<b>other</b>"]


class Window:
    """A browser's window with the page in it."""

    def __init__(self, browser, folder: Path) -> None:
        self.browser, self.folder, self.dark = browser, folder, False

    def ask(self, method, **parameters):
        return self.browser.ask(method, **parameters)

    def value(self, code):
        return self.browser.evaluate(code)

    def until(self, code, seconds=60):
        """Wait for something to be true."""
        end = time.monotonic() + seconds
        while not self.value(f"Boolean({code})"):
            assert time.monotonic() < end, f"never: {code}"
            time.sleep(0.03)

    def open(self, page: Path):
        self.browser.goto(page.as_uri())
        self.until("document.body.dataset.ready === 'yes'")

    def shape(self, width, *, dark=False, height=900, media=""):
        self.ask(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 500
        )
        wishes = {"prefers-color-scheme": "dark" if dark else "light", "prefers-reduced-motion": "reduce"}
        features = [{"name": name, "value": value} for name, value in wishes.items()]
        self.ask("Emulation.setEmulatedMedia", media=media, features=features)

    def give(self, *files: Path):
        """As if these were chosen."""
        root = self.ask("DOM.getDocument")["root"]["nodeId"]
        node = self.ask("DOM.querySelector", nodeId=root, selector="#files")["nodeId"]
        self.ask("DOM.setFileInputFiles", nodeId=node, files=[str(file) for file in files])

    def press(self, key, shift=False):
        codes = {"Tab": 9, "Enter": 13, "Escape": 27, " ": 32, "ArrowRight": 39, "ArrowDown": 40}
        text = {"Enter": "\r", " ": " "}.get(key, key if len(key) == 1 else "")
        known = {"key": key, "windowsVirtualKeyCode": codes.get(key, 0), "modifiers": 8 if shift else 0}
        self.ask("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", text=text, **known)
        self.ask("Input.dispatchKeyEvent", type="keyUp", **known)

    def text(self, selector="main"):
        return self.value(f"document.querySelector({json.dumps(selector)}).innerText")

    def settled(self):
        """All images are answered, and the map of one that is open is drawn or offered."""
        self.until(
            "document.getElementById('working').hidden && (!document.getElementById('many').hidden || "
            "!document.getElementById('one').hidden && !document.getElementById('cancel'))"
        )


@pytest.fixture(scope="module")
def window(tmp_path_factory):
    if program_of("chromium") is None:
        pytest.skip("no Chromium on this machine")
    with opened("chromium", tmp_path_factory.mktemp("profile")) as browser:
        yield Window(browser, tmp_path_factory.mktemp("pages"))


@pytest.fixture(scope="module")
def real(student, tmp_path_factory) -> Path:
    """The page of a small network, with the engine that it has."""
    return write_page(student, tmp_path_factory.mktemp("page") / "classifier.html")


@pytest.fixture(scope="module")
def mocked(real, window):
    """``mocked(language, **meta)``: the same page with a worker that answers by the names of files."""
    text = real.read_text("utf-8")

    def make(language="en", **meta) -> Path:
        data = json.loads(re.search(r'id="part-data">(.*?)</script>', text)[1])
        data["meta"] |= {
            "classes": CLASSES,
            "points": [],
            "explanation": {"verdict": "faithful", "statement": "They are."},
        }
        data["meta"] |= {"foreign": {"threshold": 3.2, "refusals": 0.05}, "conformal": {"coverage": 0.9}} | meta
        data["language"] = language
        for table in data["texts"].values():
            table["refused.mock"] = "it is cut off"
        parts = {
            "data": json.dumps(data).replace("<", "\\u003c"),
            **{name: packed(content) for name, content in (("worker", MOCK), ("model", "x"), ("wasm", "x"))},
        }
        page = text
        for name, content in parts.items():
            page = re.sub(rf'(id="part-{name}">).*?(</script>)', lambda m, c=content: m[1] + c + m[2], page, flags=re.S)
        target = window.folder / f"{abs(hash(page))}.html"
        target.write_text(page, "utf-8")
        return target

    return make


def packed(text: str) -> str:
    return base64.b64encode(gzip.compress(text.encode())).decode()


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


POINTS = [
    {
        "of": "benign",
        "for": "sensitivity",
        "wanted": 0.95,
        "threshold": 0.081,
        "promised": 0.904,
        "images": 40,
        "units": 38,
    },
    {
        "of": "normal",
        "for": "specificity",
        "wanted": 0.9,
        "threshold": 0.33,
        "promised": 0.9,
        "images": 40,
        "units": 38,
    },
]
STATES = {
    "empty": (),
    "answer": ("sure-1.png",),
    "set": ("set-1.png",),
    "refusal": ("foreign-1.png",),
    "error": ("broken-1.png",),
    "many": ("sure-1.png", "set-2.png", "any-3.png", "foreign-4.png", "labels-5.png", "note-6.png", "broken-7.png"),
    "busy": ("sure-1.png", "set-2.png"),
    "drawing": ("sure-1.png",),
    "card": ("sure-1.png",),
}
CARD = "# A <b>card</b>\n\nOne *line*, **bold** and `code`.\n\n- first\n- second\n\n| a | b |\n| --- | ---: |\n| 1 | &lt;2 |"


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


@pytest.fixture(scope="module")
def axe(tmp_path_factory) -> str:
    """axe-core's script, as npm gives it at test time: it is no part of the product."""
    if shutil.which("npm") is None:
        pytest.skip("no npm, which would fetch axe-core")
    place = tmp_path_factory.mktemp("axe")
    found = subprocess.run(["npm", "pack", AXE], cwd=place, capture_output=True, text=True, timeout=120, check=False)
    archive = next(place.glob("*.tgz"), None)
    if archive is None:
        pytest.skip(f"npm gives no axe-core: {found.stderr.strip()[-200:]}")
    with tarfile.open(archive) as opened_archive:
        return opened_archive.extractfile("package/axe.min.js").read().decode()


# -- for everybody --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", STATES)
def test_every_state_is_accessible_and_fits_its_window(window, state, axe, name):
    """WCAG 2.2 A and AA by axe-core, at the widths of a phone, a tablet and a desk, light and dark."""
    window.shape(1440)
    state(name)
    window.value(f"(() => {{ {axe}; window.axe = axe; }})()")
    for width in WIDTHS:
        for dark in (False, True):
            window.shape(width, dark=dark)
            rules = "{runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice']}"
            found = window.value(
                f"new Promise((go) => setTimeout(go, 50)).then(() => axe.run(document, {rules}))"
                ".then((r) => ({checked: r.passes.length, wrong: r.violations.map((v) => v.id + ': ' + "
                "v.nodes.map((n) => n.html.slice(0, 90) + ' ' + n.failureSummary.slice(0, 160)).join(' | '))}))"
            )
            assert found["checked"] > 15
            assert found["wrong"] == [], (name, width, dark)
            wide, room = window.value("[document.documentElement.scrollWidth, innerWidth]")
            assert wide <= room, (name, width)


@pytest.mark.parametrize("name", STATES)
def test_every_screen_says_that_it_is_no_medical_device(window, state, name):
    state(name)
    for width in WIDTHS:
        window.shape(width, height=700)
        window.value("scrollTo(0, document.body.scrollHeight)")
        for text in ("standing.device", "standing.synthetic"):
            seen = window.value(
                "[...document.querySelectorAll('strong')].some((node) => {"
                f"if (node.textContent !== {json.dumps(TEXTS['en'][text])}) return false;"
                "const box = node.getClientRects()[0]; if (!box) return false;"
                "const at = document.elementFromPoint(box.x + 5, box.y + box.height / 2);"
                "return (at === node || node.contains(at)); })"
            )
            assert seen, (name, width, text)


def test_all_is_done_by_keys_and_focus_is_seen(window, mocked, pictures):
    """From the first Tab to an image of many, its map near by, another class, the card and back: no mouse."""
    window.shape(1440)
    window.open(mocked())
    window.give(*pictures("sure-1.png", "set-2.png", "foreign-3.png"))
    window.until("document.querySelectorAll('#many button.link').length === 3")
    window.settled()

    def to(code, most=40):
        """Tab until this holds of what has the focus, which must be seen to have it."""
        for _ in range(most):
            window.press("Tab")
            ring = window.value(
                "(() => { const s = getComputedStyle(document.activeElement);"
                "return document.activeElement === document.body"
                " || s.outlineStyle !== 'none' && parseFloat(s.outlineWidth) >= 2;"
                "})()"
            )
            assert ring, window.value("document.activeElement.outerHTML")
            if window.value(f"(({code})(document.activeElement))"):
                return
        raise AssertionError(f"Tab never came to {code}")

    to("(e) => e.className === 'skip'", 2)
    to("(e) => e.id === 'choose'")
    to("(e) => e.textContent === 'set-2.png'")
    window.press("Enter")
    window.until("document.activeElement.id === 'one-title'")
    assert window.text("#one-title") == "benign or malignant_tumor_of_a_long_name"
    window.settled()
    to("(e) => e.className.startsWith('pane')")
    before = window.value("document.querySelector('.pane canvas').toDataURL()")
    window.press("+")
    window.press("+")
    window.press("ArrowRight")
    window.until(f"document.querySelector('.pane canvas').toDataURL() !== {json.dumps(before)}")
    window.until("document.querySelector('.pane').classList.contains('near')")
    window.press("0")
    window.until(f"document.querySelector('.pane canvas').toDataURL() === {json.dumps(before)}")
    to("(e) => e.id === 'map-of'")
    window.press("ArrowDown")
    window.until("document.querySelector('.drawing').textContent.includes('malignant_tumor')")
    window.settled()
    to("(e) => e.id === 'show-card'", 60)
    window.press("Enter")
    window.until("document.querySelector('dialog').open")
    assert window.value("document.querySelector('dialog').contains(document.activeElement)")
    window.press("Escape")
    window.until("!document.querySelector('dialog').open && document.activeElement.id === 'show-card'")
    to("(e) => e.id === 'back'")
    window.press("Enter")
    window.until("document.activeElement.textContent === 'set-2.png'")


def test_what_happens_is_told_to_those_who_do_not_see_it(window, mocked, pictures):
    window.open(mocked())
    assert window.value("document.getElementById('live').getAttribute('aria-live')") == "polite"
    window.value(
        "(() => { window.told = []; new MutationObserver(() => told.push(document.getElementById('live').textContent))"
        ".observe(document.getElementById('live'), {childList: true}); })()"
    )
    window.give(*pictures("set-1.png"))
    window.settled()
    window.until("told.length > 1")
    told = window.value("told")
    assert "set-1.png: benign or malignant_tumor_of_a_long_name" in told
    assert any(text.startswith("Heat map of benign Maps faithful.") for text in told)


# -- what it says ---------------------------------------------------------------------------------------------------
def test_a_refusal_says_why_in_words_and_draws_nothing_unasked(window, state):
    window.shape(1440)
    state("refusal")
    said = window.text("#one")
    assert window.text("#one-title") == "not this kind of image"
    assert "7.4 spreads above the median" in said
    assert "the limit is 3.2" in said
    assert "do not use its probabilities" in said
    assert "%" not in window.text(".said ul, .said details")
    assert "so no map was drawn" in said
    window.value("document.getElementById('draw').click()")
    window.settled()
    assert "Maps faithful" in window.text("#one")


def test_the_verdict_stands_beside_the_map(window, mocked, pictures):
    said = {
        "faithful": "Maps faithful",
        "not faithful": "Maps not faithful",
        "not shown: too few images": "Not shown: too few images",
        None: "Not tested",
    }
    for verdict, label in said.items():
        window.open(mocked(explanation={"verdict": verdict, "statement": f"Of {verdict} this is said."}))
        window.give(*pictures("sure-1.png"))
        window.settled()
        assert window.text(".beside-map .notice strong") == label
        assert f"Of {verdict} this is said." in window.text(".beside-map .notice")


def test_thresholds_say_what_is_flagged_and_what_is_surely_reached(window, state):
    state("answer")
    said = window.text(".points")
    assert re.search(r"benign\s+flagged\s+from 8\.1%, for sensitivity 0\.95 \(surely reached: 0\.90\)", said)
    assert re.search(r"normal\s+not flagged\s+from 33\.0%, for specificity 0\.90$", said)


def test_a_file_that_is_refused_is_named_with_its_reason_and_stops_no_other(window, state):
    state("many")
    rows = window.value("[...document.querySelectorAll('#many tbody tr')].map((row) => row.innerText)")
    assert len(rows) == 7
    assert "broken-7.png" in rows[6]
    assert "it is cut off" in rows[6]
    assert all("%" in row for row in rows[:6])
    assert (
        "2 answered with one class · 3 where the model is unsure · 1 not this kind of image · 1 not read"
        in window.text()
    )


def test_each_frame_is_an_image(window, mocked, pictures):
    window.open(mocked())
    window.give(*pictures("frames-1.png", "sure-2.png"))
    window.until("document.querySelectorAll('#many button.link').length === 4")
    names = window.value("[...document.querySelectorAll('#many button.link')].map((link) => link.textContent)")
    assert names == ["frames-1.png#1", "frames-1.png#2", "frames-1.png#3", "sure-2.png"]
    window.settled()
    window.value("document.querySelectorAll('#many button.link')[1].click()")
    window.until("document.getElementById('one-title')")
    assert "frames-1.png#2" in window.text("#one")


def test_a_map_is_cancelled(window, state):
    state("drawing")
    assert re.search(r"about \d+ seconds left", window.text(".drawing"))
    window.value("document.getElementById('cancel').click()")
    assert "The heat map was cancelled." in window.text(".drawing")
    time.sleep(0.7)  # two steps of the worker
    assert window.value("document.querySelector('.drawing progress') === null")


@pytest.mark.parametrize("name", STATES)
def test_german_is_spoken_everywhere(window, state, name):
    """No text that the page shows is one of the English table's, after it was switched while it stood there."""
    state(name)
    if name == "card":
        window.value("document.querySelector('dialog').close()")
    window.value("document.querySelector('#languages [lang=de]').click()")
    window.until("document.documentElement.lang === 'de'")
    if name not in ("empty", "busy", "drawing"):
        window.settled()
    if name == "card":
        window.value("document.getElementById('show-card').click()")
    shown = window.value(
        "[...document.querySelectorAll('body *')].filter((node) => !['SCRIPT', 'NOSCRIPT'].includes(node.tagName))"
        ".flatMap((node) => [...node.childNodes].filter((child) => child.nodeType === 3).map((child) => child.data.trim())"
        ".concat(node.ariaLabel ?? []))"
    )
    english = set(TEXTS["en"].values()) - set(TEXTS["de"].values()) - {"English", "image", "class"}
    assert not english & set(shown)
    assert TEXTS["de"]["standing.device"] in shown


def test_a_page_opens_in_the_language_that_it_was_made_for(window, mocked):
    window.open(mocked("de"))
    assert window.value("document.documentElement.lang") == "de"
    assert window.text("#intake-title") == "Bilder hier ablegen"
    assert window.value("document.title") == TEXTS["de"]["page.title"]


def test_what_comes_from_model_and_files_is_text(window, state):
    """Neither a class nor a card makes an element, and the card's Markdown is read."""
    state("card")
    assert window.value("[...document.querySelectorAll('main b, dialog b, dialog .card-text i')].length") == 0
    assert "A <b>card</b>" in window.text("dialog h3")
    assert window.value("document.querySelector('.card-text strong').textContent") == "bold"
    assert window.value("[...document.querySelectorAll('.card-text li')].map((one) => one.textContent)") == [
        "first",
        "second",
    ]
    assert window.value("[...document.querySelectorAll('.card-text td')].map((one) => one.textContent)") == ["1", "<2"]
    assert "<b>other</b>" in window.text(".shares")


def test_an_answer_is_printed_on_one_page_with_date_file_and_model(window, state):
    state("answer")
    window.shape(688, height=1000, dark=True, media="print")
    said = window.text("#one .paper")
    assert "sure-1.png" in said
    assert re.search(r"[0-9a-f]{64}", said)
    assert time.strftime("%Y") in said
    assert window.value("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert window.value("[...document.querySelectorAll('button')].every((one) => one.offsetParent === null)")
    assert TEXTS["en"]["standing.device"] in window.text("body")
    printed = base64.b64decode(window.ask("Page.printToPDF", printBackground=True, preferCSSPageSize=True)["data"])
    assert len(re.findall(rb"/Type\s*/Page\b", printed)) == 1


# -- with the engine ------------------------------------------------------------------------------------------------
def test_a_table_of_real_answers_is_saved_as_the_predictor_gives_them(window, real, student, pictures, tmp_path):
    files = pictures("=first.png", "second.png", "third.png", "broken-4.png")
    window.shape(1440)
    window.open(real)
    window.give(*files)
    window.until("document.querySelectorAll('#many tbody tr').length === 4")
    window.settled()
    window.ask("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    window.value("document.getElementById('save').click()")
    target = tmp_path / "answers.csv"
    end = time.monotonic() + 20
    while not target.exists() and time.monotonic() < end:
        time.sleep(0.05)
    with target.open(encoding="utf-8-sig", newline="") as opened_file:
        rows = list(csv.DictReader(opened_file))
    predictor = Predictor.load(student)
    expected = predictor.predict(files)
    assert [row["image"] for row in rows] == ["'=first.png", "second.png", "third.png", "broken-4.png"]
    for row, one in zip(rows[:3], expected, strict=False):
        best = max(one.probabilities, key=one.probabilities.get)
        assert (row["answer"], row["class"], row["flags"], row["error"]) == (one.answer, best, one.flags, "")
        assert float(row["probability"]) == pytest.approx(one.probabilities[best], abs=1e-4)
        for name, share in one.probabilities.items():
            assert float(row[name]) == pytest.approx(share, abs=1e-4)
        assert row["model"] == predictor.digest
    assert rows[3]["error"]
    assert rows[3]["answer"] == ""


def test_nothing_is_kept_in_the_browser(window, real, pictures):
    window.open(real)
    window.give(*pictures("one.png"))
    window.settled()
    assert "They are." in window.text(".beside-map .notice")
    kept = window.value(
        "(async () => [localStorage.length, sessionStorage.length, (await indexedDB.databases()).length,"
        " document.cookie.length])()"
    )
    assert kept == [0, 0, 0, 0]


def test_images_are_pasted_and_dropped(window, real, pictures):
    window.open(real)
    content = base64.b64encode(pictures("pasted.png")[0].read_bytes()).decode()
    code = (
        "(() => { const bytes = Uint8Array.from(atob('%s'), (c) => c.charCodeAt(0)); const held = new DataTransfer();"
        "held.items.add(new File([bytes], '%s', {type: 'image/png'}));"
        "document.dispatchEvent(new %s, {bubbles: true, cancelable: true, %s: held})); })()"
    )
    window.value(code % (content, "pasted.png", "ClipboardEvent('paste'", "clipboardData"))
    window.settled()
    assert "pasted.png" in window.text("#one")
    window.value(code % (content, "dropped.png", "DragEvent('drop'", "dataTransfer"))
    window.until("document.querySelectorAll('#many button.link').length === 2")
    assert "dropped.png" in window.text("#many")


# -- how it is built ------------------------------------------------------------------------------------------------
def test_every_text_is_used_and_every_use_has_a_text():
    """Keys are written out wherever they are used; those of `sayCount` have two texts."""
    code = "".join(file.read_text("utf-8") for kind in ("js", "html", "py") for file in FACE.parent.rglob(f"*.{kind}"))
    named = set(re.findall(r"""["'`]((?:[a-z_]+)\.(?:[a-z_]+)(?:\.one|\.other)?)["'`]""", code))
    begun = set(re.findall(r"`([a-z_]+\.[a-z_]*)\$\{", code))
    counted = {key.rpartition(".")[0] for key in TEXTS["en"] if key.endswith((".one", ".other"))}
    refused = {f"refused.{key}" for key in re.findall(r"Refused\(\s*\"([a-z_0-9]+)\"", code)}
    used = named | refused | {f"{key}.{end}" for key in named & counted for end in ("one", "other")}
    unused = {key for key in TEXTS["en"] if key not in used and not any(key.startswith(start) for start in begun)}
    assert unused == set()
    sections = {key.partition(".")[0] for key in TEXTS["en"]}
    named = {key for key in named if not key.endswith((".js", ".html", ".css"))}
    missing = {key for key in named | refused if key.partition(".")[0] in sections} - set(TEXTS["en"]) - counted
    assert missing == set()


def test_the_face_is_small():
    assert sum(len(lean(file.read_text("utf-8")).encode()) for file in FACE.iterdir()) < 60_000
