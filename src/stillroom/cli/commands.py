"""The command line's other verbs: what each does stands elsewhere; here are its flags and its help."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from stillroom.cli.archiving import (
    drawn_maps,
    lacking,
    require_all_written,
    require_place,
    say_what_was_written,
    write_objects,
)
from stillroom.cli.doctor import doctor
from stillroom.cli.evaluating import evaluate
from stillroom.cli.flags import section
from stillroom.cli.networks import models
from stillroom.cli.page import page
from stillroom.cli.readers import readers
from stillroom.cli.serving import serve
from stillroom.errors import PartlyDone, RunError, UsageError
from stillroom.recipes import RECIPES, Recipe
from stillroom.settings.methods import Method
from stillroom.settings.sections import DataSettings

if TYPE_CHECKING:
    from stillroom.deployment.prediction import Prediction
    from stillroom.run.folder import Run

_JSON = Parameter(negative="")


def predict(
    run: Path,
    images: Annotated[list[Path], Parameter(consume_multiple=True)],
    /,
    *,
    dicom: Path | None = None,
    json: Annotated[bool, _JSON] = False,
) -> None:
    """Classify images with a run's exported student: ONNX Runtime alone, no torch.

    Ends with exit code 3 where some of the images could not be read: they are named, and the others are answered.

    ```
    stillroom predict runs/first image.png
    stillroom predict student.onnx ./new_images --json
    stillroom predict runs/first ./ct --dicom ./for_archive
    ```

    Args:
        run: a run folder, or an exported .onnx file.
        images: image files, folders of them, or a DICOMDIR.
        dicom: folder for a DICOM Structured Report of each DICOM file, with its patient's identity, for research
            (`stillroom[dicom]`).
        json: print JSON alone.
    """
    from stillroom.cli import console
    from stillroom.deployment.prediction_table import prediction_table
    from stillroom.deployment.predictor import Predictor

    require_place(dicom, images)
    predictor = Predictor.load(run)
    with _told_afterwards():
        found = predictor.predict(images)
    if json:
        console.print_json([prediction.to_dict() for prediction in found])
    else:
        console.out().print(prediction_table(found, synthetic=predictor.synthetic))
    written = write_objects(predictor, found, dicom)
    _say_what_was_passed_over(images)
    say_what_was_written(written, dicom)
    _say_what_was_left_out(found, lacking(written, dicom))
    require_all_written(written, dicom)


def explain(
    run: Path,
    images: Annotated[list[Path], Parameter(consume_multiple=True)],
    /,
    *,
    method: Method | None = None,
    of: str | None = None,
    out: Path | None = None,
    dicom: Path | None = None,
    json: Annotated[bool, _JSON] = False,
) -> None:
    """Show where the model looks: for each image an overlay (.png) and the heat map itself (.npy), and how far to trust it.

    RISE and Score-CAM run on the exported student by ONNX Runtime, without torch; others need the run folder's network.
    Ends with exit code 3 where some of the images could not be read: they are named, and the others are explained.

    ```
    stillroom explain runs/first image.png
    stillroom explain runs/first ./new_images --method score_cam_fast --of malignant --json
    ```

    Args:
        run: a run folder, or an exported .onnx file.
        images: image files, folders of them, or a DICOMDIR.
        method: `rise`; `score_cam`, which `score_cam_fast` estimates from a sixth of the passes; `grad_cam`, `grad_cam_pp`
            and `eigen_cam` to compare with. Default: the one that the run has tested for faithfulness.
        of: the class to explain. Default: for each image its most probable one.
        out: folder for the files. Default: `explanations` in the run folder, or here for an .onnx file.
        dicom: folder for DICOM objects about each DICOM file, with its patient's identity, for research: a Structured
            Report, Secondary Captures of the overlays, and Parametric Maps where the file says how it lies in the
            patient (`stillroom[dicom]`).
        json: print JSON alone.
    """
    from stillroom.after.heat_map import default_method, trust, trusted
    from stillroom.after.heat_map import explain as make
    from stillroom.cli import console
    from stillroom.deployment.predictor import Predictor

    require_place(dicom, images)
    predictor = Predictor.load(run)
    chosen = method or default_method(predictor, run)
    with _told_afterwards():
        found = make(run, images, method=chosen, of=of, out=out)
    verdicts = [trust(predictor, chosen, explanation) for explanation in found]
    if json:
        pairs = zip(found, verdicts, strict=True)
        console.print_json(
            [explanation.to_dict() | {"method": chosen} | trusted(*verdict) for explanation, verdict in pairs]
        )
    else:
        drawn = any(explanation.picture for explanation in found)
        said = dict.fromkeys([trust(predictor, chosen), *verdicts] if drawn else [])
        console.show_explanations(found, list(said))
    predictions = [explanation.prediction for explanation in found]
    written = write_objects(predictor, predictions, dicom, drawn_maps(found, verdicts, chosen))
    _say_what_was_passed_over(images)
    say_what_was_written(written, dicom)
    _say_what_was_left_out(predictions, lacking(written, dicom))
    require_all_written(written, dicom)


@contextmanager
def _told_afterwards() -> Iterator[None]:
    """Python's warnings of what is passed over are kept back for :func:`_say_what_was_passed_over`."""
    from stillroom.deployment.predictor import PassedOver

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PassedOver)
        yield


