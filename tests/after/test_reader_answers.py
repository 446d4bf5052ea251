"""Answers of readers: figures against counts made by hand, what is refused and in which words, and where it is told."""

import json

import numpy as np
import pytest

from stillroom.after.reader_answers import judge_answers, judged
from stillroom.after.reader_study import make_page
from stillroom.errors import RunError, UsageError
from stillroom.files.digests import record


@pytest.fixture
def study(own_run):
    """A run with a page of 12 images, and the truth about these: 0 or 1 by the image's number."""
    made = make_page(own_run, 12, show_progress=False)
    labels = own_run.predictions().set_index("id")["target"]
    options = made.content["options"]
    truth = {entry["image"]: options.index(labels[entry["id"]]) for entry in made.content["images"]}
    return own_run, made.content, truth


def answers(
    content, reader, says, *, design="crossover", sure=lambda image, helped: 50, seconds=lambda image, helped: 4.0
):
    """What the page saves of a reader who ``says(image, helped)`` 0 or 1."""
    half = {entry["image"]: entry["half"] for entry in content["images"]}
    first = int(reader[-1]) % 2
    return {
        "stillroom": "reader answers", "format": 1, "study": content["study"], "reader": reader, "design": design,
        "begun": "2026-01-01T00:00:00Z", "saved": "2026-01-01T00:00:00Z", "complete": True,
        "readings": [
            {
                "image": image, "help": helped, "sitting": 1 if (half[image] == first) == helped else 2,
                "answer": content["options"][says(image, helped)], "confidence": sure(image, helped),
                "seconds": seconds(image, helped),
            }
            for image in half
            for helped in (False, True)
        ],
    }  # fmt: skip


def save(folder, *contents):
    files = []
    for number, content in enumerate(contents):
        files.append(folder / f"answers-{number}.json")
        files[-1].write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return files


def test_figures_are_those_counted_by_hand(study, tmp_path):
    """R1 is right with help; without, it misses images 1 to 3. R2 never changes: wrong on image 1 alone. Times are halved."""
    run, content, truth = study
    time = lambda image, helped: 3.0 if helped else 6.0  # noqa: E731
    one = answers(content, "R1", lambda i, helped: truth[i] if helped or i > 3 else 1 - truth[i], seconds=time)
    two = answers(content, "R2", lambda i, _: 1 - truth[i] if i == 1 else truth[i], seconds=time)
    found = judged(run, save(tmp_path, one, two))
    sick = [image for image, what in truth.items() if what == 1]
    missed = sum(image <= 3 for image in sick)
    assert found["images_of_each"] == dict.fromkeys(content["options"], 6)
    first, second = found["each"]
    assert first["figures"]["sensitivity"]["without"]["value"] == pytest.approx(1 - missed / 6)
    assert first["figures"]["sensitivity"]["with"]["value"] == 1
    assert found["figures"]["specificity"]["with"]["value"] == pytest.approx(1 - (truth[1] == 0) / 12)
    assert second["figures"]["auc"]["difference"] == {"value": 0.0, "low": None, "high": None}
    assert first["changes"]["wrong_to_right"] == 3
    assert first["changes"]["right_to_wrong"] == second["changes"]["right_to_wrong"] == 0
    assert found["changes"]["wrong_to_right"] == 3
    assert found["changes"]["readings"] == 24
    said = {entry["image"]: -1 if entry["refused"] else entry["decided"] for entry in content["images"]}
    answered = [image for image in said if said[image] >= 0]
    agrees = np.mean([said[image] == truth[image] for image in answered])
    assert first["agreement"]["with"] == pytest.approx(agrees)
    assert second["changes"]["passed_over_the_right_model"] == (said[1] == truth[1])
    assert found["seconds"]["ratio"]["value"] == pytest.approx(0.5)
    assert (found["seconds"]["without"], found["seconds"]["with"]) == (6.0, 3.0)
    assert "2 readers say little of other readers" in " ".join(found["notes"])


