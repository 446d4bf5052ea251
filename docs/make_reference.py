"""Write docs/reference.md from the code: settings, recipes, command line, files and Python API.

    python docs/make_reference.py

Run it after any change of a setting, a recipe, a verb or a public name; tests/test_docs.py fails until it is done.
"""

from __future__ import annotations

import inspect
import re
import textwrap
import typing
from collections.abc import Iterator, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import stillroom
from stillroom.cli.app import make_app
from stillroom.data.audit import Audit
from stillroom.data.findings import ClassCount, Finding, Pair, SharedPatient
from stillroom.deployment.edge_maps import edge_map
from stillroom.deployment.metadata import ModelMetadata
from stillroom.distillation.step import Objective, Step, TeacherOutputs
from stillroom.distillation.teachers import Teacher
from stillroom.evaluation.by_patient import by_patient
from stillroom.evaluation.comparison import compare
from stillroom.evaluation.conformal import ConformalRule, coverage_report
from stillroom.evaluation.luck import luck
from stillroom.evaluation.metrics import score
from stillroom.evaluation.net_benefit import curves_report
from stillroom.evaluation.ood import ForeignRule, foreign_report, refusal_report
from stillroom.evaluation.operating_points import OperatingPoint, points_report
from stillroom.evaluation.robustness import robustness
from stillroom.evaluation.subgroups import judge_subgroups
from stillroom.explanation import layers
from stillroom.explanation.evidence import gather
from stillroom.models.efficiency import profile
from stillroom.models.network import Network
from stillroom.models.taps import Outputs
from stillroom.recipes import RECIPES, Recipe
from stillroom.run.bench import Bench
from stillroom.run.workbench import Workbench
from stillroom.settings.whole import SECTIONS, Settings
from stillroom.training.loop import TrainingData

TARGET = Path(__file__).with_name("reference.md")

