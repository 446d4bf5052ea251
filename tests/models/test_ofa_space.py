import subprocess
import sys
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stillroom.errors import UsageError
from stillroom.models.ofa_space import OFA595, OfaConfig, config_of, rounded, sample


@st.composite
def configs(draw):
    depths = [draw(st.integers(2, 4)) for _ in range(5)]

    def digits(allowed):
        return tuple(tuple(draw(st.sampled_from(allowed)) for _ in range(depth)) for depth in depths)

    return OfaConfig(
        draw(st.sampled_from((1.0, 1.2))), digits((3, 5, 7)), digits((3, 4, 6)), draw(st.integers(28, 512))
    )


@given(configs())
def test_a_name_says_all_of_a_network(config):
    assert config_of(config.name) == config
    assert ("_r" in config.name) == (config.resolution != 224)


def test_ofa595_is_a_point_of_the_space():
    assert config_of("ofa595") == OFA595
    assert OFA595.name == "ofa_w120_r236_k353-5535-7535-3573-3353_e343-4463-6634-6664-6663"
    # Channels as the authors' net.config has them.
    assert [block.middle for block in OFA595.blocks()[1:]] == [
        *(72, 128, 96, 128, 192, 288, 144, 288, 576, 288, 384),
        *(576, 816, 816, 544, 816, 1152, 1152, 576),
    ]
    assert [OFA595.stem, OFA595.final, OFA595.mix] == [24, 1152, 1536]


def test_width_one_is_mobilenetv3_large_in_its_channels():
    config = config_of("ofa_w100_k33-33-33-33-33_e33-33-33-33-33")
    assert [config.stem, config.final, config.mix] == [16, 960, 1280]
    assert [block.outputs for block in config.blocks()] == [16, 24, 24, 40, 40, 80, 80, 112, 112, 160, 160]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "ofa_small",
            r"no network of the OFA space.*like ofa_w100_k33-33-33-33-33_e33-33-33-33-33.*kernels \(3, 5, 7\)",
        ),
        ("ofa_w120_k353_", "no network of the OFA space"),
        ("ofa_w110_k33-33-33-33-33_e33-33-33-33-33", "the width is w100 or w120"),
        ("ofa_w100_r20_k33-33-33-33-33_e33-33-33-33-33", "at least r28"),
        ("ofa_w100_k33-33-33-33_e33-33-33-33", "after k stand five stages.* here 4"),
        ("ofa_w100_k33-33-33-33-33_e33-33-33-33", "after e stand five stages.* here 4"),
        ("ofa_w100_k33-3-33-33-33_e33-3-33-33-33", "2, 3 or 4 blocks, stage 2 after k 1"),
        ("ofa_w100_k33-33-33333-33-33_e33-33-33333-33-33", "2, 3 or 4 blocks, stage 3 after k 5"),
        ("ofa_w100_k33-33-33-34-33_e33-33-33-33-33", "a kernel is 3, 5 or 7, stage 4 has 4"),
        ("ofa_w100_k33-33-33-33-33_e33-33-33-33-35", "an expansion is 3, 4 or 6, stage 5 has 5"),
        ("ofa_w100_k333-33-33-33-33_e33-33-33-33-33", "stage 1 has 3 kernels, but 2 expansions"),
    ],
)
def test_names_outside_the_space_are_refused_with_what_is_allowed(name, said):
    with pytest.raises(UsageError, match=said):
        config_of(name)


@settings(max_examples=300)
@given(st.integers(1, 5000))
def test_channels_become_the_nearest_multiple_of_eight_unless_that_takes_a_tenth(channels):
    multiples = [multiple for multiple in range(8, 5100, 8) if multiple >= 0.9 * channels]
    assert rounded(channels) == min(multiples, key=lambda multiple: (abs(multiple - channels), -multiple))


def test_a_sample_is_the_same_each_time_and_reaches_both_ends():
    drawn = sample(300)
    assert drawn == sample(300)
    assert drawn[:100] == sample(100)
    assert len(set(drawn)) == 300
    assert sample(300, seed=1) != drawn
    costs = sorted(config.macs(224, 1000) for config in drawn)
    smallest = config_of("ofa_w100_k33-33-33-33-33_e33-33-33-33-33")
    largest = config_of("ofa_w120_k7777-7777-7777-7777-7777_e6666-6666-6666-6666-6666")
    assert (costs[0], costs[-1]) == (smallest.macs(224, 1000), largest.macs(224, 1000))
    # No quarter of the range is left out, in logarithms.
    steps = [costs[0] * (costs[-1] / costs[0]) ** (part / 4) for part in range(5)]
    for low, high in pairwise(steps):
        assert sum(low <= cost <= high for cost in costs) > 15


def test_names_cost_no_torch():
    code = "import sys, stillroom.models.ofa_space; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