def test_confidence_ranks_the_answers(study, tmp_path):
    """Surer where right: an AUC above that of the bare answers. A guess of yes still ranks above a guess of no."""
    run, content, truth = study
    wrong = min(truth)
    says = lambda i, _: 1 - truth[i] if i == wrong else truth[i]  # noqa: E731
    sure = lambda i, helped: (10 if i == wrong else 90) if helped else 0  # noqa: E731
    found = judged(run, save(tmp_path, answers(content, "R1", says, sure=sure)))
    auc = found["each"][0]["figures"]["auc"]
    assert auc["without"]["value"] == pytest.approx(
        1 - 0.5 / 6
    )  # one side is wholly right, one of six ties with the other
    assert auc["with"]["value"] == pytest.approx(1)  # barely wrong, and all others surely right
    assert not found["figures"]["auc"]["random_readers"]
    assert "One reader" in found["notes"][0]
    assert found["confidence"] == {"without": 0.0, "with": pytest.approx((11 * 90 + 10) / 12)}


def test_report_card_and_run_tell_the_same(study, tmp_path):
    run, content, truth = study
    rng = np.random.default_rng(0)
    made = [
        answers(content, f"R{n}", lambda i, helped: truth[i] if helped or rng.random() < 0.6 else 1 - truth[i])
        for n in range(1, 5)
    ]
    made[0]["reader"] = "R<1>"
    files = save(tmp_path, *made)
    run_metrics = run.metrics
    old = {"key": f"readers-{content['study']}", "title": "Older", "text": [], "tables": []}
    (run.path / "metrics.json").write_text(json.dumps(run_metrics | {"sections": [old]}), encoding="utf-8")
    record(run.path / "metrics.json")
    found = judge_answers(run, files)  # the section is replaced, not doubled
    (section,) = [part for part in run.metrics["sections"] if part["key"].startswith("readers-")]
    assert section["text"][0] == found["statement"]
    report, card = run.report.read_text("utf-8"), (run.path / "MODEL_CARD.md").read_text("utf-8")
    assert report.count(f'<div class="body" id="{section["key"]}"') == 1
    assert "R&lt;1&gt;" in report
    assert "R<1>" not in report
    assert "With help 4 readers did better" in card
    kept = json.loads((run.path / "reader_study" / content["study"] / "figures.json").read_text("utf-8"))
    assert kept == json.loads(json.dumps(found))


def test_what_is_no_answer_to_this_page_is_refused(study, tmp_path):
    run, content, truth = study
    good = answers(content, "R1", lambda i, _: truth[i])

    def refused(words, *contents):
        with pytest.raises(UsageError, match=words):
            judged(run, save(tmp_path, *contents))

    def changed(number, **values):
        readings = [dict(one) for one in good["readings"]]
        readings[number] |= values
        return good | {"readings": readings}

    refused("answers-0.json is damaged: it is not JSON", "{")
    refused("holds no readers' answers", {"study": content["study"]})
    refused("of another Stillroom .format 2", good | {"format": 2})
    refused("names no study", good | {"study": None})
    refused(
        f"of study 'ffffffff', which is none of .*Studies of this run: {content['study']}", good | {"study": "ffffffff"}
    )
    refused("does not say who read", good | {"reader": " "})
    refused("both of reader 'R1'", good, good)
    refused("is of study .* and .* of study ffffffff: give the answers of one", good, good | {"study": "ffffffff"})
    refused("not complete: 1 of 24 readings of reader 'R1' are missing", good | {"readings": good["readings"][1:]})
    refused("reading 2 is of image 99, which study", changed(1, image=99))
    refused("reading 2 is of image True", changed(1, image=True))
    refused("reading 2 reads image 1 without help a second time", changed(1, help=False))
    refused("does not say whether there was help", changed(1, help="yes"))
    refused(r"there is no answer 'middle'\. Answers: left, right", changed(0, answer="middle"))
    refused("confidence must be a number from 0 to 100, found 101", changed(0, confidence=101))
    refused("seconds must be a number from .* to 86400, found nan", json.dumps(changed(0, seconds=float("nan"))))
    with pytest.raises(UsageError, match="There is no file"):
        judged(run, [tmp_path / "none.json"])
    frame = run.predictions()
    frame["digest"] = "0"
    frame.to_parquet(run.path / "predictions.parquet", index=False)
    record(run.path / "predictions.parquet")
    with pytest.raises(RunError, match="the run was made anew since"):
        judged(run, save(tmp_path, good))