FILES = {
    "settings.yaml": "Every setting, fully resolved. `stillroom distill --settings FILE` repeats the run.",
    "plan.yaml": "Only of a run that follows a plan: every planned or given setting with its reason, the facts, and the "
    "seconds expected of each stage. `stillroom distill --plan FILE` follows it again.",
    "manifest.json": "What was run on what with what: data, task, store, seed, versions, machine, device, seconds per "
    "stage, `passes` (images shown to student and control in all their epochs), `exported_role`, "
    "`networks` (of each the digest of its weights and how many epochs it was trained), and at the end the SHA-256 of every "
    "`.safetensors`, `.onnx` and `.parquet` file, by which `stillroom doctor` knows runs without a list of digests.",
    "images.parquet": "What the run began with, image by image: `id`, `split` (`unlabelled` for images without labels), "
    "`label`, `patient`, and the digests of decoded `pixels` and `mask` (empty without one). A run that goes on compares its "
    "data with it.",
    "digests.jsonl": "The SHA-256 of every file as it was written, a line each; by it the files are checked when they are "
    "opened.",
    "audit.json": "What the audit found; see [below](#auditjson).",
    "history.jsonl": "One line per trained epoch; see [below](#historyjsonl).",
    "student/": "The distilled student: `model.safetensors` and `model.json`. No pickle.",
    "control/": "The same student trained on the same budget without a teacher, in the same form.",
    "teacher/": "A fine-tuned teacher in the same form; of a frozen one only its linear head, `head.safetensors`.",
    "probe_of_teacher/": "The pretrained teacher as it is with a linear head, in the same form; only where the teacher "
    "is not that already.",
    "probe_of_student/": "The student as it starts with a linear head, in the same form; only where it starts from "
    "pretrained weights.",
    "repeats/": "With `--repeats K`: a folder `2` to `K` for each further training, with its networks, history.jsonl and "
    "predictions.parquet; in `1` the predictions of the run's own training.",
    "folds/": "With `--folds K`: a folder `2` to `K` for each further fold, in the same form; the run itself is the first.",
    "average/": "With `--keep average`: the networks whose weights are averaged.",
    "exported/": "The network that student.onnx was made of, where that is not simply `student/`; of an ensemble a folder "
    "for each member.",
    "predictions.parquet": "Every image with its probabilities; see [below](#predictionsparquet).",
    "subgroups.parquet": "Of every test image its `id`, `group:<column>`, the subgroup it is in for each of `--groups` "
    "(bands, not what the cells held), and `quality:<property>`: `sharpness`, `contrast`, `brightness` and `size`.",
    "features.npz": "Pooled features of up to 2,000 test images, for the report's map: `student [M, D]`, "
    "`teacher [M, D2]`, and `index [M]`, rows of predictions.parquet.",
    "gallery.npz": "The student's worst mistakes on the test split: `images [G, C, H, W]` uint8, `index [G]`, "
    "and `left_out [G]`, how many more were answered wrongly of the same patient or, of unknown patients, picture.",
    "metrics.json": "Every figure of the report; see [below](#metricsjson).",
    "explanations/": "Heat maps. Of the run itself: `explanation.json`, that part of metrics.json, and `maps.npz`, see "
    "[below](#explanationsmapsnpz). `stillroom explain` adds an overlay (.png) and a map (.npy) per image, named after "
    "image and class.",
    "density.npz": "What the student's pooled features of training images look like, for the distance that the exported "
    "file answers: `centres [C, D]`, `directions [D, r]`, `precisions [r]` and `residual_precision`.",
    "foreign_scores.npz": "What `stillroom evaluate --foreign` compares foreign images with: `energy [M]` and "
    "`distance [M]` of the `M` test images, and `patients [M]`, empty where unknown.",
    "student.onnx": "The student with its preprocessing, calibrated probabilities, class names, what heat maps are made "
    "of, and the rules for sets and refusals; see [below](#studentonnx).",
    "student.int8.onnx": "The same network in eight-bit integers, with rules of its own, where `--int8` asked for it and it "
    "answers like student.onnx.",
    "student.fp16.onnx": "The same network in half precision, where `stillroom export RUN --fp16` asked for it and it "
    "answers like student.onnx.",
    "report.html": "The report: one file that opens offline.",
    "MODEL_CARD.md": "The model card.",
    "REPORTING.md": "The items of TRIPOD+AI and CLAIM: what the run answers, where, and what its author must fill in.",
    "reader_study/": "A folder for each page of `stillroom readers`, named by a hash of its images and settings: `page.html` "
    "for the readers, `study.json`, which says what image is which and what the model answers (not for the readers), and "
    "`figures.json`, what their answers amount to.",
    "evaluations/": "One JSON file per `stillroom evaluate`, named after the source, its split and a hash of "
    "how it was read.",
    "checkpoints/": "Only while a network trains: its state after the last two looks at validation, and its best weights, "
    "each with its digest at its end. A run goes on from here.",
}
"""Every file and folder that a run may leave; tests/test_docs.py compares it with a real run."""

HISTORY = {
    "role": "`student`, `control`, `teacher`, or a name of the recipe's own",
    "epoch": "from 1",
    "epochs": "how many were asked for",
    "loss": "mean training loss: the sum of `losses`",
    "losses": "each part of the loss by name, weighted as it was minimised",
    "images": "image passes through the network: every view, and images without labels too",
    "val": "`metric` (its name), `value` (null where it is not defined) and `nll`, on validation; null where not asked",
    "lr": "learning rate of the epoch's last step",
    "seconds": "training and validation of this epoch",
    "best": "whether validation was likeliest after this epoch so far",
    "kept": "in the last line alone: the epoch whose weights are handed over",
}

