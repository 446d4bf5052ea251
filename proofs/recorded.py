"""Cases of a proof, each decided by seed and number alone, written down one by one: what was stopped goes on.

Other code begins anew: its name is part of the file's.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from stillroom.files.atomic import append_line


def parser(description: str | None, *, name: str, count: int) -> argparse.ArgumentParser:
    """The flags that every proof takes; ``name`` is that of its folder under runs/proofs."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--count", type=int, default=count, help=f"cases; default {count}")
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--out", type=Path, default=Path("runs/proofs") / name, help="where cases are written down")
    return made


def version() -> str:
    """What the cases are decided by besides their seeds: the code of the product and of the proofs."""
    root, found = Path(__file__).parents[1], sha256()
    for path in sorted([*(root / "src").rglob("*.py"), *(root / "proofs").glob("*.py")]):
        found.update(path.read_bytes())
    return found.hexdigest()[:8]


def workshop(given: argparse.Namespace) -> Path:
    """Where a proof keeps what its cases are made of; another one for other code, whose cases are compared with its own."""
    return (given.out / f"work-{version()}").resolve()


def short(failed: bool, name: Any) -> bool:
    """Say on standard error which row misses what is meant; of few studies one may do so by chance."""
    if failed:
        print(f"This row misses what is meant: {name}", file=sys.stderr)
    return bool(failed)


def carry_out(given: argparse.Namespace, case: Callable[[np.random.Generator, int], dict[str, Any]]) -> Iterator[dict]:
    """Every case of the proof in its order: those that are written down, and the others as they are done.

    Args:
        given: what :func:`parser` read.
        case: does the case of this number with a generator of its own, and says what came of it.
    """
    given.out.mkdir(parents=True, exist_ok=True)
    file = given.out / f"seed-{given.seed}-{version()}.jsonl"
    lines = file.read_bytes().rpartition(b"\n")[0].splitlines() if file.exists() else []
    known = {line["case"]: line for line in map(json.loads, lines)}
    for number in range(given.count):
        if number not in known:
            known[number] = {"case": number} | case(np.random.default_rng([given.seed, number]), number)
            append_line(file, json.dumps(known[number]))
        yield known[number]