def test_the_verb_makes_the_page_and_shows_what_it_saved(own_run, tmp_path, capsys):
    from stillroom.cli.app import main

    def run(*words):
        main(["readers", str(own_run.path), *map(str, words)])
        return capsys.readouterr()

    assert "page.html" in run("--images", "12").out
    made = json.loads(run("--images", "12", "--json").out)
    assert len(made["images"]) == 12
    file = save(tmp_path, answers(made, "R1", lambda image, helped: int(helped)))[0]
    told = run(file)
    assert "Of this one reader" in told.out
    assert "One reader: the interval holds for this reader" in told.err
    with pytest.raises(SystemExit, match="2"):
        run(file, "--images", "12")
    assert "--images is for making the page" in capsys.readouterr().err


@pytest.mark.slow
def test_from_the_run_to_the_browser_and_back(study, tmp_path, browse):
    """A script reads on the page itself: with help it says what the model says, without it what is not true."""
    import re
    from html import unescape

    run, content, truth = study
    page = run.path / "reader_study" / content["study"] / "page.html"
    frame = tmp_path / "frame.html"
    frame.write_text(
        f'<iframe src="{page.as_uri()}"></iframe><pre id="out"></pre><script>onload = () => {{'
        "const win = document.querySelector('iframe').contentWindow, doc = win.document, at = (id) => doc.getElementById(id);"
        f"const truth = {json.dumps(truth)}, options = {json.dumps(content['options'])};"
        "const study = JSON.parse(at('study').textContent);"
        "const number = () => study.images.find((one) => one.picture === at('picture').getAttribute('src')).image;"
        "const said = () => options.findIndex((option) => at('help-answer').textContent.startsWith(option + '.'));"
        "const key = (name) => doc.dispatchEvent(new win.KeyboardEvent('keydown', { key: name, cancelable: true }));"
        "at('reader').value = 'R1'; at('begin').requestSubmit();"
        "const sitting = () => { while (at('rest').hidden) {"
        "const help = at('help').hidden ? -1 : said(), choice = help >= 0 ? help : 1 - truth[number()];"
        "key(String(choice + 1)); key('ArrowRight'); key('Enter'); } };"
        "sitting(); at('go-on').click(); sitting();"
        "const out = document.getElementById('out'); win.Blob = function (parts) { out.textContent = parts.join(''); };"
        "win.URL.createObjectURL = () => '#'; at('download').click(); };</script>",
        encoding="utf-8",
    )
    dom = browse(frame, "--dump-dom", "--virtual-time-budget=20000")
    text = unescape(re.search(r'<pre id="out">(.+?)</pre>', dom, re.DOTALL)[1])
    found = judged(run, save(tmp_path, text))
    figures, model = found["figures"], found["model"]
    assert figures["sensitivity"]["without"]["value"] == figures["specificity"]["without"]["value"] == 0
    assert figures["auc"]["without"]["value"] == 0
    assert found["agreement"]["with"] == 1
    if not model["refused"]:
        assert figures["sensitivity"]["with"]["value"] == model["sensitivity"]
        assert figures["specificity"]["with"]["value"] == model["specificity"]
    assert found["changes"]["right_to_wrong"] == 0
