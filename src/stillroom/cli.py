"""The command line: verbs only. Flags and their help come from the settings' dataclasses and the recipe's."""

from __future__ import annotations

import os
import re
import sys
from dataclasses import asdict, fields
from pathlib import Path
from typing import Annotated, Any, Literal

import cyclopts
from cyclopts import App, Parameter

from stillroom.errors import StillroomError, UsageError
from stillroom.recipes import RECIPES, MedAlmighty, Recipe, recipe_named
from stillroom.settings import (
    DataSettings,
    EvaluationSettings,
    Settings,
    StudentSettings,
    TeacherSettings,
    TrainingSettings,
    ViewSettings,
    read_settings,
    to_dict,
)

_JSON = Parameter(negative="")
_MODELS_OWN = re.compile(r"^(?!(size|fit|val_fraction|test_fraction|group_duplicates|drop_leaks)$)")
"""Data settings that a trained model has decided already are no flags of `evaluate`."""


def _section(name: str, only: re.Pattern[str] | None = None) -> Parameter:
    return Parameter(
        name="*",
        group=name,
        parse=only,
        consume_multiple=True,
        negative_iterable="",
        show_default=lambda value: None if value == () else value,
    )


def make_app(recipe: type[Recipe] = MedAlmighty, preset: Settings | None = None) -> App:
    """The application, with the flags of one recipe.

    Args:
        recipe: whose settings become flags of `distill`.
        preset: values from a settings file; what stands on the command line goes before them.
    """
    app = App(
        name="stillroom",
        help="Distil large pretrained vision models into small medical image classifiers, with the evidence.",
        help_epilogue="Start with `stillroom demo`, then `stillroom distill ./my_images`. "
        "Every command explains itself: `stillroom distill --help`.",
        config=[cyclopts.config.Dict({"distill": _flags(preset, recipe)})] if preset else [],
        result_action="return_value",
        suppress_keyboard_interrupt=False,  # `main` says how to go on
    )

    def distill(
        source: str | None = preset.source if preset else None,
        /,
        *,
        recipe: str = MedAlmighty.name,
        out: Path | None = None,
        resume: Path | None = None,
        settings: Path | None = None,
        seed: int = 0,
        device: Literal["auto", "cpu", "cuda", "mps"] = "auto",
        own: Recipe = recipe(),  # noqa: B008
        teacher: Annotated[TeacherSettings, _section("Teacher")] = TeacherSettings(),  # noqa: B008
        student: Annotated[StudentSettings, _section("Student")] = StudentSettings(),  # noqa: B008
        training: Annotated[TrainingSettings, _section("Training")] = TrainingSettings(),  # noqa: B008
        views: Annotated[ViewSettings, _section("Views")] = ViewSettings(),  # noqa: B008
        data: Annotated[DataSettings, _section("Data")] = DataSettings(),  # noqa: B008
        evaluation: Annotated[EvaluationSettings, _section("Evaluation")] = EvaluationSettings(),  # noqa: B008
    ) -> None:
        """Distil a small classifier from a large one and write a report.

        ```
        stillroom distill pneumoniamnist --student mobilenetv3_small_100
        stillroom distill ./my_images --teacher vit_small_patch14_dinov2
        stillroom distill labels.csv --weights ./weights --out runs/first
        stillroom distill --resume runs/first
        stillroom distill --settings runs/first/settings.yaml --seed 1
        ```

        Args:
            source: a MedMNIST name, a folder of class folders, a CSV or Parquet table, or `phantoms`.
            recipe: the published system to run; see `stillroom recipes`.
            out: the run folder. Default: `runs/<source>-<recipe>`, numbered where that exists.
            resume: go on with a run that was stopped. It has its settings already: give no other flag.
            settings: a settings.yaml to start from, such as another run's; flags given beside it win.
            seed: fixes splits, initial weights, order and views.
            device: `auto` takes an accelerator where there is one.
        """
        from stillroom import console

        if resume:
            from stillroom.pipeline import resume as go_on
            from stillroom.run import Run

            if Run.open(resume).finished:
                console.say(f"{resume} has finished already; nothing was done again.")
            run = go_on(resume)
        else:
            if source is None:
                raise UsageError("Say what to train on: `stillroom distill SOURCE`, or --resume RUN.")
            from stillroom.pipeline import distill as start

            run = start(Settings(source, own, data, views, teacher, student, training, evaluation, seed, device), out)
        console.show_run(run)

    flags = _section(f"Recipe {recipe.name}") if fields(recipe) else Parameter(parse=False)
    distill.__annotations__["own"] = Annotated[recipe, flags]
    app.command(distill)
    for verb in (evaluate, predict, export, audit, models, recipes, demo):
        app.command(verb)
    app.register_install_completion_command()
    return app


