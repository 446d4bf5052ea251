"""JSON and YAML that may hold anything: values, or one line."""

from __future__ import annotations

import os

import pytest

from stillroom.errors import UsageError
from stillroom.files.reading import in_short, read_json, read_yaml

BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 10)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"[1]", "found a list"),
        (b"3", "found a number"),
        (b'"x"', "found a text"),
        (b"true", "found yes or no"),
        (b"null", "found nothing"),
        (b"{", "not JSON"),
        (b"\xff\xfe", "not text in UTF-8"),
        (b"[" * 100_000, "not JSON"),
        (b'{"a": ' + b"9" * 10_000 + b"}", "not JSON"),
    ],
)
def test_what_is_no_json_object_is_named(tmp_path, content, said):
    file = tmp_path / "metrics.json"
    file.write_bytes(content)
    with pytest.raises(UsageError, match=said) as caught:
        read_json(file)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"a: [", "not valid YAML"),
        (b"\xff", "not text in UTF-8"),
        (b"[" * 50_000, "nested too deep"),
        (b"a: " + b"9" * 10_000, "not valid YAML"),
        (b"a: 2020-99-99", "not valid YAML"),
        (b"a: !!bool perhaps", "not valid YAML"),
        (b"a: !!python/object/apply:os.system [ls]", "not valid YAML"),
        (BOMB.encode(), "refers to itself"),
        (b"a: &a [*a]", "refers to itself"),
        (b"seed: " + b"9" * 5000, r"is not valid YAML: it holds a number of too many digits\.$"),
    ],
)
def test_what_is_no_yaml_is_named(tmp_path, content, said):
    file = tmp_path / "grid.yaml"
    file.write_bytes(content)
    with pytest.raises(UsageError, match=said) as caught:
        read_yaml(file, "a grid file")
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["gone.yaml", "a" * 5000, "nul\0.yaml", "."])
def test_a_file_that_cannot_be_read_is_named(tmp_path, name):
    with pytest.raises(UsageError, match="cannot be read"):
        read_yaml(tmp_path / name, "a plan")


@pytest.mark.parametrize("read", [read_json, lambda path: read_yaml(path, "a settings file")])
def test_a_pipe_is_not_waited_for(tmp_path, read):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError, match="it is a named pipe, not a file"):
        read(tmp_path / "pipe")


def test_values_are_read(tmp_path):
    (tmp_path / "a.json").write_text('{"ä": [1, null]}', encoding="utf-8")
    (tmp_path / "a.yaml").write_text("ä: [1, ~]\nb: &b {c: 1}\nd: *b", encoding="utf-8")
    assert read_json(tmp_path / "a.json") == {"ä": [1, None]}
    assert read_yaml(tmp_path / "a.yaml", "a plan") == {"ä": [1, None], "b": {"c": 1}, "d": {"c": 1}}
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "gone.json")


def test_any_value_has_a_short_form():
    assert in_short("abc") == "'abc'"
    for value in ("x" * 10_000, list(range(10_000)), 16**10_000, [16**10_000], {"a": {"b": ["c" * 999] * 999}}):
        assert len(in_short(value)) < 1500
