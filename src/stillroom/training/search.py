"""Search for a few numbers by Optuna, on validation alone. Kept in the run folder, so that a stopped search goes on."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from stillroom.errors import RunError, StorageError, UsageError


@dataclass(frozen=True)
class Range:
    """Where a number is looked for, ends included.

    Attributes:
        low, high: the ends.
        log: draw its logarithm evenly, for numbers of several orders of magnitude.
    """

    low: float
    high: float
    log: bool = False


def require_optuna() -> None:
    """Raises UsageError where the extra is not installed."""
    try:
        import optuna  # noqa: F401
    except ImportError:
        raise UsageError("--tune needs Optuna: install it with `pip install 'stillroom[sweep]'`.") from None


def search(
    file: Path, space: Mapping[str, Range], score: Callable[[dict[str, float]], float], *, trials: int, seed: int
) -> dict[str, float]:
    """The best of ``trials`` points of ``space``, by a tree-structured Parzen estimator.

    Args:
        file: an SQLite file for the trials; those that stand in it already count.
        space: the numbers looked for, by name.
        score: a point's figure on validation, higher is better; NaN and infinities are none.
        trials: how many points are tried in all.
        seed: fixes the points. A search that was stopped goes on with other points than it would have had.

    Raises:
        UsageError: Optuna is not installed, or no trial gave a figure.
    """
    require_optuna()
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    file.parent.mkdir(parents=True, exist_ok=True)
    study = optuna.create_study(
        storage=f"sqlite:///{file}", study_name="search", direction="maximize", load_if_exists=True
    )
    # A trial that was interrupted counts as failed to Optuna; one that diverged is marked as pruned below.
    tried = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)
    done = sum(trial.state in tried for trial in study.trials)
    # A sampler that began anew with the same seed would draw the first points again.
    study.sampler = optuna.samplers.TPESampler(seed=seed + done)

    def objective(trial: optuna.Trial) -> float:
        point = {name: trial.suggest_float(name, place.low, place.high, log=place.log) for name, place in space.items()}
        try:
            value = score(point)
        except StorageError:
            raise
        except RunError:  # the loss diverged: a bad point, not the end of the search
            value = math.nan
        if not math.isfinite(value):  # validation of one class has no AUC
            raise optuna.TrialPruned
        return value

    study.optimize(objective, n_trials=max(0, trials - done))
    if not any(trial.state == optuna.trial.TrialState.COMPLETE for trial in study.trials):
        raise UsageError("No trial of the search gave a validation figure: validation needs images of two classes.")
    return dict(study.best_params)
