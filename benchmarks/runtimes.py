"""Whether an exported file answers alike in other runtimes: another ONNX Runtime, and OpenVINO at float32.

    python benchmarks/runtimes.py runs/first/student.onnx runs/first/student.int8.onnx --images images.npy --save answers.npz
    python benchmarks/runtimes.py ... --images images.npy --against answers.npz     # where there is another onnxruntime

The script needs numpy and onnxruntime alone, so that it runs in an environment with an old one; OpenVINO is asked where it is
installed, held to float32 (it takes bfloat16 unasked). Images are ``[N, C, S, S]`` float32 in [0, 1], real ones.
"""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path

import numpy as np
import onnxruntime

NAMES = ("logits", "probabilities", "distance")


def by_onnxruntime(file: Path, images: np.ndarray) -> dict[str, np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs() if output.name in NAMES]
    return dict(zip(names, session.run(names, {"images": images}), strict=True))


def by_openvino(file: Path, images: np.ndarray) -> dict[str, np.ndarray]:
    import openvino

    held = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    model = openvino.Core().compile_model(str(file), "CPU", held)
    answers = model({"images": images})
    return {output.get_any_name(): answers[output] for output in model.outputs if output.get_any_name() in NAMES}


def differences(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> str:
    return ", ".join(f"{name} {np.abs(one[name] - other[name]).max():.2g}" for name in NAMES if name in one)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--save", type=Path)
    parser.add_argument("--against", type=Path)
    given = parser.parse_args()
    images = np.load(given.images)
    found = {file.name: by_onnxruntime(file, images) for file in given.files}
    print(f"ONNX Runtime {onnxruntime.__version__}, {len(images)} images; largest differences")
    if given.save:
        np.savez(given.save, **{f"{file}|{name}": part for file, said in found.items() for name, part in said.items()})
    if given.against:
        before = np.load(given.against)
        for file, said in found.items():
            print(f"{file} and saved answers: {differences(said, {name: before[f'{file}|{name}'] for name in said})}")
    if importlib.util.find_spec("openvino"):
        for file in given.files:
            print(f"{file.name} and OpenVINO at float32: {differences(found[file.name], by_openvino(file, images))}")


if __name__ == "__main__":
    main()
