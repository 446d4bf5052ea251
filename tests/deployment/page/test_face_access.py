"""The face of the page is for everybody: in small and large windows, light and dark, by keys alone, and unseen."""

import json
import shutil
import subprocess
import tarfile
import time
from pathlib import Path

import pytest
from page_window import STATES

import stillroom

TEXTS = json.loads((Path(stillroom.__file__).parent / "deployment" / "page" / "texts" / "en.json").read_text("utf-8"))
AXE = "axe-core@4.11.0"
WIDTHS = (390, 768, 1440)


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
        window.value("document.getElementById('card').scrollTo(0, 1e6)")
        for text in ("standing.device", "standing.synthetic"):
            seen = window.value(
                "[...document.querySelectorAll('strong')].some((node) => {"
                f"if (node.textContent !== {json.dumps(TEXTS[text])}) return false;"
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
    time.sleep(0.3)  # until it is drawn
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


def test_the_focus_of_a_button_that_goes_is_its_successor_s(window, mocked, pictures):
    first = {
        "estimate": {"asked": 57, "channels": 2048, "coarse": True},
        "fuller": {"method": "score_cam_fast", "channels": 341, "seconds": 17.3},
    }
    window.open(mocked(mock={"first": first, "steps": 10, "step": 50}))
    window.give(*pictures("sure-1.png"))

    def press(button, successor):
        window.until(f"document.getElementById('{button}')")
        window.value(f"document.getElementById('{button}').focus()")
        window.press("Enter")
        window.until(f"document.activeElement.id === '{successor}'", 10)

    press("cancel", "draw")
    press("draw", "cancel")
    window.until("document.activeElement.id === 'fuller'", 10)  # the estimate is drawn
    press("fuller", "cancel")
    press("cancel", "fuller")
    press("fuller", "cancel")
    window.settled()  # no button comes after: the words have it
    assert window.value("document.activeElement.textContent") == "Heat map of benign"


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
