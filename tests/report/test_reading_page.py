"""The page for readers: what it holds and what it keeps back, and a script that reads on it in a real browser."""

import base64
import hashlib
import json
import re
from html import unescape

import pytest

from stillroom.report.reading_page import reading_page

DOT = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="
)


def study(images=6, design="crossover", options=("clear", "nodule")):
    one = {"picture": DOT, "width": 40, "height": 30}
    helps = [{"decided": 1, "shares": [0.25, 0.75], "possible": [], "map": DOT, "of": options[1]}, None]
    return {
        "study": "abcd1234", "design": design, "options": list(options), "finding": options[1],
        "images": [one | {"image": n + 1, "half": n % 2, "help": helps[n == 0]} for n in range(images)],
    }  # fmt: skip


def page(**changes):
    return reading_page(study(**changes), title="Chest <films>", verdict="faithful", synthetic=True)


def write(folder, **changes):
    file = folder / "page.html"
    file.write_text(page(**changes), encoding="utf-8")
    return file


def driven(browse, folder, file, script, width=1200):
    """What ``script`` hands to ``done``, run beside the page in a frame of this width."""
    frame = folder / "frame.html"
    frame.write_text(
        f'<iframe src="{file.as_uri()}" style="width:{width}px;height:900px;border:0"></iframe><pre id="out"></pre><script>'
        "let doc, win; const at = (id) => doc.getElementById(id), frame = document.querySelector('iframe');"
        "const again = () => { win = frame.contentWindow; doc = win.document; };"
        "const reload = () => new Promise((then) => { frame.onload = () => { again(); then(); }; win.location.reload(); });"
        "const done = (found) => { document.getElementById('out').textContent = JSON.stringify(found); };"
        "const key = (name) => (doc.activeElement || doc.body).dispatchEvent("
        "new win.KeyboardEvent('keydown', { key: name, bubbles: true, cancelable: true }));"
        "const begin = (code) => { at('reader').value = code; at('begin').requestSubmit(); };"
        "const answer = (choice, steps = 1) => { key(choice);"
        "for (let n = 0; n < steps; n++) key('ArrowRight'); key('Enter'); };"
        # Real blobs are read in real time, which the browser's virtual time does not wait for.
        "const file = async () => { let text; win.Blob = function (parts) { text = parts.join(''); };"
        "win.URL.createObjectURL = () => '#'; at('download').click(); return JSON.parse(text); };"
        f"onload = async () => {{ again(); {script} }};</script>",
        encoding="utf-8",
    )
    dom = browse(frame, "--dump-dom", "--virtual-time-budget=20000", "--window-size=1500,1000")
    found = re.search(r'<pre id="out">(.+?)</pre>', dom, re.DOTALL)
    assert found, "the script did not come to its end"
    return json.loads(unescape(found[1]))


