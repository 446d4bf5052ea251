"""What the pages show of patients, subgroups and image quality: the figures and words of metrics.json."""

import json

import numpy as np
import pandas as pd
import pytest

from stillroom.data.bands import Grouping
from stillroom.evaluation.by_patient import by_patient
from stillroom.evaluation.main_figures import Answers
from stillroom.evaluation.subgroup_words import told_in_short
from stillroom.evaluation.subgroups import judge_subgroups
from stillroom.files.digests import record as note
from stillroom.report import write_model_card, write_report
from stillroom.report.record import load
from stillroom.report.subgroups import gap_findings, gaps_table, subgroup_section


def judged(folder, gap=True):
    """The run with what the stage adds: a site at which the student guesses (or not), and one that is too small."""
    record = load(folder)
    said = record.predictions
    frame = pd.read_parquet(folder / "predictions.parquet")
    test, generator = np.flatnonzero(said.test), np.random.default_rng(0)
    members = np.where(np.arange(len(test)) < 4, 2, np.arange(len(test)) % 2)
    probabilities = {role: said.probabilities[role][test].copy() for role in ("student", "teacher")}
    if gap:
        worse = np.flatnonzero(members == 1)
        probabilities["student"][worse] = probabilities["student"][generator.permutation(worse)]
    patients, targets = frame["patient"].to_numpy(dtype=str)[test], said.targets[test]
    answers = Answers.of(record.task, probabilities["student"], targets, patients)
    parts = {
        "groups": judge_subgroups(answers, [Grouping("site <1>", ("North", "South", "West"), members)], "student"),
        "quality": judge_subgroups(answers, [Grouping("sharpness", ("blurred", "sharp"), members % 2)], "student"),
        "by_patient": by_patient(record.task, probabilities, targets, np.char.add("p", (test // 6).astype(str))),
    }
    path = folder / "metrics.json"
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | parts), encoding="utf-8")
    note(path)
    return load(folder), parts


@pytest.mark.parametrize("kind", ["binary", "multilabel"])
def test_page_and_card_say_what_metrics_json_says(make_run, kind):
    record, parts = judged(make_run(kind, featured=4, images=360))
    page = write_report(record.folder).read_text("utf-8")
    card = write_model_card(record.folder).read_text("utf-8").replace("\\", "")
    for key, title in (("by_patient", "By patient"), ("groups", "Subgroups"), ("quality", "Image quality")):
        assert f'<h2 id="{key}-title">{title}</h2>' in page
        assert f'<a href="#{key}">{title}</a>' in page
        assert f"### {title}" in card
    for part in (parts["groups"], parts["quality"]):
        for text in (*part["notes"], *(text for column in part["columns"] for text in column["statements"])):
            assert text.replace("<", "&lt;").replace(">", "&gt;") in page
            assert text.replace("<", "&lt;").replace(">", "&gt;") in card
    assert "West (too small)" in page
    assert "(report.html#groups)" in (record.folder / "REPORTING.md").read_text("utf-8")


def test_a_gap_that_is_there_stands_in_the_verdict_and_one_that_is_not_does_not(make_run):
    record, parts = judged(make_run("binary", featured=4))
    (finding,) = gap_findings(record)
    assert finding.tone == "bad"
    assert finding.headline.startswith("The figures differ by site <1>")
    assert "The figures differ by site &lt;1&gt;" in write_report(record.folder).read_text("utf-8")
    assert (True, parts["groups"]["columns"][0]["statements"][0]) in told_in_short(record.metrics)
    tones = {tone for tone, _ in subgroup_section(record, "groups", drawn=False).warnings}
    assert tones == {"bad", "note"}
    rows = {row[0]: row[1:] for row in gaps_table(parts["groups"]).rows}
    gap = parts["groups"]["columns"][0]["gaps"]["auc"]
    assert rows["site <1>: AUC"][0].value == gap["value"]
    assert rows["site <1>: AUC"][1:] == (f"{gap['most']} over {gap['least']}", "yes")


def test_without_a_gap_nothing_is_claimed(make_run):
    record, parts = judged(make_run("binary", featured=4), gap=False)
    assert gap_findings(record) == []
    assert not any(gap["sure"] for gap in parts["groups"]["columns"][0]["gaps"].values())


def test_a_run_of_before_has_none_of_it(make_run):
    folder = make_run("binary", featured=4)
    page = write_report(folder).read_text("utf-8")
    assert 'id="groups"' not in page
    assert "By patient" not in page
    assert told_in_short(load(folder).metrics) == []
