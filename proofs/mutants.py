"""Which changes of one operator, number or statement do a file's tests not notice?

    python proofs/mutants.py evaluation/metrics.py --count 20
    python proofs/mutants.py --all

Draws mutants of a file of src/stillroom by seed, runs the tests that mirror it (more by ``MORE``) in a copy of the tree, and
prints every mutant that no test fails for. A survivor is a place to look: a test may be missing, the code superfluous, or the
mutant the same in all that matters. Needs a system that can fork.
"""

from __future__ import annotations

import argparse
import ast
import os
import random
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
COUNTS = {"evaluation": 16, "distillation": 8, "training": 10}
"""Mutants of each file of a room, at the most, with ``--all``."""
ALL_LOSSES = ("tests/distillation/test_objectives.py",)
FEATURES, LOGITS = (f"tests/distillation/objectives/test_{name}_losses.py" for name in ("feature", "logit"))
SELF = ("tests/distillation/objectives/test_self_distillation.py",)
LOOP = ("tests/training/test_loop.py", "tests/training/test_ending.py")
MORE: dict[str, tuple[str, ...]] = {  # file: tests of it that do not bear its name
    "evaluation/calibration.py": ("tests/evaluation/test_assess.py",),
    "evaluation/intervals.py": ("tests/evaluation/test_luck.py",),
    "evaluation/metrics.py": ("tests/evaluation/test_assess.py",),
    "evaluation/likelihood.py": ("tests/training/test_ending.py",),
    **{f"distillation/objectives/{name}.py": (FEATURES,) for name in ("attention_transfer", "hints", "rkd")},
    **{f"distillation/objectives/{name}.py": (LOGITS,) for name in ("dist", "dkd", "hybrid")},
    **{f"distillation/objectives/{name}.py": SELF for name in ("momentum", "self_logits", "byol", "dino")},
    **{f"training/{name}.py": LOOP for name in ("learning_rates", "feeding", "batch_norm", "loop")},
}
COMPARED = {ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq}
COMPARED |= {ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In}
COMBINED = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult}
COMBINED |= {ast.Pow: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd}
CALLED = {"min": "max", "max": "min", "mean": "sum", "sum": "mean", "std": "var", "any": "all", "all": "any"}
SKIPPED = (ast.Raise, ast.Import, ast.ImportFrom, ast.Assert, ast.JoinedStr)
TYPES = {"annotation", "returns", "decorator_list"}


def places(tree: ast.AST) -> Iterator[ast.AST]:
    """What can be changed, in the file's order; nothing in messages, annotations and docstrings."""
    for field, value in ast.iter_fields(tree):
        for node in value if isinstance(value, list) else [value]:
            if field in TYPES or not isinstance(node, ast.AST) or isinstance(node, SKIPPED):
                continue
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
                continue
            if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
                continue
            if can_change(node):
                yield node
            yield from places(node)


def can_change(node: ast.AST) -> bool:
    match node:
        case ast.Compare():
            return type(node.ops[0]) in COMPARED
        case ast.BinOp() | ast.AugAssign():
            return type(node.op) in COMBINED
        case ast.UnaryOp():
            return isinstance(node.op, ast.USub)
        case ast.Constant():
            return isinstance(node.value, bool | int | float)
        case ast.Call():
            return isinstance(node.func, ast.Attribute) and node.func.attr in CALLED
        case ast.Expr():
            return isinstance(node.value, ast.Call)
    return isinstance(node, ast.BoolOp | ast.IfExp | ast.If)


