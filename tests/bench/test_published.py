"""The papers' figures: spot values, and counts that the papers' readers have made from the same tables."""

import pytest

from stillroom.bench.published import MEDALMIGHTY, MEDMNIST, caveats, published
from stillroom.data.sources.medmnist import medmnist_flags

SETS = [
    "pathmnist", "chestmnist", "dermamnist", "octmnist", "pneumoniamnist", "retinamnist", "breastmnist", "bloodmnist",
    "tissuemnist", "organamnist", "organcmnist", "organsmnist",
]  # fmt: skip


def row(source, system, paper=MEDALMIGHTY):
    (found,) = [row for row in published(source) if (row.system, row.source) == (system, paper)]
    return found


def test_every_set_has_every_row():
    assert set(SETS) <= set(medmnist_flags())
    for name in SETS:
        assert [row.source for row in published(name)] == [MEDALMIGHTY] * 8 + [MEDMNIST] * 7
        assert all(0.4 < value < 1 for row in published(name) for value in (row.auc, row.accuracy))


def test_counts_of_wins_are_those_that_the_tables_readers_made():
    """MedAlmighty is above its ResNet-50 row in accuracy on 10 sets and in AUC on 7; its teacher is below it on 9."""
    better = {"auc": 0, "accuracy": 0}
    for figure in better:
        better[figure] = sum(
            getattr(row(name, "MedAlmighty"), figure) > getattr(row(name, "ResNet-50"), figure) for name in SETS
        )
    assert better == {"auc": 7, "accuracy": 10}
    below = [name for name in SETS if row(name, "DINOv2-B").accuracy < row(name, "ResNet-50").accuracy]
    assert set(SETS) - set(below) == {"pathmnist", "dermamnist", "pneumoniamnist"}


@pytest.mark.parametrize(
    ("source", "system", "auc", "accuracy"),
    [
        ("pathmnist", "MedAlmighty", 0.955, 0.871),
        ("octmnist", "DINOv2-B", 0.929, 0.629),
        ("organsmnist", "CA-MKD", 0.954, 0.744),
        ("retinamnist", "SKNet-50", 0.728, 0.520),
        ("dermamnist", "SENet-50", 0.989, 0.731),
    ],
)
def test_values_of_table_2(source, system, auc, accuracy):
    found = row(source, system)
    assert (found.auc, found.accuracy) == (auc, accuracy)


@pytest.mark.parametrize(
    ("source", "system", "auc", "accuracy"),
    [
        ("breastmnist", "ResNet-18 (28)", 0.901, 0.863),
        ("retinamnist", "ResNet-18 (28)", 0.717, 0.524),
        ("pneumoniamnist", "ResNet-18 (28)", 0.944, 0.854),
        ("tissuemnist", "AutoKeras", 0.941, 0.703),
        ("organsmnist", "Google AutoML Vision", 0.964, 0.749),
        ("chestmnist", "auto-sklearn", 0.649, 0.779),
    ],
)
def test_values_of_medmnist(source, system, auc, accuracy):
    found = row(source, system, MEDMNIST)
    assert (found.auc, found.accuracy) == (auc, accuracy)


def test_standard_deviations_belong_to_medalmighty_alone():
    assert (row("retinamnist", "MedAlmighty").auc_sd, row("retinamnist", "MedAlmighty").accuracy_sd) == (0.1, 0.025)
    assert row("retinamnist", "ResNet-50").auc_sd is None


def test_what_is_doubtful_says_so():
    assert any("softmax" in text for text in caveats("chestmnist"))
    assert any("not plausible" in text for text in caveats("dermamnist"))
    assert any("from memory" in text for text in caveats("breastmnist"))
    assert not any("from memory" in text for text in caveats("pathmnist"))


def test_other_sources_have_none():
    assert published("phantoms:120") == []
    assert caveats("my_images") == []
