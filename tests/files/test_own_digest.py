"""Files that carry their own digest are known again without anything beside them."""

from hashlib import sha256

import numpy as np
import pytest

from stillroom.files.own_digest import BLANK, KEY, end_state, own_state, seal_end, with_own_digest

onnx = pytest.importorskip("onnx")


def model(**properties):
    """A file that adds one, with metadata."""
    node = onnx.helper.make_node("Add", ["x", "one"], ["y"])
    form = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in "xy"]
    one = onnx.numpy_helper.from_array(np.ones(1, dtype=np.float32), "one")
    made = onnx.helper.make_model(onnx.helper.make_graph([node], "g", form[:1], form[1:], [one]))
    for key, value in properties.items():
        made.metadata_props.add(key=key, value=value)
    return made.SerializeToString(deterministic=True)


def test_the_digest_is_that_of_the_file_with_zeros_in_its_place(tmp_path):
    blank = model(**{KEY: BLANK, "stillroom.size": "32"})
    path = tmp_path / "student.onnx"
    path.write_bytes(with_own_digest(blank))
    told = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    assert told == {KEY: f'"{sha256(blank).hexdigest()}"', "stillroom.size": "32"}
    assert own_state(path) == "whole"


def test_every_bit_counts_but_those_that_name_the_digest(tmp_path):
    """Where its name or its form is damaged no digest is found: that a property is unknown tells who reads them."""
    path = tmp_path / "student.onnx"
    content = with_own_digest(model(**{KEY: BLANK, "stillroom.size": "32"}))
    place = content.index(KEY.encode())
    named = range(place, place + len(KEY) + 2 + 66)
    for byte in range(len(content)):
        for bit in range(8):
            damaged = bytearray(content)
            damaged[byte] ^= 1 << bit
            path.write_bytes(damaged)
            state = own_state(path)
            assert state == "damaged" or (state == "no digest" and byte in named), (byte, bit)


def test_other_files_have_none(tmp_path):
    path = tmp_path / "other.onnx"
    assert own_state(path) == "missing"
    path.write_bytes(model(**{"stillroom.size": "32"}))
    assert own_state(path) == "no digest"
    path.write_bytes(b"")
    assert own_state(path) == "no digest"


@pytest.mark.parametrize("size", [0, 1, 300])
def test_every_byte_before_a_digest_at_the_end_counts_and_the_digest_too(tmp_path, size):
    path, content = tmp_path / "checkpoint-1.pt", np.random.default_rng(0).bytes(size)
    assert end_state(path) == "missing"
    path.write_bytes(content)
    assert end_state(path) == "damaged"
    seal_end(path)
    whole = path.read_bytes()
    assert whole == content + f"\nsha256 {sha256(content).hexdigest()}\n".encode()
    assert end_state(path) == "whole"
    for byte in range(len(whole)):
        path.write_bytes(whole[:byte] + bytes([whole[byte] ^ 1 << byte % 8]) + whole[byte + 1 :])
        assert end_state(path) == "damaged", byte
        path.write_bytes(whole[:byte])
        assert end_state(path) == "damaged", byte
