import json
import subprocess
import sys

import pytest

from stillroom.cli.app import main
from stillroom.models.medical import MEDICAL


def ask(capsys, *words):
    """Exit code, standard output and standard error of a command."""
    try:
        main(list(words))
        code = 0
    except SystemExit as end:
        code = end.code
    told = capsys.readouterr()
    return code, told.out, told.err


def test_medical_teachers_are_listed_without_torch():
    code = "import sys; from stillroom.cli.app import main; main(['models', '--medical']); sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    lines = done.stdout.splitlines()
    assert len(lines) == 2 * len(MEDICAL)
    assert "virchow2  histology: 631.2 M parameters, 224 px, class token and mean of patches (2560)" in lines
    assert "    CC-BY-NC-ND-4.0, no commercial use, gated: hf-hub:paige-ai/Virchow2" in lines
    assert "    MIT, commercial use allowed, not gated: hf:microsoft/rad-dino" in lines


def test_medical_teachers_are_found_by_field_and_told_as_json(capsys):
    code, told, _ = ask(capsys, "models", "--medical", "*histology*", "--json")
    assert code == 0
    found = json.loads(told)
    assert {"uni2_h", "virchow", "phikon", "medsiglip"} < {entry["name"] for entry in found}
    assert {"name", "domain", "parameters", "size", "normalisation", "features", "width", "licence"} < found[0].keys()
    assert {"commercial", "gated", "source", "loader", "reference", "verified"} < found[0].keys()
    code, _, wrong = ask(capsys, "models", "--medical", "virchov")
    assert code == 2
    assert wrong.strip().endswith("Did you mean virchow, virchow2?")


@pytest.mark.parametrize("flag", ["--size=64", "--max-mb=9", "--measure", "--classes=2"])
def test_what_needs_a_network_is_no_matter_of_the_list(capsys, flag):
    code, _, wrong = ask(capsys, "models", "--medical", flag)
    assert code == 2
    assert "--medical lists what is known without building a network" in wrong
