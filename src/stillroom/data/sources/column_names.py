"""What people call the columns that Stillroom reads: one list for tables of images and tables of answers."""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import SequenceMatcher
from typing import Literal

from stillroom.data.spelling import tidy

Role = Literal["path", "label", "patient", "group", "split", "mask", "reader", "vote"]

_WHO = "patient patients pat pt subject subjects subj participant person individual proband donor animal"
_WHAT = """case study studyinstance exam examination accession encounter visit admission group cluster lesion tumor tumour
    nodule specimen sample biopsy slide video clip sequence series seriesinstance eye"""
_ENDS = "id ids no nr num number code key uid uuid name identifier pseudonym hash index idx"
_OFTEN_ELSE = "set sets setname dataset phase stage usage mode purpose group valid"
_WRITTEN = {
    "path": """path paths file files filename filenames filepath fname fullpath relpath relativepath image images imagepath
        imagefile imagefilename imagefilepath imagename imageid imageindex img imgs imgpath imgfile imgfilename imgname imgid
        pathtoimage picture photo scan location uri url src""",
    "label": """label labels labelname class classes classname classlabel classid target targets diagnosis diagnoses dx
        finding findings findinglabel findinglabels category categories groundtruth gt truth outcome pathology disease grade
        severity level y""",
    "split": f"""split splits splitname splittype datasplit subset subsets datasubset partition partitions fold folds foldid
        foldno kfold cvfold traintest trainvaltest trainortest tvt istrain istraining isval isvalid isvalidation istest train
        training val validation test testing {_OFTEN_ELSE}""",
    "mask": """mask masks maskpath maskpaths maskfile maskfilename maskname maskimage lesionmask segmentation
        segmentationpath segmentationmask segmentationfile seg segpath segmask""",
    "reader": """reader readerid readername rater raterid annotator annotatorid observer grader expert radiologist
        reviewer""",
    "vote": "vote votes answer rating opinion decision",
}
_TYPO = 0.8
"""How alike two names are, by difflib's ratio, when one is taken for a slip of the other."""


def _with_ends(words: str) -> set[str]:
    return {word + end for word in words.split() for end in ("", *_ENDS.split())}


_NAMES = {role: set(words.split()) for role, words in _WRITTEN.items()}
_NAMES["patient"] = _with_ends(_WHO) | {"pid", "mrn", "empi", "medicalrecordnumber"}
_NAMES["group"] = _with_ends(_WHAT) | {"id", "ids", "uid", "identifier", "name"}


def plain_name(column: str) -> str:
    """A column's name by its letters and digits alone: ``Patient ID``, ``patient_id`` and ``PatientID`` are one."""
    return re.sub(r"[\W_]+", "", tidy(column).casefold())


def named_like(columns: Iterable[str], role: Role) -> list[str]:
    """The columns whose names are kept for the role, in their order. A group is what may stand for patients."""
    return [column for column in columns if plain_name(column) in _NAMES[role]]


def hardly_else(column: str) -> bool:
    """Whether a column named like a split is hardly anything else; a stage or a phase is told by its cells alone."""
    return plain_name(column) not in _OFTEN_ELSE.split()


def nearly_like(columns: Iterable[str], role: Literal["patient", "split"]) -> list[str]:
    """The columns whose names are only like those kept for the role: slips of it, and patients' ids by longer names."""
    found = []
    for column in columns:
        name = plain_name(column)
        if any(name in names for names in _NAMES.values()):
            continue
        slip = any(_is_slip(name, known) for known in (role, f"{role}id"))
        longer = role == "patient" and re.search(f"(patient|subject)({_ENDS.replace(' ', '|')})$", name)
        if slip or longer:
            found.append(column)
    return found


def _is_slip(name: str, known: str) -> bool:
    return SequenceMatcher(None, name, known).ratio() >= _TYPO and known not in name
