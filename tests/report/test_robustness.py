"""The report's part on corrupted images, from what the evaluation really writes."""

import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import torch

from stillroom.evaluation.corruptions import CORRUPTIONS
from stillroom.evaluation.robustness import robustness
from stillroom.report import write_model_card
from stillroom.report.numbers import Estimate
from stillroom.report.record import load
from stillroom.report.robustness import robustness_section
from stillroom.report.templating import environment
from stillroom.report.wording import findings
from stillroom.task import MultiClass

ROLES = [("student", "student", "●"), ("control", "control", "■"), ("teacher", "teacher", "◆")]


def measured(roles=("teacher", "student", "control"), **changes):
    """Images that are told apart by brightness, and networks with thresholds that are more or less right."""
    rng = np.random.default_rng(0)
    targets = np.arange(40) % 2
    levels = 0.4 + 0.2 * targets + 0.05 * rng.normal(size=40)
    images = torch.from_numpy(np.clip(levels[:, None, None, None] + 0.1 * rng.normal(size=(40, 1, 16, 16)), 0, 1))
    thresholds = {"student": 0.5, "control": 0.46, "teacher": 0.52}

    def network(threshold: float):
        def ask(batch: torch.Tensor) -> np.ndarray:
            score = 30 * (batch.mean(dim=(1, 2, 3)).double().numpy() - threshold)
            return np.stack([-score, score], axis=1)

        return ask

    given = {
        "patients": None, "resamples": 30, "seed": 0, "reference": "control", "data_name": "breastmnist",
    } | changes  # fmt: skip
    return robustness(
        MultiClass(("normal", "pneumonia")),
        {role: network(thresholds[role]) for role in roles},
        dict.fromkeys(roles, 1.0),
        lambda rows: images[torch.from_numpy(rows)].float(),
        np.arange(40),
        targets,
        **given,
    )


@pytest.fixture
def section_of(make_run):
    run = make_run(images=90)

    def section(found):
        path = run / "metrics.json"
        metrics = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(json.dumps(metrics | {"robustness": found}), encoding="utf-8")
        return robustness_section(load(run))

    return section


class Text(HTMLParser):
    """Tables as rows of cell texts, and ids; refuses tags that do not close in order."""

    def __init__(self, page: str):
        super().__init__()
        self.open, self.ids, self.rows, self.cell = [], [], [], None
        self.feed(page)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        if tag in ("path", "use", "meta", "wbr"):
            return
        self.open.append(tag)
        self.ids += [value for name, value in attributes if name == "id"]
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.cell = ""

    def handle_endtag(self, tag):
        if tag in ("path", "use", "meta", "wbr"):
            return
        assert self.open.pop() == tag
        if tag in ("td", "th"):
            self.rows[-1].append(self.cell.strip())
            self.cell = None

    def handle_data(self, data):
        if self.cell is not None:
            self.cell += data


def rendered(section) -> str:
    return (
        environment().get_template("_robustness.html.j2").render(robustness=section, trained=ROLES, terms=[], gists={})
    )


def test_the_page_shows_what_was_measured(section_of):
    found = measured()
    page = rendered(section_of(found))
    text = Text(page)
    assert text.ids[:2] == ["robustness-title", "robustness"]
    assert "no substitute for another hospital" in page
    assert "the same 40 test images" in page
    assert "16 corruptions at 5 severities" in page
    assert not re.search(r"\b(nan|None|undefined)\b", page)
    rows = {row[0]: row[1:] for row in text.rows}
    accuracy = found["summary"]["teacher"]["mean_accuracy"]
    expected = "{value:.3f} {low:.3f} to {high:.3f}".format(**accuracy)
    assert rows["Accuracy, corrupted\u202f↑"][2] == expected
    assert rows["BE\u202f↓"][1] == "1 (reference)"
    assert rows["Corrupted error / AlexNet's\u202f↓"][0] == f"{found['published']['ratio']['student']:.3f}"
    jpeg = found["corruptions"]["jpeg"]["student"]
    worst = min(range(5), key=lambda place: jpeg["accuracy"][place]["value"])
    assert rows["JPEG"][0] == "digital"
    assert rows["JPEG"][2] == f"{jpeg['accuracy'][worst]['value']:.3f} at {worst + 1}"
    for note in found["notes"]:
        assert note.replace("'", "&#39;") in page


