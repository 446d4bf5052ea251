"""Columns that may hold ids of patients by their cells, whatever they are called: values repeat, each with one label."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from itertools import pairwise

from stillroom.data.sources.column_names import about_images, plain_name
from stillroom.data.sources.sheet import Sheet
from stillroom.data.spelling import filled, plain_integer

_FEWEST = 10
"""Values, and values that repeat."""
_LEAST, _MOST = 2, 50
"""How often the middle value of those that repeat does."""
_REPEATED = 0.5
"""Share of the filled cells whose value repeats."""
_ALIKE = 0.6
"""How far the share of values with one label alone must lie from what chance gives to all of them."""
_SURPRISES = 5
"""Values with several labels that chance would give, at least: with fewer, that there are none says little."""

_RUNS = 1.2
"""Runs of rows for each value, at most, where values are short numbers: a patient's rows stand together, and the
next patient of that age elsewhere."""

_LONG = 4  # digits
_DATE = re.compile(
    r"(19|20)\d\d[-/. ]?\d{1,2}[-/. ]?\d{1,2}.*|\d{1,2}[-/. ]\d{1,2}[-/. ](19|20)?\d\d.*"
    r"|(19|20)\d\d|.*\d:\d\d.*|.*[a-z]{3}[- ]\d{4}",
    re.IGNORECASE,
)
_MEASURED = re.compile(r"[-+]?\d*[.,]\d+([eE][-+]?\d+)?")
_ID = re.compile(r".*\d.*")


def like_patients(sheet: Sheet, free: Iterable[str], labels: Sequence[str]) -> dict[str, str]:
    """Of the free columns those whose cells are like ids of patients, each with what is seen of it in words.

    Ten values or more, with a digit in nearly all, no dates and no measured numbers; most rows share theirs with others,
    mostly two to fifty; and nearly all values go with one label, far more than chance would give. What is known of images or
    people (site, age, sex, scanner, view) is passed over by name, and by its labels, which differ from row to row.

    Args:
        sheet: the table.
        free: names of columns not in use; those that the header has twice are passed over.
        labels: ``[N]`` the label cells.
    """
    found = {}
    for name in free:
        if sheet.columns.count(name) > 1 or about_images(plain_name(name)):
            continue
        if seen := _like_ids([plain_integer(filled(cell)) for cell in sheet.cells(name)], labels):
            found[name] = seen
    return found


def _like_ids(ids: Sequence[str], labels: Sequence[str]) -> str:
    """What is seen of the ids in words; empty where they are not like patients'."""
    counts = Counter(filter(None, ids))
    repeated = sorted(count for count in counts.values() if count > 1)
    if len(repeated) < _FEWEST or sum(repeated) < _REPEATED * counts.total():
        return ""
    if not _LEAST <= repeated[len(repeated) // 2] <= _MOST or not _look_like_ids(ids, counts):
        return ""
    of_value = defaultdict[str, set[str]](set)
    for one, label in zip(ids, labels, strict=True):
        if counts[one] > 1:
            of_value[one].add(label)
    shares = [count / len(labels) for count in Counter(labels).values()]
    by_chance = sum(sum(share ** counts[one] for share in shares) for one in of_value)
    alike = sum(len(seen) == 1 for seen in of_value.values())
    room = len(of_value) - by_chance
    if room < _SURPRISES or alike - by_chance < _ALIKE * room:
        return ""
    return f"{len(counts):,} values, mostly with several images and one label each"


def _look_like_ids(ids: Sequence[str], counts: Counter[str]) -> bool:
    """Nearly all values hold a digit, and no date or measured number; short numbers each stand in one place of the table."""
    if sum(bool(_ID.fullmatch(one)) for one in counts) < 0.9 * len(counts):
        return False
    if sum(bool(_DATE.fullmatch(one) or _MEASURED.fullmatch(one)) for one in counts) >= 0.5 * len(counts):
        return False
    if sum(one.isdigit() and len(one) < _LONG for one in counts) < 0.5 * len(counts):
        return True
    runs = sum(one != before for before, one in pairwise(["", *ids]) if one)
    return runs <= _RUNS * len(counts)
