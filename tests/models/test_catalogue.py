import subprocess
import sys

import pytest

from stillroom.errors import UsageError
from stillroom.models.catalogue import STUDENTS, TEACHERS, describe, find, names


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


def test_cards_state_published_figures():
    cards = {card.name: card for card in describe(["visformer_small", "vgg19_bn", "resnet50", "skresnet50"])}
    assert cards["visformer_small"].parameters == 40.22
    assert cards["vgg19_bn"].parameters == 143.68
    assert cards["resnet50"].megabytes == pytest.approx(102.2)
    assert cards["resnet50"].role == "teacher, student"
    assert cards["visformer_small"].native_size == 224
    assert cards["visformer_small"].family == "visformer"
    assert cards["resnet50"].pretrained
    assert not cards["skresnet50"].pretrained
