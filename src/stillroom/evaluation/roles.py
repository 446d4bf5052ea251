"""What is judged beside the student, by name, and how people call it."""

from __future__ import annotations

STUDENT = "student"
CONTROL = "control"
TEACHER = "teacher"
PROBE_OF_TEACHER = "probe_of_teacher"
PROBE_OF_STUDENT = "probe_of_student"
MAJORITY = "majority"

RIVALS = (CONTROL, PROBE_OF_TEACHER, PROBE_OF_STUDENT, MAJORITY)
"""What is simpler than a taught student: it must beat each of them to be worth its making."""

SIMPLEST = (PROBE_OF_TEACHER, PROBE_OF_STUDENT, MAJORITY)
"""Those of them that are no networks of their own; figures tell of them, and few pictures need to."""

_NOUNS = {
    PROBE_OF_TEACHER: "linear probe on the frozen teacher",
    PROBE_OF_STUDENT: "linear probe on the student's start",
    MAJORITY: "majority class",
}


def noun(role: str) -> str:
    """A role in a sentence, as in "the student"."""
    return _NOUNS.get(role, role.replace("_", " "))
