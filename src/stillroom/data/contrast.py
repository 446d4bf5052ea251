"""How much of the range from black to white a set's images use: an offset, a mark or a wrong white leave next to nothing."""

from __future__ import annotations

import numpy as np

from stillroom.data.store import Store

_LEAST = 255 // 15  # 12 bits shown in 16
_CHUNK = 4096
_DEEP_SPARED, _SPARED = 0.1, 0.005
"""Share of the pixels at either end that does not count. In deep images a mark says what white is, and may be large; in those
of 8 bits it takes nothing from the rest, and cells on black may be few."""


def squeezed(store: Store) -> tuple[float, float] | None:
    """Where all but a few of the thumbnails' pixels span less than 1/15 of the range: from what value to what value.

    In units of the store's white, to within 1/255 of it. None where the images use more of the range, or all are blank.
    """
    if not len(store) or store.facts.blank.all():
        return None
    counts = np.zeros(256, np.int64)
    for start in range(0, len(store), _CHUNK):
        counts += np.bincount(np.asarray(store.thumbnails[start : start + _CHUNK]).ravel(), minlength=256)
    spared = _DEEP_SPARED if store.white > 255 else _SPARED
    low, high = np.searchsorted(counts.cumsum(), np.array([spared, 1 - spared]) * counts.sum())
    return None if high - low >= _LEAST else (float(low * store.white / 255), float(high * store.white / 255))