def change(node: ast.AST) -> None:
    """One small error, in place."""
    match node:
        case ast.Compare():
            node.ops[0] = COMPARED[type(node.ops[0])]()
        case ast.BinOp() | ast.AugAssign():
            node.op = COMBINED[type(node.op)]()
        case ast.UnaryOp():
            node.op = ast.UAdd()
        case ast.Constant(value=bool()):
            node.value = not node.value
        case ast.Constant(value=int()):
            node.value += 1
        case ast.Constant():
            node.value = 1.5 * node.value + 0.1
        case ast.Call(func=ast.Attribute()):
            node.func.attr = CALLED[node.func.attr]
        case ast.Expr():
            node.value = ast.Constant(None)
        case ast.BoolOp():
            node.op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        case ast.IfExp():
            node.body, node.orelse = node.orelse, node.body
        case ast.If():
            node.test = ast.UnaryOp(ast.Not(), node.test)
    ast.fix_missing_locations(node)


def tests_of(name: str) -> list[str]:
    """The tests that mirror a file, and more."""
    path = Path(name)
    mirror = Path("tests") / path.parent / f"test_{path.name}"
    found = ([str(mirror)] if (ROOT / mirror).exists() else []) + list(MORE.get(name, ()))
    return found + list(ALL_LOSSES if "objectives" in path.parts else ())


def fails(tree: Path, tests: list[str], seconds: int) -> bool:
    """Whether one of the tests fails, or they take longer: in a child, which finds the heavy libraries imported."""
    child = os.fork()
    if child == 0:
        signal.alarm(seconds)
        code = 1
        try:
            with (tree / "log").open("w") as log:
                os.dup2(log.fileno(), 1)
                os.dup2(log.fileno(), 2)
                os.chdir(tree)
                import pytest

                code = int(pytest.main(["-q", "-x", "-p", "no:cacheprovider", "-m", "not slow", *tests]))
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0


def survivors(name: str, count: int, seed: int) -> tuple[list[str], int]:
    """Mutants of the file that its tests let pass, in words, and how many were tried."""
    tests, left = tests_of(name), []
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder)
        for part in ("src", "tests", "proofs"):
            shutil.copytree(ROOT / part, tree / part, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", tree)
        sys.path.insert(0, str(tree / "src"))
        path = tree / "src" / "stillroom" / name
        text = path.read_text("utf-8")
        number = len(list(places(ast.parse(text))))
        if fails(tree, tests, 600):
            sys.exit(f"{name}: its tests fail as it is, or it has none ({', '.join(tests)}).")
        drawn = random.Random(seed).sample(range(number), min(count, number))
        for place in drawn:
            mutant = ast.parse(text)
            node = list(places(mutant))[place]
            line, before = node.lineno, ast.unparse(node).splitlines()[0]
            change(node)
            path.write_text(ast.unparse(mutant), "utf-8")
            if not fails(tree, tests, 300):
                left.append(f"{name}:{line}: {before[:90]}  ->  {ast.unparse(node).splitlines()[0][:90]}")
        sys.path.remove(str(tree / "src"))
    return left, len(drawn)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", help="of src/stillroom, such as evaluation/metrics.py")
    parser.add_argument(
        "--all", action="store_true", help="every file with tests of evaluation/, distillation/ and training/"
    )
    parser.add_argument("--count", type=int, help="mutants of each file")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    rooms = (
        [path for room in COUNTS for path in sorted((ROOT / "src/stillroom" / room).rglob("*.py"))] if given.all else []
    )
    names = given.files + [path.relative_to(ROOT / "src/stillroom").as_posix() for path in rooms]
    import pandas  # noqa: F401  (once, before the children)
    import pytest  # noqa: F401
    import scipy.stats  # noqa: F401
    import sklearn.metrics  # noqa: F401
    import timm  # noqa: F401

    tried = passed = 0
    for name in names:
        if not tests_of(name):
            continue
        left, count = survivors(name, given.count or COUNTS[name.split("/")[0]], given.seed)
        tried, passed = tried + count, passed + len(left)
        print(f"{name}: {count - len(left)} of {count} noticed", *left, sep="\n  ", flush=True)
    print(f"{tried} mutants, {tried - passed} noticed")


if __name__ == "__main__":
    main()
