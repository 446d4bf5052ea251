import pytest

from stillroom.explanation.claims import doubts, notes, statement

WON = {"value": 0.2, "low": 0.1, "high": 0.3}
OPEN = {"value": 0.02, "low": -0.0104, "high": 0.05}
NONE = {"value": 0.2, "low": None, "high": None}
FREE = {"value": 0.1, "low": -0.49, "high": 0.49}


def figure(low, high):
    return {"value": (low + high) / 2, "low": low, "high": high}


def test_maps_that_win_everywhere_and_depend_on_the_weights_leave_no_doubt():
    assert doubts(WON, {"centre": WON, "edges": WON}, FREE, 20, "image") == []


def test_each_doubt_is_named_with_its_numbers():
    found = doubts(OPEN, {"centre": OPEN, "edges": WON, "random": NONE}, figure(0.3, 0.5), 19, "patient")
    assert found == [
        "They are of 19 patients only; nothing is claimed of fewer than 20.",
        "What they show may move the answer by too little: insertion minus deletion is 0.020 (95 % interval -0.010 to "
        "0.050), and its interval must lie above 0.02.",
        "They are not shown to beat the trivial map centre: the difference of the gaps is 0.020 (95 % interval -0.010 to "
        "0.050).",
        "Their advantage over the trivial map random has no interval.",
        "They may hardly depend on what the network learnt: with random weights it draws maps that correlate with them by "
        "0.400 (95 % interval 0.300 to 0.500), and the limit is 0.5.",
    ]


def test_one_image_is_one_image():
    (reason,) = doubts(WON, {"centre": WON}, FREE, 1, "image")
    assert reason == "They are of 1 image only; nothing is claimed of fewer than 20."


def test_the_whole_interval_of_the_gap_must_lie_above_the_limit():
    assert doubts(figure(0.02, 0.3), {"centre": WON}, FREE, 20, "image") == []
    for gap in (figure(0.0199, 0.9), figure(-0.3, -0.1), NONE, {"value": None, "low": None, "high": None}):
        (reason,) = doubts(gap, {"centre": WON}, FREE, 20, "image")
        assert reason.startswith("What they show may move the answer by too little")
    assert "is not defined, and" in reason


@pytest.mark.parametrize("low", [0.0, -0.1])
def test_a_tie_with_a_trivial_map_is_no_victory(low):
    (reason,) = doubts(WON, {"centre": figure(low, 0.4), "edges": WON}, FREE, 20, "image")
    assert "beat the trivial map centre" in reason


@pytest.mark.parametrize("correlation", [figure(0.1, 0.5), figure(-0.5, 0.1), figure(-0.9, -0.6), figure(-0.6, 0.6)])
def test_the_correlation_with_random_weights_must_be_small_in_size_with_its_whole_interval(correlation):
    (reason,) = doubts(WON, {"centre": WON}, correlation, 20, "image")
    assert reason.startswith("They may hardly depend on what the network learnt")


def test_a_check_that_was_not_possible_is_not_passed():
    (reason,) = doubts(WON, {"centre": WON}, None, 20, "image")
    assert reason.startswith("Too few of them are not flat")
    (reason,) = doubts(WON, {"centre": WON}, NONE, 20, "image")
    assert reason == "Their correlation with the maps that it draws with random weights has no interval."


def test_the_statement_names_the_best_trivial_map():
    controls = {name: {"gap": {"value": gap}} for name, gap in (("centre", -0.1), ("edges", 0.12), ("random", 0.0))}
    found = {"faithful": True, "gap": {"value": 0.31}, "controls": controls}
    said = statement("student", found)
    assert said.startswith("The student's maps are faithful: ")
    assert said.endswith("insertion minus deletion is 0.310, against 0.120 of the best trivial map (edges).")
    assert "are not shown to be faithful" in statement("teacher", found | {"faithful": False})


def test_there_is_a_note_for_whatever_a_reader_must_know():
    quiet = notes(9, flat={"student": 0}, checked=9, without_road=None, undrawn=False, patients=None, unknown=0)
    assert quiet == []
    loud = notes(9, flat={"student": 2}, checked=8, without_road=(256, 224), undrawn=True, patients=7, unknown=1)
    assert len(loud) == 6
    assert "2 of 9 images" in loud[0]
