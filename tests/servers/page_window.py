"""A window of Chromium with the page of a model in it: the states that it can be brought into, and what one can do there."""

from __future__ import annotations

import base64
import gzip
import json
import re
import time
from pathlib import Path
from typing import Any

CLASSES = ["benign", "malignant_tumor_of_a_long_name", "normal", "<b>other</b>"]
"""Of the model that the mock worker stands for."""

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


def with_mock(page: str, mock: str, language: str | None, meta: dict[str, Any]) -> str:
    """The page with another worker, one that needs neither model nor runtime, and with other notes on its model."""
    data = data_in(page)
    data["meta"] |= {"classes": CLASSES, "points": [], "explanation": {"verdict": "faithful", "statement": "They are."}}
    data["meta"] |= {"foreign": {"threshold": 3.2, "refusals": 0.05}, "conformal": {"coverage": 0.9}} | meta
    data["language"] = language
    for table in data["texts"].values():
        table["refused.mock"] = "it is cut off"
    parts = {
        "data": packed(json.dumps(data)),
        "worker": packed(mock),
        "model": packed("x"),
        "wasm": packed("x"),
    }
    for name, content in parts.items():
        page = re.sub(rf'(id="part-{name}">).*?(</script>)', lambda m, c=content: m[1] + c + m[2], page, flags=re.S)
    return page


def data_in(page: str) -> dict[str, Any]:
    """The page's words and its notes on its model."""
    return json.loads(gzip.decompress(base64.b64decode(re.search(r'id="part-data">(.*?)</script>', page)[1])))


def changed(page: str, part: str, old: bytes, new: bytes) -> str:
    """A part that says something else under the checksum of what was written; the rest of it is sound."""
    start, end = re.search(rf'id="part-{part}">(.*?)</script>', page, re.S).span(1)
    written = base64.b64decode(page[start:end])
    content = gzip.decompress(written)
    assert old in content
    assert len(old) == len(new)
    other = gzip.compress(content.replace(old, new))[:-8] + written[-8:]
    return page[:start] + base64.b64encode(other).decode() + page[end:]


def packed(text: str) -> str:
    return base64.b64encode(gzip.compress(text.encode())).decode()
