"""The items of TRIPOD+AI and of CLAIM's 2024 update: numbers as published, subjects in our own words.

Each names what answers it, a function of :mod:`stillroom.report.reporting`. Both lists ask much the same.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Item:
    """One line of a checklist.

    Attributes:
        number: as published, such as ``12a``.
        subject: what it asks for, in our words.
        answer: name of what answers it.
    """

    number: str
    subject: str
    answer: str


@dataclass(frozen=True)
class Checklist:
    """A list of what a paper should say.

    Attributes:
        key: of its place on the page.
        name: short.
        citation: where it was published.
        link: to it.
        items: in their order.
    """

    key: str
    name: str
    citation: str
    link: str
    items: tuple[Item, ...]


def _items(*lines: tuple[str, str, str]) -> tuple[Item, ...]:
    return tuple(Item(*line) for line in lines)


TRIPOD_AI = Checklist(
    "tripod-ai",
    "TRIPOD+AI",
    "Collins GS, Moons KGM, Dhiman P, et al. (2024). TRIPOD+AI statement. BMJ 385:e078378.",
    "https://doi.org/10.1136/bmj-2023-078378",
    _items(
        ("1", "Title: development or evaluation, for whom, of what", "title"),
        ("2", "Abstract", "abstract"),
        ("3a", "Clinical context, reasons, models that exist", "context"),
        ("3b", "For whom, where in their care, used by whom", "purpose"),
        ("3c", "Known inequalities between groups of people", "inequalities"),
        ("4", "Aims", "aims"),
        ("5a", "Where the data come from, and whom they stand for", "sources"),
        ("5b", "From when to when they were collected", "dates"),
        ("6a", "Setting, number and place of the sites", "setting"),
        ("6b", "Who could take part", "eligibility"),
        ("6c", "Treatments", "treatments"),
        ("7", "Preparation and checking of the data", "preparation"),
        ("8a", "Outcome: what, when and how it was established", "outcome"),
        ("8b", "Who established it", "assessors"),
        ("8c", "What they were not told", "blinding"),
        ("9a", "How predictors were chosen", "predictors"),
        ("9b", "What the predictors are and how they were measured", "image"),
        ("9c", "Who measured them, where that takes judgement", "measured_by"),
        ("10", "Number of participants, and why that many", "size"),
        ("11", "Missing data", "missing"),
        ("12a", "How the data were divided", "partitions"),
        ("12b", "How predictors were scaled and transformed", "scaling"),
        ("12c", "Kind of model, its making, tuning, internal validation", "model"),
        ("12d", "Differences between sites or other clusters: method", "clusters"),
        ("12e", "Measures and plots of performance", "measures"),
        ("12f", "Updating of the model after its evaluation", "updating"),
        ("12g", "How predictions were computed in the evaluation", "predictions"),
        ("13", "Class imbalance", "imbalance"),
        ("14", "Fairness", "fairness"),
        ("15", "Output of the model, and thresholds", "output"),
        ("16", "How evaluation data differ from development data", "differences"),
        ("17", "Ethics and consent", "ethics"),
        ("18a", "Funding", "funding"),
        ("18b", "Conflicts of interest", "conflicts"),
        ("18c", "Protocol", "protocol"),
        ("18d", "Registration", "registration"),
        ("18e", "Availability of the data", "data_sharing"),
        ("18f", "Availability of the code", "code_sharing"),
        ("19", "Part that patients and the public had", "public"),
        ("20a", "Flow of participants", "flow"),
        ("20b", "Who they are", "characteristics"),
        ("20c", "Development and evaluation data side by side", "compared"),
        ("21", "Participants and outcomes in every analysis", "counts"),
        ("22", "The whole model, for use by others", "specification"),
        ("23a", "Performance with intervals, also of groups", "performance"),
        ("23b", "Differences between clusters: results", "clusters"),
        ("24", "Results of updating", "updating"),
        ("25", "Interpretation", "interpretation"),
        ("26", "Limits", "limits"),
        ("27a", "Input that is poor or missing in use", "poor_input"),
        ("27b", "What users must do and know", "users"),
        ("27c", "Next steps", "next_steps"),
    ),
)

CLAIM = Checklist(
    "claim",
    "CLAIM 2024",
    "Tejani AS, Klontzas ME, Gatti AA, et al. (2024). Checklist for Artificial Intelligence in Medical Imaging (CLAIM): 2024 "
    "update. Radiology: Artificial Intelligence 6(4):e240300.",
    "https://doi.org/10.1148/ryai.240300",
    _items(
        ("1", "Title names the kind of method", "title"),
        ("2", "Abstract", "abstract"),
        ("3", "Background, intended use and clinical role", "context"),
        ("4", "Aims and hypotheses", "aims"),
        ("5", "Prospective or retrospective", "design"),
        ("6", "Goal of the study", "purpose"),
        ("7", "Sources of the data", "sources"),
        ("8", "Who and what was included and excluded", "eligibility"),
        ("9", "Preparation of the images", "preparation"),
        ("10", "Parts of the data that were chosen", "subsets"),
        ("11", "De-identification", "deidentification"),
        ("12", "Missing data", "missing"),
        ("13", "How the images were acquired", "acquisition"),
        ("14", "Reference standard: what it is", "outcome"),
        ("15", "Reference standard: why this one", "reference_reason"),
        ("16", "Who annotated, and how they were prepared", "assessors"),
        ("17", "How the test images were annotated", "annotation"),
        ("18", "How annotators differed, and who decided then", "variability"),
        ("19", "How the data were divided", "partitions"),
        ("20", "What no two partitions share", "disjoint"),
        ("21", "Size of the test data, and why that size", "size"),
        ("22", "Model: layers, input and output", "model"),
        ("23", "Software with versions", "software"),
        ("24", "Initial weights", "initial"),
        ("25", "Training in all its settings", "training"),
        ("26", "How the final model was chosen", "selection"),
        ("27", "Ensembles", "ensemble"),
        ("28", "Measures of performance", "measures"),
        ("29", "Uncertainty and tests", "uncertainty"),
        ("30", "Robustness", "robustness"),
        ("31", "Explanations, and whether they were checked", "explanation"),
        ("32", "Test on internal data", "performance"),
        ("33", "Test on external data", "external"),
        ("34", "Registration of a trial", "registration"),
        ("35", "Numbers included and excluded, with a diagram", "flow"),
        ("36", "Who they are, by partition", "characteristics"),
        ("37", "Performance, also of groups", "performance"),
        ("38", "Accuracy with intervals", "accuracy"),
        ("39", "Analysis of errors", "errors"),
        ("40", "Limits", "limits"),
        ("41", "What it means for practice", "practice"),
        ("42", "Protocol, or more technical detail", "protocol"),
        ("43", "Availability of software, model and data", "availability"),
        ("44", "Funding", "funding"),
    ),
)

CHECKLISTS = (TRIPOD_AI, CLAIM)
