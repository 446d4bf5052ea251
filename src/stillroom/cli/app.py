"""The command line: the application and `distill`, whose flags come from the settings' dataclasses and the recipe's."""

from __future__ import annotations

import errno
import os
import re
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import cyclopts
from cyclopts import App, Parameter

from stillroom.cli import commands
from stillroom.cli.flags import section
from stillroom.cli.following import names_in, plan_or_settings, refuse_where_taken
from stillroom.cli.stopping import exit_code, stoppable
from stillroom.cli.unforeseen import unforeseen
from stillroom.errors import StillroomError, UsageError
from stillroom.planning.plan_file import FILE as PLAN_FILE
from stillroom.planning.plan_file import read_plan
from stillroom.recipes import MedAlmighty, Recipe, recipe_named
from stillroom.settings.evaluation import EvaluationSettings
from stillroom.settings.sections import (
    AnswersKind,
    DataSettings,
    StudentSettings,
    TeacherSettings,
    TrainingSettings,
    ViewSettings,
)
from stillroom.settings.whole import Settings, read_settings, to_dict

_PLACES = ("--source", "--unlabelled", "--teacher-answers")
"""Flags that may stand beside --resume: where the run's data are now."""

CLOSED_PIPE = 128 + 13
"""Exit code where what reads the output has closed it: 128 and the number of SIGPIPE, as shells have it."""


