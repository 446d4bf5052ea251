"""Every setting of a run: its sections, its recipe, and how they are written to YAML and read back.

Light on purpose: importing this module imports neither torch nor pandas.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_type_hints

from stillroom.errors import UsageError, nearest
from stillroom.files.reading import in_short, read_yaml
from stillroom.recipes import MedAlmighty, Recipe, recipe_named
from stillroom.settings.evaluation import EvaluationSettings
from stillroom.settings.network_names import anchored_name, parse, with_options
from stillroom.settings.sections import (
    DataSettings,
    StudentSettings,
    TeacherSettings,
    TrainingSettings,
    ViewSettings,
    at_least,
)


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
        at_least("seed", self.seed, 0, 2**62)
        object.__setattr__(self, "source", str(self.source))  # a Path is a source too
        recipe, teacher, student = self.recipe, self.teacher, self.student
        default = "" if teacher.teacher_answers else recipe.default_teacher
        name = teacher.teacher or default
        name = with_options(name, teacher.options) if name else ""
        told = parse(name or recipe.default_teacher)
        if told.brings_weights and teacher.teacher_size and "size" not in told.options:
            name = with_options(name, {"size": str(teacher.teacher_size)})
        as_it_is = told.brings_weights or told.options.get("outputs", "features") != "features"
        usual = teacher.mode_told or ("frozen" if as_it_is else recipe.default_teacher_mode)
        teacher = replace(teacher, teacher=name, teacher_mode=teacher.teacher_mode or usual)
        object.__setattr__(self, "teacher", teacher)
        object.__setattr__(self, "student", replace(student, student=student.student or recipe.default_student))

    @property
    def student_data(self) -> DataSettings:
        """What to read, at the side of the student's input."""
        return replace(self.data, size=self.student.student_size or self.data.size)


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
    return {name: plain_values(value) for name, value in (head | plain).items()}


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
            raise UsageError(f"{where}: {name} must hold settings by name, got {in_short(content[name])}.")
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
    return from_dict(read_yaml(path, "a settings file"), str(path))


def anchored(settings: Settings) -> Settings:
    """The settings with absolute paths, so that the run can be resumed or repeated from any folder."""
    from stillroom.data.load import is_named_set

    source, data, training = settings.source, settings.data, settings.training
    teacher, student = settings.teacher, settings.student
    path = Path(source).expanduser()
    return replace(
        settings,
        source=source if is_named_set(source) or not path.exists() else str(path.absolute()),
        data=replace(data, data_dir=_absolute(data.data_dir)),
        training=replace(training, unlabelled=_absolute(training.unlabelled)),
        teacher=replace(
            teacher,
            teacher=anchored_name(teacher.teacher),
            weights=_absolute(teacher.weights),
            teacher_answers=_absolute(teacher.teacher_answers),
        ),
        student=replace(
            student, student=anchored_name(student.student), student_weights=_absolute(student.student_weights)
        ),
    )


def _absolute(path: Path | str | None) -> Path | None:
    return Path(path).expanduser().absolute() if path else None  # a text will do in Python


Section = TypeVar("Section")


def read_section(cls: type[Section], values: dict[str, Any], where: str) -> Section:
    """One dataclass from plain values, each checked against its annotated type."""
    from pydantic import TypeAdapter, ValidationError

    _check_names(values, [f.name for f in fields(cls)], where)  # type: ignore[arg-type]
    _check_numbers(cls, values, where)
    try:
        return TypeAdapter(cls).validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        raise UsageError(f"{where}: {name or 'value'}: {first['msg']}, got {in_short(first['input'])}.") from None


def _check_numbers(cls: type, values: dict[str, Any], where: str) -> None:
    """What pydantic would turn into a number: yes and no, and for a whole number also a text or 2.0."""
    for name, kind in get_type_hints(cls).items():
        kinds, value = (kind, *get_args(kind)), values.get(name)
        wrong = (bool, float, str) if int in kinds else (bool,) if float in kinds else ()
        if isinstance(value, wrong):
            what = "a whole number" if int in kinds else "a number"
            raise UsageError(f"{where}: {name}: must be {what}, got {in_short(value)}.")


def _check_names(values: dict[str, Any], known: list[str], where: str) -> None:
    for name in values:
        if name not in known:
            raise UsageError(f"{where}: there is no setting {in_short(name)}.{nearest(str(name), known)}")


def plain_values(value: Any) -> Any:
    """Ready for YAML: tuples as lists, paths as text."""
    if isinstance(value, dict):
        return {key: plain_values(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain_values(item) for item in value]
    return str(value) if isinstance(value, Path) else value
