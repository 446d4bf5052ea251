"""A licence's name is read for what it forbids, and not beyond."""

import pytest

from stillroom.models.licences import forbids_commercial_use


@pytest.mark.parametrize(
    ("licence", "forbids"),
    [
        ("apache-2.0", False),
        ("MIT", False),
        ("cc-by-4.0", False),
        ("cc-by-nc-4.0", True),
        ("CC-BY-NC-ND-4.0", True),
        ("fair-noncommercial-research-license", True),
        ("apple-amlr", True),
        ("dinov3-license", None),
        ("nvidia-open-model-license", None),
        ("unknown", None),
        (None, None),
    ],
)
def test_what_a_licence_forbids(licence, forbids):
    assert forbids_commercial_use(licence) is forbids