def make_app(
    recipe: type[Recipe] = MedAlmighty, preset: Settings | None = None, flags: frozenset[str] = frozenset()
) -> App:
    """The application, with the flags of one recipe.

    Args:
        recipe: whose settings become flags of `distill`.
        preset: values from a settings file or a plan; what stands on the command line goes before them.
        flags: names of the flags that stand on the command line, which a plan leaves as they are.
    """
    app = App(
        name="stillroom",
        help="Distil large pretrained vision models into small medical image classifiers, with the evidence.",
        help_epilogue="Start with `stillroom demo`, then `stillroom distill ./my_images`. "
        "Every command explains itself: `stillroom distill --help`.",
        config=[cyclopts.config.Dict({"distill": _flags(preset, recipe)})] if preset else [],
        result_action="return_value",
        help_format="plaintext",  # the list of verbs is wanted at once, and to lay out Markdown takes a while to load
        suppress_keyboard_interrupt=False,  # `main` says how to go on
    )

    def distill(
        source: str | None = preset.source if preset else None,
        /,
        *,
        recipe: str = MedAlmighty.name,
        out: Path | None = None,
        resume: Path | None = None,
        moved: Annotated[str | None, Parameter(name="--source")] = None,
        settings: Path | None = None,
        plan: Path | None = None,
        no_plan: Annotated[bool, Parameter(negative="")] = False,
        minutes: float | None = None,
        max_ms: float | None = None,
        seed: int = 0,
        device: Literal["auto", "cpu", "cuda", "mps"] = "auto",
        own: Recipe = recipe(),  # noqa: B008
        teacher: Annotated[TeacherSettings, section("Teacher")] = TeacherSettings(),  # noqa: B008
        student: Annotated[StudentSettings, section("Student")] = StudentSettings(),  # noqa: B008
        training: Annotated[TrainingSettings, section("Training")] = TrainingSettings(),  # noqa: B008
        views: Annotated[ViewSettings, section("Views")] = ViewSettings(),  # noqa: B008
        data: Annotated[DataSettings, section("Data")] = DataSettings(),  # noqa: B008
        evaluation: Annotated[EvaluationSettings, section("Evaluation")] = EvaluationSettings(),  # noqa: B008
    ) -> None:
        """Distil a small classifier from a large one and write a report.

        What no flag says is planned first, from the images, the weights at hand and this machine; see `stillroom plan`.

        ```
        stillroom distill ./my_images --minutes 10 --max-mb 5
        stillroom distill pneumoniamnist --student mobilenetv3_small_100
        stillroom distill labels.csv --weights ./weights --out runs/first
        stillroom distill --plan plan.yaml
        stillroom distill --resume runs/first
        stillroom distill --resume runs/first --source /mnt/new/my_images
        stillroom distill --settings runs/first/settings.yaml --seed 1
        ```

        Args:
            source: a MedMNIST name, a folder of class folders, a CSV or Parquet table, or `phantoms`.
            recipe: the published system to run; see `stillroom recipes`.
            out: the run folder. Default: `runs/<source>-<recipe>`, numbered where that exists.
            resume: go on with a run that was stopped. It has its settings already: give no other flag, but for `--source`,
                `--unlabelled` and `--teacher-answers`, which then say where its data are now.
            moved: where the images of the run to `--resume` are now, if they were moved.
            settings: a settings.yaml to start from, such as another run's; flags given beside it win. Nothing is planned,
                unless `--minutes` or `--max-ms` asks for it: then around what stands in the file.
            plan: follow this plan, as `stillroom plan` wrote it or as it was edited; flags given beside it win.
            no_plan: plan nothing: what no flag says stays at its default.
            minutes: how long teaching and the training of teacher and student may take, for the plan. Default: 20.
            max_ms: how many milliseconds the planned student may take for one image on one thread.
            seed: fixes splits, initial weights, order and views.
            device: `auto` takes an accelerator where there is one.
        """
        from stillroom.cli import console
        from stillroom.extras import need

        need("torch", "`stillroom distill`")
        if resume:
            from stillroom.run.folder import Run
            from stillroom.run.pipeline import resume as go_on

            if Run.open(resume).finished:
                console.say(f"{resume} has finished already; nothing was done again.")
            new = training.unlabelled, teacher.teacher_answers
            run = go_on(resume, source=moved, unlabelled=new[0], teacher_answers=new[1])
        elif moved is not None:
            raise UsageError("--source goes with --resume; say what to train on as `stillroom distill SOURCE`.")
        else:
            if source is None:
                raise UsageError("Say what to train on: `stillroom distill SOURCE`, or --resume RUN.")
            wanted = Settings(source, own, data, views, teacher, student, training, evaluation, seed, device)
            names = flags | (names_in(settings) if settings else set())
            todo = plan_or_settings(wanted, names, out, plan, no_plan, settings, minutes, max_ms)
            chosen = todo if isinstance(todo, Settings) else todo.settings
            for name in chosen.recipe.unused(chosen):
                if todo is chosen or name in names:
                    console.say(
                        f"Note: --{name.replace('_', '-')} changes nothing in this run of {chosen.recipe.name}."
                    )
            from stillroom.run.pipeline import distill as start

            run = start(todo, out)
        console.show_run(run)

    def plan(
        source: str,
        /,
        *,
        minutes: float = 20.0,
        max_mb: float = 10.0,
        max_ms: float | None = None,
        weights: Path | None = None,
        teacher: str = "",
        teacher_answers: Path | None = None,
        answers_kind: AnswersKind | None = None,
        answers_of: str = "",
        out: Path = Path(PLAN_FILE),
        json: Annotated[bool, Parameter(negative="")] = False,
        seed: int = 0,
        device: Literal["auto", "cpu", "cuda", "mps"] = "auto",
        data: Annotated[DataSettings, section("Data")] = DataSettings(),  # noqa: B008
    ) -> None:
        """Plan a run: look at the images, the weights at hand and this machine, and write every choice with its reason.

        Trains nothing; times a few steps. Edit what you want otherwise, then `stillroom distill --plan plan.yaml`.

        ```
        stillroom plan ./my_images --minutes 10 --max-mb 5
        ```

        Args:
            source: a MedMNIST name, a folder of class folders, a CSV or Parquet table, or `phantoms`.
            minutes: how long teaching and the training of teacher and student may take.
            max_mb: how many MB the student's float32 parameters may take up.
            max_ms: how many milliseconds the student may take for one image on one thread.
            weights: a file or folder of pretrained weights. Default: timm's hub.
            teacher: the network that will teach, by name; see `stillroom distill`. Default: the plan chooses.
            teacher_answers: a table of answers that will teach; see `stillroom distill`.
            answers_kind: what its numbers are. Default: read off the values, where these leave no doubt.
            answers_of: whose columns are read, where it has some for several networks.
            out: the file to write.
            json: print JSON alone.
            seed: fixes splits, initial weights, order and views.
            device: `auto` takes an accelerator where there is one.
        """
        from stillroom.cli import console
        from stillroom.planning import plan as make
        from stillroom.planning import to_plain, write_plan
        from stillroom.planning.sheet import fixed_names

        refuse_where_taken(out)
        teaches = TeacherSettings(
            teacher, weights=weights, teacher_answers=teacher_answers, answers_kind=answers_kind, answers_of=answers_of
        )
        given = Settings(source, data=data, teacher=teaches, seed=seed, device=device)
        fixed = fixed_names(MedAlmighty, flags - {"max_mb"})
        made = make(source, minutes=minutes, max_mb=max_mb, max_ms=max_ms, given=given, fixed=fixed)
        write_plan(made, out)
        if json:
            console.print_json(to_plain(made))
        else:
            console.show_plan(made, out)

    settings_of = section(f"Recipe {recipe.name}") if fields(recipe) else Parameter(parse=False)
    distill.__annotations__["own"] = Annotated[recipe, settings_of]
    for verb in (distill, plan, *commands.VERBS):
        app.command(verb, help_format="markdown")
    app.register_install_completion_command()
    return app


