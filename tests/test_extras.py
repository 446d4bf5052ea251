"""What the plain install leaves out: the code and pyproject.toml know the same, and who lacks it is told how to get it."""

import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import stillroom
from stillroom.cli.app import main
from stillroom.errors import NotInstalled, UsageError
from stillroom.extras import EXTRAS, need, not_installed

PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text("utf-8"))["project"]


def named(requirements: list[str]) -> set[str]:
    """Names of the packages, our own extras not counted."""
    return {Requirement(text).name.replace("_", "-").lower() for text in requirements} - {"stillroom"}


@pytest.mark.parametrize("extra", list(EXTRAS))
def test_the_modules_of_an_extra_are_those_that_it_installs(extra):
    known = packages_distributions()
    homes = [{name.replace("_", "-").lower() for name in known.get(module, ())} for module in EXTRAS[extra]]
    wanted = named(PROJECT["optional-dependencies"][extra])
    assert all(len(home & wanted) == 1 for home in homes), list(zip(EXTRAS[extra], homes, strict=True))
    assert set().union(*homes) >= wanted
    assert not wanted & named(PROJECT["dependencies"])


def test_what_trains_brings_what_evaluates():
    assert "stillroom[evaluate]" in PROJECT["optional-dependencies"]["train"]
    assert any({"train", "dicom"} <= Requirement(text).extras for text in PROJECT["optional-dependencies"]["dev"])


def test_who_lacks_a_module_is_told_how_to_get_it(monkeypatch):
    need("torch", "Nothing")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(NotInstalled) as told:
        need("torch", "A thing", "Another does without.")
    expected = "A thing needs torch, which is not installed: `pip install 'stillroom[train]'`. Another does without."
    assert str(told.value) == expected
    assert isinstance(told.value, UsageError)
    assert isinstance(told.value, ImportError)


def test_only_what_an_extra_brings_is_explained_by_it():
    told = not_installed(ModuleNotFoundError("no", name="scipy.stats"), "A thing")
    assert str(told) == "A thing needs scipy, which is not installed: `pip install 'stillroom[evaluate]'`."
    assert not_installed(ModuleNotFoundError("no", name="nobodys_module"), "A thing") is None
    assert not_installed(ModuleNotFoundError("no"), "A thing") is None


def test_evaluating_without_scipy_is_refused_before_anything_is_read(monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(sys.modules, "scipy", None)
    with pytest.raises(NotInstalled, match=r"Evaluating needs scipy.*stillroom\[evaluate\]"):
        stillroom.evaluate(tmp_path / "no.onnx", tmp_path)
    with pytest.raises(SystemExit) as stop:
        main(["audit", str(tmp_path / "nowhere")])
    said = capsys.readouterr()
    assert stop.value.code == 2
    assert "stillroom[evaluate]" in said.err
    assert said.err.count("\n") == 1


def test_a_name_that_cannot_be_loaded_says_why():
    code = (
        "import sys\n"
        "sys.modules['torch'] = None\n"
        "import stillroom\n"
        "try:\n"
        "    stillroom.distill\n"
        "except stillroom.UsageError as error:\n"
        "    print(error)\n"
        "from stillroom.cli.app import main\n"
        "main(['export', 'runs/first'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "stillroom.distill needs torch, which is not installed: `pip install 'stillroom[train]'`.\n"
    assert done.stderr.startswith("error: `stillroom export` needs torch, which is not installed:")
    assert done.stderr.count("\n") == 1
    assert done.returncode == 2
