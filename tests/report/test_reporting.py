"""TRIPOD+AI and CLAIM: numbers as published, answers out of the run's files, and the rest clearly the author's."""

import json
import re

import pytest
import yaml

from stillroom.report import write_model_card, write_report
from stillroom.report.checklists import CHECKLISTS, CLAIM, TRIPOD_AI
from stillroom.report.record import load
from stillroom.report.reporting import filled
from stillroom.task import MultiClass

# As the statements number them: letters where an item has parts.
_PARTS = {3: 3, 5: 2, 6: 3, 8: 3, 9: 3, 12: 7, 18: 6, 20: 3, 23: 2, 27: 3}
TRIPOD_NUMBERS = [
    f"{number}{letter}"
    for number in range(1, 28)
    for letter in ("abcdefg"[: _PARTS[number]] if number in _PARTS else [""])
]


def answers(run, number, checklist=0):
    (found,) = [answer for item, answer in filled(load(run))[checklist].rows if item.number == number]
    return found


def test_items_are_numbered_as_published():
    assert [item.number for item in TRIPOD_AI.items] == TRIPOD_NUMBERS
    assert len(TRIPOD_NUMBERS) == 52
    assert len({re.sub("[a-g]", "", number) for number in TRIPOD_NUMBERS}) == 27
    assert [item.number for item in CLAIM.items] == [str(number) for number in range(1, 45)]


@pytest.mark.parametrize("kind", ["binary", "multiclass", "ordinal", "multilabel"])
def test_every_item_has_an_answer_or_is_the_authors(make_run, kind):
    run = make_run(kind, explained=4, uncertain=True, several=3, planned=True, images=360)
    for one in filled(load(run)):
        assert all(answer.said or answer.author for _, answer in one.rows)
        by = [answer.by for _, answer in one.rows]
        assert one.summary.startswith(f"{one.checklist.name}: of {len(by)} items the run answers {by.count('run')} and")


def test_a_bare_run_is_answered_too(make_run):
    run = make_run(roles=("student",), patients=False, epochs=1)
    (run / "audit.json").unlink()
    manifest = json.loads((run / "manifest.json").read_text())
    for key in ("store", "versions", "sha256", "taught_by"):
        manifest.pop(key, None)
    (run / "manifest.json").write_text(json.dumps(manifest))
    (run / "settings.yaml").write_text("source: x\n")
    assert all(answer.said or answer.author for one in filled(load(run)) for _, answer in one.rows)
    assert answers(run, "20", 1).by == "author"
    write_model_card(run)


def test_answers_are_the_runs_own(make_run):
    run = make_run(uncertain=True, explained=4)
    metrics = json.loads((run / "metrics.json").read_text())
    auc = metrics["test"]["student"]["auc"]
    assert f"AUC {auc['value']:.3f} ({auc['low']:.3f} to {auc['high']:.3f})" in answers(run, "23a").said
    audit = json.loads((run / "audit.json").read_text())
    for split, counts in audit["class_counts"].items():
        assert f"{split}: {', '.join(f'{n} {name}' for name, n in counts.items())}" in answers(run, "21").said
    assert metrics["explanation"]["statement"]["student"] in answers(run, "31", 1).said
    assert "Not yet" in answers(run, "33", 1).author
    assert answers(run, "30", 1).by == "author"
    assert "Refusals" in answers(run, "15").said
    for number in ("3a", "17", "18a"):
        assert answers(run, number).by == "author"


def test_no_path_of_the_machine_is_told(make_run):
    run = make_run()
    settings = yaml.safe_load((run / "settings.yaml").read_text())
    settings["student"] = {"student_weights": "/home/someone/weights/net.pth"}
    (run / "settings.yaml").write_text(yaml.safe_dump(settings))
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["taught_by"] = [{"name": "a", "source": "/home/someone/t.pth"}, {"name": "b", "source": "timm/b"}]
    (run / "manifest.json").write_text(json.dumps(manifest))
    said = answers(run, "24", 1).said
    assert said == "Student: pretrained weights (net.pth). Teachers: a from t.pth, b from timm/b."


def test_what_is_made_later_joins(make_run):
    run = make_run()
    (run / "evaluations").mkdir()
    other = {"source": "Clinic B", "test": {"student": {"auc": {"value": 0.8, "low": 0.7, "high": 0.9}}}}
    (run / "evaluations" / "b.json").write_text(json.dumps(other))
    metrics = json.loads((run / "metrics.json").read_text())
    section = {"key": "readers-1234", "title": "With readers", "text": ["Better."], "tables": []}
    groups = {"key": "subgroups", "title": "By group", "text": ["Alike."], "tables": []}
    (run / "metrics.json").write_text(json.dumps(metrics | {"sections": [section, groups]}))
    assert answers(run, "33", 1).said == "Tested on Clinic B (AUC 0.800 (0.700 to 0.900))."
    assert answers(run, "41", 1).place == "readers-1234"
    assert answers(run, "14").place == "subgroups"
    page = write_report(run).read_text()
    assert '<a href="#readers-1234">With readers</a>' in page
    assert "([With readers](report.html#readers-1234))" in write_model_card(run).with_name("REPORTING.md").read_text()