@stoppable()
def main(arguments: list[str] | None = None) -> None:
    """Entry point. Exit code 0, 1 for a failed run, 2 for wrong use, 3 for images left out, 128 + n for signal n."""
    arguments = sys.argv[1:] if arguments is None else arguments
    from stillroom.cli import console

    console.show_what_can_be_shown()
    try:
        app = make_app(*_recipe_and_preset(arguments), _flags_on(arguments))
        _refuse_parts_of_one(app, arguments)
        app(arguments, exit_on_error=False, print_error=False)
        sys.stdout.flush()
    except StillroomError as error:
        console.fail(_with_notes(str(error), error))
        sys.exit(error.exit_code)
    except cyclopts.CycloptsError as error:
        console.fail(f"{_in_words(error)} See --help.")
        sys.exit(2)
    except KeyboardInterrupt as stop:
        console.fail(_with_notes("Stopped.", stop))
        sys.exit(exit_code(stop))
    except BrokenPipeError:  # the reader, such as `head`, has had enough
        _let_go_of_output()
        sys.exit(CLOSED_PIPE)
    except Exception as error:
        if wrong := _wrong_use(error, arguments):
            console.fail(wrong)
            sys.exit(2)
        console.fail(_with_notes(unforeseen(error, arguments), error))
        try:
            sys.stdout.flush()
        except (OSError, ValueError, AttributeError):  # Python would try again at its end, and say so at length
            _let_go_of_output()
        sys.exit(1)


def _wrong_use(error: Exception, arguments: list[str]) -> str | None:
    """The line for an error of Python's own that comes of how Stillroom was called or installed; None for others."""
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
        return f"{error.filename}: no file has so long a name."
    if isinstance(error, ModuleNotFoundError):
        from stillroom.extras import not_installed

        absent = not_installed(error, f"`stillroom {' '.join(arguments[:1])}`")
        return None if absent is None else str(absent)
    return None


def _let_go_of_output() -> None:
    with suppress(OSError, ValueError, AttributeError):  # it may be closed, or none at all
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


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
    file, plan = _value_of("--settings", arguments), _value_of("--plan", arguments)
    if file is not None and plan is not None:
        raise UsageError("--settings and --plan both say what to run: give one.")
    preset = read_settings(Path(file)) if file is not None else None
    preset = read_plan(Path(plan)).settings if plan is not None else preset
    name = _value_of("--recipe", arguments)
    if name is None:
        return (type(preset.recipe) if preset else MedAlmighty), preset
    return recipe_named(name), preset


def _refuse_parts_of_one(app: App, arguments: list[str]) -> None:
    """What counts is written in digits: the parser would round ``--epochs 1.5`` and ``--epochs 1.5e0``."""
    if len(arguments) < 2 or not any(_is_other_number(token.rpartition("=")[2]) for token in arguments):
        return
    with suppress(KeyError):  # no verb of ours, which the parser will say
        for argument in app[arguments[0]].assemble_argument_collection():
            if int in (argument.hint, *get_args(argument.hint)):
                for name in argument.names:
                    for value in _values_of(name, arguments):
                        if _is_other_number(value):
                            raise UsageError(f"{name} must be a whole number, written in digits, got {value}.")


def _is_other_number(text: str) -> bool:
    """Whether a text is a number, but not a whole one in plain digits."""
    if re.fullmatch(r"[+-]?[0-9]+", text):
        return False
    try:
        float(text)
    except ValueError:
        return False
    return True


def _flags_on(arguments: list[str]) -> frozenset[str]:
    """Names of the flags that stand on a command line: ``flips`` for ``--flips``, ``--no-flips`` and ``--flips=x``."""
    names = (token[2:].partition("=")[0].replace("-", "_") for token in arguments if token.startswith("--"))
    return frozenset(name.removeprefix(prefix) for name in names for prefix in ("", "no_", "empty_"))


def _value_of(flag: str, arguments: list[str]) -> str | None:
    return next(_values_of(flag, arguments), None)


def _values_of(flag: str, arguments: list[str]) -> Iterator[str]:
    for place, argument in enumerate(arguments):
        if argument == flag and place + 1 < len(arguments):
            yield arguments[place + 1]
        if argument.startswith(f"{flag}="):
            yield argument.partition("=")[2]


def _refuse_beside_resume(run: str, arguments: list[str]) -> None:
    """A stopped run goes on as it began; a flag that had no effect would be worse than none."""
    known = {"--resume", run, f"--resume={run}", "--help", "-h"}
    for flag in _PLACES:
        if (place := _value_of(flag, arguments)) is not None:
            known |= {flag, place, f"{flag}={place}"}
    others = [a for a in arguments[1:] if a not in known]
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
