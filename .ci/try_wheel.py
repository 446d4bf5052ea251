"""Is all in the wheel that a user needs?

    python .ci/try_wheel.py build/wheel/stillroom-*.whl

Compares the wheel's files with those of the checkout, installs it beside the checkout's own and runs the command line from a
folder of its own: help, a small run with its report, and a prediction. Exits with 1 where something fails.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src"
_RUN = """
    distill phantoms:60 --recipe baseline --no-plan --student test_resnet --size 32 --epochs 1 --batch-size 16 --resamples 100
    --no-latency --explain 0 --no-rivals --device cpu --out run
"""
RUN = _RUN.split()


def missing(wheel: Path) -> list[str]:
    """Files of the package that the wheel lacks."""
    files = [path for path in (SOURCE / "stillroom").rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    with zipfile.ZipFile(wheel) as archive:
        there = set(archive.namelist())
    return sorted(name for path in files if (name := path.relative_to(SOURCE).as_posix()) not in there)


def main() -> None:
    wheel = Path(sys.argv[1]).resolve()
    if absent := missing(wheel):
        sys.exit(f"{wheel.name} lacks {', '.join(absent)}")
    with tempfile.TemporaryDirectory() as folder:
        place, here = Path(folder) / "installed", Path(folder) / "here"
        here.mkdir()
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        subprocess.run([*pip, "--target", place, wheel], check=True)
        environment = os.environ | {"PYTHONPATH": str(place), "STILLROOM_CACHE": str(Path(folder) / "cache")}

        def stillroom(*arguments: str) -> str:
            command = [sys.executable, place / "bin" / "stillroom", *arguments]
            done = subprocess.run(command, cwd=here, env=environment, capture_output=True, text=True)
            if done.returncode:
                sys.exit(f"stillroom {' '.join(arguments)}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
            return done.stdout

        code = "import stillroom; print(stillroom.__file__)"
        where = subprocess.run([sys.executable, "-c", code], cwd=here, env=environment, capture_output=True, text=True)
        if not where.stdout.startswith(str(place)):
            sys.exit(f"what is tried is not the wheel, but {where.stdout}{where.stderr}")
        assert "distill" in stillroom("--help")
        stillroom(*RUN)
        assert (here / "run" / "report.html").stat().st_size > 10_000
        from PIL import Image

        Image.new("L", (40, 40), 90).save(here / "film.png")
        assert "film.png" in stillroom("predict", "run", "film.png")
    print(f"{wheel.name} is whole, and runs from a folder of its own")


if __name__ == "__main__":
    main()