METRICS = {
    "task": "`kind`, `classes`, and for each kind what else describes it",
    "test": "per role (`student`, `control`, `teacher`, the simple rivals `probe_of_teacher`, `probe_of_student` and "
    "`majority`, and networks on the way) the figures on the test split, as described below",
    "validation": "per role the same figures on the validation split",
    "calibration": "per role `temperature` (fitted on validation), `ece_before` and `ece_after` (calibration error on "
    "test), and the bins of the reliability diagrams, `bins_before` and `bins`",
    "comparison": "`student_vs_control`, `student_vs_teacher` and so on for every role, as described below",
    "luck": "figures and comparisons over `--repeats` or `--folds`, as described below; absent after one training",
    "kept": "which network was exported: `role`, `why`, and `candidates` with `role`, `mb`, `validation` (mean calibrated "
    "log-likelihood) and `within` (whether it is no larger than `--max-mb`); absent where there was nothing to choose",
    "by_patient": "figures by patient, as described below; absent where no patient is known, or each has one image",
    "groups": "figures of the subgroups of each of `--groups` and the largest gaps, as described below; absent where none "
    "was named",
    "quality": "the same of the thirds of the images by sharpness, contrast, brightness and size",
    "conformal": "whether the sets of classes hold the truth as often as promised, as described below",
    "ood": "which images are refused as foreign, as described below",
    "operating_points": "thresholds chosen on validation, and their figures on test, as described below; absent where none "
    "is wanted",
    "decision_curves": "what acting on the probabilities is worth, as described below",
    "explanation": "what the heat maps are worth, as described below; null with `--explain 0`",
    "int8": "what the int8 file keeps of the float32 one on the test images, why it was refused if it was, which layers stay "
    "float32 and why; only where `--int8` was asked for, of the run or of `stillroom export` later",
    "fp16": "what the fp16 file keeps of the float32 one on the test images, why it was refused if it was, and `largest`, "
    "the largest number between its layers; only where `stillroom export --fp16` asked for it",
    "robustness": "figures on corrupted test images, as described below; only where `--corruptions` was asked for, of the "
    "run or of `stillroom evaluate` later",
    "sections": "what a stage of your own, or a test with readers, adds to report and model card: `key`, `title`, `text` and "
    "`tables`; absent where there is none",
    "efficiency": "per network (`student`, `teacher`, `onnx`), as described below",
    "export": "the ONNX file against torch on validation images: `images`, `max_logit_difference`, "
    "`max_probability_difference`, `max_map_difference`, `max_distance_difference` (null where the file does not answer "
    "these), `decisions_equal`, `tolerance`, `passed`",
}

ENVIRONMENT = {
    "STILLROOM_CACHE": "where stores and banks are kept. Default: `stillroom` in the user's cache folder.",
    "STILLROOM_DATA": "a folder whose sub-folder `medmnist` holds MedMNIST's .npz files; also used by the tests.",
    "STILLROOM_WEIGHTS": "a folder of pretrained weights, used by the tests alone.",
}

EXIT_CODES = {
    0: "all went well",
    1: "the run failed: a full disk, an export that does not agree, a diverged loss",
    2: "what was asked for cannot be done as asked: a flag, a path, a file or a data set is wrong",
    3: "some of it: images that could not be read were left out and named, the others were answered",
    129: "stopped by SIGHUP: its terminal was closed",
    130: "stopped by Ctrl-C",
    141: "what read the output closed it, as `head` does: nothing is said, and the rest was not written",
    143: "stopped by SIGTERM, as by `kill` or a queue",
}


def reference() -> str:
    """The whole page."""
    parts = [_HEAD, *_command_line(), *_settings(), *_recipes(), *_run_folder(), *_python()]
    return "\n\n".join(_wrapped(part.strip("\n")) for part in parts) + "\n"


def _wrapped(part: str) -> str:
    """Prose in lines of 120 characters; tables, code, headings and comments as they are."""
    if "\n" in part or part.startswith(("#", "|")):
        return part
    return textwrap.fill(part, 120, break_long_words=False, break_on_hyphens=False)


