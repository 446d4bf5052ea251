"""A model that is asked leaves nothing behind in the home of whoever asks: ONNX Runtime would, and would send it away."""

import os
import subprocess
import sys

from .test_predictor import write_model


def test_onnx_runtime_notes_nothing_about_the_device(tmp_path):
    model, home = write_model(tmp_path / "student.onnx"), tmp_path / "home"
    home.mkdir()
    ask = "import sys, numpy, stillroom; stillroom.Predictor.load(sys.argv[1]).predict([numpy.zeros((8, 8), numpy.uint8)])"
    places = {name: str(home) for name in ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "TMPDIR")}
    clean = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    asked = subprocess.run([sys.executable, "-c", ask, str(model)], env=clean | places, capture_output=True, text=True)
    assert (asked.returncode, asked.stderr) == (0, "")
    assert list(home.iterdir()) == []
