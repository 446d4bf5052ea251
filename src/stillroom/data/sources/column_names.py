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
_PERHAPS_WHO = "child mouse rat dog mother family user owner member volunteer block core biospecimen wsi"
_OTHER_IDS = """volunteer volunteers owner biospecimen wsi sub subno rid eid usubjid hospitalnumber hospitalno hospitalnr
    nhsnumber nhsno recordid recordno recordnumber folder foldername directory dir imggroup imagegroup"""
_ABROAD = """patientennummer patientnummer patientenid idpaciente pacienteid paciente idpatient numeropatient numpatient
    identifiantpatient nrpatient paziente idpaziente pazienteid pacient probandennummer fallnummer
    患者id 患者番号 患者编号 病人id 病人编号 受试者编号 пациент идпациента 환자id 환자번호"""
_ABOUT = """age sex gender position race ethnic weight height size birth dob date year bmi type status orient history count
    smok comment note diagnos group class label finding country site inpatient outpatient"""
_ABOUT_IMAGES = """center centre hospital clinic institut manufacturer vendor device scanner camera machine
    model view lateral side projection modality protocol plane slice frame width columns rows pixel spacing
    resolution exposure kvp mas dose path file image url score count length angle time hour month day split
    fold train time batch region zone city zip post alter edad grade stage level severity pathology histolog
    subtype type code_meaning description text report annotat reader rater"""
_ENDS = "id ids no nr num number code key uid uuid name identifier pseudonym hash index idx"
_OFTEN_ELSE = "set sets setname dataset phase stage usage mode purpose group valid"
_WRITTEN = {
    "path": """path paths file files filename filenames filepath fname fullpath relpath relativepath image images imagepath
        imagefile imagefilename imagefilepath imagename imageid imageindex img imgs imgpath imgfile imgfilename imgname imgid
        pathtoimage picture photo scan location uri url src sopinstanceuid sopuid instanceuid""",
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


_NAMES_PERHAPS = _with_ends(_PERHAPS_WHO) - {*_PERHAPS_WHO.split()} | {*_OTHER_IDS.split(), *_ABROAD.split()}
_NAMES = {role: set(words.split()) for role, words in _WRITTEN.items()}
_NAMES["patient"] = _with_ends(_WHO) | {"pid", "mrn", "empi", "medicalrecordnumber"}
_NAMES["group"] = _with_ends(_WHAT) | {"id", "ids", "uid", "identifier", "name", "cases"}


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


def perhaps_folds(columns: Iterable[str]) -> list[str]:
    """The columns that may hold numbers of folds, by a word of their names: ``fold_1``, ``kfold split``."""
    word = re.compile(r"(?<![^\W_])(split|k?folds?|partition)[0-9]*(?![^\W_])")
    return [name for name in columns if word.search(tidy(name).casefold())]


def perhaps_patients(columns: Iterable[str]) -> list[str]:
    """The columns that may hold ids of patients, by names that contain one or stand for one in other registers and languages.

    Their cells must tell; what is known about patients, such as their age, is not among them.
    """
    found = []
    for column in columns:
        name = plain_name(column)
        within = re.search("patient|subject|participant|mrn(?!a)|empi(?!r)", name)
        about = re.search("|".join(_ABOUT.split()), name.replace("image", ""))
        if not any(name in names for names in _NAMES.values()) and (
            name in _NAMES_PERHAPS or re.fullmatch(r"brats\d*id", name) or (within and not about)
        ):
            found.append(column)
    return found


def about_images(plain: str) -> bool:
    """Whether a column's plain name speaks of something known of images or people that is no id: site, age, scanner, view."""
    return re.search("|".join([*_ABOUT.split(), *_ABOUT_IMAGES.split()]), plain) is not None


def _is_slip(name: str, known: str) -> bool:
    return SequenceMatcher(None, name, known).ratio() >= _TYPO and known not in name
