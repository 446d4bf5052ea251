import base64
import hashlib
import json
import re

import numpy as np
import pytest

from stillroom.errors import RunError, UsageError
from stillroom.report import write_model_card, write_report
from stillroom.report.numbers import METRICS
from stillroom.report.templating import TEMPLATES, breakable, flags
from stillroom.task import MultiClass


@pytest.mark.parametrize("kind", ["binary", "multiclass", "ordinal", "multilabel"])
def test_page_is_whole_and_shows_every_test_figure(make_run, kind, page_of):
    run = make_run(kind, images=600 if kind == "multilabel" else 360, featured=16)
    page = page_of(run)
    assert (run / "report.html").stat().st_size < 3_000_000
    metrics = json.loads((run / "metrics.json").read_text())
    for test in metrics["test"].values():
        for key in METRICS:
            if test.get(key):
                for end in ("value",) if key == "ece" else ("value", "low", "high"):
                    assert f"{test[key][end]:.3f}".replace("-", "−") in page.words, (key, end)
    assert ("Quadratic kappa" in page.words) == (kind == "ordinal")
    assert len([1 for tag, _ in page.elements if tag == "h1"]) == 1


def test_page_loads_nothing_from_outside(make_run, page_of):
    page = page_of(make_run(featured=16))
    for tag, attributes in page.elements:
        assert tag not in ("link", "iframe", "object", "base")
        assert tag != "script" or not attributes  # the page's own, inside it
        assert not any(name.startswith("on") for name in attributes)
        for name in ("src", "href", "data", "srcset"):
            value = attributes.get(name) or ""
            if value.startswith(("#", "data:image/")) or not value:
                continue
            assert tag == "a"
            assert re.match(r"https://(doi\.org|arxiv\.org)/", value)
    style = next(a for t, a in page.elements if t == "meta" and a.get("http-equiv"))
    script = re.search(r"<script>(.+?)</script>", page.source, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert style["content"].startswith("default-src 'none'; ")
    assert style["content"].endswith(f"script-src 'sha256-{digest}'")


def test_ids_are_unique_and_every_reference_has_its_target(make_run, page_of):
    page = page_of(make_run("multiclass", featured=16))
    text = page.source
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    wanted = set(re.findall(r"url\(#([^)]+)\)", text))
    wanted |= {a["href"][1:] for _, a in page.elements if (a.get("href") or "").startswith("#")}
    assert wanted
    assert wanted <= set(ids)


def test_a_link_of_the_contents_opens_its_section(make_run, page_of):
    text = page_of(make_run("multiclass", featured=16)).source
    contents, _, rest = text.partition("</nav>")
    sections = re.findall(r'<section (?:id="[a-z_]+" )?aria-labelledby="([a-z_]+)-title"', rest)
    assert re.findall(r'<li><a href="#([^"]+)">', contents) == sections
    for key in set(sections) - {"verdict", "warnings"}:
        # A browser opens the details around what a link leads to: so the id lies inside.
        summary = rf'<summary><h2 id="{key}-title">[^<]+</h2>.*?</summary>'
        assert re.search(rf'<details class="fold"[^>]*>\s*{summary}\s*<div class="body" id="{key}">', text), key


def test_names_may_break_where_they_were_put_together_alone():
    assert breakable("meningioma_tumor") == "meningioma_<wbr>tumor"
    assert breakable("non-smallCell <b> 0.92") == "non-<wbr>small<wbr>Cell &lt;b&gt; 0.92"
    assert breakable("pH CT 3D") == "pH CT 3D"
    assert breakable("test/mi24.jpg") == "test/<wbr>mi24.jpg"
    assert breakable("student.pretrained 0.125 a.jpeg") == "student.<wbr>pretrained 0.125 a.jpeg"


def test_a_flag_never_breaks():
    assert flags("<b> give --drop-leaks, - or a--b") == (
        '&lt;b&gt; give <span class="flag">--drop-leaks</span>, - or a--b'
    )


def test_folded_sections_say_in_a_line_what_is_in_them(make_run, page_of):
    text = page_of(make_run("multiclass", featured=16, explained=6, uncertain=True, planned=True)).source
    heads = re.findall(r'<summary><h2 id="([^"]+)-title">[^<]+</h2>(.*?)</summary>', text)
    assert len(heads) > 15
    for key, said in heads:
        assert re.fullmatch(r'<span class="gist">[^<]{5,170}</span>', said), key
    assert re.search(r"test images wrong; most often \w[\w ]+ taken for", dict(heads)["errors"])


@pytest.mark.parametrize("kind", ["binary", "multiclass", "multilabel"])
def test_the_first_screen_says_how_good_how_sure_and_what_not(make_run, page_of, kind):
    run = make_run(kind, images=420, featured=16)
    text = page_of(run).source
    good, sure, unfit = re.findall(r"<div><dt>(?:How good|How sure|What not)</dt><dd>(.*?)</dd></div>", text)
    plain = re.sub(r"<[^>]+>", "", good)
    student = json.loads((run / "metrics.json").read_text())["test"]["student"]
    sensitivity = {name: values["sensitivity"]["value"] for name, values in student["per_class"].items()}
    if kind == "binary":
        assert f"For pneumonia: sensitivity {student['sensitivity']['value']:.3f} (" in plain
    else:
        least = sorted(sensitivity, key=sensitivity.get)[:5]
        places = [plain.index(f"{name} {sensitivity[name]:.3f} (") for name in least]
        assert places == sorted(places)
        assert (f"the other {len(sensitivity) - 5} more often" in plain) == (len(sensitivity) > 5)
    assert f"{student['images']} test images of {student['patients']} patients" in sure
    assert "The splits leak" in unfit
    assert "Not as a medical device." in unfit


def test_every_term_of_the_tables_is_explained_where_it_stands(make_run, page_of):
    page = page_of(make_run("multiclass", featured=16, explained=6, lesions=True, uncertain=True))
    text = page.source
    tips = {attributes["id"] for _, attributes in page.elements if "popover" in attributes}
    asked = [attributes for tag, attributes in page.elements if attributes.get("class") == "term"]
    assert {f"{one['popovertarget']}" for one in asked} <= tips
    assert all(len(one["title"]) > 30 for one in asked)
    figures = re.search(r'id="test-figures".*?</table>', text, re.S)[0]
    for name in METRICS.values():
        if f'<th scope="row">{name}' in figures or f">{name}</button>" in figures:
            assert f">{name}</button>" in figures, name
    for name in ("Temperature", "Insertion − deletion", "Drop", "ROAD", "Heat on the marked region", "SSIM"):
        assert re.search(rf'class="term"[^>]*>{name}</button>', text), name


def test_a_class_named_like_a_term_is_no_term(make_run, page_of):
    text = page_of(make_run(task=MultiClass(("control", "AUC", "temperature")), images=300, featured=16)).source
    rows = re.search(r'id="per-class".*?</table>', text, re.S)[0]
    assert rows.count('<th scope="row">control</th>') == 1
    assert rows.count('<th scope="row">AUC</th>') == 1


def test_drawings_take_the_page_s_colours_and_say_what_they_show(make_run):
    text = write_report(make_run(featured=16)).read_text(encoding="utf-8")
    drawings = re.findall(r"<svg.*?</svg>", text, flags=re.S)
    assert len(drawings) > 10
    for drawing in drawings:
        assert 'role="img"' in drawing
        assert re.search(r'aria-label="[^"]{10,}"', drawing)
        assert "var(--" in drawing
        colours = re.findall(r"(?:fill|stroke): *(#[0-9a-f]+)", drawing)
        assert colours == []
    variables = set(re.findall(r"var\((--[a-z0-9-]+)\)", text))
    style = text[text.index("<style>") : text.index("</style>")]
    light, dark = style.split("prefers-color-scheme: dark", 1)
    for variable in variables - {"--role", "--share", "--longest", "--legible", "--text", "--serif"}:
        assert f"{variable}:" in light
        assert f"{variable}:" in dark


def test_names_from_the_data_cannot_become_markup(make_run, page_of, change):
    bad = "<script>&\"x $a_b$ 'y'"
    run = make_run(task=MultiClass((bad, "</style>", "fine")), images=300, featured=16)
    change(run, "manifest.json", lambda m: m.update(data="<img src=x onerror=alert(1)>", student="a<b>"))
    page = page_of(run)
    text = page.source
    assert text.count("<script") == 1
    assert "<img src=x" not in text
    assert text.count("</style>") == 1
    assert bad in page.words
    assert "<img src=x onerror=alert(1)>" in page.words


def test_names_from_the_data_cannot_steer_what_shows_them(make_run):
    run = make_run(task=MultiClass(("\x1b[2Jill", "\x07\x9b31m", "fine\u202e")), images=300, featured=16)
    write_model_card(run)
    write_report(run)
    for name in ("report.html", "MODEL_CARD.md"):
        text = (run / name).read_text(encoding="utf-8")
        assert not set(text) & {"\x1b", "\x07", "\x9b", "\u202e"}
        assert r"\x1b" in text
        assert r"\x07\x9b31m" in text


def test_parts_may_be_missing(make_run, page_of, change):
    run = make_run()
    for name in ("audit.json", "history.jsonl", "predictions.parquet"):
        (run / name).unlink()
    change(run, "metrics.json", lambda m: [m.pop(key) for key in ("calibration", "comparison", "efficiency", "export")])
    page = page_of(run)
    assert "Student and teacher were not compared." in page.words
    assert "This run holds no audit of its data." in page.words
    ids = {attributes.get("id") for _, attributes in page.elements}
    assert {"results", "making", "glossary"} <= ids
    assert not {"curves", "errors", "features", "mistakes", "efficiency", "calibration"} & ids


def test_null_figures_are_shown_as_missing(make_run, page_of, change):
    run = make_run(featured=16)

    def edit(metrics):
        metrics["test"]["student"]["auc"] = None
        metrics["test"]["teacher"]["f1"] = {"value": 0.5, "low": None, "high": None}
        metrics["efficiency"]["student"]["latency_ms"] = None
        metrics["comparison"]["student_vs_teacher"]["difference"] = {"value": None, "low": None, "high": None}

    change(run, "metrics.json", edit)
    page = page_of(run)
    assert "n/a" in page.words
    assert "Whether the student is as good as its teacher is not known." in page.words


def test_a_student_alone_and_a_single_epoch(make_run, page_of):
    run = make_run(roles=("student",), epochs=1, patients=False, leaks=0, images=240)
    page = page_of(run)
    assert "Trained without a teacher" in page.words
    assert "This run had no teacher." in page.words
    assert "found nothing to warn of" in page.words
    assert "Teacher" not in page.words.replace("This run had no teacher", "")


def test_synthetic_data_and_leaks_are_said_first(make_run, page_of):
    words = page_of(make_run(synthetic=True, featured=16)).words
    assert words.index("Synthetic data") < words.index("These images are synthetic.") < words.index("Measured once")
    assert words.index("The splits leak: 3 test images") < words.index("Measured once")
    assert "images/broken.png" in words
    assert "pneumonia: 3 in test" in words


def test_long_lists_of_the_audit_are_cut_and_counted(make_run, page_of, change):
    run = make_run(leaks=230, featured=16)
    change(run, "audit.json", lambda audit: audit.update(totals={"cross_split_duplicates": 1230}))
    words = page_of(run).words
    assert "The same image in two splits (1,230 pairs)" in words
    assert "The first 200 are listed" in words
    assert "images/case_0199.png train" in words
    assert "images/case_0200.png train" not in words


def test_patients_on_two_sides_are_named(make_run, page_of, change):
    shared = [{"patient": "P-17", "splits": {"train": 2, "test": 1}, "images": 3}]
    run = make_run(leaks=0, featured=16)
    change(run, "audit.json", lambda audit: audit.update(patients_on_two_sides=shared))
    words = page_of(run).words
    assert "The splits leak: 1 patient is on more than one side." in words
    assert "P-17 (train: 2, test: 1)" in words


def test_a_damaged_history_spoils_no_report(make_run, page_of):
    run = make_run(featured=16)
    lines = (run / "history.jsonl").read_text().splitlines()
    (run / "history.jsonl").write_text("\n".join([lines[0], lines[1][:20], *lines[2:]]) + "\n")
    assert "Training loss" in page_of(run).words


def test_positive_class_is_named_in_verdict_and_caption(make_run, page_of):
    page = page_of(make_run(featured=16)).words
    verdict = page.index("positive class: pneumonia")
    assert verdict < page.index("better than guessing")
    assert "Test figures with 95 % intervals; positive class: pneumonia" in page


def test_temperatures_to_mind_stand_with_the_calibration(make_run, page_of, change):
    run = make_run(featured=16)

    def edit(metrics):
        student = metrics["calibration"]["student"]
        for when, value, verdict in (("before", 0.03, "not shown"), ("after", 0.05, "recalibration needed")):
            student[when]["error"]["value"] = value
            student[when]["verdict"] = verdict
        student["temperature"] = 20.0

    change(run, "metrics.json", edit)
    words = page_of(run).words
    assert "Student: The fitted temperature is at its bound of 20" in words
    assert "calibration error 0.030 before, 0.050 after" in words
    assert "Student: Recalibration is needed: " in words


def test_same_run_gives_the_same_page(make_run):
    run = make_run(featured=30)
    first = write_report(run).read_bytes()
    assert write_report(run).read_bytes() == first


def test_matplotlib_keeps_its_settings(make_run):
    import matplotlib

    before = dict(matplotlib.rcParams)
    write_report(make_run(featured=16))
    assert dict(matplotlib.rcParams) == before


def test_not_a_run_folder(tmp_path):
    with pytest.raises(UsageError, match=r"no manifest\.json"):
        write_report(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("metrics.json", "{", "not valid JSON"),
        ("metrics.json", '{"task": {"kind": "binary", "classes": ["a", "b"]}}', "no test figures"),
        ("settings.yaml", "a: [", "not valid YAML"),
    ],
)
def test_broken_files_are_named(make_run, name, content, message):
    run = make_run(featured=16)
    for part in ("predictions.parquet", "features.npz", "gallery.npz"):
        (run / part).unlink()
    (run / name).write_text(content)
    with pytest.raises(RunError, match=message) as raised:
        write_report(run)
    assert name in str(raised.value)


