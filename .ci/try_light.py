"""Does the plain install do on a device what it should, where torch is not?

    python .ci/try_light.py build/wheel/stillroom-*.whl [VERSION ...]

Makes an exported file here, where torch is; then, for every Python from 3.11 to 3.13 (or those named) that this machine has,
a clean virtual environment under build/edge with the wheel and nothing else. Measures it, and runs the tests of the edge in
it: with the plain install, then with the extras ``evaluate`` and ``serve``; on the oldest and the newest Python also those of
other rooms. Exits with 1 where a test fails, or the install is larger or slower than it may be.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import time
import tomllib
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
PLACE = ROOT / "build" / "edge"
VERSIONS = ("3.11", "3.12", "3.13")
MOST_MB = 250
MOST_S = 0.6
"""Seconds of the processor for ``stillroom --help``: twice what is promised of a quiet machine."""

OTHERS = [
    *("tests/deployment/test_predictor.py", "tests/test_shown.py"),
    *(f"tests/cli/test_{name}.py" for name in ("console", "unforeseen")),
    *(f"tests/data/test_{name}.py" for name in ("audit", "contents", "files", "geometry", "listing", "tiff")),
    *(f"tests/data/sources/test_{name}.py" for name in ("columns", "folder", "patient_cells")),
    *(f"tests/explanation/test_{name}.py" for name in ("claims", "overlay", "sampling")),
    *(f"tests/serving/test_{name}.py" for name in ("kserve", "line", "predicting")),
    *(f"tests/files/test_{name}.py" for name in ("atomic", "places", "walk")),
    *(file.relative_to(ROOT).as_posix() for file in sorted(ROOT.glob("tests/data/dicom/test_*.py"))),
]
"""Test files of other rooms that need no torch; some make models by the package onnx, some read pydicom-data."""


def pythons() -> dict[str, str]:
    """An interpreter for each version: this one, those on the PATH, and those of pyenv."""
    here = f"{sys.version_info[0]}.{sys.version_info[1]}"
    found = {here: getattr(sys, "_base_executable", sys.executable)}
    pyenv = shutil.which("pyenv")
    root = subprocess.run([pyenv, "root"], capture_output=True, text=True).stdout.strip() if pyenv else ""
    for version in VERSIONS:
        candidates = [shutil.which(f"python{version}"), *sorted(Path(root).glob(f"versions/{version}.*/bin/python"))]
        for candidate in filter(None, candidates if root else candidates[:1]):
            asked = [str(candidate), "-c", "import sys, venv; print(*sys.version_info[:2], sep='.')"]
            answer = subprocess.run(asked, capture_output=True, text=True)
            if answer.stdout.strip() == version:  # a shim of pyenv may answer that it has none
                found.setdefault(version, str(candidate))
    return {version: found[version] for version in VERSIONS if version in found}


def oldest_runtime() -> str:
    """The version of ONNX Runtime that pyproject.toml sets as the least."""
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    (runtime,) = [found for found in map(Requirement, declared) if found.name == "onnxruntime"]
    (least,) = [limit.version for limit in runtime.specifier if limit.operator == ">="]
    return least


def size_mb(environment: Path) -> float:
    """Of all that was installed, without pip and what came with it."""
    own = ("pip", "setuptools", "pkg_resources", "_distutils_hack")
    (packages,) = environment.glob("lib/python*/site-packages")
    inside = [entry for entry in packages.iterdir() if not entry.name.startswith(own)]
    files = [file for entry in inside for file in (entry.rglob("*") if entry.is_dir() else [entry]) if file.is_file()]
    return sum(file.stat().st_size for file in files) / 1e6


def help_s(stillroom: Path) -> float:
    """Median seconds of the processor for ``--help``, of ten."""
    taken = []
    for _ in range(10):
        before = os.times()
        subprocess.run([stillroom, "--help"], check=True, stdout=subprocess.DEVNULL)
        after = os.times()
        taken.append(after.children_user + after.children_system - before.children_user - before.children_system)
    return statistics.median(taken)


def try_on(version: str, python: str, wheel: Path, device: Path, others: bool, runtime: str | None) -> list[str]:
    """What is wrong on this Python.

    Args:
        version, python: its version and interpreter.
        wheel: to install.
        device: the folder that make_device.py made.
        others: whether the tests of other rooms are run, too.
        runtime: another ONNX Runtime that the exported files are tried in, at the end.
    """
    environment = PLACE / version
    shutil.rmtree(environment, ignore_errors=True)
    subprocess.run([python, "-m", "venv", environment], check=True)
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    clean |= {"STILLROOM_EDGE": str(device), "STILLROOM_CACHE": str(PLACE / "cache")}

    def install(*what: str) -> None:
        pip = [str(environment / "bin" / "python"), "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
        subprocess.run([*pip, *what], check=True)

    def fail(*tests: str) -> bool:
        pytest = [str(environment / "bin" / "python"), "-m", "pytest", "-q", "-p", "no:cacheprovider"]
        pytest += ["-m", "not slow and not prove"]
        return subprocess.run([*pytest, *tests], cwd=ROOT, env=clean).returncode != 0

    start = time.monotonic()
    install(str(wheel))
    took, size, help_takes = time.monotonic() - start, size_mb(environment), help_s(environment / "bin" / "stillroom")
    print(f"Python {version}: {size:.0f} MB, installed in {took:.0f} s; --help takes {help_takes:.2f} s", flush=True)
    wrong = [f"takes {size:.0f} MB, more than {MOST_MB}"] if size > MOST_MB else []
    wrong += [f"takes {help_takes:.2f} s for --help, more than {MOST_S}"] if help_takes > MOST_S else []
    install("pytest")
    wrong += ["fails tests of the plain install"] if fail("tests/edge") else []
    install(f"{wheel}[evaluate]")
    print(f"Python {version}: {size_mb(environment):.0f} MB with the extra evaluate and pytest", flush=True)
    wrong += ["fails tests of the extra evaluate"] if fail("tests/edge", "-k", "figures or audited") else []
    install(f"{wheel}[serve]")
    print(f"Python {version}: {size_mb(environment):.0f} MB with the extra serve besides", flush=True)
    wrong += ["fails tests of the extra serve"] if fail("tests/edge", "-k", "http") else []
    if others:
        install("onnx", "pydicom-data")
        wrong += ["fails tests that need no torch"] if fail(*OTHERS) else []
    if runtime:
        install(f"onnxruntime=={runtime}")
        print(f"Python {version}: with ONNX Runtime {runtime}", flush=True)
        wrong += [f"answers otherwise in ONNX Runtime {runtime}"] if fail("tests/edge/test_runtimes.py") else []
    return [f"Python {version} {text}." for text in wrong]


def main() -> None:
    wheel, device = Path(sys.argv[1]).resolve(), PLACE / "device"
    shutil.rmtree(device, ignore_errors=True)
    device.mkdir(parents=True)
    subprocess.run([sys.executable, ROOT / "tests" / "edge" / "make_device.py", device], check=True)
    wanted = sys.argv[2:] or list(VERSIONS)
    there = {version: python for version, python in pythons().items() if version in wanted}
    absent = [version for version in wanted if version not in there]
    if absent:
        print(f"Not tried, since this machine has no such Python: {', '.join(absent)}", flush=True)
    ends, wrong = {*list(there)[:1], *list(there)[-1:]}, []
    for version, python in there.items():
        oldest = oldest_runtime() if version == next(iter(there)) else None
        wrong += try_on(version, python, wheel, device, version in ends, oldest)
    if wrong:
        sys.exit("\n".join(wrong))


if __name__ == "__main__":
    main()
