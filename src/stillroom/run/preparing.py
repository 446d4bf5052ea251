"""What comes before anything is trained: the data set, and the refusal of settings that are known to fail later."""

from __future__ import annotations

from dataclasses import replace

from stillroom.data.load import Dataset, prepare
from stillroom.data.table import Table
from stillroom.data.unlabelled import list_unlabelled, load_unlabelled
from stillroom.distillation.cutting import cut_out
from stillroom.errors import UsageError
from stillroom.evaluation.operating_points import wishes
from stillroom.models.device import pick_device
from stillroom.models.zoo import create, locate_weights, resolve_size, specification
from stillroom.run.answered import check_answers
from stillroom.run.selection import megabytes
from stillroom.run.stages.explanation import check_layer
from stillroom.settings.whole import Settings
from stillroom.task import Task


def data_set(table: Table, settings: Settings, show_progress: bool, number: int = 1) -> Dataset:
    """The data set; with folds, that of the fold with this number."""
    fold = (number, settings.evaluation.folds) if settings.evaluation.folds > 1 else None
    dataset = prepare(table, settings.student_data, seed=settings.seed, fold=fold, show_progress=show_progress)
    folder = settings.training.unlabelled
    if folder is None:
        return dataset
    unlabelled = load_unlabelled(
        folder, dataset.table, dataset.store, window=settings.data.window, show_progress=show_progress
    )
    return replace(dataset, unlabelled=unlabelled)


def check_settings(settings: Settings, table: Table) -> None:
    """Raises UsageError for what is known to fail later: the recipe's task, answers, the device, names, sizes and weights."""
    task = table.task
    trained_as = settings.recipe.adapt(task)
    settings.recipe.check(settings)
    if settings.recipe.has_teacher and settings.teacher.teacher_answers:
        check_answers(settings, trained_as, table)
    pick_device(settings.device)
    side, student, teacher = settings.data.size, settings.student, settings.teacher
    if specification(student.student).brings_weights:
        raise UsageError(
            f"{student.student} comes with its weights and is asked as it is: it can teach, and no student starts from it. A "
            "student of your own is a FromFactory, which makes it anew."
        )
    resolve_size(student.student, student.student_size or side, side)
    taught_by = settings.recipe.teacher_names(settings)
    if teacher.pretrained and teacher.weights and teacher.weights.is_file() and len(set(taught_by)) > 1:
        raise UsageError(
            f"{teacher.weights} is one file, but {', '.join(dict.fromkeys(taught_by))} need weights: give a folder that "
            "holds a file for each."
        )
    for name, size in settings.recipe.teacher_inputs(settings):
        _check_teacher(name, settings)
        resolve_size(name, size, side)
        if teacher.pretrained:
            locate_weights(name, teacher.weights)
    if settings.training.unlabelled:
        list_unlabelled(settings.training.unlabelled)
    if student.starts_pretrained:
        locate_weights(student.student_from or student.student, student.student_weights or teacher.weights)
    if student.student_from:
        pair = [
            create(name, classes=2, size=student.student_size or side)
            for name in (student.student, student.student_from)
        ]
        cut_out(*pair, layers="first", elements="uniform", seed=0)
    _check_keep(settings, task)
    wishes(task, settings.evaluation.sensitivity, settings.evaluation.specificity)
    if settings.evaluation.explain_layer not in ("auto", "last"):
        drawn = create(student.student, classes=len(task.classes), size=student.student_size or side)
        check_layer(drawn, settings)


def _check_teacher(name: str, settings: Settings) -> None:
    """Raises UsageError where what is asked of a teacher does not go with where it comes from."""
    spec, teacher = specification(name), settings.teacher
    if (spec.brings_weights or spec.says != "features") and not teacher.pretrained:
        raise UsageError(f"{name} comes with its weights: leave out --no-pretrained.")
    if spec.brings_weights and teacher.weights and {name} == set(settings.recipe.teacher_names(settings)):
        starts = settings.student.starts_pretrained and not settings.student.student_weights
        if not starts:
            raise UsageError(f"{name} comes with its weights: leave out --weights.")
    if teacher.teacher_mode == "finetune" and (not spec.trainable or spec.says != "features"):
        why = "it is an ONNX file" if not spec.trainable else f"it answers {spec.says} by class and is asked as it is"
        raise UsageError(f"{name} cannot be fine-tuned, for {why}: give --teacher-mode frozen.")


def _check_keep(settings: Settings, task: Task) -> None:
    """Raises UsageError where what is to be kept cannot be."""
    wanted, student = settings.evaluation, settings.student
    if wanted.keep == "average" and not settings.recipe.has_start(settings):
        raise UsageError(
            "--keep average joins weights, which says nothing of trainings that start from different random ones: give "
            "--student-pretrained, or --keep ensemble."
        )
    if wanted.keep == "best" and wanted.max_mb is not None:
        size = student.student_size or settings.data.size
        weight = megabytes(create(student.student, classes=len(task.classes), size=size))
        if weight > wanted.max_mb:
            raise UsageError(
                f"The student {student.student} has {weight:.1f} MB, more than --max-mb {wanted.max_mb:g}: choose a "
                "smaller --student; `stillroom models --max-mb` lists some."
            )
