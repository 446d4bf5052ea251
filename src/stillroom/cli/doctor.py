"""The verb that checks installation, cache, weights and runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from stillroom.errors import RunError


def doctor(
    run: Path | None = None,
    /,
    *,
    weights: Path | None = None,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Check the installation, the cache, the weights at hand and a run's files, and say what to do. Changes nothing.

    Every file of the run and of the cache is read and held against its digest. Exit code 1 where something is wrong.

    ```
    stillroom doctor
    stillroom doctor runs/first
    stillroom doctor student.onnx --json
    ```

    Args:
        run: a run folder, finished or not, or an exported .onnx file.
        weights: a file or folder of pretrained weights: each file is read through.
        json: print JSON alone.
    """
    from stillroom.after.doctor import examine, summary
    from stillroom.cli import console

    checks = []
    for check in examine(run, weights):
        checks.append(check)
        if not json:
            console.show_check(check)
    if json:
        console.print_json(summary(checks))
    wrong = sum(check.state == "wrong" for check in checks)
    if wrong:
        raise RunError(f"{wrong} of {len(checks)} checks found something wrong.")
    if not json:
        console.out().print("Nothing is wrong.")