def test_features_that_point_beyond_the_predictions_are_refused(make_run):
    run = make_run(featured=16)
    np.savez(run / "features.npz", student=np.zeros((9, 4)), index=np.arange(9) + 10_000)
    with pytest.raises(RunError, match="evaluate the run again"):
        write_report(run)


def luminance(colour):
    parts = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return np.dot([0.2126, 0.7152, 0.0722], linear)


def contrast(first, second):
    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_stand_out_from_the_page(scheme):
    """WCAG AA: 4.5 to 1 for text, 3 to 1 for marks in drawings."""
    css = (TEMPLATES / "style.css").read_text(encoding="utf-8")
    light, dark = css.split("prefers-color-scheme: dark", 1)
    part = light if scheme == "light" else dark[: dark.index("box-sizing")]
    colours = dict(re.findall(r"--([a-z0-9-]+): (#[0-9a-f]{6})", part))
    pairs = [("ink", "paper"), ("muted", "paper"), ("muted", "sheet"), ("accent", "paper"), ("paper", "bad")]
    pairs += [(tone, f"{tone}-sheet") for tone in ("good", "bad", "note")]
    assert all(contrast(colours[text], colours[ground]) >= 4.5 for text, ground in pairs)
    marks = [name for name in colours if name.startswith("class-") or name in ("student", "control", "teacher")]
    assert len(marks) == 11
    assert all(contrast(colours[mark], colours["paper"]) >= 3 for mark in marks)
    for role in ("student", "teacher"):  # the fullest cell of a confusion matrix
        mixed = [
            round(0.48 * int(colours[role][i : i + 2], 16) + 0.52 * int(colours["sheet"][i : i + 2], 16))
            for i in (1, 3, 5)
        ]
        assert contrast(colours["ink"], "#" + "".join(f"{value:02x}" for value in mixed)) >= 4.5
