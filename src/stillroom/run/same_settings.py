"""An unfinished run goes on as it began: what was edited in its settings or its plan since is refused by name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from stillroom.errors import UsageError
from stillroom.planning.plan_file import FILE as PLAN_FILE
from stillroom.planning.plan_file import read_plan
from stillroom.run.claims import MANIFEST, SETTINGS
from stillroom.run.folder import Run
from stillroom.settings.whole import Settings, from_dict, to_dict

MAY_CHANGE = ("device", "data.data_dir")
"""Where the rest is computed, and where a data set is kept, whose content is compared with what the run began with."""


def require_same_settings(run: Run) -> None:
    """Compare settings.yaml and plan.yaml, as far as it decides anything, with what the manifest says the run began with.

    A run of an earlier Stillroom, whose manifest does not say, passes.

    Raises:
        UsageError: something was changed; names the file, the setting, and both values.
    """
    manifest = run.manifest
    if begun := manifest.get("settings"):
        _compare(run, SETTINGS, begun, run.settings)
    plan = run.path / PLAN_FILE
    if (planned := manifest.get("planned")) and plan.exists():
        _compare(run, PLAN_FILE, planned, read_plan(plan).settings)


def _compare(run: Run, file: str, begun: dict[str, Any], now: Settings) -> None:
    before, after = _flat(from_dict(begun, str(run.path / MANIFEST))), _flat(now)
    changed = [name for name in {**before, **after} if before.get(name) != after.get(name) and name not in MAY_CHANGE]
    if changed:
        first, more = changed[0], len(changed) - 1
        others = f" So were {', '.join(changed[1:])}." if more else ""
        raise UsageError(
            f"{run.path / file}: {first} was {_shown(before.get(first))} when the run began, and is "
            f"{_shown(after.get(first))} now: half of the run would be of either.{others} Put it back, or start a new run: "
            f"`stillroom distill --settings {run.path / SETTINGS}`."
        )


def _flat(settings: Settings) -> dict[str, Any]:
    """Values by name, such as ``training.epochs``."""
    return dict(_pairs(to_dict(settings)))


def _pairs(values: dict[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _pairs(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value


def _shown(value: Any) -> str:
    return "nothing" if value is None else repr(value) if isinstance(value, str) else str(value)
