from types import SimpleNamespace

import numpy as np
from scipy.ndimage import gaussian_filter

from stillroom.run.stages.evaluation import _each_once


def test_a_picture_among_the_mistakes_is_kept_once_where_it_is_surest():
    rng = np.random.default_rng(0)
    thumbnails = np.array([gaussian_filter(rng.uniform(0, 255, (32, 32)), 1.5) for _ in range(9)])
    thumbnails = ((thumbnails - 60) * 1.6).clip(0, 255)
    thumbnails[4] = (thumbnails[2] + rng.normal(0, 2, (32, 32))).clip(0, 255)  # saved again
    thumbnails[7] = thumbnails[2]
    store = SimpleNamespace(thumbnails=thumbnails.astype(np.uint8), digests=np.array(list("abcdefgch")))
    rows, copies = _each_once(store, np.array([8, 4, 0, 7, 2, 1]))
    assert rows.tolist() == [8, 4, 0, 1]
    assert copies.tolist() == [0, 2, 0, 0]
    rows, copies = _each_once(store, np.zeros(0, np.int64))
    assert len(rows) == len(copies) == 0