_HEAD = """
# Reference

<!-- Made by docs/make_reference.py from the code. Do not edit: change the docstrings and run `make docs`. -->

This page is for looking things up: every command, setting, file and public name. To learn Stillroom, start with the
[tutorial](tutorial.md); for a task at hand, see [how-to](how-to.md).

Contents: [command line](#command-line) · [settings](#settings) · [recipes](#recipes) · [run folder](#run-folder) ·
[Python](#python)
"""


# -- command line -------------------------------------------------------------------------------------------------
def _command_line() -> Iterator[str]:
    app = make_app()
    yield "## Command line"
    verbs = [name for name in app if not name.startswith("-")]
    lines = [(f"[`stillroom {verb}`](#stillroom-{verb})", _summary(app[verb].default_command)) for verb in verbs]
    yield _table(("Command", "What it does"), lines)
    yield (
        "Results go to standard output, everything else to standard error. `stillroom VERB --help` shows the same as "
        "this page. `stillroom --version` says which Stillroom it is, `stillroom --install-completion` completes "
        "commands in your shell."
    )
    yield _table(("Exit code", "Meaning"), [(str(code), text) for code, text in EXIT_CODES.items()])
    yield _table(("Variable", "Meaning"), [(f"`{name}`", text) for name, text in ENVIRONMENT.items()])
    for verb in verbs:
        yield from _verb(app[verb], verb)


def _verb(command: Any, verb: str) -> Iterator[str]:
    texts = sections(command.default_command).get("Args", {})
    own, borrowed = [], []
    for argument in command.assemble_argument_collection():
        if not argument.parse or argument.names == ("*",):
            continue
        if {group.name for group in argument.parameter.group} <= {"Arguments", "Parameters"}:
            own.append(argument)
        else:
            borrowed.append(argument.names[0])
    places = [one.names[0] for one in own if not one.names[0].startswith("-")]
    yield f"### `stillroom {verb}`"
    yield _summary(command.default_command)
    yield f"```text\n{' '.join(['stillroom', verb, *places])}{' [FLAGS]' if len(own) > len(places) else ''}\n```"
    rows = []
    for one in own:
        name = one.names[0].removeprefix("--").lower().replace("-", "_")
        default = one.field_info.default
        rows.append(
            (
                ", ".join(f"`{flag}`" for flag in one.names),
                _values(one.hint),
                "" if default is inspect.Parameter.empty else _default(default),
                texts[name],
            )
        )
    if rows:
        yield _table(("Argument", "Values", "Default", "Meaning"), rows)
    if verb == "distill":
        yield "All [settings](#settings) and the settings of the chosen [recipe](#recipes) are flags too."
    elif borrowed:
        yield f"Of the settings under [data](#data) it takes {', '.join(f'`{flag}`' for flag in borrowed)}."


# -- settings and recipes -----------------------------------------------------------------------------------------
def _settings() -> Iterator[str]:
    yield "## Settings"
    yield (
        "A run is decided by its settings. On the command line each is a flag of `stillroom distill`; in settings.yaml "
        "it stands under its section's name, with underscores; in Python the section is a dataclass of "
        "`stillroom`. A flag of several values takes them one after the other: `--classes mild severe`."
    )
    head = {name: text for name, text in sections(Settings)["Attributes"].items() if name not in SECTIONS}
    yield _table(("In settings.yaml", "Meaning"), [(f"`{name}`", text) for name, text in head.items()])
    flags = _flags(None)
    for name, cls in SECTIONS.items():
        yield f"### {name.capitalize()}"
        yield f"{_summary(cls)} In settings.yaml `{name}:`, in Python `stillroom.{cls.__name__}`."
        yield _fields(cls, flags)


