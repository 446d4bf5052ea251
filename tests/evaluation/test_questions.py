import numpy as np
import pytest

from stillroom.errors import UsageError
from stillroom.evaluation.questions import answers, chances, question_names, question_of
from stillroom.task import MultiClass, MultiLabel

BINARY, CLASSES = MultiClass(("healthy", "ill")), MultiClass(tuple("abc"))
GRADES, LABELS = MultiClass(("none", "mild", "severe"), ordinal=True), MultiLabel(("x", "y"))
SAID = np.array([[0.2, 0.3, 0.5], [0.7, 0.2, 0.1]])


def test_a_binary_task_asks_once_and_others_of_every_class():
    assert question_names(BINARY) == ("ill",)
    assert chances(BINARY, SAID[:, :2]).tolist() == [[0.3], [0.2]]
    assert answers(BINARY, np.array([1, 0])).tolist() == [[True], [False]]
    assert question_names(CLASSES) == ("a", "b", "c")
    assert chances(CLASSES, SAID).tolist() == SAID.tolist()
    assert answers(LABELS, np.array([[1, 0], [1, 1]])).tolist() == [[True, False], [True, True]]


def test_a_grade_is_asked_for_together_with_what_is_above_it():
    assert question_names(GRADES) == ("mild or above", "severe")
    np.testing.assert_allclose(chances(GRADES, SAID), [[0.8, 0.5], [0.3, 0.1]])
    assert answers(GRADES, np.array([0, 1, 2])).tolist() == [[False, False], [True, False], [True, True]]
    assert (chances(GRADES, np.array([[0.0, 0.1 + 0.2, 0.7 + 1e-16]])) <= 1).all()


@pytest.mark.parametrize(
    ("task", "name", "number"), [(BINARY, "ill", 0), (CLASSES, "c", 2), (GRADES, "severe", 1), (LABELS, "y", 1)]
)
def test_a_question_is_found_by_its_class(task, name, number):
    assert question_of(task, name) == number


@pytest.mark.parametrize(
    ("task", "name", "said"),
    [
        (BINARY, "il", "ill"),
        (BINARY, "healthy", "the negative one"),
        (GRADES, "none", "lowest grade"),
        (LABELS, "z", "x, y"),
    ],
)
def test_what_nothing_is_asked_of_is_refused(task, name, said):
    with pytest.raises(UsageError, match=said):
        question_of(task, name)
