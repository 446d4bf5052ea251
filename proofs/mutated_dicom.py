"""Does any damaged DICOM file end in more than a reason: a traceback, a hang, a dead process, a printed word, much memory?

    python proofs/mutated_dicom.py [--count 1000] [--seed 0] [--out runs/proofs/mutated_dicom]

Every case takes one of pydicom's own test files (and of pydicom-data, where it is installed), and changes its bytes anywhere,
those of its pixels alone, or the elements that say how pixels are laid out. A process of its own lists and decodes it as a
source and `predict` would, and must answer within a minute with images or one line of Stillroom's own words,
print nothing, and grow by no more than half a gigabyte. Exits with 1 where one case failed.
"""

from __future__ import annotations

import io
import json
import os
import re
import resource
import select
import subprocess
import sys
import time
import warnings
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from mutations import damaged
from recorded import carry_out, parser, workshop

SECONDS = 60
MEGABYTES = 500
_MOST_FRAMES = 3
_LARGEST = 3_000_000  # bytes of a file that is changed
_PIXELS = b"\xe0\x7f\x10\x00"
_LAYOUT = (
    *("Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "SamplesPerPixel"),
    *(
        "PlanarConfiguration",
        "NumberOfFrames",
        "PhotometricInterpretation",
        "WindowCenter",
        "WindowWidth",
        "RescaleSlope",
    ),
    *("RescaleIntercept", "PixelPaddingValue", "Modality", "VOILUTFunction", "PixelAspectRatio", "BurnedInAnnotation"),
)
_ODD: tuple[Any, ...] = (
    *(0, 1, 2, 3, 7, 8, 9, 12, 15, 16, 17, 24, 31, 32, 64, 255, 256, 4095, 32767, 32768, 60000, 65535, None),
    *("MONOCHROME1", "MONOCHROME2", "RGB", "YBR_FULL", "YBR_FULL_422", "PALETTE COLOR", "YBR_ICT", "HSV", "", "x"),
    *("-1", "1e308", "1e-300", "0.5", "999999999", "SIGMOID", "LINEAR_EXACT", "RTDOSE", "YES"),
)


def originals() -> list[Path]:
    """The files that cases are made of, of which some reason or image is known to come."""
    import pydicom

    folders = [Path(pydicom.__file__).parent / "data" / "test_files"]
    try:
        import data_store

        folders.append(Path(data_store.__file__).parent / "data")
    except ImportError:
        pass
    files = [path for folder in folders for path in sorted(folder.rglob("*")) if path.is_file()]
    small = [path for path in files if path.suffix in ("", ".dcm") and path.stat().st_size <= _LARGEST]
    return [path for path in small if any(tag in path.read_bytes() for tag in (_PIXELS, b"\x7f\xe0\x00\x10"))]


def mutated(content: bytes, rng: np.random.Generator) -> tuple[str, bytes]:
    """What was changed, and the changed file."""
    kind = rng.choice(("anywhere", "header", "pixels", "layout"))
    at = content.find(_PIXELS)
    if kind == "layout" and (found := _other_layout(content, rng)) is not None:
        return found
    if at > 0 and kind in ("header", "pixels"):
        first, second = content[:at], content[at:]
        how, changed = damaged(first if kind == "header" else second, rng)
        return f"{how} in the {kind}", changed + second if kind == "header" else first + changed
    how, changed = damaged(content, rng)
    return f"{how} anywhere", changed


def _other_layout(content: bytes, rng: np.random.Generator) -> tuple[str, bytes] | None:
    import pydicom

    try:
        data = pydicom.dcmread(io.BytesIO(content), force=True)
        names = [name for name in _LAYOUT if name in data]
        chosen = [str(rng.choice(names)) for _ in range(int(rng.integers(1, 4)))]
        for name in chosen:
            setattr(data, name, _ODD[int(rng.integers(len(_ODD)))])
        target = io.BytesIO()
        data.save_as(target)
        return f"other {', '.join(chosen)}", target.getvalue()
    except Exception:  # values that pydicom does not write
        return None


class Asked:
    """A process that decodes what it is told to; another one takes its place where it ends."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.process = folder, None
        self.said = folder / "printed.txt"

    def __call__(self, path: Path) -> dict[str, Any]:
        if self.process is None:
            with self.said.open("wb") as printed:
                self.process = subprocess.Popen(
                    [sys.executable, __file__, "--worker"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=printed,
                    env=os.environ | {"STILLROOM_SECRET": str(self.folder / "secret")},
                )
        before = self.said.stat().st_size
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with suppress(BrokenPipeError):  # it has ended: there is no answer either
            self.process.stdin.write(f"{path}\n".encode())
            self.process.stdin.flush()
        ready, _, _ = select.select([self.process.stdout], [], [], SECONDS)
        line = self.process.stdout.readline() if ready else b""
        try:
            found = json.loads(line)
        except ValueError:
            self.process.kill()
            status, self.process = self.process.wait(), None
            return {"failed": "hung" if not ready else f"printed {line!r}" if line else f"died of signal {-status}"}
        if printed := self.said.read_bytes()[before:]:
            found["failed"] = f"printed {printed[:200]!r}"
        return found

    def end(self) -> None:
        """End the process."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


def work() -> None:
    """What the process does: a line with a path in, a line of JSON out."""
    from stillroom.data.dicom.grey import Display
    from stillroom.data.files import FileReader
    from stillroom.data.pictures import pictures_in
    from stillroom.data.sources.dicom_rows import frames_of
    from stillroom.data.table import UnreadableImage
    from stillroom.settings.sections import DataSettings
    from stillroom.settings.windows import parse_window

    for line in sys.stdin:
        path, began = Path(line.rstrip("\n")), time.perf_counter()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        images, reasons = 0, []
        try:
            rows = frames_of([path], DataSettings())
            pictures = pictures_in([path])
            assert len(rows.of) == len(pictures)
            for display in (Display(), Display(parse_window("40,400"), 255)):
                for picture in pictures[:_MOST_FRAMES]:
                    try:
                        found = FileReader((path,), frames=(picture.frame,), display=display).read(0)
                        assert found.ndim in (2, 3)
                        assert found.dtype in (np.uint8, np.uint16)
                        images += 1
                    except UnreadableImage as error:
                        reasons.append(str(error))
            answer: dict[str, Any] = {"images": images, "reasons": sorted(set(reasons))}
        except BaseException as error:
            answer = {"failed": f"raised {type(error).__name__}: {error}"[:300]}
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1e3
        if grown > MEGABYTES:
            answer["failed"] = f"grew by {grown:.0f} MB"
        print(json.dumps(answer | {"seconds": time.perf_counter() - began, "megabytes": grown}), flush=True)


def carried_out(asked: Asked, files: Sequence[Path], rng: np.random.Generator) -> dict[str, Any]:
    """One case: what was changed, and what came of it; a file that failed is kept."""
    path = files[int(rng.integers(len(files)))]
    how, content = mutated(path.read_bytes(), rng)
    place = asked.folder / "case"
    place.write_bytes(content)
    found = asked(place)
    if "failed" in found:
        place.rename(asked.folder / f"failed-{sha256(content).hexdigest()[:8]}")
    return {"file": path.name, "how": how} | found


def main(arguments: list[str] | None = None) -> int:
    """Do the cases, and print what came of them."""
    warnings.simplefilter("ignore")  # pydicom's, of the odd values that it is asked to write
    given = parser(__doc__, name="mutated_dicom", count=1000).parse_args(arguments)
    folder = workshop(given)
    folder.mkdir(parents=True, exist_ok=True)
    files, asked = originals(), Asked(folder)

    try:
        cases = list(carry_out(given, lambda rng, _: carried_out(asked, files, rng)))
    finally:
        asked.end()
    reasons = Counter(re.sub(r"[0-9]+", "N", reason) for one in cases for reason in one.get("reasons", ()))
    for reason, count in reasons.most_common():
        print(f"{count:6,}  {reason}")
    failed = [one for one in cases if "failed" in one]
    for one in failed:
        print(f"case {one['case']}, {one['file']}, {one['how']}: {one['failed']}")
    shown = sum(bool(one.get("images")) for one in cases)
    print(
        f"{len(cases):,} cases: {shown:,} shown, {len(cases) - shown - len(failed):,} refused with a reason, {len(failed):,} "
        f"failed; the longest took {max(one.get('seconds', 0) for one in cases):.1f} s, the largest grew by "
        f"{max(one.get('megabytes', 0) for one in cases):.0f} MB."
    )
    return 1 if failed else 0


if __name__ == "__main__":
    if "--worker" in sys.argv:
        work()
    else:
        sys.exit(main())
