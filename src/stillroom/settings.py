"""Every setting of a run, as plain dataclasses. The command line's flags and the reference pages are derived from them.

Light on purpose: importing this module imports neither torch nor pandas.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

from stillroom.errors import UsageError, nearest
from stillroom.explanation.methods import Method
from stillroom.recipes import MedAlmighty, Recipe, recipe_named


@dataclass(frozen=True)
class DataSettings:
    """What to read and how to turn it into arrays.

    Attributes:
        size: side of the square training image, in pixels.
        fit: how a non-square image becomes square: `pad` keeps its shape and adds black borders, `resize` stretches it.
        resolution: side of the MedMNIST file to read (28, 64, 128 or 224). Default: the one that equals `size`, else
            the next larger one.
        data_dir: folder of MedMNIST .npz files. Default: $STILLROOM_DATA/medmnist, then ~/.medmnist.
        task: what the labels mean; `auto` reads it off the source. `ordinal` takes the classes as ordered grades.
        classes: class names in the order wanted, e.g. grades from mild to severe; of two, the second is the positive one.
        path_column: column of a table that holds the image path, relative to the table's folder or absolute.
        label_column: column that holds the label; several labels are joined by `;` or `|`.
        patient_column: column that holds the patient (group) id, used where the table has it.
        split_column: column that holds train, val or test, used where the table has it.
        mask_column: column that holds the lesion mask's path, used where the table has it.
        val_fraction: share of the training images put aside for validation where the source has no validation split.
        test_fraction: share of all images put aside for the test where the source has no test split.
        group_duplicates: keep near-identical images on one side when Stillroom makes the split.
        drop_leaks: leave out training and validation images that the audit finds again in the test split, and training
            images that it finds again in validation. Patients on two sides are not touched.
    """

    size: int = 64
    fit: Literal["pad", "resize"] = "pad"
    resolution: Literal[28, 64, 128, 224] | None = None
    data_dir: Path | None = None
    task: Literal["auto", "multiclass", "ordinal", "multilabel"] = "auto"
    classes: tuple[str, ...] = ()
    path_column: str = "path"
    label_column: str = "label"
    patient_column: str = "patient"
    split_column: str = "split"
    mask_column: str = "mask"
    val_fraction: float = 0.15
    test_fraction: float = 0.2
    group_duplicates: bool = True
    drop_leaks: bool = False

    def __post_init__(self) -> None:
        _at_least("size", self.size, 16)
        _between("val_fraction", self.val_fraction, 0.9)
        _between("test_fraction", self.test_fraction, 0.9)


@dataclass(frozen=True)
class ViewSettings:
    """How training images are varied. Every view is a pure function of seed, image and view number, so a teacher's
    answer to it can be stored and replayed exactly.

    Attributes:
        augment: `none`; `light` shifts, scales, rotates a little and varies brightness and contrast; `strong` does more
            of it and hides a patch.
        views: number of different views per image; epoch e trains on view e modulo this number, and the teacher is
            asked once for each. 0 makes a new view every epoch, for which the teacher is asked online: slow.
        flips: mirror images left to right at random. Off, because it destroys laterality (heart, eye, ear side).
    """

    augment: Literal["none", "light", "strong"] = "light"
    views: int = 8
    flips: bool = False

    def __post_init__(self) -> None:
        _at_least("views", self.views, 0)


@dataclass(frozen=True)
class TrainingSettings:
    """How a network is fitted.

    Attributes:
        epochs: passes over the training images.
        batch_size: images per step.
        lr: peak learning rate.
        optimizer: `adamw`, `adam` or `sgd` (momentum 0.9, Nesterov).
        schedule: `cosine` with a short warm-up, `step` (x0.1 at 50 % and 75 %, as MedMNIST's script does) or `constant`.
        weight_decay: decoupled for adamw, L2 otherwise; never on biases and norms.
        class_weights: weigh the labels' loss against class imbalance.
        patience: stop after this many epochs without a better validation figure; 0 never stops early.
        label_fraction: share of the training images whose labels are used, every class kept. A smaller share's images are
            among a larger one's.
        unlabelled: folder of more images, without labels, from which the student learns the teacher's answers. What the
            validation or test images show again is left out.
        precision: `32`, or `bf16` for bfloat16 autocast.
    """

    epochs: int = 30
    batch_size: int = 64
    lr: float = 1e-3
    optimizer: Literal["adamw", "adam", "sgd"] = "adamw"
    schedule: Literal["cosine", "step", "constant"] = "cosine"
    weight_decay: float = 0.05
    class_weights: bool = False
    patience: int = 0
    label_fraction: float = 1.0
    unlabelled: Path | None = None
    precision: Literal["32", "bf16"] = "32"

    def __post_init__(self) -> None:
        _at_least("epochs", self.epochs, 1)
        _at_least("batch_size", self.batch_size, 2)
        _at_least("patience", self.patience, 0)
        if not 0 < self.label_fraction <= 1:
            raise UsageError(f"label_fraction must be above 0 and at most 1, got {self.label_fraction}.")
        if not 0 < self.lr < math.inf:
            raise UsageError(f"lr must be above 0 and finite, got {self.lr}.")
        if not 0 <= self.weight_decay < math.inf:
            raise UsageError(f"weight_decay must not be negative and must be finite, got {self.weight_decay}.")


@dataclass(frozen=True)
class TeacherSettings:
    """Who teaches.

    Attributes:
        teacher: a timm model name; see `stillroom models`. Default: the recipe's.
        teacher_mode: `frozen` fits a linear head on the backbone's cached features; `finetune` trains all of it. Default:
            the recipe's.
        teacher_size: side of the teacher's input in pixels. Default: the network's own, where it is fixed, else `size`.
        features: what the linear head sees of a transformer: its class token, the mean of its patches, or both.
            A convolutional network has one pooled vector and ignores this.
        head_solver: `lbfgs` finds the best linear head with its L2 penalty chosen on validation; `adam` trains it as
            the MedAlmighty paper does (lr 1e-3, best validation epoch).
        teacher_epochs: epochs of fine-tuning, or of the adam head. Default: as many as the student's.
        teacher_lr: peak learning rate of fine-tuning. Default: the student's.
        weights: a file or a folder of pretrained weights (.safetensors or weights-only .pth), named like the model.
            Default: timm's hub.
        pretrained: whether the teacher starts from pretrained weights. `--no-pretrained` starts from random ones.
    """

    teacher: str = ""
    teacher_mode: Literal["frozen", "finetune"] | None = None
    teacher_size: int | None = None
    features: Literal["cls", "mean", "both"] = "cls"
    head_solver: Literal["lbfgs", "adam"] = "lbfgs"
    teacher_epochs: int | None = None
    teacher_lr: float | None = None
    weights: Path | None = None
    pretrained: bool = True

    def __post_init__(self) -> None:
        if self.teacher_epochs is not None:
            _at_least("teacher_epochs", self.teacher_epochs, 1)
        if self.teacher_lr is not None and not 0 < self.teacher_lr < math.inf:
            raise UsageError(f"teacher_lr must be above 0 and finite, got {self.teacher_lr}.")
        if self.teacher_size is not None:
            _at_least("teacher_size", self.teacher_size, 16)


@dataclass(frozen=True)
class StudentSettings:
    """What is taught.

    Attributes:
        student: a timm model name; see `stillroom models`. Default: the recipe's.
        student_size: side of the student's input in pixels; images of another size are resized inside the network.
            Default: `size`.
        student_pretrained: start the student from pretrained weights, not random ones.
        student_weights: a file or a folder of the student's pretrained weights. Default: `weights`, else timm's hub.
    """

    student: str = ""
    student_size: int | None = None
    student_pretrained: bool = False
    student_weights: Path | None = None

    def __post_init__(self) -> None:
        if self.student_size is not None:
            _at_least("student_size", self.student_size, 16)


@dataclass(frozen=True)
class EvaluationSettings:
    """What is measured.

    Attributes:
        control: also train the same student on the same budget without a teacher.
        margin: non-inferiority margin on the selection metric: how much worse the student may be.
        resamples: bootstrap resamples behind every interval.
        latency: time the networks on this machine.
        coverage: how often the set of classes that the model names should hold the true one (split-conformal prediction).
        class_conditional: keep that promise for each class apart, not for all images together. With several labels per
            image it is always kept for each label, present and absent apart.
        refusals: share of images like the validation's that the model may refuse as foreign.
        explain: number of test images that get heat maps, by which the maps are judged; 0 makes none.
        explain_method: the heat map. `score_cam_fast` estimates Score-CAM from a sixth of its passes; `auto` is Score-CAM
            for a layer of up to 256 channels and the fast one beyond. The teacher's is the fast one where the student's
            is Score-CAM.
        explain_layer: the student's layer that heat maps are made of: `auto` is the last whose map has four places a side,
            `last` the one that the head reads, or a name such as `layer3`.
        corruptions: also test student, control and teacher on corrupted test images, as
            `stillroom evaluate RUN --corruptions` does later.
    """

    control: bool = True
    margin: float = 0.02
    resamples: int = 1000
    latency: bool = True
    coverage: float = 0.9
    class_conditional: bool = False
    refusals: float = 0.05
    explain: int = 32
    explain_method: Literal["auto", Method] = "auto"
    explain_layer: str = "auto"
    corruptions: bool = False

    def __post_init__(self) -> None:
        _between("margin", self.margin)
        _at_least("resamples", self.resamples, 100)
        _between("coverage", self.coverage)
        _between("refusals", self.refusals)
        _at_least("explain", self.explain, 0)


@dataclass(frozen=True)
class Settings:
    """Everything that decides a run. Written, fully resolved, to the run folder's settings.yaml.

    Attributes:
        source: a MedMNIST name, a folder of class folders, a CSV or Parquet table, or `phantoms`.
        recipe: the published system to run, with its own settings.
        data: what to read.
        views: how training images are varied.
        teacher: who teaches.
        student: what is taught.
        training: the student's (and the control's) budget.
        evaluation: what is measured.
        seed: fixes splits, initial weights, order and views.
        device: `auto` takes an accelerator where there is one.
    """

    source: str
    recipe: Recipe = field(default_factory=MedAlmighty)
    data: DataSettings = field(default_factory=DataSettings)
    views: ViewSettings = field(default_factory=ViewSettings)
    teacher: TeacherSettings = field(default_factory=TeacherSettings)
    student: StudentSettings = field(default_factory=StudentSettings)
    training: TrainingSettings = field(default_factory=TrainingSettings)
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)
    seed: int = 0
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"

    def __post_init__(self) -> None:
        _at_least("seed", self.seed, 0)
        recipe, teacher, student = self.recipe, self.teacher, self.student
        teacher = replace(
            teacher,
            teacher=teacher.teacher or recipe.default_teacher,
            teacher_mode=teacher.teacher_mode or recipe.default_teacher_mode,
        )
        object.__setattr__(self, "teacher", teacher)
        object.__setattr__(self, "student", replace(student, student=student.student or recipe.default_student))


SECTIONS: dict[str, type] = {
    "data": DataSettings,
    "views": ViewSettings,
    "teacher": TeacherSettings,
    "student": StudentSettings,
    "training": TrainingSettings,
    "evaluation": EvaluationSettings,
}
"""The parts of :class:`Settings` that are dataclasses of their own, by their name in settings.yaml."""


def to_dict(settings: Settings) -> dict[str, Any]:
    """Plain values only, ready for YAML; read back by :func:`from_dict`."""
    recipe = {"name": settings.recipe.name} | asdict(settings.recipe)
    plain = {f.name: asdict(getattr(settings, f.name)) for f in fields(Settings) if f.name in SECTIONS}
    head = {"source": settings.source, "seed": settings.seed, "device": settings.device, "recipe": recipe}
    return {name: _plain(value) for name, value in (head | plain).items()}


def from_dict(content: dict[str, Any], where: str = "settings") -> Settings:
    """Settings from plain values; what is not given takes its default.

    Args:
        content: nested as :func:`to_dict` gives it.
        where: a file's name, for messages.

    Raises:
        UsageError: an unknown name (with the nearest known one) or a value of the wrong kind.
    """
    if not isinstance(content, dict):
        raise UsageError(f"{where}: expected settings by name, got {type(content).__name__}.")
    known = [f.name for f in fields(Settings)]
    _check_names(content, known, where)
    if not content.get("source"):
        raise UsageError(f"{where}: `source` is missing: say what to train on.")
    for name in ("recipe", *SECTIONS):
        if not isinstance(content.get(name) or {}, dict):
            raise UsageError(f"{where}: {name} must hold settings by name, got {content[name]!r}.")
    recipe = dict(content.get("recipe") or {})
    kind = recipe_named(str(recipe.pop("name", MedAlmighty.name)))
    parts: dict[str, Any] = {
        name: read_section(cls, content.get(name) or {}, f"{where}: {name}") for name, cls in SECTIONS.items()
    }
    parts["recipe"] = read_section(kind, recipe, f"{where}: recipe {kind.name}")
    head = {name: content[name] for name in ("source", "seed", "device") if name in content}
    return read_section(Settings, head | parts, where)


def read_settings(path: Path) -> Settings:
    """Settings from a YAML file. Raises UsageError, naming the file, where it cannot be read or used."""
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not a settings file: it is not text in UTF-8.") from None
    except yaml.YAMLError as error:
        raise UsageError(f"{path} is not valid YAML: {' '.join(str(error).split())}.") from None
    return from_dict(content, str(path))


Section = TypeVar("Section")


def read_section(cls: type[Section], values: dict[str, Any], where: str) -> Section:
    """One dataclass from plain values, each checked against its annotated type."""
    from pydantic import TypeAdapter, ValidationError

    _check_names(values, [f.name for f in fields(cls)], where)  # type: ignore[arg-type]
    try:
        return TypeAdapter(cls).validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        raise UsageError(f"{where}: {name or 'value'}: {first['msg']}, got {first['input']!r}.") from None


def _check_names(values: dict[str, Any], known: list[str], where: str) -> None:
    for name in values:
        if name not in known:
            raise UsageError(f"{where}: there is no setting {name!r}.{nearest(str(name), known)}")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def _at_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise UsageError(f"{name} must be at least {least}, got {value}.")


def _between(name: str, value: float, upper: float = 1.0) -> None:
    if not 0 < value < upper:
        raise UsageError(f"{name} must lie between 0 and {upper:g}, got {value}.")