def evaluate(
    run: Path,
    source: str,
    /,
    *,
    split: Literal["auto", "train", "val", "test", "all"] = "auto",
    json: Annotated[bool, _JSON] = False,
    data: Annotated[DataSettings, _section("Data", _MODELS_OWN)] = DataSettings(),  # noqa: B008
) -> None:
    """Test a finished run's exported student on another data set.

    Labels are read as the model has them: `auto` takes its task, and its classes need not be given. Images that the run
    has trained on are counted.

    ```
    stillroom evaluate runs/first ./other_hospital
    stillroom evaluate runs/first breastmnist --json
    ```

    Args:
        run: a run folder.
        source: the other data set; its labels must be among the model's classes.
        split: which images; `auto` takes the source's own test split, or every image where it has none.
        json: print JSON alone.
    """
    from stillroom import console
    from stillroom.external_validation import evaluate as test
    from stillroom.run import Run

    found = test(Run.open(run), source, data, split=split)
    if json:
        console.print_json(found)
        return
    console.show_figures(found["test"], found["source"], synthetic=found["synthetic"])
    for note in found["notes"]:
        console.say(note)


def predict(
    run: Path,
    images: Annotated[list[Path], Parameter(consume_multiple=True)],
    /,
    *,
    json: Annotated[bool, _JSON] = False,
) -> None:
    """Classify images with a run's exported student: ONNX Runtime alone, no torch.

    ```
    stillroom predict runs/first image.png
    stillroom predict student.onnx ./new_images --json
    ```

    Args:
        run: a run folder, or an exported .onnx file.
        images: image files, or folders of them.
        json: print JSON alone.
    """
    from stillroom import console
    from stillroom.deployment.predictor import Predictor, prediction_table

    predictor = Predictor.load(run)
    found = predictor.predict(images)
    if json:
        console.print_json([prediction.to_dict() for prediction in found])
    else:
        console.out().print(prediction_table(found, synthetic=predictor.synthetic))
    if all(prediction.error for prediction in found):
        raise UsageError("None of the images could be read.")


def export(run: Path, /, *, out: Path | None = None) -> None:
    """Export a run's student to ONNX once more, and check it against torch.

    ```
    stillroom export runs/first --out ./student.onnx
    ```

    Args:
        run: a finished run folder.
        out: the file to write. Default: `student.onnx` in the run folder.
    """
    from stillroom import console
    from stillroom.export import export_student
    from stillroom.run import Run

    path, parity = export_student(Run.open(run), out)
    console.out().print(
        f"{path}: {path.stat().st_size / 1e6:.1f} MB, agrees with torch on {parity['images']} validation images "
        f"(largest difference of a probability {parity['max_probability_difference']:.1e}).",
        markup=False,
    )


