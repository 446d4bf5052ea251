"""The page in a real browser: no sideways scrolling on a phone, and something on it."""

import html
import json
import re

import numpy as np
import pytest
from browsers import opened, program_of

from stillroom.evaluation.roles import SIMPLEST
from stillroom.report import write_report
from stillroom.task import MultiClass

pytestmark = pytest.mark.slow
LONG = "consolidation of the left lower lobe with pleural effusion " * 2


@pytest.mark.parametrize("width", [390, 820])
def test_page_never_scrolls_sideways(make_run, browse, tmp_path, width):
    classes = (LONG, "x" * 90, *(f"class {number}" for number in range(12)))
    report = write_report(
        make_run(
            task=MultiClass(classes),
            roles=("student", "control", "teacher", *SIMPLEST),
            images=420,
            epochs=1,
            featured=16,
            explained=6,
            lesions=True,
            uncertain=True,
            several=3,
            planned=True,
        )
    )
    # A window has a least width; a frame has not.
    frame = tmp_path / "frame.html"
    frame.write_text(
        f'<iframe src="{report.as_uri()}" style="width:{width}px;height:900px;border:0"></iframe><p id="w"></p>'
        "<script>onload = () => { const d = document.querySelector('iframe').contentDocument.documentElement;"
        "document.getElementById('w').textContent = d.scrollWidth + ' of ' + d.clientWidth; }</script>"
    )
    found = re.search(r"(\d+) of (\d+)</p>", browse(frame, "--dump-dom", "--window-size=1500,1000"))
    assert found, "the frame could not be measured"
    assert int(found[2]) == width
    assert int(found[1]) <= width


MEASURE = """<body style="margin:0"></body><p id="found"></p><script>
const said = {}, widths = %s;
const settled = () => new Promise((done) => setTimeout(done, 100));
const lines = (name, side, range = name.ownerDocument.createRange()) => {
  range.selectNodeContents(name);
  return new Set([...range.getClientRects()].map((box) => Math.round(box[side]))).size;
};
onload = async () => {
  for (const width of widths) {
    const frame = document.createElement('iframe');
    frame.style = `width:${width}px;height:900px;border:0;display:block`;
    await new Promise((done) => { frame.onload = done; frame.src = '%s'; document.body.append(frame); });
    const page = frame.contentDocument, root = page.documentElement, view = frame.contentWindow;
    const tables = [...page.querySelectorAll('.scroll')].filter((one) => one.clientWidth);
    const one = said[width] = {
      height: root.scrollHeight, sideways: root.scrollWidth - root.clientWidth, tables: tables.length,
      cut: tables.filter((one) => one.scrollWidth > one.clientWidth + 1).map((one) => one.textContent.trim().slice(0, 60)),
      broken: [...page.querySelectorAll('.confusion tbody th')].filter((name) => lines(name, 'top') > 1).length +
        [...page.querySelectorAll('.confusion thead span:not(.hidden)')].filter((name) => lines(name, 'left') > 1).length,
      names: page.querySelectorAll('.confusion thead span:not(.hidden)').length,
      dated: lines(page.querySelector('.when'), 'top'),
      beside: page.querySelector('main').getBoundingClientRect().left > 100,
    };
    page.getElementById('mistakes').closest('details').open = true;
    const told = [...page.querySelectorAll('.gallery dd')];
    const texts = told.flatMap((said) => [...said.childNodes].filter((node) => node.data));
    const words = texts.flatMap((node) => [...node.data.matchAll(/\\S+/g)].map((at) => [node, at.index, at[0].length]));
    one.words = words.length;
    one.torn = words.filter(([node, at, long]) => {
      const range = page.createRange();
      range.setStart(node, at); range.setEnd(node, at + long);
      return new Set([...range.getClientRects()].map((box) => Math.round(box.top))).size > 1;
    }).map(([node, at, long]) => node.data.slice(at, at + long));
    const term = page.querySelector('.answers .term'), tip = page.getElementById(term.getAttribute('popovertarget'));
    term.focus(); one.focused = page.activeElement === term;
    term.click(); await settled();
    const box = tip.getBoundingClientRect(), at = term.getBoundingClientRect();
    one.tip = tip.matches(':popover-open') && box.left >= 0 && box.right <= width && box.bottom <= 900 && box.height > 20;
    one.near = Math.abs(box.top - at.bottom) < 40 || Math.abs(at.top - box.bottom) < 40;
    tip.hidePopover();
    one.folded = !page.getElementById('calibration').closest('details').open;
    view.location.hash = 'calibration'; await settled();
    one.opened = page.getElementById('calibration').closest('details').open;
    frame.remove();
  }
  document.getElementById('found').textContent = JSON.stringify(said);
};</script>"""


@pytest.fixture
def measured(browse, tmp_path):
    """What a page is like at each width, asked of Chromium in one go."""

    def ask(report, *widths):
        frame = tmp_path / "measure.html"
        frame.write_text(MEASURE % (list(widths), report.as_uri()))
        printed = browse(frame, "--dump-dom", "--window-size=1800,1000", "--virtual-time-budget=60000")
        found = re.search(r'<p id="found">(\{.*\})</p>', printed, re.DOTALL)
        assert found, "the page could not be measured"
        return {int(width): values for width, values in json.loads(html.unescape(found[1])).items()}

    return ask