def _recipes() -> Iterator[str]:
    yield "## Recipes"
    yield (
        "A recipe is one published system, chosen by `--recipe NAME`. Its settings stand under `recipe:` in "
        "settings.yaml, with its `name`. [Recipes](recipes.md) explains each one."
    )
    for recipe in RECIPES:
        yield f"### {recipe.name}"
        facts = [f"{recipe.title}.", _summary(recipe)]
        if recipe.citation:
            facts.append(f"After: {recipe.citation}.")
        facts.append(f"Tasks: {', '.join(sorted(recipe.kinds))}. In Python `stillroom.{recipe.__name__}`.")
        yield " ".join(facts)
        yield _fields(recipe, _flags(recipe)) if fields(recipe) else "It has no settings of its own."


def _flags(recipe: type[Recipe] | None) -> dict[str, str]:
    """A setting's name to its flags, e.g. ``flips`` to ``--flips, --no-flips``."""
    app = make_app(recipe) if recipe else make_app()
    flags = {}
    for argument in app["distill"].assemble_argument_collection():
        if argument.names[0].startswith("--"):
            name = argument.names[0].removeprefix("--").replace("-", "_")
            shown = [flag for flag in argument.names if not flag.startswith("--empty-")]
            flags[name] = ", ".join(f"`{flag}`" for flag in shown)
    return flags


def _fields(cls: type, flags: dict[str, str]) -> str:
    hints, texts = typing.get_type_hints(cls), sections(cls)["Attributes"]
    rows = [(flags[f.name], _values(hints[f.name]), _default(_default_of(f)), texts[f.name]) for f in fields(cls)]
    return _table(("Flag", "Values", "Default", "Meaning"), rows)


def _default_of(field: Any) -> Any:
    return field.default if field.default is not MISSING else field.default_factory()


def _values(hint: Any) -> str:
    """A type as people would say it: its choices, or ``whole number``, ``path``..."""
    words = {int: "whole number", float: "number", str: "text", Path: "path", bool: "yes or no"}
    if hint in words:
        return words[hint]
    arguments = [one for one in typing.get_args(hint) if one is not type(None)]
    if typing.get_origin(hint) is typing.Literal:
        return ", ".join(f"`{choice}`" for choice in arguments)
    if typing.get_origin(hint) in (tuple, list):
        return f"one or more: {_values(arguments[0])}"
    return " or ".join(_values(one) for one in arguments)


def _default(value: Any) -> str:
    if value is None or value == ():
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"`{value}`"


