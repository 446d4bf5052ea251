"""The command line: verbs only. Flags and their help come from the settings' dataclasses and the recipe's."""

from __future__ import annotations

import os
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
    from_dict,
    to_dict,
)


def _section(name: str) -> Parameter:
    return Parameter(name="*", group=name)


def make_app(recipe: type[Recipe] = MedAlmighty, preset: dict[str, Any] | None = None) -> App:
    """The application, with the flags of one recipe.

    Args:
        recipe: whose settings become flags of `distill`.
        preset: flags' values from a settings file; what stands on the command line goes before them.
    """
    app = App(
        name="stillroom",
        help="Distil large pretrained vision models into small, explainable medical image classifiers.",
        help_epilogue="Start with `stillroom demo`, then `stillroom distill ./my_images`.",
        config=[cyclopts.config.Dict({"distill": preset})] if preset else [],
    )

    def distill(
        source: str | None = None,
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

        Examples:

            stillroom distill pneumoniamnist --student mobilenetv3_small_100

            stillroom distill ./my_images --teacher vit_small_patch14_dinov2 --size 224

            stillroom distill labels.csv --weights ./weights --out runs/first

            stillroom distill --resume runs/first

        Args:
            source: a MedMNIST name, a folder of class folders, a CSV or Parquet table, or `phantoms`.
            recipe: the published system to run; see `stillroom recipes`.
            out: the run folder; default `runs/<source>-<recipe>`.
            resume: go on with a run that was stopped; takes no other flags.
            settings: a settings.yaml to start from, such as another run's; flags go before it.
            seed: fixes splits, initial weights, order and views.
            device: `auto` takes an accelerator where there is one.
        """
        from stillroom import console

        if resume:
            from stillroom.pipeline import resume as go_on

            run = go_on(resume)
        else:
            if source is None:
                raise UsageError("Say what to train on: `stillroom distill SOURCE`, or --resume RUN.")
            from stillroom.pipeline import distill as start

            run = start(
                Settings(source, own, data, views, teacher, student, training, evaluation, seed, device), out
            )
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
    *,
    split: Literal["auto", "train", "val", "test", "all"] = "auto",
    json: bool = False,
    data: Annotated[DataSettings, _section("Data")] = DataSettings(),  # noqa: B008
) -> None:
    """Test a finished run's exported student on another data set.

    Examples:

        stillroom evaluate runs/first ./other_hospital

        stillroom evaluate runs/first breastmnist --json

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
    console.out().print(console.figures_table(found["test"], found["source"], synthetic=found["synthetic"]))
    for note in found["notes"]:
        console.say(note)


def predict(
    run: Path, images: Annotated[list[Path], Parameter(consume_multiple=True)], /, *, json: bool = False
) -> None:
    """Classify images with a run's exported student: ONNX Runtime alone, no torch.

    Example:

        stillroom predict runs/first image.png

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


def export(run: Path, *, out: Path | None = None) -> None:
    """Export a run's student to ONNX once more, and check it against torch.

    Args:
        run: a finished run folder.
        out: the file to write; default `student.onnx` in the run folder.
    """
    from stillroom import console
    from stillroom.export import export_student
    from stillroom.run import Run

    path, parity = export_student(Run.open(run), out)
    console.out().print(
        f"{path}: {path.stat().st_size / 1e6:.1f} MB, agrees with torch on {parity['images']} validation images "
        f"(largest difference of a probability {parity['max_probability_difference']:.1e})."
    )


def audit(
    source: str,
    *,
    json: bool = False,
    seed: int = 0,
    data: Annotated[DataSettings, _section("Data")] = DataSettings(),  # noqa: B008
) -> None:
    """Look for leaks, patients on both sides, broken files and classes too small. Trains nothing.

    Example:

        stillroom audit ./my_images

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


def models(pattern: str | None = None, *, json: bool = False) -> None:
    """List teachers and students, or every network whose name matches a pattern.

    Examples:

        stillroom models

        stillroom models 'mobilenetv3*' --json

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


def recipes(*, json: bool = False) -> None:
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
        given = ", ".join(f"{name} {value}" for name, value in asdict(recipe()).items())
        console.out().print(f"[bold]{recipe.name}[/bold]  {recipe.title}")
        for line in filter(None, (recipe.citation, f"settings: {given}" if given else "")):
            console.out().print(f"    {line}", style="dim")


def demo(*, out: Path | None = None, seed: int = 0) -> None:
    """Distil on synthetic chest-film phantoms: no network, no weights, no GPU, a few minutes.

    Args:
        out: the run folder; default `runs/demo`, numbered where that exists.
        seed: fixes the phantoms, splits and initial weights.
    """
    from stillroom import console
    from stillroom.demo import run_demo

    console.say(
        "Distilling on synthetic phantoms: a fine-tuned teacher, its student, and a control without a teacher."
    )
    console.show_run(run_demo(out, seed=seed))


def main(arguments: list[str] | None = None) -> None:
    """Entry point. Exit code 0, 1 for a failed run, 2 for wrong use, 130 when interrupted."""
    arguments = sys.argv[1:] if arguments is None else arguments
    from stillroom import console

    try:
        make_app(*_recipe_and_preset(arguments))(arguments, exit_on_error=False, print_error=False)
    except StillroomError as error:
        console.fail(str(error))
        sys.exit(error.exit_code)
    except cyclopts.CycloptsError as error:
        console.fail(" ".join(str(error).split()) + " See --help.")
        sys.exit(2)
    except KeyboardInterrupt:
        console.fail(
            "stopped. What is finished stands in the run folder: go on with `stillroom distill --resume RUN`."
        )
        sys.exit(130)
    except BrokenPipeError:  # the reader, such as `head`, has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _recipe_and_preset(arguments: list[str]) -> tuple[type[Recipe], dict[str, Any] | None]:
    """The recipe whose flags are wanted and the values of a settings file, read before the flags are known."""
    if not arguments or arguments[0] != "distill":
        return MedAlmighty, None
    preset = None
    file = _value_of("--settings", arguments)
    if file is not None:
        preset = _flat(_read_settings(Path(file)), keep_source=not _has_source(arguments))
    name = _value_of("--recipe", arguments) or (preset or {}).get("recipe")
    return (recipe_named(name) if name else MedAlmighty), preset


def _value_of(flag: str, arguments: list[str]) -> str | None:
    for place, argument in enumerate(arguments):
        if argument == flag and place + 1 < len(arguments):
            return arguments[place + 1]
        if argument.startswith(f"{flag}="):
            return argument.partition("=")[2]
    return None


def _has_source(arguments: list[str]) -> bool:
    return len(arguments) > 1 and not arguments[1].startswith("-")


def _read_settings(path: Path) -> Settings:
    import yaml

    try:
        return from_dict(yaml.safe_load(path.read_text(encoding="utf-8")), str(path))
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.") from None
    except yaml.YAMLError as error:
        raise UsageError(f"{path} is not valid YAML: {' '.join(str(error).split())}.") from None


def _flat(settings: Settings, *, keep_source: bool) -> dict[str, Any]:
    """Nested settings as the flags that would give them; what is None is left to its default."""
    flat: dict[str, Any] = {}
    for name, value in to_dict(settings).items():
        flat |= value if isinstance(value, dict) else {name: value}
    flat["recipe"] = flat.pop("name")
    if not keep_source:
        flat.pop("source")
    return {
        name.replace("_", "-"): value for name, value in flat.items() if value is not None and value != []
    }