def test_the_tables_are_complete_and_in_the_order_of_roles(section_of):
    section = section_of(measured())
    assert section.summary.columns == ("Figure", "Student", "Control", "Teacher")
    assert section.table.columns[2::2] == ("Student, mean", "Control, mean", "Teacher, mean")
    assert len(section.table.rows) == 1 + len(CORRUPTIONS)
    for row in section.table.rows:
        assert len(row) == len(section.table.columns)
    assert all(isinstance(cell, Estimate) for row in section.table.rows for cell in row[2::2])
    assert [text.split("student minus ")[1].split(":")[0] for text in section.differences] == ["control", "teacher"]


def test_drawings_have_a_line_per_network_and_say_what_they_show(section_of):
    found = measured()
    section = section_of(found)
    assert [drawing["heading"] for drawing in section.drawings] == [
        "Accuracy by severity",
        "Calibration error by severity",
    ]
    clean, worst = (found["by_severity"]["student"]["accuracy"][place]["value"] for place in (0, 5))
    drawing = section.drawings[0]["svg"]
    assert f"student {clean:.3f} on clean images, {worst:.3f} at the highest severity" in drawing
    for role in ("student", "control", "teacher"):
        assert f"var(--{role})" in drawing
    assert ">clean</text>" in drawing


@pytest.mark.parametrize(
    ("raw", "claim"),
    [
        ({"value": 0.1, "low": 0.02, "high": 0.2}, "+0.100 (+0.020 to +0.200); the student is right more often than"),
        ({"value": -0.1, "low": -0.2, "high": -0.02}, "the student is right less often than the teacher."),
        ({"value": 0.1, "low": -0.2, "high": 0.2}, "no difference is shown."),
        ({"value": 0.1, "low": None, "high": None}, "+0.100; without an interval nothing can be claimed."),
    ],
)
def test_a_claim_needs_an_interval_beside_zero(section_of, raw, claim):
    found = measured()
    found["difference"] = {"teacher": raw}
    assert claim in section_of(found).differences[0]


def test_what_is_not_there_is_left_out(section_of):
    section = section_of(measured(roles=("student",), reference=None, data_name="somewhere", resamples=0))
    assert (section.reference, section.published, section.differences) == (None, None, [])
    names = [row[0] for row in section.summary.rows]
    assert not any("BE" in name or "AlexNet" in name for name in names)
    page = rendered(section)
    assert "No network was named as reference" in page
    assert "BE divides" not in page
    assert not re.search(r"\b(nan|None)\b", page)


def test_a_run_without_corruptions_has_no_such_part(section_of):
    assert section_of(None) is None
    assert rendered(None).strip() == ""


def test_what_a_file_says_is_escaped(section_of):
    found = measured()
    found["notes"] = ["<script>alert(1)</script>"]
    assert "<script>" not in rendered(section_of(found))


@pytest.mark.parametrize("kind", ["there", "not there"])
def test_page_and_card_and_verdict_tell_of_corruptions(make_run, page_of, change, kind):
    run = make_run(images=90, featured=16)
    found = measured()
    if kind == "there":
        change(run, "metrics.json", lambda metrics: metrics.update(robustness=found))
    page, card = page_of(run), write_model_card(run).read_text(encoding="utf-8")
    lost = found["clean"]["student"]["accuracy"]["value"] - found["summary"]["student"]["mean_accuracy"]["value"]
    said = f"Corrupted images cost the student {lost:.3f} of accuracy."
    for present in (
        ("a", {"href": "#robustness"}) in page.elements,
        "Balanced error is one minus balanced accuracy" in page.words,
        "BE Balanced error on corrupted images" in page.words,
        said in page.words,
        said in card,
        "## Robustness\n\nThe same 40 test images under 16 synthetic corruptions at 5 severities." in card,
    ):
        assert present == (kind == "there")
    assert "\n\n\n" not in card


def test_corruption_that_costs_nothing_is_not_said_to_cost(make_run, change):
    run, found = make_run(images=90), measured()
    for role in found["summary"]:
        found["summary"][role]["mean_accuracy"] = found["clean"][role]["accuracy"]
    change(run, "metrics.json", lambda metrics: metrics.update(robustness=found))
    assert any("do not lower the student's accuracy" in finding.headline for finding in findings(load(run)))
