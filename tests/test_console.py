from types import SimpleNamespace

import numpy as np
import pytest

from stillroom.console import show_figures, show_run
from stillroom.evaluation.metrics import score
from stillroom.task import MultiClass


def finished(task, temperature=1.0):
    """What show_run reads of a run whose test holds eight patients."""
    generator, count = np.random.default_rng(0), len(task.classes)
    targets = np.arange(48) % count
    probabilities = task.probabilities(generator.normal(size=(48, count)) + task.one_hot(targets))
    patients = np.array([f"p{number % 8}" for number in range(48)])
    student = score(task, probabilities, targets, patients=patients, resamples=50)
    metrics = {
        "test": {"student": student},
        "calibration": {"student": {"temperature": temperature, "ece_before": 0.1, "ece_after": 0.1}},
        "comparison": {},
        "efficiency": {"student": {"size_mb": 6.0, "macs": 5e6}},
    }
    return SimpleNamespace(metrics=metrics, manifest={"synthetic": False}, audit={"warnings": []}, report="report.html")


def test_a_run_prints_what_to_mind_about_its_figures(capsys):
    show_run(finished(MultiClass(("healthy", "ill"))))
    printed = capsys.readouterr().out
    assert "Note: The intervals rest on 8 patients only and may be too narrow." in printed
    assert "temperature" not in printed
    show_run(finished(MultiClass(("healthy", "ill")), temperature=19.9999))
    assert "Note: The fitted temperature is at its bound of 20" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("classes", "said"), [(("no [b]", "[b]yes"), "positive class: [b]yes"), (tuple("abc"), "are means over classes")]
)
def test_the_title_says_what_the_figures_are_of(capsys, classes, said):
    show_figures(finished(MultiClass(classes)).metrics["test"], "Test", synthetic=False)
    title = capsys.readouterr().out.splitlines()[0]
    assert title.startswith("Test: 48 images; ")
    assert said in title
