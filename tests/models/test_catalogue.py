import subprocess
import sys

import pytest

from stillroom.errors import UsageError
from stillroom.models.cards import describe
from stillroom.models.catalogue import STUDENTS, TEACHERS, find, names, short_list


def test_the_list_is_at_hand_without_torch():
    code = "import sys, stillroom.models.catalogue; sys.exit('torch' in sys.modules or 'timm' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_listed_name_can_be_built():
    assert set(TEACHERS + STUDENTS) <= set(names())


def test_globs_search_all_of_timm_and_ours():
    assert {"mobilenetv3_small_050", "mobilenetv3_large_100"} <= set(find("mobilenetv3*"))
    assert "resnet18_28" in find("resnet18*")
    with pytest.raises(UsageError, match="Did you mean visformer_tiny"):
        find("visfomer_tiny*")


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("mobilenetv4_conv_small", 3.77),
        ("mobilenetv4_conv_small_050", 2.24),
        ("mobilenetv3_small_100", 2.54),
        ("mobilenetv2_100", 3.5),
        ("efficientnet_b0", 5.29),
        ("vit_tiny_patch16_224", 5.72),
        ("convnext_femto", 5.22),
        ("resnet18", 11.69),
        ("seresnet50", 28.09),
        ("skresnet50", 25.8),
        ("ofa595", 9.14),
        ("vit_small_patch14_dinov2", 22.06),
        ("vit_base_patch14_dinov2", 86.58),
        ("vit_large_patch14_dinov2", 304.37),
    ],
)
def test_what_people_start_from_is_listed_with_its_published_parameters(name, millions):
    assert name in short_list()
    (card,) = describe([name])
    assert card.parameters == millions
    assert card.macs > 0
    assert card.size == card.native_size


def test_a_card_can_be_of_another_size_and_other_classes():
    (card,) = describe(["resnet18"], size=448, classes=2)
    assert card.parameters == round((11_689_512 - 998 * 513) / 1e6, 2)
    assert card.macs == pytest.approx(4 * (1814.1 - 0.5), rel=1e-4)
    assert (card.size, card.native_size) == (448, 224)
    (unfit,) = describe(["vit_small_patch14_dinov2"], size=64)
    assert (unfit.size, unfit.macs) == (64, None)
    for wrong in ({"size": 0}, {"classes": 0}):
        with pytest.raises(UsageError, match="must be at least 1, got 0"):
            describe(["resnet18"], **wrong)


def test_cards_state_published_figures():
    cards = {card.name: card for card in describe(["visformer_small", "vgg19_bn", "resnet50", "skresnet50"])}
    assert cards["visformer_small"].parameters == 40.22
    assert cards["vgg19_bn"].parameters == 143.68
    assert cards["resnet50"].megabytes == 102.228  # 25,557,032 parameters
    assert cards["visformer_small"].macs == pytest.approx(4880, rel=0.001)
    assert cards["vgg19_bn"].macs == pytest.approx(19630, rel=0.001)
    assert {card.latency_ms for card in cards.values()} == {None}
    assert cards["resnet50"].role == "teacher, student"
    assert cards["visformer_small"].native_size == 224
    assert cards["visformer_small"].family == "visformer"
    assert cards["resnet50"].pretrained
    assert not cards["skresnet50"].pretrained
