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


LEFT_OUT = {True: "2 more of this patient", False: "2 more of nearly the same picture"}


@pytest.mark.parametrize(("patients", "said"), LEFT_OUT.items())
def test_how_many_were_left_out_is_said(make_run, page_of, patients, said):
    run = make_run("multiclass", images=360, featured=16, patients=patients)
    path = run / "gallery.npz"
    arrays = dict(np.load(path))
    more = np.zeros(len(arrays["index"]), np.int64)
    more[1] = 2
    assert "Pictures of one patient may follow" in page_of(run).words  # a run of before
    np.savez(path, **arrays, left_out=more)
    shown = mistakes(load(run))
    assert sorted(item.left_out for item in shown) == [""] * (len(shown) - 1) + [f"{said}, left out"]
    words = page_of(run).words
    assert words.count(f"{said}, left out") == 1
    assert "the surest is shown" in words
    assert "may follow" not in words


def test_a_file_s_name_breaks_after_its_folders_first(make_run, page_of):
    run = make_run("multiclass", images=360, featured=16)
    text = page_of(run).source
    names = [item.name for item in mistakes(load(run))]
    assert re.findall(r'<p class="file"><span>images/</span><span>(.+?)</span></p>', text) == [
        name.removeprefix("images/").replace("_", "_<wbr>") for name in names
    ]