# -- files --------------------------------------------------------------------------------------------------------
def _run_folder() -> Iterator[str]:
    yield "## Run folder"
    yield (
        "A run is a folder; nothing of it stands elsewhere but the cache, which can be made again. Files appear as "
        "stages finish, each written whole or not at all; to history.jsonl lines are added."
    )
    yield _table(("File", "What it holds"), [(f"`{name}`", text) for name, text in FILES.items()])
    yield "A recipe may leave more networks, each in a folder named after its role."

    yield "### predictions.parquet"
    yield (
        "One row per image of every split: `id` (as in the source), `patient` (empty where unknown), `split`, `target` "
        "(class names; several are joined by `;`), `digest` (equal for equal pixels at native size, whatever the file; "
        "`stillroom evaluate` knows the run's own images by it), then `<role>:<class>` for each role of "
        "metrics.json and class: the calibrated probability. Every figure can be computed again from it."
    )
    yield "### metrics.json"
    yield _table(("Key", "What it holds"), [(f"`{key}`", text) for key, text in METRICS.items()])
    yield f"**Figures** of a role. {_returns(score)}"
    yield (
        "Overall figures: `auc`, `sensitivity`, `specificity`, `precision`, `f1`, `average_precision`, "
        "`balanced_accuracy`, `mcc`, `brier`, `nll`, `accuracy`, `ece`, and for ordinal tasks `quadratic_kappa`. "
        f"{_body(score)}"
    )
    yield f"**Comparison.** {_returns(compare)}"
    yield f"**Luck.** {_returns(luck)}"
    yield f"**By patient.** {_returns(by_patient)}"
    yield f"**Groups and quality.** {_returns(judge_subgroups)}"
    yield f"**Conformal.** {_returns(coverage_report)} `rule`: see [student.onnx](#studentonnx)."
    yield (
        f"**Ood.** Of the test images: {_returns(refusal_report)} `rule`: see [student.onnx](#studentonnx); null where none "
        "could be fitted, and then only `statement` is beside it, which says why. `made_up` holds figures on `noise`, "
        "`shuffled` and `inverted`, which are made of test images, and `against` those of every set that "
        f"`stillroom evaluate --foreign` has shown, in the order of time. Of each set: {_returns(foreign_report)} Those "
        "under `against` also have `source`, `quarantined` and `notes`."
    )
    yield f"**Operating points.** {_returns(points_report)}"
    yield f"**Decision curves.** {_returns(curves_report)}"
    yield (
        "**Explanation.** What the words mean, and what may be concluded, stands in [explanation](explanation.md). Where "
        f"the student can make no map, `images` is 0 and `reason` says why. {_returns(gather)}"
    )
    yield _list(gather)
    yield (
        "By name, a role's part of `faithfulness` holds `deletion_blur`, `insertion_blur` and `gap_blur`, "
        "`deletion_mean`, `insertion_mean` and `gap_mean`, then `gap`, `drop`, `increase`, `road` (of images up to 224 px), "
        "`controls`, `advantage`, `reach`, `sanity`, `verdict`, `faithful`, `reasons`, `unit`, `units` and `needed`. "
        "The trivial maps are `centre`, `edges` and `random`."
    )
    yield f"**Robustness.** {_returns(robustness)}"
    yield _list(robustness)
    yield f"**Efficiency.** {_returns(profile)} Of `onnx`: `size_mb`, `latency_ms`, `threads` and `machine` alone."
    yield "### explanations/maps.npz"
    yield (
        "Of the `n` test images that were explained: `index [n]` (rows of predictions.parquet), `classes [n]` (number of the "
        "class explained: the most probable one), `images [n, C, S, S]` uint8, `map_<role> [n, S, S]` float16 in [0, 1] for "
        "each role, and where there are masks `masks [n, S, S]` bool."
    )
    yield "### history.jsonl"
    yield _table(("Key", "Meaning"), [(f"`{key}`", text) for key, text in HISTORY.items()])
    yield "A line ends in `check`: the first 32 bits of the SHA-256 of the JSON text before it, closed by `}`, in hex."
    yield "### audit.json"
    yield _attributes(Audit)
    yield "The entries of its lists:"
    entries = (Pair, SharedPatient, ClassCount, Finding)
    yield _table(
        ("Entry", "Keys", "What it is"),
        [(f"`{one.__name__}`", ", ".join(f"`{f.name}`" for f in fields(one)), _body(one)) for one in entries],
    )
    yield "### student.onnx"
    yield (
        "One file, opset 18. Input `images [B, C, S, S]` float32 in [0, 1]; outputs, all float32: `logits [B, K]`, "
        "calibrated `probabilities [B, K]`, `map [B, C', H', W']` where the student has a feature map of more than one "
        "place, and `distance [B]` where foreign images can be told. Metadata properties, each a JSON text:"
    )
    texts = sections(ModelMetadata)["Attributes"] | {
        "format": "version of this contract",
        "sha256": "the file's own SHA-256, taken with zeros in the place of these 64 digits; a file of format 2 has none",
        "version": "the Stillroom that wrote the file",
        "decision_rule": "the rule in words",
        "task": "`kind`, `classes` and what else describes the task: what the outputs mean",
    }
    keys = ("format", "sha256", "version", "task", "decision_rule", "name", "size", "channels", "white", "fit")
    keys += (
        "temperature",
        "synthetic",
        "layer",
        "hidden",
        "explanation",
        "conformal",
        "foreign",
        "points",
        "window",
        "shown",
        "details",
    )
    yield _table(("Property", "Meaning"), [(f"`stillroom.{key}`", texts[key]) for key in keys])
    yield (
        "**`conformal`.** A class is in an image's set where minus the logarithm of its probability, of the logits as they "
        "are, without the temperature, is at most its threshold; the class decided for always is. Of several labels, "
        "`present` is judged by the label's probability and `absent` by one minus it. Infinite thresholds are null: always "
        "in the set."
    )
    yield _attributes(ConformalRule)
    yield (
        "**`foreign`.** With `energy` = -log of the sum of exp(logits) (of several labels: -sum of log(1 + exp(logit))), an "
        "image is foreign where the larger of (energy - `energy_location`) / `energy_scale` and (distance - "
        "`distance_location`) / `distance_scale` is above the threshold. A threshold of null refuses nothing."
    )
    yield _attributes(ForeignRule)
    yield (
        "**`points`.** A list, one entry for each threshold. An image is flagged where the calibrated probability of what is "
        "asked (`of`: a class; of grades, `moderate or above`, the sum of that grade's probability and those above) is "
        "at least `threshold`, which may lie just above 1: never. `for` is `sensitivity` or `specificity`."
    )
    yield _attributes(OperatingPoint)


