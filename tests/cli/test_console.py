from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from rich.console import Console

from stillroom.after.heat_map import Explanation
from stillroom.cli import console
from stillroom.cli.console import models_table, show_explanations, show_figures, show_run
from stillroom.deployment.prediction import Prediction
from stillroom.deployment.prediction_table import prediction_table
from stillroom.evaluation.metrics import score
from stillroom.explanation.claims import FAITHFUL, NOT_FAITHFUL, NOT_SHOWN
from stillroom.models.cards import ModelCard
from stillroom.task import MultiClass


def finished(task, temperature=1.0):
    """What show_run reads of a run whose test holds eight patients."""
    generator, count = np.random.default_rng(0), len(task.classes)
    targets = np.arange(48) % count
    probabilities = task.probabilities(generator.normal(size=(48, count)) + task.one_hot(targets))
    patients = np.array([f"p{number % 8}" for number in range(48)])
    student = score(task, probabilities, targets, patients=patients)
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
    assert "Note: The intervals rest on 8 patients only, hence their width." in printed
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


def test_maps_are_shown_with_what_is_known_of_them(capsys):
    prediction = Prediction(Path("[b]a.png"), ("ill",), {"ill": 0.9, "healthy": 0.1})
    found = [
        Explanation(prediction, "ill", False, Path("a.ill.png"), Path("a.ill.npy")),
        Explanation(Prediction(Path("b.png"), error="the file is empty")),
    ]
    show_explanations(found, [(FAITHFUL, "Good."), (NOT_FAITHFUL, "Bad [b]."), (NOT_SHOWN, "So."), (None, "No.")])
    printed = capsys.readouterr().out
    assert printed.endswith("Good.\nmaps not faithful: Bad [b].\nNote: So.\nNote: No.\n")
    assert "[b]a.png" in printed
    assert "the file is empty" in printed
    assert "without colour" not in printed
    show_explanations([replace(found[0], empty=True)], [(None, "Unknown.")])
    assert "without colour means that nothing speaks for the class, or everything alike." in capsys.readouterr().out


def test_the_figures_of_networks_stay_whole_on_80_columns():
    long = "ofa_w120_r236_k353-5535-7535-3573-3353_e343-4463-6634-6664-6663"
    cards = [
        ModelCard(long, "ofa", "student", 236, 7.6, 30.4, False, 64, 47.6, 7.891),
        ModelCard("vit_small_patch14_dinov2", "vision_transformer", "teacher", 518, 22.06, 88.2, True, 64, None),
    ]
    wide = Console(width=80)
    with wide.capture() as capture:
        wide.print(models_table(cards))
    lines = capture.get().splitlines()
    assert max(map(len, lines)) <= 80
    assert all(part in "".join(lines) for part in ("64 px", "7.6 M", "30.4 MB", "48 M", "7.89 ms", "does not fit"))
    names = "".join(line.split()[0] for line in lines[2:])
    assert long in names
    with wide.capture() as capture:
        wide.print(models_table(cards[1:]))
    assert "Latency" not in capture.get()


def test_a_number_of_thousands_of_digits_is_told_in_short(capsys):
    console.fail(f"epochs {'9' * 5000} is too much, and {'a1' * 32} is a digest.")
    assert (
        capsys.readouterr().err
        == f"error: epochs 9999999999...(5,000 digits) is too much, and {'a1' * 32} is a digest.\n"
    )


def test_no_name_steers_the_terminal_or_breaks_a_table(capsys):
    name = "[red]\x1b[2Jill\n:skull:\u202e"
    plain = r"[red]\x1b[2Jill\n:skull:\u202e"
    prediction = Prediction(Path(f"{name}.png"), (name,), {name: 0.9, "healthy": 0.1})
    unread = Prediction(Path(f"{name}.tif"), error=f"no {name}")
    console.out().print(prediction_table([prediction, unread]))
    show_explanations([Explanation(prediction, name, True, Path(f"{name}.png"))], [(None, name)])
    show_figures(finished(MultiClass(("healthy", name))).metrics["test"], name, synthetic=False)
    console.say(name)
    console.fail(name)
    shown = capsys.readouterr()
    for text in (shown.out, shown.err):
        assert not set(text) & {"\x1b", "\u202e", "💀"}
        assert text.count(plain) == text.count("skull")
    assert shown.out.splitlines()[1].startswith(f"{plain}.png  {plain}")
    assert shown.err == f"{plain}\nerror: {plain}\n"


def test_an_explained_image_shows_its_flags_beside_the_answer(capsys):
    flagged = {"ill at sensitivity 0.95": True}
    found = Explanation(Prediction(Path("a.png"), ("well",), {"well": 0.7, "ill": 0.3}, flagged=flagged), "well", False)
    show_explanations([found], [])
    shown = " ".join(capsys.readouterr().out.split())
    assert "well; flagged at a threshold for sensitivity 0.95: ill well (70.0%)" in shown
    show_explanations([replace(found, prediction=replace(found.prediction, foreign=True))], [])
    refused = capsys.readouterr().out
    assert "not this kind of image" in refused
    assert "%" not in refused


def test_of_many_thresholds_the_first_are_told_and_each_promise_that_is_not_kept(capsys):
    run = finished(MultiClass(("healthy", "ill")))
    points = [{"statement": f"Threshold {number} holds."} for number in range(5)]
    run.metrics["operating_points"] = {"points": points, "notes": ["Too few images.", "It is approximate."]}
    show_run(run)
    printed = capsys.readouterr().out
    assert "Threshold 2 holds." in printed
    assert "Threshold 3 holds." not in printed
    assert "2 more thresholds stand in the report." in printed
    assert "Note: Too few images." in printed
    assert "approximate" not in printed  # of every run, and so for the report
    run.metrics["operating_points"]["points"] = points[:4]
    show_run(run)
    assert "1 more threshold stands in the report." in capsys.readouterr().out
