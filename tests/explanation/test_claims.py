import pytest

from stillroom.explanation.claims import (
    FAITHFUL,
    FEWEST,
    LABELS,
    NOT_FAITHFUL,
    NOT_SHOWN,
    VERDICTS,
    judge,
    limits,
    notes,
    statement,
    verdict_of,
)


def figure(low, high):
    return {"value": (low + high) / 2, "low": low, "high": high}


WON, NONE = figure(0.1, 0.3), {"value": 0.2, "low": None, "high": None}
FREE = figure(-0.49, 0.49)


def judged(gap=WON, reach=0.5, advantage=None, correlation=FREE, units=24, unit="image", **which):
    return judge(gap, reach, advantage or {"centre": WON, "edges": WON}, correlation, units, unit, **which)


def test_there_are_three_verdicts_and_a_word_for_each():
    assert VERDICTS == ("faithful", "not faithful", "not shown: too few images")
    assert list(LABELS.values()) == ["maps faithful", "maps not faithful", "not shown: too few images"]


def test_maps_that_move_the_answer_and_depend_on_the_weights_are_faithful():
    assert judged() == judged(gap=figure(0.051, 0.9))
    assert (judged().verdict, judged().reasons, judged().needed) == (FAITHFUL, [], None)


def test_what_counts_is_a_share_of_what_there_is_to_lose():
    assert limits(0.5) == (0.05, 0.15)
    assert limits(0.0) == limits(-0.3) == (0.02, 0.06)
    for reach, verdict in ((0.9, FAITHFUL), (1.0, NOT_SHOWN)):
        assert judged(gap=figure(0.095, 0.4), reach=reach).verdict == verdict


def test_where_the_interval_is_narrower_than_the_limits_are_apart_there_is_a_verdict():
    for value in (0.0, 0.05, 0.1, 0.15, 0.2):
        assert judged(gap=figure(value - 0.0499, value + 0.0499)).verdict != NOT_SHOWN
    # Four times as many images make it half as wide, and so many are asked for.
    found = judged(gap=figure(0.0, 0.2), units=20)
    assert (found.verdict, found.needed) == (NOT_SHOWN, 80)


def test_what_is_shown_to_move_nothing_is_not_faithful():
    found = judged(gap=figure(-0.05, 0.14))
    assert (found.verdict, found.needed) == (NOT_FAITHFUL, None)
    assert found.reasons == [
        "What they show moves the answer by too little: insertion minus deletion is 0.045 (95 % interval -0.050 to 0.140), "
        "and this interval must lie above 0.050 (hiding everything takes 0.500 from the answer)."
    ]


def test_a_tie_with_a_trivial_map_is_no_fault_and_a_defeat_is():
    tie, lost, unclear = figure(-0.04, 0.02), figure(-0.2, -0.01), figure(-0.1, 0.1)
    assert judged(advantage={"centre": tie, "edges": WON}).verdict == FAITHFUL
    found = judged(advantage={"centre": tie, "edges": lost})
    assert found.verdict == NOT_FAITHFUL
    assert found.reasons == [
        "The trivial map edges finds better what moves the answer: the difference of the gaps is -0.105 (95 % interval "
        "-0.200 to -0.010), and its interval must lie above -0.050."
    ]
    found = judged(advantage={"centre": unclear, "edges": WON}, units=20)
    assert (found.verdict, found.needed) == (NOT_SHOWN, 320)
    assert found.reasons[0].startswith("The trivial map centre may find better")


@pytest.mark.parametrize(
    ("correlation", "verdict", "needed"),
    [
        (figure(0.1, 0.499), FAITHFUL, None),
        (figure(0.1, 0.5), NOT_SHOWN, 24),  # 24 * (0.2 / 0.2)^2, but more than there are
        (figure(0.2, 0.6), NOT_SHOWN, 96),
        (figure(0.4, 0.6), NOT_FAITHFUL, None),
        (figure(-0.9, -0.6), NOT_FAITHFUL, None),
    ],
)
def test_the_correlation_with_random_weights_must_be_small_in_size(correlation, verdict, needed):
    found = judged(correlation=correlation)
    assert found.verdict == verdict
    assert found.needed in (needed, None)
    if verdict != FAITHFUL:
        assert "hardly depend on what the network learnt" in found.reasons[0]


def test_what_is_wrong_comes_before_what_is_unclear():
    found = judged(gap=figure(0.0, 0.3), correlation=figure(0.6, 0.8))
    assert found.verdict == NOT_FAITHFUL
    assert ["hardly depend" in reason for reason in found.reasons] == [True, False]


def test_of_few_nothing_is_said():
    found = judged(units=11, unit="patient")
    assert (found.verdict, found.needed) == (NOT_SHOWN, FEWEST)
    assert found.reasons == ["They are of 11 patients decided positive; nothing is said of fewer than 12."]
    assert "of 1 image decided" in judged(units=1).reasons[0]
    assert "of 1 image; nothing" in judged(units=1, judged="").reasons[0]
    # Where even twelve would be too few, more are asked for.
    assert judged(gap=figure(-0.2, 0.8), units=4).needed == 400


def test_a_check_that_was_not_possible_is_not_passed():
    assert judged(correlation=None).verdict == judged(correlation=NONE).verdict == judged(gap=NONE).verdict == NOT_SHOWN
    assert judged(correlation=None).needed is None  # more images are not what is missing
    assert judged(correlation=None).reasons[0].startswith("Too few of them are not flat")


@pytest.mark.parametrize("verdict", VERDICTS)
def test_the_statement_is_the_verdict_and_names_the_best_trivial_map(verdict):
    controls = {name: {"gap": {"value": gap}} for name, gap in (("centre", -0.1), ("edges", 0.12), ("random", 0.0))}
    found = {"verdict": verdict, "gap": {"value": 0.31}, "controls": controls, "needed": None}
    said = statement("student", found)
    assert verdict in said
    assert "insertion minus deletion is 0.310, against 0.120 of the best trivial map" in said
    assert "edges" in said
    if verdict == NOT_SHOWN:
        said = statement("teacher", found | {"needed": 70, "units": 1, "unit": "image"})
        assert said.startswith("Whether the teacher's maps are faithful is not shown: too few images (insertion")
        assert said.endswith(
            "About 70 images decided positive would give a verdict if their figures were like these; judged were 1 image."
        )
        said = statement("teacher", found | {"needed": FEWEST, "units": 0, "unit": "patient"})  # no power was reckoned
        assert said.endswith(
            f"It takes {FEWEST} patients decided positive or more for any verdict; judged were 0 patients."
        )


def test_files_of_before_there_were_three_verdicts_are_understood():
    assert verdict_of({"faithful": True}) == FAITHFUL
    assert verdict_of({"faithful": False}) == NOT_FAITHFUL
    assert verdict_of({"faithful": False, "verdict": NOT_SHOWN}) == NOT_SHOWN


def test_there_is_a_note_for_whatever_a_reader_must_know():
    nothing = {"judged": 9, "checked": 9, "without_road": None, "undrawn": False, "patients": None, "unknown": 0}
    assert notes(9, of="student", flat={"student": 0}, **nothing) == []
    assert notes(9, of="teacher", flat={"student": 0, "teacher": 0}, **nothing) == [
        "The class explained is the one to which the teacher gives the highest probability, for every network."
    ]
    much = {"judged": 8, "checked": 7, "without_road": (256, 224), "undrawn": True, "patients": 7, "unknown": 1}
    loud = notes(9, of="student", flat={"student": 2}, **much)
    assert len(loud) == 7
    assert "2 of 9 images" in loud[0]