# -- Python -------------------------------------------------------------------------------------------------------
def _python() -> Iterator[str]:
    yield "## Python"
    yield "Everything below is imported from `stillroom`, which is light: a name is loaded when it is first used."
    rows = [
        (f"`{name}{_signature(getattr(stillroom, name))}`", _summary(getattr(stillroom, name)))
        for name in stillroom.__all__
    ]
    yield _table(("Name", "What it is"), rows)
    for cls in (stillroom.Run, stillroom.Predictor, stillroom.Prediction, stillroom.Explanation):
        yield f"### {cls.__name__}"
        yield _members(cls)
    yield "### Heat maps in a program"
    for function, home in ((stillroom.heat_maps, ""), (edge_map, ", from `stillroom.deployment.edge_maps`")):
        yield f"`{function.__name__}{_signature(function)}`{home}. {_summary(function)} Returns {_returns(function)}"
        yield _table(
            ("Argument", "Meaning"), [(f"`{name}`", text) for name, text in sections(function)["Args"].items()]
        )
    yield f"**Layers.** {_body(layers)}"
    yield "### For authors of recipes"
    yield (
        "What a recipe and an objective work with; see [how-to](how-to.md#add-a-recipe-of-your-own). From "
        "`stillroom.recipes`, `stillroom.run.workbench`, `stillroom.distillation.step`, "
        "`stillroom.distillation.teachers`, `stillroom.training.loop` and `stillroom.models`."
    )
    for cls in (Recipe, Bench, Workbench, Objective, Step, TeacherOutputs, Teacher, TrainingData, Network, Outputs):
        yield f"#### {cls.__name__}"
        yield _summary(cls)
        yield _members(cls)


def _members(cls: type) -> str:
    """Attributes and public methods that the class itself defines."""
    texts = sections(cls).get("Attributes", {})
    rows = [(f"`{name}`", text) for name, text in texts.items()]
    for name, member in vars(cls).items():
        plain = inspect.unwrap(getattr(member, "__func__", member))
        if name.startswith("_") or name in texts:
            continue
        if isinstance(member, property) and member.__doc__:
            rows.append((f"`{name}`", _summary(member)))
        elif inspect.isfunction(plain) and plain.__doc__:
            rows.append((f"`{name}{_signature(plain)}`", _summary(plain)))
    return _table(("Member", "What it is"), rows)


def _signature(thing: Any) -> str:
    """Names of the arguments, ``*`` where names must be given; empty for what is not a function."""
    if not inspect.isfunction(thing):
        return ""
    shown, starred = [], False
    for parameter in inspect.signature(thing).parameters.values():
        if parameter.name in ("self", "cls"):
            continue
        if parameter.kind is parameter.KEYWORD_ONLY and not starred:
            shown.append("*")
            starred = True
        star = "**" if parameter.kind is parameter.VAR_KEYWORD else ""
        shown.append(f"{star}{parameter.name}{'' if parameter.default is parameter.empty else '=...'}")
    return f"({', '.join(shown)})"


