import re

import numpy as np
import pytest

from stillroom.report.gallery import mistakes
from stillroom.report.record import load


def stated(item) -> float:
    return float(item.said.rsplit(" ", 1)[1])


@pytest.mark.parametrize("kind", ["multiclass", "multilabel"])
def test_the_surest_wrong_answer_stands_first_in_whatever_order_the_file_has_them(make_run, kind):
    run = make_run(kind, images=360, featured=16)
    path = run / "gallery.npz"
    arrays = dict(np.load(path))
    order = np.random.default_rng(3).permutation(len(arrays["index"]))
    np.savez(path, **{name: array[order] for name, array in arrays.items()})
    sure = [
        abs(stated(item) - (kind == "multilabel" and item.truth.endswith("present"))) for item in mistakes(load(run))
    ]
    assert len(sure) > 3
    assert sure == sorted(sure, reverse=True)


def test_copies_are_counted_and_not_shown(make_run, page_of):
    run = make_run("multiclass", images=360, featured=16)
    path = run / "gallery.npz"
    arrays = dict(np.load(path))
    copies = np.zeros(len(arrays["index"]), np.int64)
    copies[1] = 2
    np.savez(path, **arrays, copies=copies)
    shown = mistakes(load(run))
    assert sorted(item.copies for item in shown) == [0] * (len(shown) - 1) + [2]
    words = page_of(run).words
    assert len(re.findall("and 2 more of the same picture", words)) == 1


def test_a_file_s_name_breaks_after_its_folders_alone(make_run, page_of):
    run = make_run("multiclass", images=360, featured=16)
    text = page_of(run).source
    names = [item.name for item in mistakes(load(run))]
    assert re.findall(r'<p class="file"><span>images/</span><span>([^<]+)</span></p>', text) == [
        name.removeprefix("images/") for name in names
    ]
    assert "nearly identical pictures are shown once" in text
