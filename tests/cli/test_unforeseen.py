"""Whatever goes wrong: one line, an exit code, and a log that holds the rest."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from stillroom.cli import app
from stillroom.cli.unforeseen import LOG, unforeseen


class Wordless(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words at all")


@pytest.fixture
def ending(monkeypatch, capsys, tmp_path):
    """``ending(error, *arguments)``: a command that meets this error; gives its exit code and its line."""
    monkeypatch.setenv("STILLROOM_CACHE", str(tmp_path / "cache"))

    def end(error, *arguments):
        def fail(*_):
            raise error

        monkeypatch.setattr(app, "make_app", fail)
        with pytest.raises(SystemExit) as stop:
            app.main(list(arguments))
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith("error: ")
        assert err.count("\n") == 1
        return stop.value.code, err

    return end


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (TypeError("a\nb\x1b[31m"), r"no words for: TypeError: a b\x1b[31m."),
        (KeyError("x" * 5000), "xxx ... The traceback"),
        (Wordless(), "Wordless"),
        (ValueError(), "ValueError. The traceback"),
        (OSError(28, "No space left on device", "/full"), "error: /full: No space left on device. The traceback"),
        (MemoryError(), "The memory is full"),
    ],
)
def test_an_error_of_any_kind_is_one_line_that_names_the_log(ending, tmp_path, error, said):
    code, line = ending(error, "audit", "somewhere")
    assert code == 1
    assert said in line
    assert len(line) < 1000
    log = tmp_path / "cache" / LOG
    assert str(log) in line
    text = log.read_text("utf-8")
    assert "Traceback (most recent call last)" in text
    assert "audit somewhere" in text
    assert type(error).__name__ in text


def test_a_name_of_any_length_is_a_short_line(ending):
    code, line = ending(OSError(errno.ENAMETOOLONG, "File name too long", "a" * 5000), "predict", "a" * 5000)
    assert code == 2
    assert "no file has so long a name" in line
    assert len(line) < 1500


def test_the_log_stands_in_the_run_that_was_named(ending, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    for name in ("manifest.json", "settings.yaml"):
        (run / name).touch()
    for arguments in (["predict", str(run), "x" * 9999, "nul\0"], ["distill", f"--resume={run}"]):
        assert str(run / LOG) in ending(ValueError("odd"), *arguments)[1]
    assert (run / LOG).read_text("utf-8").count("ValueError: odd") == 2


def test_what_can_be_written_nowhere_is_still_said(monkeypatch, tmp_path):
    nowhere = tmp_path / "file"
    nowhere.touch()
    monkeypatch.setenv("STILLROOM_CACHE", str(nowhere))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    assert str(tmp_path / "temporary" / LOG) in unforeseen(ValueError("odd"), ["audit", "\udcff"])
    monkeypatch.setattr("tempfile.tempdir", str(nowhere))
    assert "written nowhere" in unforeseen(ValueError("odd"), [])


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device that is always full")
def test_an_output_that_is_full_is_one_line_and_no_more():
    with Path("/dev/full").open("w") as full:
        ran = subprocess.run(
            [sys.executable, "-m", "stillroom", "recipes"], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert ran.returncode == 1
    assert ran.stderr.count("\n") == 1
    assert "No space left on device" in ran.stderr


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_what_a_console_cannot_show_is_shown_as_near_as_it_comes(monkeypatch, encoding):
    from stillroom.cli import console

    written = io.BytesIO()
    monkeypatch.setattr(
        sys, "stdout", io.TextIOWrapper(written, encoding=encoding, errors="strict", write_through=True)
    )
    console.show_what_can_be_shown()
    console.out().print("█ ≥ 2 cm 図 \udcff", markup=False)
    console.print_json({"ä図": "≥"})
    lines = written.getvalue().decode(encoding).replace(os.linesep, "\n").split("\n")
    assert lines[0] == "# >= 2 cm ? ?"
    import json

    assert json.loads("\n".join(lines[1:])) == {"ä図": "≥"}
