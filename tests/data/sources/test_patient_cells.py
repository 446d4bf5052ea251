"""Columns of any name that hold ids of patients, and columns that do not, drawn at random as tables of images have them."""

import numpy as np
import pytest
from PIL import Image

from stillroom.data.sources.column_names import about_images, plain_name
from stillroom.data.sources.manifest import read_manifest
from stillroom.data.sources.patient_cells import _like_ids
from stillroom.settings.sections import DataSettings


def drawn(seed):
    """Patients with one to six images each and one label: by row whose it is, the label, and random numbers."""
    rng = np.random.default_rng(seed)
    images = rng.integers(1, 7, 90)
    who = np.repeat(np.arange(90), images)
    return who, (rng.random(90) < rng.choice([0.2, 0.5]))[who].astype(str).tolist(), rng


def test_ids_of_patients_are_like_ids():
    for seed in range(20):
        who, labels, rng = drawn(seed)
        numbers = rng.permutation(90_000)[:90] + 10_000
        order = rng.permutation(len(who))
        assert _like_ids([f"P{one:03}" for one in who], labels)
        assert _like_ids([str(one) for one in who], labels)
        for ids in ([f"A{one}" for one in who], [str(numbers[one]) for one in who]):
            assert _like_ids([ids[row] for row in order], [labels[row] for row in order])


def test_what_else_tables_hold_is_not():
    """Of 200 columns at most one: a site or an age that happens to be one patient's each."""
    cried = 0
    for seed in range(20):
        who, labels, rng = drawn(seed)
        age, site, day = (rng.integers(0, most, 90)[who] for most in (70, 12, 300))
        ill = np.array(labels) == "True"
        columns = (
            20 + age,
            [f"H{one:02}" for one in site],
            [f"2021-{1 + one // 28:02}-{1 + one % 28:02}" for one in day],
            np.arange(len(who)),
            rng.integers(0, 40, len(who)),
            rng.random(len(who)).round(2),
            10 * ill + rng.integers(0, 15, len(who)),
            [["left", "right"][row % 2] for row in range(len(who))],
            [f"scanner {one}" for one in site % 3],
            [""] * len(who),
        )
        cried += sum(bool(_like_ids([str(one) for one in cells], labels)) for cells in columns)
    assert cried <= 1


def test_names_that_speak_of_something_else():
    names = ("site", "Age", "sex", "exam date", "Scanner", "view", "hospital_code", "image_no", "Manufacturer", "slice")
    assert all(about_images(plain_name(name)) for name in names)
    assert not any(
        about_images(plain_name(name)) for name in ("code", "id", "record_no", "MRN2", "Akte", "key", "anon")
    )


@pytest.mark.parametrize("name", ["code", "record_no", "MRN2", "Akte", "my key"])
def test_they_are_pointed_at_with_their_flag(tmp_path, name):
    lines = [f"path,label,{name}"]
    for row in range(60):
        Image.new("L", (4, 4), row).save(tmp_path / f"{row}.png")
        lines.append(f"{row}.png,{'ab'[row // 3 % 2]},K{row // 3}")
    (tmp_path / "t.csv").write_text("\n".join(lines), encoding="utf-8")
    table = read_manifest(tmp_path / "t.csv", DataSettings())
    assert table.patients is None
    (finding,) = table.findings
    assert (finding.level, finding.code) == ("warning", "columns_not_used")
    assert f"--patient-column {name if ' ' not in name else repr(name)}" in finding.text
    assert len(set(read_manifest(tmp_path / "t.csv", DataSettings(patient_column=name)).patients)) == 20
    assert not read_manifest(tmp_path / "t.csv", DataSettings(patient_column="none")).findings
