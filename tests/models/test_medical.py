import json
import subprocess
import sys
from dataclasses import asdict

import pytest

from stillroom.errors import UsageError
from stillroom.models.licences import forbids_commercial_use
from stillroom.models.medical import MEDICAL, NOT_VERIFIED, medical, search

SOURCES = {
    "timm": ("hf-hub:", "file:"),
    "transformers": ("hf:",),
    "open_clip": ("open_clip:",),
    "stillroom": ("hf-hub:",),
}
ASKED_FOR = (
    "uni uni2_h virchow virchow2 h_optimus_0 phikon phikon_v2 prov_gigapath conch rad_dino biomedclip retfound_cfp "
    "dinov3_small dinov3_base dinov3_large"
)


def test_the_catalogue_is_at_hand_without_torch():
    code = "import sys, stillroom.models.medical; sys.exit(any(name in sys.modules for name in ('torch', 'timm')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_field_of_medicine_that_is_asked_for_has_its_teachers():
    names = [entry.name for entry in MEDICAL]
    assert set(ASKED_FOR.split()) <= set(names)
    assert len(set(names)) == len(names)
    assert all(name.isidentifier() for name in names)
    domains = " ".join(entry.domain for entry in MEDICAL)
    assert all(word in domains for word in ("histology", "chest film", "fundus", "skin", "OCT", "natural images"))


@pytest.mark.parametrize("entry", MEDICAL, ids=lambda entry: entry.name)
def test_an_entry_says_all_that_its_teacher_must_be_known_by(entry):
    assert entry.source.startswith(SOURCES[entry.loader])
    assert (entry.repository is None) == entry.source.startswith("file:")
    assert entry.repository is None or entry.repository.count("/") == 1
    assert entry.parameters > 1
    assert entry.size % 2 == 0
    assert entry.licence
    assert entry.reference
    assert all(" " not in address.split(" ")[0] and len(address) > 10 for address in entry.reference)
    json.dumps(asdict(entry))  # nothing in it is a class or a function


@pytest.mark.parametrize("entry", MEDICAL, ids=lambda entry: entry.name)
def test_an_entry_says_what_it_was_held_against_or_that_it_was_not(entry):
    held, why = entry.verified.split(":")[0], entry.verified.partition(": ")[2]
    if held == NOT_VERIFIED:
        assert "could not be looked up" in why
    else:
        assert NOT_VERIFIED not in entry.verified
        evidence = ("strictly", "config", "MB", "GB", "table", "code", "models_vit.py")
        assert any(word in entry.verified for word in evidence)


@pytest.mark.parametrize("entry", MEDICAL, ids=lambda entry: entry.name)
def test_an_entry_and_a_report_say_the_same_of_its_licence(entry):
    forbids = {True: False, False: True, None: None}[entry.commercial]
    assert forbids_commercial_use(entry.licence) is forbids


def test_licences_of_one_name_say_one_thing():
    said = {(entry.licence, entry.commercial) for entry in MEDICAL}
    assert len(said) == len({licence for licence, _ in said})
    assert {licence for licence, allowed in said if allowed} == {"Apache-2.0", "MIT"}


def test_entries_are_found_by_name_field_and_licence():
    assert medical("virchow2").registers == 4
    assert medical("virchow3") is None
    assert [entry.name for entry in search("virchow*")] == ["virchow", "virchow2"]
    assert {entry.name for entry in search("*FUNDUS*")} == {"medsiglip", "retfound_cfp"}
    assert {entry.name for entry in search("mit")} == {"midnight", "rad_dino", "biomedclip"}
    with pytest.raises(UsageError, match="Did you mean phikon"):
        search("phicon")
