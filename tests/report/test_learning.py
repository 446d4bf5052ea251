"""Which epoch was kept: what the log says, not where the drawn curve is highest."""

from dataclasses import replace

from stillroom.report.learning import kept_epoch, learners, learning_gist, learning_notes
from stillroom.report.record import load


def _lines(role, kept, best):
    return [
        {"role": role, "epoch": epoch, "best": epoch <= best, "val": {"metric": "auc", "value": 1 - 0.1 * epoch}}
        | ({"kept": kept} if epoch == 4 and kept else {})
        for epoch in range(1, 5)
    ]


def test_the_epoch_that_the_log_names_is_called_kept_and_said_why(make_run):
    record = load(make_run(roles=("student",)))
    last = replace(record, history=_lines("student", kept=4, best=2))
    assert learners(last) == ["student"]
    assert kept_epoch(last, "student") == 4
    assert learning_gist(last) == "4 epochs; the student of epoch 4 was kept"
    said = " ".join(learning_notes(last))
    assert "epoch 2 had the lowest log loss, but not clearly lower" in said
    assert "control" not in said
    assert "teacher" not in said
    earlier = replace(record, history=_lines("student", kept=2, best=2) + _lines("control", kept=4, best=4))
    said = " ".join(learning_notes(earlier))
    assert "Of the student epoch 2 was kept: its log loss was the lowest." in said
    assert "Losses of student and control add up" in said


def test_a_log_of_before_has_the_likeliest_epoch_alone(make_run):
    record = replace(load(make_run(roles=("student",))), history=_lines("student", kept=None, best=3))
    assert kept_epoch(record, "student") == 3
