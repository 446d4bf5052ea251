"""Ways to change what a user might give: bytes, values in JSON and YAML, cells of tables, tensors, graphs of ONNX."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np

ODD = (
    *(
        "",
        " ",
        "nan",
        "None",
        "-1",
        "0",
        "1.5",
        "1e400",
        "100000",
        "9" * 400,
        "9" * 5000,
        "true",
        "[1]",
        "{}",
        "null",
        "~x",
    ),
    *(
        "\x1b[31mred",
        "[red]x[/red]",
        ":skull:",
        "\u202eabc",
        "a" * 5000,
        "é",
        "e\u0301",
        "\udcff",
        "💀",
        "a;b|c",
        "=1+1",
    ),
    *("%s{0}", "a\nb", "\r\n", "'", '"', ",", "nowhere/at/all.png", "-", "--", "=", "*"),
)
"""Texts that somebody's flag, name or cell may be."""
VALUES: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    1.5,
    1e308,
    10**30,
    "",
    "x",
    "\x1b[31m",
    [],
    {},
    [1, [2, [3]]],
    {"a": {"b": 1}},
)
"""Values that may stand where another was."""


def damaged(content: bytes, rng: np.random.Generator) -> tuple[str, bytes]:
    """The content after one sort of damage, and its name."""
    how = str(rng.choice(["flip", "cut", "zero", "take out", "double", "noise", "empty"]))
    start = int(rng.integers(len(content)))
    stop = min(len(content), start + 1 + int(rng.geometric(0.02)))
    span = content[start:stop]
    if how == "flip":
        bytes_ = bytearray(content)
        for place in rng.integers(len(content), size=int(rng.integers(1, 6))):
            bytes_[place] ^= 1 << int(rng.integers(8))
        return how, bytes(bytes_)
    changed = {
        "cut": content[:start],
        "zero": content[:start] + bytes(len(span)) + content[stop:],
        "take out": content[:start] + content[stop:],
        "double": content[:stop] + span + content[stop:],
        "noise": content[:start] + rng.bytes(len(span)) + content[stop:],
        "empty": b"",
    }
    return how, changed[how]


def drawn(options: Any, rng: np.random.Generator) -> Any:
    """One of several; NumPy's own choice would turn them into an array."""
    return options[int(rng.integers(len(options)))]


def another(content: Any, rng: np.random.Generator) -> tuple[str, Any]:
    """Nested values with one of them replaced or taken out, and which."""
    content = copy.deepcopy(content)
    places = list(_places(content))
    if not places or rng.random() < 0.05:
        value = drawn(VALUES, rng)
        return f"all is {value!r}", value
    holder, key = drawn(places, rng)
    if rng.random() < 0.25:
        del holder[key]
        return f"without {key}", content
    holder[key] = drawn(VALUES, rng)
    return f"{key} is {holder[key]!r}", content


def _places(content: Any) -> Iterator[tuple[Any, Any]]:
    keys = content if isinstance(content, dict) else range(len(content)) if isinstance(content, list) else ()
    for key in list(keys):
        yield content, key
        yield from _places(content[key])


def cell(rows: list[list[str]], rng: np.random.Generator) -> tuple[str, list[list[str]]]:
    """A table with one odd cell, a column doubled or without one, or a row of another length."""
    rows = [list(row) for row in rows]
    row, column = int(rng.integers(len(rows))), int(rng.integers(len(rows[0])))
    how = str(rng.choice(["cell", "cell", "header", "column gone", "column twice", "short row", "long row", "no rows"]))
    if how == "column gone":
        rows = [line[:column] + line[column + 1 :] for line in rows]
    elif how == "column twice":
        rows = [[*line, line[column]] for line in rows]
    elif how == "short row":
        rows[row] = rows[row][:column]
    elif how == "long row":
        rows[row] += ["x"] * 3
    elif how == "no rows":
        rows = rows[:1]
    else:
        rows[0 if how == "header" else row][column] = str(drawn((*ODD, "a\0b"), rng))
    return how, rows


def tensors(state: dict[str, Any], rng: np.random.Generator) -> tuple[str, Any]:
    """Weights with one tensor changed, or wrapped in what training scripts leave."""
    import argparse

    import torch

    name = drawn(sorted(state), rng)
    value = state[name]
    changed = {
        "gone": None,
        "other shape": value.reshape(-1)[: max(1, value.numel() // 2)].clone(),
        "not a number": torch.full_like(value.float(), float("nan")),
        "whole numbers": value.to(torch.int64),
        "complex": value.to(torch.complex64),
        "sparse": value.float().to_sparse(),
        "bf16": value.to(torch.bfloat16),
        "a text": "weights",
        "scalar": torch.tensor(1.0),
        "none": torch.zeros(0),
    }
    wrapped = {
        "compiled": {f"_orig_mod.{key}": one for key, one in state.items()},
        "in parallel": {f"module.{key}": one for key, one in state.items()},
        "checkpoint": {"state_dict": state, "epoch": 3, "args": argparse.Namespace(lr=1e-3)},
        "numbered": dict(enumerate(state.values())),
        "a list": list(state.values()),
        "nothing": {},
        "code": {"state_dict": state, "hook": print},
    }
    how = str(drawn([*changed, *wrapped], rng))
    if how in wrapped:
        return how, wrapped[how]
    found = {key: one for key, one in state.items() if key != name}
    return f"{name}: {how}", found if how == "gone" else found | {name: changed[how]}


def graph(model: Any, rng: np.random.Generator) -> str:
    """Change one thing of an ONNX model in place; returns what."""
    import json

    import onnx

    how = str(rng.choice(["metadata", "metadata", "weights", "node", "wire", "output", "input", "shape"]))
    if how == "metadata":
        entry = drawn(list(model.metadata_props), rng)
        try:
            what, value = another({"value": json.loads(entry.value)}, rng)
            entry.value = json.dumps(value.get("value") if isinstance(value, dict) else value)
        except ValueError:
            what, entry.value = "text", str(drawn(ODD[:14], rng))
        return f"{entry.key}: {what}"
    if how in ("weights", "shape"):
        one = drawn([entry for entry in model.graph.initializer if entry.dims], rng)
        if how == "shape":
            one.dims[0] = int(one.dims[0]) + 1
            return f"{one.name} has another shape"
        values = onnx.numpy_helper.to_array(one).copy()
        values.reshape(-1)[:] = np.asarray(np.nan if values.dtype.kind == "f" else 10**6).astype(values.dtype)
        one.CopyFrom(onnx.numpy_helper.from_array(values, one.name))
        return f"{one.name} is not what it was"
    if how == "node":
        node = drawn(list(model.graph.node), rng)
        node.op_type = str(rng.choice(["Relu", "Add", "Nothing", "Softmax", "Concat", ""]))
        return f"a node is {node.op_type or 'nameless'}"
    if how == "wire":
        node = drawn([node for node in model.graph.node if node.input], rng)
        node.input[0] = str(rng.choice(["images", "nothing", ""]))
        return f"a node reads {node.input[0] or 'nothing'}"
    if how == "output":
        del model.graph.output[int(rng.integers(len(model.graph.output)))]
        return "an output is gone"
    dimension = model.graph.input[0].type.tensor_type.shape.dim[int(rng.integers(1, 4))]
    dimension.dim_value = int(rng.choice([0, 1, 2, 7, 100_000]))
    return f"the input is {dimension.dim_value} wide"
