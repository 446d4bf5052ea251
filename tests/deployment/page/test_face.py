"""The face of the page in Chromium: what it shows, says and lets one do, and keeps to itself."""

import base64
import csv
import io
import json
import re
import time
from pathlib import Path

import numpy as np
import pytest
from page_window import POINTS, STATES, changed, packed
from PIL import Image

import stillroom
from stillroom.deployment.page.scripts import lean
from stillroom.deployment.predictor import Predictor
from stillroom.explanation.overlay import overlay

FACE = Path(stillroom.__file__).parent / "deployment" / "page" / "face"
TEXTS = {name: json.loads((FACE.parent / "texts" / f"{name}.json").read_text("utf-8")) for name in ("en", "de")}


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
    assert "%" not in window.value("document.getElementById('map-of').textContent")
    window.value("document.getElementById('draw').click()")
    window.settled()
    assert "Maps faithful" in window.text("#one")


def test_the_verdict_stands_beside_the_map(window, mocked, pictures):
    said = {
        "faithful": "Maps faithful",
        "not faithful": "Maps not faithful",
        "not shown: too few images": "Not shown to be faithful: too few images",
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
    assert ["%" in row for row in rows[:6]] == [True, True, True, False, True, True]  # the fourth is of another kind
    assert window.value("document.querySelectorAll('#many tbody tr .gauge').length") == 5
    assert (
        "2 answered with one class · 3 where the model is unsure · 1 refused: not this kind of image · 1 not read"
        in window.text()
    )


@pytest.mark.parametrize(("width", "shown"), [(390, False), (1440, True)])
def test_a_narrow_table_says_a_class_once(window, state, width, shown):
    window.shape(width)
    state("many")
    cells = window.value(
        "[...document.querySelectorAll('#many tbody .of')].map((cell) => [cell.closest('tr').querySelector('td .answer')"
        ".innerText, cell.textContent, cell.checkVisibility()])"
    )
    same = [visible for answer, name, visible in cells if answer == name]
    assert same == [shown] * len(same)
    assert same
    assert all(visible for answer, name, visible in cells if answer != name)


@pytest.mark.parametrize("width", [768, 1000, 1440])
def test_no_name_is_broken_in_the_table(window, state, width):
    """Each word of an answer or class stands in one line, in German too, whose answers are longer."""
    window.shape(width)
    state("many", "de")
    broken = window.value(
        "[...document.querySelectorAll('#many tbody .answer span:first-child, #many tbody .of')].flatMap((node) => {"
        "const found = []; const walk = document.createTreeWalker(node, 4); while (walk.nextNode()) {"
        "for (const word of walk.currentNode.data.matchAll(/[^ _]+/g)) { const range = document.createRange();"
        "range.setStart(walk.currentNode, word.index); range.setEnd(walk.currentNode, word.index + word[0].length);"
        "if (new Set([...range.getClientRects()].map((box) => box.top)).size > 1) found.push(word[0]); } } return found; })"
    )
    assert broken == []
    assert window.value("document.documentElement.scrollWidth <= innerWidth")


def test_a_file_s_name_takes_the_room_that_there_is(window, mocked, pictures):
    """It stands in one line beside a long reason and long answers; one that is too long breaks in its own column."""
    window.shape(1280)
    window.open(
        mocked("de", points=POINTS, classes=["Myringosclerosis", "Chronic otitis media", "Normal", "Earwax plug"])
    )
    window.give(*pictures("ear_4_Myringosclerosis.jpg", "set-5.png", "note-6.png", "broken-7.png"))
    window.until("document.querySelectorAll('#many tbody tr').length === 4")
    window.settled()
    window.value(f"document.querySelector('#many .wrong').textContent = {json.dumps(40 * 'it is cut off ')}")
    lines = window.value(
        "(() => { const range = document.createRange();"
        "range.selectNodeContents(document.querySelector('#many .name .link'));"
        "return new Set([...range.getClientRects()].map((box) => box.top)).size; })()"
    )
    assert lines == 1
    window.give(*pictures(f"{90 * 'x'}.png", f"broken_{90 * 'x'}.png"))
    window.until("document.querySelectorAll('#many tbody tr').length === 6")
    window.settled()
    for width in (1000, 1280):
        window.shape(width)
        outside = (
            "[...document.querySelectorAll('#many td.name')].filter((cell) => { const range = document.createRange();"
            "range.selectNodeContents(cell); const right = cell.getBoundingClientRect().right;"
            "return [...range.getClientRects()].some((box) => box.right > right + 1); }).length"
        )
        assert window.value(outside) == 0, width
        assert window.value("document.documentElement.scrollWidth <= innerWidth"), width


def test_twice_as_large_a_text_still_fits_a_phone(window, state):
    window.shape(390)
    state("many")
    window.value("document.documentElement.style.fontSize = '200%'")
    assert window.value("document.documentElement.scrollWidth") <= 390


# What the table would save, as text.
CSV = (
    "(() => new Promise((go) => { const real = URL.createObjectURL; URL.createObjectURL = (blob) => {"
    "blob.text().then(go); URL.createObjectURL = real; return real(blob); };"
    "document.getElementById('save').click(); }))()"
)


def saved(window, separator: str) -> dict[str, dict[str, str]]:
    """The rows of the CSV by image."""
    rows = csv.reader(io.StringIO(window.value(CSV).lstrip("\ufeff")), delimiter=separator)
    head = next(rows)
    return {row[0]: dict(zip(head, row, strict=True)) for row in rows}


def test_a_refused_image_has_no_class_in_the_csv_and_german_has_its_own_numbers(window, state):
    state("many", "de")
    rows = saved(window, ";")
    assert (rows["sure-1.png"]["Klasse"], rows["sure-1.png"]["Wahrscheinlichkeit"]) == ("benign", "0,968")
    assert (rows["foreign-4.png"]["Klasse"], rows["foreign-4.png"]["Wahrscheinlichkeit"]) == ("", "")
    assert rows["foreign-4.png"]["benign"] == "0,968"
    window.value("document.querySelector('#languages [lang=en]').click()")
    window.until("document.querySelector('#many-title').textContent === '7 images'")
    rows = saved(window, ",")
    assert (rows["sure-1.png"]["class"], rows["sure-1.png"]["probability"]) == ("benign", "0.968")
    assert (rows["foreign-4.png"]["class"], rows["foreign-4.png"]["probability"]) == ("", "")


def test_what_waited_when_it_was_stopped_is_named(window, mocked, pictures):
    window.open(mocked(mock={"reading": 400}))
    window.give(*pictures("sure-1.png", "set-2.png", "any-3.png"))
    window.until("!document.getElementById('stop').hidden")
    window.value("document.getElementById('stop').click()")
    window.settled()
    assert window.text("#tally") == "1 answered with one class · 2 not looked at"
    assert (
        window.value("[...document.querySelectorAll('#many td.error')].map((cell) => cell.textContent)")
        == [TEXTS["en"]["many.stopped"]] * 2
    )
    rows = saved(window, ",")
    assert [row["error"] for row in rows.values()] == ["", *[TEXTS["en"]["many.stopped"]] * 2]
    window.value("document.querySelector('#languages [lang=de]').click()")
    window.until("document.documentElement.lang === 'de'")
    assert TEXTS["de"]["many.stopped"] in window.text("#many")


def test_a_map_that_is_drawn_stays_when_the_language_changes(window, mocked, pictures):
    window.open(mocked(mock={"steps": 2}))
    window.give(*pictures("sure-1.png"))
    window.settled()
    window.value("document.getElementById('map-of').value = 'normal'")
    window.value("document.getElementById('map-of').dispatchEvent(new Event('change'))")
    window.until("document.querySelector('.drawing').textContent === 'Heat map of normal'")
    window.value(
        "window.drawn = 0, new MutationObserver(() => (drawn += document.querySelectorAll('#cancel').length))"
        ".observe(document.getElementById('one'), {childList: true, subtree: true})"
    )
    window.value("document.querySelector('#languages [lang=de]').click()")
    window.until("document.querySelector('.beside-map .notice')?.textContent.includes('In de they are.')")
    assert window.text(".drawing") == "Heatmap von normal"
    assert window.value("document.getElementById('map-of').value") == "normal"
    assert window.value("drawn") == 0


def test_a_refusal_says_how_many_of_the_right_kind_were_refused_where_it_was_measured(window, mocked, pictures):
    rule = {"threshold": 3.2, "refusals": 0.05}
    for measured, words in ((None, "it may be more"), (0.2833, "it refused 28.3%")):
        window.open(mocked(foreign={**rule, "refused": measured}))
        window.give(*pictures("foreign-1.png"))
        window.settled()
        assert "about 5% of the validation images" in window.text(".said")
        assert words in window.text(".said")


def test_images_are_counted_alike_in_the_table_and_beside_one(window, state):
    state("many")
    window.value("document.querySelectorAll('#many button.link')[5].click()")
    window.until("document.getElementById('one-title')")
    assert "6 of 7" in window.text("#one .bar-of-tools")


def test_each_frame_is_an_image(window, mocked, pictures):
    window.open(mocked(mock={"frames": 1500}))
    window.give(*pictures("frames-1.png", "sure-2.png"))
    window.until("document.getElementById('working-words').textContent.includes('frame')")
    assert window.text("#working-words") == "Reading frames-1.png: frame 2 of 3, about 5 seconds left"
    assert window.value("document.getElementById('working-bar').value") == pytest.approx(1 / 3)
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
    assert window.value("document.querySelector('.legend').hidden")  # nothing unfinished stays, nor is it printed
    time.sleep(0.7)  # two steps of the worker
    assert window.value("document.querySelector('.drawing progress') === null")


HELD = "document.querySelector('#map-of')"


def test_another_language_goes_on_with_the_class_and_leaves_what_was_cancelled(window, state):
    state("drawing")
    window.value(f"{HELD}.value = 'normal', {HELD}.dispatchEvent(new Event('change'))")
    window.until("document.querySelector('.drawing progress')?.value > 0")
    window.value("document.querySelector('#languages [lang=de]').click()")
    window.until("document.querySelector('.drawing')?.innerText.includes('Heatmap von normal')")
    assert window.value(f"{HELD}.value") == "normal"
    window.value("document.getElementById('cancel').click()")
    window.value("document.querySelector('#languages [lang=en]').click()")
    window.until("document.querySelector('.drawing')?.innerText.includes('The heat map was cancelled.')")
    assert (window.value(f"{HELD}.value"), window.value("document.getElementById('cancel')")) == ("normal", None)
    assert window.value("document.querySelector('.legend').hidden")
    assert window.value("document.getElementById('live').textContent") == "The heat map was cancelled."


def test_a_file_that_comes_alone_is_read_once(window, mocked, pictures):
    counting = (
        "(() => { window.reads = 0; const own = Worker.prototype, send = own.postMessage;"
        " own.postMessage = function (...given) { reads += given[0].do === 'read'; return send.apply(this, given); }; })()"
    )
    window.open(mocked(mock={"steps": 2}))
    window.value(counting)
    window.give(*pictures("sure-1.png"))
    window.settled()
    assert window.value("reads") == 1
    window.give(*pictures("set-2.png"))  # now they are two, of which one is opened: it is read again
    window.settled()
    window.value("document.querySelector('#many button.link').click()")
    window.until("document.getElementById('one-title')")
    assert window.value("reads") == 3


FIRST = {
    "estimate": {"asked": 57, "channels": 2048, "coarse": True},
    "fuller": {"method": "score_cam_fast", "channels": 341, "seconds": 17.3},
}


def test_a_map_for_which_there_is_time_after_all_is_drawn_in_full_unasked(window, mocked, pictures):
    at_once = {**FIRST, "fuller": {**FIRST["fuller"], "at_once": True}}
    window.open(mocked(mock={"first": at_once, "steps": 40, "step": 50}))
    window.give(*pictures("sure-1.png"))
    window.until("document.querySelector('.drawing progress')?.value > 0.5")
    window.until("document.querySelector('.drawing progress')?.value < 0.5")
    window.value("document.getElementById('cancel').click()")  # what there was stays, and can be drawn more fully
    assert "estimated from 57" in window.text(".drawing")
    assert "A first estimate." in window.text(".beside-map .notice")
    window.value("document.getElementById('fuller').click()")
    window.settled()
    assert window.text(".drawing") == "Heat map of benign"


def test_a_first_estimate_says_what_it_is_and_is_drawn_more_fully_when_asked(window, mocked, pictures):
    window.open(mocked(mock={"first": FIRST, "steps": 40, "step": 50}))
    window.give(*pictures("sure-1.png"))
    window.settled()
    assert "Heat map of benign, estimated from 57 of the network's 2,048 channels" in window.text(".drawing")
    assert window.text(".beside-map .notice strong") == "Not tested"
    assert "A first estimate." in window.text(".beside-map .notice")
    assert window.text("#fuller") == "Draw it from 341 channels: about 18 seconds"
    press = "document.getElementById('fuller').click()"
    window.value(press)
    window.until("document.querySelector('.drawing progress')?.value > 0")
    assert not window.value("document.querySelector('.legend').hidden")  # the estimate is still there
    window.value("document.getElementById('cancel').click()")
    assert "estimated from 57" in window.text(".drawing")
    assert "A first estimate." in window.text(".beside-map .notice")
    window.value(press)
    window.settled()
    assert window.text(".drawing") == "Heat map of benign"
    assert window.text(".beside-map .notice strong") == "Maps faithful"


def test_the_map_lies_over_the_image_as_strongly_as_was_chosen(window, mocked, tmp_path):
    """A grey image: where the worker's map is hottest, its colour; as `stillroom explain` would draw it, or weaker."""
    file = tmp_path / "sure-grey.png"
    Image.new("RGB", (60, 40), (120, 120, 120)).save(file)
    window.shape(1440)
    window.open(mocked())
    window.give(file)
    window.settled()

    def seen(code=""):
        """The pixel of the hottest place in the last pane, and the brightest anywhere in it."""
        return window.value(
            f"(async () => {{ {code}; await new Promise(requestAnimationFrame); await new Promise(requestAnimationFrame);"
            "const all = [...document.querySelectorAll('.pane canvas')].filter((one) => one.offsetParent);"
            "const canvas = all.at(-1), brush = canvas.getContext('2d');"
            "const scale = Math.min(canvas.width / 60, canvas.height / 40);"
            "const at = [canvas.width / 2 + (0.55 - 0.5) * 60 * scale, canvas.height / 2 + (0.42 - 0.5) * 40 * scale];"
            "const whole = brush.getImageData(0, 0, canvas.width, canvas.height).data;"
            "const brightest = whole.reduce((most, value, n) => n % 4 < 3 ? Math.max(most, value) : most, 0);"
            "return [[...brush.getImageData(...at, 1, 1).data].slice(0, 3), brightest,"
            "all.length]; })()"
        )

    def change(name, value, event):
        return (
            f"const e = document.getElementById('{name}'); e.value = '{value}'; e.dispatchEvent(new Event('{event}'))"
        )

    hot = np.asarray(Image.new("RGB", (1, 1), (120, 120, 120)))
    drawn = np.asarray(overlay(np.repeat(hot, 9, 0).repeat(9, 1), np.full((9, 9), 0.999)))[4, 4]
    pixel, brightest, panes = seen(change("map-style", "fill", "change"))
    assert np.abs(np.subtract(pixel, drawn.astype(int))).max() <= 6
    assert panes == 1
    assert brightest < 250
    assert seen(change("map-opacity", 0, "input"))[0] == [120, 120, 120]
    pixel, brightest, _ = seen(change("map-style", "lines", "change"))
    assert pixel == [120, 120, 120]
    assert brightest == 255
    pixel, _, panes = seen("[...document.querySelectorAll('.dials button')].at(-1).click()")
    assert panes == 2


def spoken(window):
    """Every text that stands in the page, shown or not, and what is read aloud."""
    return window.value(
        "[...document.querySelectorAll('body *')].filter((node) => !['SCRIPT', 'NOSCRIPT'].includes(node.tagName))"
        ".flatMap((node) => [...node.childNodes].filter((child) => child.nodeType === 3).map((child) => child.data.trim())"
        ".concat(node.ariaLabel ?? []))"
    )


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
    english = set(TEXTS["en"].values()) - set(TEXTS["de"].values()) - {"English", "image", "class"}
    deadline = time.monotonic() + 20
    while english & set(shown := spoken(window)) and time.monotonic() < deadline:
        time.sleep(0.1)  # answers are put into words anew, one after the other
    assert not english & set(shown)
    assert TEXTS["de"]["standing.device"] in shown


def test_a_page_opens_in_the_language_that_it_was_made_for(window, mocked):
    window.open(mocked("de"))
    assert window.value("document.documentElement.lang") == "de"
    assert window.text("#intake-title") == "Bilder hier ablegen"
    assert window.value("document.title") == TEXTS["de"]["page.title"]


@pytest.mark.parametrize(("wanted", "spoken_then"), [("fr-FR,de-AT", "de"), ("en-GB,de", "en"), ("fr", "en")])
def test_a_page_made_for_no_language_opens_in_the_browser_s(window, mocked, pictures, wanted, spoken_then):
    agent = window.value("navigator.userAgent")
    window.ask("Emulation.setUserAgentOverride", userAgent=agent, acceptLanguage=wanted)
    try:
        window.open(mocked(None))
        assert window.value("document.documentElement.lang") == spoken_then
        window.give(*pictures("foreign-1.png"))
        window.settled()
        assert window.text("#one-title") == TEXTS[spoken_then]["answer.foreign"]  # the worker speaks it, too
    finally:
        window.ask("Emulation.setUserAgentOverride", userAgent=agent, acceptLanguage="en")


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


@pytest.mark.parametrize(
    ("language", "said"),
    [
        ("en", "Heat map of normal, estimated from 43 of the network's 256 channels"),
        ("de", "Heatmap von normal, geschätzt aus 43 der 256 Kanäle des Netzes"),
    ],
)
def test_paper_says_of_which_class_the_map_is(window, mocked, pictures, language, said):
    """The answer is another class: of the map's, nothing else on paper tells."""
    first = FIRST | {"estimate": {"asked": 43, "channels": 256, "coarse": True}}
    window.open(mocked(language, mock={"first": first}))
    window.give(*pictures("sure-1.png"))
    window.settled()
    window.value(
        "(() => { const e = document.getElementById('map-of'); e.value = 'normal'; e.dispatchEvent(new Event('change')) })()"
    )
    window.settled()
    window.shape(688, height=1000, media="print")
    assert window.text("#one-title") == "benign"
    assert window.text(".drawing") == said
    window.shape(1440)


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


def test_a_changed_byte_and_a_missing_end_are_told_apart(window, real, pictures, tmp_path):
    content = bytearray(pictures("whole.png", shape=(200, 300, 3))[0].read_bytes())
    (tmp_path / "cut.png").write_bytes(content[: len(content) // 2])
    content[content.index(b"IDAT") + 8 : content.index(b"IDAT") + 12] = b"\xff" * 4
    (tmp_path / "changed.png").write_bytes(content)
    window.open(real)
    window.give(tmp_path / "cut.png", tmp_path / "changed.png")
    window.until("document.querySelectorAll('#many .wrong').length === 2")
    said = window.value("[...document.querySelectorAll('#many .wrong')].map((cell) => cell.textContent)")
    assert said == [TEXTS["en"]["refused.truncated"], TEXTS["en"]["refused.changed"]]


def test_pasted_images_are_counted_from_one_again_when_all_are_cleared(window, mocked):
    window.open(mocked())
    paste = (
        "(() => { const held = new DataTransfer(); const blob = new File([new Uint8Array(9)], '', {type: 'image/png'});"
        "held.items.add(blob); held.items.add(blob); const given = new ClipboardEvent('paste', {clipboardData: held});"
        "document.dispatchEvent(given); })()"
    )
    for _ in range(2):
        window.value(paste)
        window.until("document.querySelectorAll('#many .wrong').length === 2")
        names = window.value("[...document.querySelectorAll('#many td.name')].map((cell) => cell.textContent)")
        assert names == ["pasted image 1", "pasted image 2"]
        window.value("document.getElementById('clear').click()")


def test_a_page_whose_model_is_damaged_says_what_to_do(window, real, pictures, tmp_path):
    page = re.sub(
        r'(id="part-model">).*?(</script>)', rf"\g<1>{packed('no model')}\2", real.read_text("utf-8"), flags=re.S
    )
    (tmp_path / "damaged.html").write_text(page, "utf-8")
    window.browser.goto((tmp_path / "damaged.html").as_uri())
    window.until("!document.getElementById('trouble').hidden")
    assert TEXTS["en"]["trouble.opening"] in window.text("#trouble")
    window.give(*pictures("one.png"))
    time.sleep(0.5)
    assert TEXTS["en"]["trouble.opening"] in window.text("#trouble")


def flipped(page: str, part: str, share: float = 0.5) -> str:
    """One letter of a part's base64 is another: the one at this share of its length."""
    start, end = re.search(rf'id="part-{part}">(.*?)</script>', page, re.S).span(1)
    at = start + int(share * (end - start - 1))
    return page[:at] + ("A" if page[at] != "A" else "B") + page[at + 1 :]


def less(page: str, part: str) -> str:
    """A letter in the middle of a part's base64 is missing."""
    start, end = re.search(rf'id="part-{part}">(.*?)</script>', page, re.S).span(1)
    return page[: (start + end) // 2] + page[(start + end) // 2 + 1 :]


DAMAGED = {  # what was done to the file, and where it is told
    "cut off": (lambda page: page[: len(page) // 2], "#damaged"),
    "words": (lambda page: flipped(page, "data"), "#damaged"),
    "the end of the words": (lambda page: flipped(page, "data", 0.99), "#damaged"),
    "a letter less": (lambda page: less(page, "data"), "#damaged"),
    "words that are well formed": (
        lambda page: changed(page, "data", b"not this kind", b"all this kind"),
        "#damaged",
    ),
    "no words": (lambda page: page.replace('id="part-data"', 'id="part-dat"'), "#damaged"),
    "script": (lambda page: page.replace("fromBase64", "fromBase65"), "#damaged"),
    "model": (lambda page: flipped(page, "model"), "#trouble"),
    "no model": (lambda page: page.replace('id="part-model"', 'id="part-mode"'), "#trouble"),
    "runtime": (lambda page: flipped(page, "wasm"), "#trouble"),
    "worker": (lambda page: flipped(page, "worker"), "#trouble"),
}


@pytest.mark.parametrize("what", DAMAGED)
def test_a_page_that_is_damaged_or_not_whole_says_so(window, real, tmp_path, what):
    damage, place = DAMAGED[what]
    whole = real.read_text("utf-8")
    assert damage(whole) != whole
    (tmp_path / "damaged.html").write_text(damage(whole), "utf-8")
    window.browser.goto((tmp_path / "damaged.html").as_uri())
    window.until(
        f"(() => {{ const node = document.querySelector({json.dumps(place)});"
        "return node && !node.hidden && getComputedStyle(node).opacity === '1'; })()"
    )
    assert "damaged or was not copied whole: copy it again" in window.text(place)
    assert TEXTS["en"]["standing.device"] in window.text("body")
    assert window.text("#title") == TEXTS["en"]["page.title"]
    assert "image" not in window.text(place)


# -- how it is built ------------------------------------------------------------------------------------------------
def test_the_face_is_small():
    assert sum(len(lean(file.read_text("utf-8")).encode()) for file in FACE.iterdir()) < 64_000