# -- docstrings ---------------------------------------------------------------------------------------------------
def sections(thing: Any) -> dict[str, dict[str, str]]:
    """The entries of a docstring's ``Args``, ``Attributes``... by heading and name, each on one line.

    Several names may share an entry (``first, second: ...``); each gets it.
    """
    found: dict[str, dict[str, str]] = {}
    for heading, block in _blocks(thing):
        entries: dict[str, str] = {}
        names: list[str] = []
        for line in block:
            start = re.match(r"(\w[\w, ]*): (.*)", line)
            if start:
                names = [name.strip() for name in start[1].split(",")]
                entries |= dict.fromkeys(names, start[2])
            elif line.strip():
                entries |= {name: f"{entries[name]} {line.strip()}" for name in names}
        if entries:
            found[heading] = {name: _markdown(text) for name, text in entries.items()}
    return found


def _blocks(thing: Any) -> Iterator[tuple[str, list[str]]]:
    """Headings such as ``Args`` with the lines below them, less their indentation."""
    heading, block = "", []
    for line in (inspect.getdoc(thing) or "").splitlines():
        start = re.fullmatch(r"([A-Z][a-z]+):", line)
        if start:
            if heading:
                yield heading, block
            heading, block = start[1], []
        elif heading and line and not line.startswith(" "):
            yield heading, block
            heading = ""
        elif heading:
            block.append(line.removeprefix("    "))
    if heading:
        yield heading, block


def _returns(thing: Any) -> str:
    """What a docstring says under ``Returns``, before its list."""
    return _markdown(" ".join(" ".join(_returned(thing)[0]).split()))


def _list(thing: Any) -> str:
    """The list under a docstring's ``Returns``."""
    items = [_markdown(" ".join(" ".join(item).split())) for item in _returned(thing)[1:]]
    return "\n".join(textwrap.fill(item, 120, subsequent_indent="  ", break_on_hyphens=False) for item in items)


def _returned(thing: Any) -> list[list[str]]:
    """Lines under ``Returns``: those before a list, then those of each of its items."""
    found: list[list[str]] = [[]]
    for line in next((block for heading, block in _blocks(thing) if heading == "Returns"), []):
        if line.startswith("- "):
            found.append([])
        found[-1].append(line)
    return found


def _summary(thing: Any) -> str:
    """The first sentence or paragraph of a docstring, as one line."""
    if not callable(thing) and not isinstance(thing, property):
        return "Tuple of every recipe's class."
    first = (inspect.getdoc(thing) or "").split("\n\n")[0]
    return _markdown(" ".join(first.split()))


def _body(thing: Any) -> str:
    """The paragraphs of a docstring before its first heading, but for functions the first of them."""
    paragraphs = (inspect.getdoc(thing) or "").split("\n\n")
    kept = [text for text in paragraphs if not re.match(r"[A-Z][a-z]+:\n", text)]
    chosen = kept[1:] if inspect.isfunction(thing) else kept
    return _markdown(" ".join(" ".join(chosen).split()))


def _attributes(cls: type) -> str:
    texts = sections(cls)["Attributes"]
    return _table(("Key", "What it holds"), [(f"`{name}`", text) for name, text in texts.items()])


def _markdown(text: str) -> str:
    """Sphinx's marks as Markdown's: ``:func:`x.y``` and ``` ``x`` ``` become `y` and `x`."""
    text = re.sub(r":\w+:`~?([^`]+)`", lambda match: f"`{match[1].rsplit('.', 1)[-1]}`", text)
    return text.replace("``", "`")


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


if __name__ == "__main__":
    TARGET.write_text(reference(), encoding="utf-8")
    print(f"{TARGET} is written.")
