"""The exported network in eight-bit integers, beside its float32 file."""

from __future__ import annotations

from typing import Any

from stillroom.deployment.int8 import INT8_FILE
from stillroom.deployment.predictor import Predictor
from stillroom.deployment.session import first_line
from stillroom.errors import UsageError
from stillroom.files.digests import remove
from stillroom.report.lighter import section_of
from stillroom.run.int8 import Handed, make_int8, not_made
from stillroom.run.stage import Evidence, Stage


def work(evidence: Evidence) -> dict[str, Any]:
    assert evidence.onnx is not None
    role = evidence.exported
    noted = Predictor.load(evidence.onnx).metadata
    handed = Handed(evidence.networks[role], role, noted, evidence.layer, evidence.density, evidence.onnx)
    try:
        return {"int8": make_int8(evidence.bench, handed)[1]}
    except UsageError as error:  # such as an ensemble: what was trained is not lost for it
        reason = str(error)
    except (OSError, MemoryError):  # may be mended, and the run gone on with
        raise
    except Exception as error:  # nor for what nobody foresaw
        reason = (
            f"Something went wrong that Stillroom has no words for: {type(error).__name__}: {first_line(error)}. Please"
            f" report it with what `stillroom export {evidence.bench.run.path} --int8` writes down."
        )
    remove(handed.path.with_name(INT8_FILE))
    return {"int8": not_made(reason)}


STAGE = Stage(
    "int8",
    work,
    wanted=lambda settings: settings.evaluation.int8,
    section=lambda parts: section_of(parts["int8"], "int8"),
)
