from stillroom.explanation.claims import doubts, notes, statement

WON = {"value": 0.2, "low": 0.1, "high": 0.3}
OPEN = {"value": 0.02, "low": -0.0104, "high": 0.05}
NONE = {"value": 0.2, "low": None, "high": None}


def test_maps_that_win_everywhere_and_depend_on_the_weights_leave_no_doubt():
    assert doubts(0.2, {"centre": WON, "edges": WON}, 0.49, 6, "image") == []


def test_each_doubt_is_named_with_its_numbers():
    found = doubts(0.2, {"centre": OPEN, "edges": WON, "random": NONE}, 0.5, 5, "patient")
    assert found == [
        "They are of 5 patients only; nothing is claimed of fewer than 6.",
        "They are not shown to beat the trivial map centre: the difference of the gaps is 0.020 (95 % interval -0.010 to "
        "0.050).",
        "Their advantage over the trivial map random has no interval.",
        "They hardly depend on what the network learnt: with random weights it draws maps that correlate with them by 0.50, "
        "and the limit is 0.5.",
    ]
    assert doubts(0.2, {"centre": WON | {"low": 0.0}}, None, 9, "image")[1].startswith("They are flat")


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


def test_a_map_that_hardly_moves_the_answer_is_not_called_faithful():
    (reason,) = doubts(0.049, {"centre": WON}, 0.1, 9, "image")
    assert "is 0.049, and the limit is 0.05" in reason
    assert doubts(0.05, {"centre": WON}, 0.1, 9, "image") == []