def audit(
    source: str,
    /,
    *,
    json: Annotated[bool, _JSON] = False,
    seed: int = 0,
    data: Annotated[DataSettings, _section("Data")] = DataSettings(),  # noqa: B008
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
    from stillroom import console
    from stillroom.data.audit import audit_lines
    from stillroom.data.load import load_data

    found = load_data(source, data, seed=seed).audit
    if json:
        console.print_json(found.to_dict())
        return
    for line in audit_lines(found):
        console.out().print(line, markup=False)


def models(pattern: str | None = None, /, *, json: Annotated[bool, _JSON] = False) -> None:
    """List teachers and students, or every network whose name matches a pattern.

    ```
    stillroom models
    stillroom models 'mobilenetv3*' --json
    ```

    Args:
        pattern: a glob over all of timm's names and our own.
        json: print JSON alone.
    """
    from stillroom import console
    from stillroom.models import catalogue

    cards = catalogue.describe(catalogue.find(pattern)) if pattern else catalogue.available()
    if json:
        console.print_json([asdict(card) for card in cards])
    else:
        console.out().print(console.models_table(cards))


def recipes(*, json: Annotated[bool, _JSON] = False) -> None:
    """List the published systems that can be run, with their settings.

    Args:
        json: print JSON alone.
    """
    from stillroom import console

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
        given = "  ".join(_as_flag(name, value) for name, value in asdict(recipe()).items())
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
    from stillroom import console
    from stillroom.demo import run_demo

    console.say("Distilling on synthetic phantoms: a fine-tuned teacher, its student, and a control without a teacher.")
    console.show_run(run_demo(out, seed=seed))


def main(arguments: list[str] | None = None) -> None:
    """Entry point. Exit code 0, 1 for a failed run, 2 for wrong use, 130 when interrupted."""
    arguments = sys.argv[1:] if arguments is None else arguments
    from stillroom import console

    try:
        make_app(*_recipe_and_preset(arguments))(arguments, exit_on_error=False, print_error=False)
        sys.stdout.flush()
    except StillroomError as error:
        console.fail(_with_notes(str(error), error))
        sys.exit(error.exit_code)
    except cyclopts.CycloptsError as error:
        console.fail(f"{_in_words(error)} See --help.")
        sys.exit(2)
    except KeyboardInterrupt as stop:
        console.fail(_with_notes("Stopped.", stop))
        sys.exit(130)
    except BrokenPipeError:  # the reader, such as `head`, has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def _with_notes(text: str, error: BaseException) -> str:
    """One line: the error, and what was noted on its way here, such as how to resume."""
    return " ".join([text, *getattr(error, "__notes__", ())])


def _in_words(error: cyclopts.CycloptsError) -> str:
    if isinstance(error, cyclopts.UnusedCliTokensError) and error.unused_tokens:
        return f"Nothing is known of the argument {error.unused_tokens[0]!r}; a text with spaces needs quotes."
    return " ".join(str(error).split())


def _recipe_and_preset(arguments: list[str]) -> tuple[type[Recipe], Settings | None]:
    """The recipe whose flags are wanted and the values of a settings file, read before the flags are known."""
    if not arguments or arguments[0] != "distill":
        return MedAlmighty, None
    if (run := _value_of("--resume", arguments)) is not None:
        _refuse_beside_resume(run, arguments)
    file = _value_of("--settings", arguments)
    preset = None if file is None else read_settings(Path(file))
    name = _value_of("--recipe", arguments)
    if name is None:
        return (type(preset.recipe) if preset else MedAlmighty), preset
    return recipe_named(name), preset


def _value_of(flag: str, arguments: list[str]) -> str | None:
    for place, argument in enumerate(arguments):
        if argument == flag and place + 1 < len(arguments):
            return arguments[place + 1]
        if argument.startswith(f"{flag}="):
            return argument.partition("=")[2]
    return None


def _refuse_beside_resume(run: str, arguments: list[str]) -> None:
    """A stopped run goes on as it began; a flag that had no effect would be worse than none."""
    others = [a for a in arguments[1:] if a not in ("--resume", run, f"--resume={run}", "--help", "-h")]
    if others:
        raise UsageError(
            f"--resume takes the run's own settings, so {others[0]} cannot be given beside it. For other settings "
            f"start a new run: `stillroom distill --settings {Path(run) / 'settings.yaml'} {others[0]} ...`."
        )


def _flags(settings: Settings, recipe: type[Recipe]) -> dict[str, Any]:
    """Nested settings as the flags that would give them; what is None is left to its default.

    The recipe's own settings are left out where ``recipe`` is another one.
    """
    flat: dict[str, Any] = {}
    for name, value in to_dict(settings).items():
        if isinstance(value, dict) and (name != "recipe" or type(settings.recipe) is recipe):
            flat |= value
        elif name in ("seed", "device"):
            flat[name] = value
    flat.pop("name", None)  # the recipe's
    return {name.replace("_", "-"): value for name, value in flat.items() if value is not None and value != []}


def _as_flag(name: str, value: object) -> str:
    flag = name.replace("_", "-")
    if isinstance(value, bool):
        return f"--{flag}" if value else f"--no-{flag}"
    return f"--{flag} {value}"
