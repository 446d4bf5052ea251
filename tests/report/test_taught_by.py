"""The pages say whose weights taught, as far as that is known, and what their licence forbids."""

from __future__ import annotations

import pytest

from stillroom.report import write_model_card, write_report
from stillroom.report.record import load
from stillroom.report.taught_by import licence_finding, taught_by

UNI = {
    "role": "teacher",
    "name": "hf-hub:MahmoodLab/UNI?init_values=1e-5&dynamic_img_size=true",
    "mode": "frozen",
    "side": 224,
    "parameters": 303.35,
    "source": "MahmoodLab/UNI",
    "revision": "0123456789" * 4,
    "licence": "cc-by-nc-nd-4.0",
    "digest": "sha256:" + "ab" * 32,
    "forbids_commercial_use": True,
}
FILE = {"role": "teacher-2", "name": "/nets/<b>m</b>.onnx", "mode": "as_is", "side": 96, "parameters": None} | {
    "source": "/nets/<b>m</b>.onnx",
    "revision": None,
    "licence": None,
    "digest": "sha256:" + "cd" * 32,
    "forbids_commercial_use": None,
}
RANDOM = {
    "role": "teacher",
    "name": "resnet10t",
    "mode": "finetune",
    "side": 64,
    "parameters": 5.4,
    "source": "random weights",
}


@pytest.fixture
def told(make_run, change):
    """``told(entries)`` is a finished run that was taught by these."""

    def make(entries):
        folder = make_run()
        change(folder, "manifest.json", lambda manifest: manifest.update(taught_by=entries))
        return folder

    return make


def test_every_teacher_is_named_with_source_digest_and_licence(told):
    folder = told([UNI, FILE])
    page, card = write_report(folder).read_text().replace("<wbr>", ""), write_model_card(folder).read_text()
    for text in (page, card):
        for part in (UNI["revision"], "ab" * 32, "cd" * 32, "cc-by-nc-nd-4.0: forbids commercial use", "303.4 million"):
            assert part in text
        assert "not stated" in text
        assert "<b>m</b>" not in text
    assert "Together they reach AUC" in page


def test_what_a_licence_forbids_is_a_finding(told):
    found = licence_finding(load(told([UNI, FILE])))
    assert found.headline == "The licence of hf-hub:MahmoodLab/UNI forbids commercial use."
    assert licence_finding(load(told([FILE, RANDOM]))) is None


def test_random_weights_need_no_licence(told):
    (_, pairs), *_ = taught_by(load(told([RANDOM]))).teachers
    assert dict(pairs) == {
        "Weights from": "random weights",
        "Parameters": "5.4 million",
        "Sees images of": "64 px",
        "Taught": "fine-tuned on this task's labels",
    }


def test_runs_that_did_not_write_it_down_have_no_such_section(told):
    folder = told([])
    assert taught_by(load(folder)) is None
    assert 'id="taught"' not in write_report(folder).read_text()