# -- without a browser ----------------------------------------------------------------------------------------------
def test_nothing_runs_but_the_pages_own_script_and_nothing_is_loaded():
    text = page()
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]+)"', text)[1]
    script = text.rpartition("<script>")[2].partition("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy.split("; ")[0] == "default-src 'none'"
    assert f"script-src 'sha256-{digest}'" in unescape(policy)
    assert "http:" not in text.replace("http-equiv", "")
    assert not re.search(r'(src|href)="(?!data:)', text)


def test_names_of_the_data_are_text():
    bad = "</script><script>alert(1)</script>"
    made = study(options=("clear", bad))
    text = reading_page(made, title="<b>films</b>", verdict=None, synthetic=False)
    assert "<b>films" not in text
    assert text.count("<script") == 2
    inside = re.search(r'<script type="application/json" id="study">(.+?)</script>', text, re.DOTALL)[1]
    assert json.loads(inside) == made


@pytest.mark.parametrize(
    ("verdict", "words"),
    [
        ("faithful", "faithful:"),
        ("not faithful", "not faithful"),
        ("not shown: too few images", "not shown: too few images"),
        (None, "not known"),
    ],
)
def test_readers_are_told_what_the_maps_are_worth(verdict, words):
    assert words in reading_page(study(), title="x", verdict=verdict, synthetic=False)


def test_phantoms_are_called_synthetic():
    assert "Synthetic data" in page()


# -- in a browser ---------------------------------------------------------------------------------------------------
READ_ALL = """
const missing = [];
key('Enter'); missing.push(at('missing').textContent);
key('2'); key('Enter'); missing.push(at('missing').textContent);
const seen = [];
const step = () => { seen.push([!at('help').hidden, at('help-answer').textContent]); answer('2', 2); };
while (at('rest').hidden) step();
const pause = at('rest-title').textContent, first = await file();
at('go-on').click();
while (at('rest').hidden) step();
done({ missing, pause, first: first.complete, shares: at('help-shares').textContent, file: await file(), seen });
"""


@pytest.mark.slow
def test_a_script_reads_every_image_without_and_with_help(browse, tmp_path):
    """R1 and, after a reload, R2: even codes begin with the other half, in another order."""
    again = "await reload(); begin('R2'); while (at('rest').hidden) answer('1'); at('go-on').click();"
    rest = "while (at('rest').hidden) answer('1'); const other = await file();"
    script = READ_ALL.replace("done({", f"const one = await file(); {again} {rest} done({{ other,").replace(
        "file: await file()", "file: one"
    )
    found = driven(browse, tmp_path, write(tmp_path), f"begin(' R1 '); {script}")
    assert found["missing"] == ["Choose an answer first.", "Say how sure you are first."]
    assert found["pause"] == "The first sitting is done."
    assert not found["first"]
    made = found["file"]
    assert (made["study"], made["reader"], made["design"], made["complete"]) == ("abcd1234", "R1", "crossover", True)
    readings, others = made["readings"], found["other"]["readings"]
    for file in (readings, others):
        assert sorted((one["image"], one["help"]) for one in file) == [
            (n, h) for n in range(1, 7) for h in (False, True)
        ]
        assert [one["sitting"] for one in file] == [1] * 6 + [2] * 6
    # R1 has help for the odd half (every second image) in the first sitting, and for the even one in the second.
    assert all(one["help"] == ((one["image"] % 2 == 0) == (one["sitting"] == 1)) for one in readings)
    assert all(one["help"] == ((one["image"] % 2 == 1) == (one["sitting"] == 1)) for one in others)
    assert [one["image"] for one in readings] != [one["image"] for one in others]
    assert {(one["answer"], one["confidence"]) for one in readings} == {("nodule", 60)}
    assert all(one["seconds"] > 0 for one in readings)
    assert [shown[0] for shown in found["seen"]] == [one["help"] for one in readings]
    refused = [text for shown, text in found["seen"] if shown and "refuses" in text]
    assert len(refused) == 1  # image 1 alone


@pytest.mark.slow
def test_reading_goes_on_where_it_stopped(browse, tmp_path):
    """In the same browser after a reload, and elsewhere from the file; another reader begins anew."""
    found = driven(
        browse,
        tmp_path,
        write(tmp_path),
        "begin('R1'); for (let n = 0; n < 4; n++) answer('1'); const titles = [at('read-title').textContent];"
        "await reload(); begin('R1'); titles.push(at('read-title').textContent); const made = await file();"
        "await reload(); begin('R2'); titles.push(at('read-title').textContent);"
        "await reload(); win.localStorage.clear(); const load = async (text) => { const held = new win.DataTransfer();"
        "win.File.prototype.text = async () => text;"
        "held.items.add(new win.File([text], 'a.json')); at('earlier').files = held.files;"
        "at('earlier').dispatchEvent(new win.Event('change')); await new Promise((then) => setTimeout(then, 300)); };"
        "await load('{broken'); titles.push(at('trouble').textContent);"
        "await load(JSON.stringify(made)); titles.push(at('read-title').textContent, at('trouble').textContent);"
        "done({ titles, kept: made.readings.length, complete: made.complete });",
    )
    there = "Sitting 1 of 2, reading 5 of 6"
    wrong = "This is no file of answers to this page."
    assert found["titles"] == [there, there, "Sitting 1 of 2, reading 1 of 6", wrong, there, ""]
    assert (found["kept"], found["complete"]) == (4, False)


@pytest.mark.slow
def test_one_after_the_other_begins_with_the_reader_alone(browse, tmp_path):
    found = driven(
        browse,
        tmp_path,
        write(tmp_path, design="sequential"),
        "begin('R1'); const was = []; while (at('rest').hidden) { const set = !at('confidence').classList.contains('unset');"
        "was.push([!at('help').hidden, set]); if (set) key('Enter'); else answer('1', 3); }"
        "done({ was, file: await file() });",
    )
    assert found["was"] == [[False, False], [True, True]] * 6  # with help the earlier answer stands there already
    pairs = found["file"]["readings"]
    assert [one["image"] for one in pairs[::2]] == [one["image"] for one in pairs[1::2]]
    assert {one["confidence"] for one in pairs} == {65}


@pytest.mark.slow
def test_the_page_never_scrolls_sideways(browse, tmp_path):
    long = "consolidation of the left lower lobe with pleural effusion " * 2
    found = driven(
        browse,
        tmp_path,
        write(tmp_path, options=("x" * 80, long)),
        "const wide = () => doc.documentElement.scrollWidth; const all = [wide()]; begin('R1');"
        "while (at('help').hidden) answer('1'); all.push(wide()); key('z'); all.push(wide());"
        "while (at('rest').hidden) answer('1'); all.push(wide()); done(all);",
        width=360,
    )
    assert max(found) <= 360