@pytest.mark.parametrize(("own", "refused"), [(98, 0.0), (0, 1.0)])
def test_a_test_that_is_spoilt_says_so_wherever_it_is_told(make_run, own, refused):
    run = make_run()
    (run / "evaluations").mkdir()
    other = {
        "source": "table ext.csv",
        "test": {"student": {"auc": {"value": 0.9, "low": 0.8, "high": 1.0}, "images": 120}},
        "seen_in_training": {"images": own, "of": 120},
        "ood": {"wanted": 0.05, "refused": {"value": refused, "low": max(refused - 0.04, 0), "high": 1.0}},
    }
    (run / "evaluations" / "b.json").write_text(json.dumps(other))
    said = answers(run, "33", 1)
    spoilt = "98 of its 120 images were the run's own" if own else "100% of its images were refused as foreign"
    assert spoilt in said.said
    assert ("never saw" in said.author) == bool(own)
    assert ("1 other data set" in answers(run, "4").said) == (not own)
    page, card = write_report(run).read_text(), write_model_card(run).read_text()
    for text in (page.replace("&#39;", "'"), card, (run / "REPORTING.md").read_text()):
        assert spoilt in text


@pytest.mark.parametrize("gaps", [{}, {"auc": {"value": 0.12, "low": 0.0, "high": 0.3, "sure": []}}])
def test_groups_answer_only_what_was_compared(make_run, gaps):
    run = make_run()
    metrics = json.loads((run / "metrics.json").read_text())
    metrics["groups"] = {"columns": [{"name": "site", "gaps": gaps}]}
    (run / "metrics.json").write_text(json.dumps(metrics))
    found = {number: answers(run, number) for number in ("14", "23a", "23b")}
    for answer in found.values():
        assert ("No two groups are large enough" in answer.said) == (not gaps)
    assert ("site AUC 0.120 (0.000 to 0.300), not shown" in found["23a"].said) == bool(gaps)
    assert found["23a"].by == ("run" if gaps else "both")


def test_with_folds_the_figure_is_that_over_all_cuts(make_run):
    run = make_run(several=3, uncertain=True)
    metrics = json.loads((run / "metrics.json").read_text())
    metrics["luck"]["kind"] = "folds"
    metrics["luck"]["figures"]["student"]["auc"] = {"value": 0.504, "low": 0.4, "high": 0.6}
    (run / "metrics.json").write_text(json.dumps(metrics))
    images = metrics["test"]["student"]["images"]
    assert answers(run, "23a").said.startswith(
        f"AUC 0.504 (0.400 to 0.600) over 3 cuts of the data; {images} test images in the first cut."
    )
    assert answers(run, "32", 1).place == "luck"
    card, page = write_model_card(run).read_text(), write_report(run).read_text()
    part = page.partition('<div class="body" id="thresholds"')[2].partition("</section>")[0]
    assert "Of the first of 3 cuts of the data alone." in part
    assert "Of the first of 3 cuts of the data alone." in card


def test_the_card_holds_every_item_with_who_answers_it_and_where(make_run):
    run = make_run()
    card = write_model_card(run).read_text(encoding="utf-8").partition("## TRIPOD+AI and CLAIM")[2]
    rows = iter(re.findall(r"^\| \d.*$", card, re.M))
    for one in filled(load(run)):
        for item, answer in one.rows:
            row = next(rows)
            assert row.startswith(f"| {item.number} | {item.subject} |")
            assert ("author" in row.split("|")[3]) == (answer.by == "author")
            assert f"(report.html#{answer.place})" in row or not answer.place


def test_page_and_file_hold_the_same_and_link_to_what_is_there(make_run):
    run = make_run(task=MultiClass(("a|b", "<b>x</b>")), images=300, explained=4, uncertain=True, several=3)
    page = write_report(run).read_text(encoding="utf-8")
    card = write_model_card(run).read_text(encoding="utf-8")
    text = (run / "REPORTING.md").read_text(encoding="utf-8")
    ids = set(re.findall(r'id="([^"]+)"', page))
    section = page.partition('<div class="body" id="reporting"')[2].partition("</section>")[0]
    links = re.findall(r'href="#([^"]+)"', section)
    assert len(links) > 40
    assert set(links) <= ids
    assert "<b>x</b>" not in section + text
    lists = filled(load(run))
    for one in lists:
        assert one.summary in text
        assert one.summary in card
        assert one.summary.replace("'", "&#39;") in section
    left = sum(bool(answer.author) for one in lists for _, answer in one.rows)
    assert section.count("Fill in:") == text.count("**Fill in:**") == left
    rows = [line.replace("\\|", "") for line in text.splitlines() if re.match(r"\| \d", line)]
    assert [line.split("|")[1].strip() for line in rows] == [item.number for one in CHECKLISTS for item in one.items]
    assert {line.count("|") for line in rows} == {5}