def _say_what_was_passed_over(images: list[Path]) -> None:
    """Masks, and files that may be images, in the folders that were named."""
    from stillroom.cli import console
    from stillroom.data.listing import list_pictures

    for folder in filter(Path.is_dir, images):
        for note in list_pictures(folder)[1]:
            console.say(note)


def _say_what_was_left_out(found: Sequence[Prediction], besides: str) -> None:
    """Raises UsageError where no image could be read, PartlyDone where some could not.

    Args:
        found: all answers.
        besides: what else is missing, as a sentence; or nothing.
    """
    unread = [prediction for prediction in found if prediction.error]
    if not unread:
        return
    first = f"{unread[0].name}: {str(unread[0].error).rstrip('.')}."
    if len(unread) == len(found):
        raise UsageError(f"None of the images could be read. {first}")
    text = f"{len(unread)} of {len(found)} images could not be read and have no answer; the first is {first}"
    raise PartlyDone(f"{text} {besides}".rstrip())


def export(
    run: Path, /, *, out: Path | None = None, int8: bool = False, fp16: bool = False, source: str | None = None
) -> None:
    """Export a run's student to ONNX once more, and check it against torch; or in another precision, checked against that.

    ```
    stillroom export runs/first --out ./student.onnx
    stillroom export runs/first --int8
    stillroom export runs/first --fp16
    ```

    Args:
        run: a finished run folder.
        out: the file to write. Default: `student.onnx` in the run folder.
        int8: write student.int8.onnx beside it: smaller, and faster on CPUs with instructions for it. It is kept only where
            it answers like student.onnx; the report says what it keeps.
        fp16: write student.fp16.onnx beside it, half as large, for GPUs and NPUs. It is kept only where it answers like
            student.onnx on this machine's CPU.
        source: where the run's images are now, if they were moved.
    """
    from stillroom.cli import console
    from stillroom.run.folder import Run

    if int8 or fp16:
        if out is not None:
            raise UsageError("--int8 and --fp16 write into the run folder, beside student.onnx: leave out --out.")
        for precision, asked in (("int8", int8), ("fp16", fp16)):
            if asked:
                _export_lighter(Run.open(run), precision, source)
        return
    from stillroom.run.stages.export import export_student

    path, parity = export_student(Run.open(run), out, source=source)
    console.out().print(
        f"{path}: {path.stat().st_size / 1e6:.1f} MB, agrees with torch on {parity['images']} validation images "
        f"(largest difference of a probability {parity['max_probability_difference']:.1e}).",
        markup=False,
    )


def _export_lighter(run: Run, precision: str, source: str | None) -> None:
    from stillroom.after import lighter
    from stillroom.cli import console
    from stillroom.report.lighter import verdict

    export = lighter.export_int8 if precision == "int8" else lighter.export_fp16
    path, figures = export(run, source=source)
    if path is None:
        raise RunError(
            f"No {precision} file was written. {' '.join(figures['refused'])} Use student.onnx, or choose another student."
        )
    console.out().print(f"{path}: {verdict(figures, precision)}", markup=False)
    for sentence in figures["downgraded"]:
        console.say(sentence)
    console.say(f"What it keeps stands in {run.path / 'report.html'}.")


