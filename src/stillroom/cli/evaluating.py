"""The verb that tests a finished run, or its exported file alone, on other images."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from stillroom.cli.flags import section
from stillroom.errors import UsageError
from stillroom.settings.sections import DataSettings

if TYPE_CHECKING:
    from stillroom.after.external_validation import Split
    from stillroom.run.folder import Run

_JSON = Parameter(negative="")
_MODELS_OWN = re.compile(r"^(?!(size|fit|val_fraction|test_fraction|group_duplicates|drop_leaks|positive|window)$)")
"""Data settings that a trained model has decided already are no flags of `evaluate`."""


def evaluate(
    run: Path,
    source: str | None = None,
    /,
    *,
    split: Literal["auto", "train", "val", "test", "all"] = "auto",
    foreign: Annotated[bool, _JSON] = False,
    corruptions: Annotated[bool, _JSON] = False,
    moved: Annotated[str | None, Parameter(name="--source")] = None,
    json: Annotated[bool, _JSON] = False,
    data: Annotated[DataSettings, section("Data", _MODELS_OWN)] = DataSettings(),  # noqa: B008
) -> None:
    """Test a finished run's exported student on another data set, on foreign images, or on corrupted ones.

    Labels are read as the model has them: `auto` takes its task, its classes need not be given, and what the run was told
    to join or drop is joined or dropped here, unless `--merge` or `--drop-class` say otherwise. Images that the run has
    trained on are counted. What `--foreign` and `--corruptions` find joins the run's figures and its report.

    ```
    stillroom evaluate runs/first ./other_hospital
    stillroom evaluate runs/first ./third_hospital --merge bening=benign --drop-class unclear
    stillroom evaluate runs/first other_hospital.csv --groups site sex age
    stillroom evaluate runs/first breastmnist --json
    stillroom evaluate student.onnx ./other_hospital
    stillroom evaluate runs/first ./holiday_pictures --foreign
    stillroom evaluate runs/first --corruptions
    ```

    Args:
        run: a run folder; or an exported .onnx file, of which nothing but its answers is known.
        source: the other data set; its labels must be among the model's classes, unless it is foreign.
        split: which images; `auto` takes the source's own test split, or every image where it has none.
        foreign: the source holds images that are not of the model's kind: how well does it refuse them? Labels do not
            matter; a folder without class folders will do.
        corruptions: test the run's student, control and teacher on its own test images with noise, blur, other light and
            so on, at five severities.
        moved: where the run's own images are now, if they were moved; for `--corruptions`.
        json: print JSON alone.
    """
    from stillroom.cli import console
    from stillroom.extras import need
    from stillroom.run.folder import Run

    if run.suffix == ".onnx" and not run.is_dir():
        if corruptions or foreign or moved is not None:
            raise UsageError("--foreign, --corruptions and --source need the run's folder, not an exported file.")
        if source is None:
            raise UsageError("Say what to test on: `stillroom evaluate FILE SOURCE`.")
        _show_evaluation(run, source, data, split, json)
        return
    if (file := run / "student.onnx").is_file():
        instead = f"`stillroom evaluate {shlex.quote(str(file))} SOURCE` needs less."
        need("torch", "`stillroom evaluate` on a run folder", instead)
    opened = Run.open(run)
    if corruptions:
        if source is not None or foreign or split != "auto":
            raise UsageError(
                "--corruptions tests on the run's own test images: leave out the source, --foreign and --split."
            )
        from stillroom.after.corruptions import evaluate_corruptions

        found = evaluate_corruptions(opened, source=moved)
        console.print_json(found) if json else console.show_robustness(opened, found)
        return
    if moved is not None:
        raise UsageError(
            "--source names the new place of the run's own images, for --corruptions; give the other data set "
            "as `stillroom evaluate RUN SOURCE`."
        )
    if source is None:
        raise UsageError("Say what to test on: `stillroom evaluate RUN SOURCE`, or --corruptions.")
    if foreign:
        if data.groups:
            raise UsageError("--groups judges by labels, which do not matter to --foreign: leave one of them out.")
        from stillroom.after.foreign_images import evaluate_foreign

        found = evaluate_foreign(opened, source, data, split=split)
        console.print_json(found) if json else console.show_foreign(opened, found)
        return
    _show_evaluation(opened, source, data, split, json)


def _show_evaluation(run: Run | Path, source: str, data: DataSettings, split: Split, json: bool) -> None:
    from stillroom.after.external_validation import evaluate, tell
    from stillroom.cli import console
    from stillroom.evaluation.subgroup_words import told_in_short

    found = evaluate(run, source, data, split=split)
    if not isinstance(run, Path):
        tell(run)
    if json:
        console.print_json(found)
        return
    console.show_figures(found["test"], found["source"], synthetic=found["synthetic"])
    for urgent, sentence in told_in_short(found):
        console.out().print(f"{'Note: ' if urgent else ''}{sentence}", markup=False)
    for part in filter(None, (found["conformal"], found["ood"])):
        console.out().print(part["statement"], markup=False)
    thresholds = found["operating_points"] or {"points": (), "notes": ()}
    for sentence in (
        *(point["statement"] for point in thresholds["points"]),
        *(f"Note: {note}" for note in thresholds["notes"] if note.startswith("Too few")),
    ):
        console.out().print(sentence, markup=False)
    for note in found["notes"]:
        console.say(note)
