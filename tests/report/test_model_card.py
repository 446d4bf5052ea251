import json

import pytest

from stillroom.report import write_model_card
from stillroom.report.model_card import escape
from stillroom.task import MultiClass

SECTIONS = (
    "Model details", "Intended use", "Out of scope", "Data", "Evaluation", "Calibration", "Limitations", "How to use",
    "Licence and citation",
)  # fmt: skip


@pytest.mark.parametrize("kind", ["binary", "multiclass", "ordinal", "multilabel"])
def test_card_has_its_sections_and_figures(make_run, kind):
    run = make_run(kind, images=600 if kind == "multilabel" else 360)
    path = write_model_card(run)
    assert path == run / "MODEL_CARD.md"
    text = path.read_text(encoding="utf-8")
    for section in SECTIONS:
        assert f"# {section}\n" in text
    auc = json.loads((run / "metrics.json").read_text())["test"]["student"]["auc"]
    assert f"{auc['value']:.3f} ({auc['low']:.3f} to {auc['high']:.3f})" in text
    assert "no clinical clearance" in text
    assert "3 images of the test split stand in the training split too." in text
    assert "Predictor.load" in text
    assert "stillroom predict" in text
    assert "\n\n\n" not in text


def test_tables_have_as_many_cells_in_every_row(make_run):
    run = make_run(task=MultiClass(("a|b", "<script>", "c_d*")), images=300)
    lines = write_model_card(run).read_text(encoding="utf-8").splitlines()
    assert not any("<script>" in line for line in lines)
    tables = [line.replace("\\|", "") for line in lines if line.startswith("|")]
    widths = []
    for before, line in zip(["", *lines], lines, strict=False):
        if line.startswith("|"):
            cells = line.replace("\\|", "").count("|")
            if before.startswith("|"):
                assert cells == widths[-1]
            widths.append(cells)
    assert len(widths) == len(tables) > 10


def test_card_says_what_is_missing(make_run):
    run = make_run(roles=("student",), patients=False, synthetic=True, leaks=0)
    (run / "audit.json").unlink()
    text = write_model_card(run).read_text(encoding="utf-8")
    assert "**Synthetic data.**" in text
    assert "not audited" in text
    assert "Teacher: none" in text
    assert "teacher's weights" not in text


def test_card_names_the_positive_class_and_remarks_on_the_temperature(make_run):
    run = make_run()
    metrics = json.loads((run / "metrics.json").read_text())
    metrics["calibration"]["student"]["temperature"] = 20.0
    (run / "metrics.json").write_text(json.dumps(metrics))
    text = write_model_card(run).read_text(encoding="utf-8")
    assert "positive class: pneumonia" in text
    assert "- Student: The fitted temperature is at its bound of 20" in text
    assert "\n\n\n" not in text


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("a|b", r"a\|b"),
        ("<b>&", "&lt;b&gt;&amp;"),
        ("vit_base_patch14", "vit_base_patch14"),
        ("_x_", r"\_x\_"),
        ("two\nlines", "two lines"),
        ("`*[", r"\`\*\["),
    ],
)
def test_escape(raw, expected):
    assert escape(raw) == expected