def test_names_and_tables_are_whole_and_terms_explained_at_every_width(make_run, measured):
    names = ("glioma_tumor", "meningioma_tumor", "no_tumor", "pituitary_tumor")
    run = make_run(
        task=MultiClass(names), roles=("student", "control", "teacher", *SIMPLEST), images=420, featured=16, explained=6,
        lesions=True, uncertain=True, planned=True,
    )  # fmt: skip
    found = measured(write_report(run), 390, 768, 1200, 1440, 1600)
    for width, page in found.items():
        assert page["sideways"] <= 0, width
        assert page["cut"] == [], width
        assert page["tables"] > 8
        assert (page["names"], page["broken"]) == (8, 0), width
        assert page["words"] > 60
        assert page["dated"] == 1, width
        assert page["torn"] == [], width
        assert page["focused"], width
        assert page["tip"], (width, page)
        assert page["near"], (width, page)
        assert page["folded"], width
        assert page["opened"], width
        assert page["beside"] == (width >= 1180)
    assert found[1440]["height"] < 7000
    assert found[390]["height"] < 14000


TORN = r"""(() => {
  for (const folded of document.querySelectorAll('details')) folded.open = true;
  const walker = document.createTreeWalker(document.querySelector('main'), NodeFilter.SHOW_TEXT);
  const torn = [], range = document.createRange();
  let words = 0;
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const parent = node.parentElement;
    if (parent.closest('svg, pre, .hidden, [popover], .facts')) continue;
    const side = getComputedStyle(parent).writingMode === 'horizontal-tb' ? 'top' : 'left';
    for (const at of node.data.matchAll(/--[\w-]+|[^\s-]+/g)) {
      range.setStart(node, at.index); range.setEnd(node, at.index + at[0].length);
      words += 1;
      const boxes = [...range.getClientRects()].filter((box) => box.width);
      if (new Set(boxes.map((box) => Math.round(box[side]))).size > 1) torn.push(at[0]);
    }
  }
  const letters = [...document.querySelectorAll('main svg text')].filter((one) => one.textContent.trim()).map((one) => {
    const drawing = one.ownerSVGElement;
    return parseFloat(getComputedStyle(one).fontSize) * drawing.getBoundingClientRect().width / drawing.viewBox.baseVal.width;
  });
  const root = document.documentElement;
  return { words, torn, sideways: root.scrollWidth - root.clientWidth, least: Math.min(...letters) };
})()"""
"""Of a page with all its sections open: words that stand on two lines, except at hyphens, and the least height of letters."""


def test_no_word_breaks_and_drawings_are_legible_with_all_sections_open(make_run, tmp_path):
    if program_of("chromium") is None:
        pytest.skip("chromium is not here")
    names = ("Myringosclerosis", "meningioma_tumor", "Chronic otitis media")
    run = make_run(task=MultiClass(names), explained=6, uncertain=True, planned=True)
    audit = json.loads((run / "audit.json").read_text())
    for pair in audit["cross_split_duplicates"]:
        pair |= {"first": f"test/{names[0]}/mi124.jpg", "second": f"train/{names[1]}/meningioma_tumor_1024.png"}
    audit["quarantined"] = [{"path": f"train/{names[0]}/mi3.jpg", "reason": "It is no image that can be read."}]
    (run / "audit.json").write_text(json.dumps(audit))
    with opened("chromium", tmp_path) as browser:
        browser.goto(write_report(run).as_uri())
        for width in (390, 768, 1200, 1600):
            browser.ask(
                "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False
            )
            page = browser.evaluate(TORN)
            assert page["words"] > 1000
            assert page["torn"] == [], width
            assert page["sideways"] <= 0, width
            assert page["least"] >= (10 if width < 520 else 8.5), width


@pytest.mark.parametrize("scheme", [0, 1], ids=["dark", "light"])
def test_page_is_drawn_in_its_scheme(make_run, browse, tmp_path, scheme):
    from PIL import Image

    report = write_report(make_run(featured=16))
    shot = tmp_path / "page.png"
    flags = (f"--screenshot={shot}", "--window-size=1200,3000", f"--blink-settings=preferredColorScheme={scheme}")
    browse(report, *flags)
    pixels = np.asarray(Image.open(shot).convert("L"), dtype=float)
    assert pixels.std() > 10
    assert (np.median(pixels) > 200) == (scheme == 1)


@pytest.mark.parametrize("name", ["chromium", "firefox"])
def test_contents_mark_the_section_on_show(make_run, tmp_path, name):
    if program_of(name) is None:
        pytest.skip(f"{name} is not here")
    report = write_report(make_run("multiclass", featured=16, explained=6))
    (tmp_path / name).mkdir()
    ask = """(async () => {
      const now = () => [...document.querySelectorAll('[aria-current]')].map((link) => link.hash.slice(1));
      const marked = { first: now() };
      document.documentElement.style.scrollBehavior = 'auto';
      for (const key of ['results', 'errors', 'verdict', 'classes']) {
        document.getElementById(key).scrollIntoView();
        await new Promise((done) => setTimeout(done, 300));
        marked[key] = now();
      }
      for (const key of ['citation', 'glossary']) {
        document.querySelector(`.contents a[href="#${key}"]`).click();
        await new Promise((done) => setTimeout(done, 300));
        marked[key] = now();
      }
      scrollTo(0, 0); await new Promise((done) => setTimeout(done, 300));
      scrollTo(0, 1e6); await new Promise((done) => setTimeout(done, 300));
      marked.end = now();
      return marked;
    })()"""
    with opened(name, tmp_path / name) as browser:
        browser.goto(report.as_uri())
        expected = {key: [key] for key in ("results", "errors", "verdict", "classes", "citation", "glossary")}
        assert browser.evaluate(ask) == {"first": ["verdict"], "end": ["citation"]} | expected
        assert browser.complaints == []