def audit(
    source: str,
    /,
    *,
    json: Annotated[bool, _JSON] = False,
    seed: int = 0,
    data: Annotated[DataSettings, section("Data")] = DataSettings(),  # noqa: B008
) -> None:
    """Look for leaks, patients on both sides, broken files and classes too small. Trains nothing.

    ```
    stillroom audit ./my_images
    ```

    Args:
        source: a MedMNIST name, a folder of class folders, a CSV or Parquet table, or `phantoms`.
        json: print JSON alone.
        seed: fixes the splits where the source has none.
    """
    from stillroom.cli import console
    from stillroom.data.audit import audit_lines
    from stillroom.data.load import load_data

    found = load_data(source, data, seed=seed).audit
    if json:
        console.print_json(found.to_dict())
        return
    for line in audit_lines(found):
        console.out().print(line, markup=False)


def recipes(*, json: Annotated[bool, _JSON] = False) -> None:
    """List the published systems that can be run, with their settings.

    Args:
        json: print JSON alone.
    """
    from stillroom.cli import console

    if json:
        console.print_json(
            [
                {
                    "name": r.name,
                    "title": r.title,
                    "citation": r.citation,
                    "tasks": sorted(r.kinds),
                    "settings": asdict(r()),
                }
                for r in RECIPES
            ]
        )
        return
    for recipe in RECIPES:
        own = asdict(recipe()).items()
        given = "  ".join(_as_flag(name, value) for name, value in own if value is not None and value != ())
        console.out().print(f"[bold]{recipe.name}[/bold]  {recipe.title}")
        tasks = f"for {', '.join(sorted(recipe.kinds))} tasks" if recipe.kinds != Recipe.kinds else ""
        for line in filter(None, (recipe.citation, tasks, given)):
            console.out().print(f"    {line}", style="dim", markup=False)


def demo(*, out: Path | None = None, seed: int = 0) -> None:
    """Distil on synthetic chest-film phantoms: no network, no weights, no GPU, a few minutes.

    Args:
        out: the run folder. Default: `runs/demo`, numbered where that exists.
        seed: fixes the phantoms, splits and initial weights.
    """
    from stillroom.cli import console
    from stillroom.cli.demo import run_demo

    console.say("Distilling on synthetic phantoms: a fine-tuned teacher, its student, and a control without a teacher.")
    console.show_run(run_demo(out, seed=seed))


def bench(
    file: Path,
    /,
    *,
    out: Path,
    workers: int | None = None,
    engine: Literal["processes", "ray"] = "processes",
    json: Annotated[bool, _JSON] = False,
) -> None:
    """Compare recipes on a grid of data sets, teachers, students and seeds, from one YAML file.

    Stopped or killed, it goes on where it was when the same command is given again.

    ```
    stillroom bench grid.yaml --out runs/grid
    stillroom bench grid.yaml --out runs/grid --workers 4 --json
    ```

    Args:
        file: the grid; see "Compare recipes on a grid" in docs/how-to.md.
        out: folder for tables, page and one run folder per cell.
        workers: cells at a time. Default: half the cores. They share the cores as threads.
        engine: `processes` of this machine, or `ray`: the cluster at $RAY_ADDRESS, else one on this machine.
        json: print JSON alone.
    """
    from stillroom.bench import run_bench, tables
    from stillroom.cli import console

    results = run_bench(file, out, workers=workers, engine=engine)
    if json:
        console.print_json(tables.to_json(results.outcomes, results.systems, results.over_sets))
    else:
        for line in tables.lines(results.systems):
            console.out().print(line, markup=False)
        console.out().print(f"\nPage: {results.out / 'index.html'}", markup=False, soft_wrap=True)
    if results.failed:
        raise RunError(
            f"{len(results.failed)} of {len(results.outcomes)} cells failed; their logs are {out / 'cells' / '*.log'}. "
            "The same command tries them again."
        )


def _as_flag(name: str, value: object) -> str:
    flag = name.replace("_", "-")
    if isinstance(value, bool):
        return f"--{flag}" if value else f"--no-{flag}"
    return f"--{flag} {value}"


VERBS = (evaluate, predict, explain, page, serve, readers, export, audit, models, recipes, bench, demo, doctor)
"""In the order of `stillroom --help`."""
