import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from stillroom.cli.app import main
from stillroom.errors import UsageError
from stillroom.models import latency as module
from stillroom.models.cards import describe
from stillroom.models.latency import Budget, within
from stillroom.models.ofa_space import PREFIX, config_of
from stillroom.models.zoo import create

SOME = ("resnet10t_050", "mobilenetv3_small_050", "mobilenetv3_small_100", "mobilenetv2_050", "resnet18")


@pytest.fixture
def clock(monkeypatch):
    """Latencies that follow from a network's blocks and multiply-adds; gives the names that were timed."""
    asked: list[str] = []

    def latency(card):
        blocks = len(config_of(card.name).blocks()) if card.name.startswith("ofa") else 15
        return round(0.1 * blocks + 0.05 * card.macs, 3)

    def timed(cards, *, classes, threads, show_progress):
        asked.extend(card.name for card in cards)
        return [replace(card, latency_ms=latency(card)) for card in cards]

    monkeypatch.setattr(module, "timed", timed)
    for name, value in {"STUDENTS": SOME, "FIRST": 3, "SHOWN": 4}.items():
        monkeypatch.setattr(module, name, value)
    return asked


def test_what_is_listed_is_within_both_limits_quickest_first(clock):
    found, left_out = within(Budget(14, 2.4, 64, 2, 1))
    assert not left_out
    names = [card.name for card in found]
    assert len(set(names)) == len(names)
    assert {*names} & {*SOME} == {*SOME} - {"resnet18", "resnet10t_050"}
    points = [card for card in found if card.name.startswith(PREFIX)]
    assert len(points) >= 4
    assert [card.latency_ms for card in found] == sorted(card.latency_ms for card in found)
    assert max(card.latency_ms for card in found) <= 2.4
    for card in found:
        if card.name in (points[0].name, points[-1].name, "mobilenetv3_small_050", "ofa595"):
            parameters = sum(p.numel() for p in create(card.name, classes=2, size=64).parameters())
            assert 4e-6 * parameters == pytest.approx(card.megabytes, abs=1e-3)
            assert 4e-6 * parameters <= 14
    assert set(names) <= set(clock)


def test_what_is_foretold_to_be_too_slow_is_not_timed(clock):
    limit = 2.0
    within(Budget(None, limit, 64, 2, 1), f"{PREFIX}*")
    assert len(clock) <= module.FIRST + module.SHOWN
    later = clock[module.FIRST :]
    assert later
    for name in later:  # the clock is of the fitted kind, so what is foretold is what it shows
        config = config_of(name)
        foretold = 0.1 * len(config.blocks()) + 0.05 * config.macs(64, 2) / 1e6
        assert foretold <= module.MARGIN * limit * 1.01


def test_a_budget_of_size_alone_times_nothing(clock):
    found, _ = within(Budget(9, None, 64, 2, 1))
    assert not clock
    assert {card.latency_ms for card in found} == {None}
    assert [card.macs for card in found] == sorted(card.macs for card in found)
    assert max(card.megabytes for card in found) <= 9
    expected = {card.name for card in describe(list(SOME), classes=2) if card.megabytes <= 9}
    assert {card.name for card in found if not card.name.startswith(PREFIX)} == expected
    timed, _ = within(Budget(9, None, 64, 2, 1), "ofa_w100*", measure=True)
    assert clock
    assert None not in {card.latency_ms for card in timed}


def test_networks_that_do_not_take_the_size_are_named(clock):
    found, left_out = within(Budget(60, None, 28, 2, 1), "test_[rv]*t")
    assert [card.name for card in found] == ["test_resnet"]
    assert left_out == ["test_vit"]  # patches of 16 px


@pytest.mark.parametrize(
    ("limits", "pattern", "said"),
    [
        ((1, None), None, r"No network of at most 1 MB with 2 classes\. The nearest is mobilenetv3_small_050 with 2\.3 MB"),
        ((3, 5), "ofa*", r"of at most 3 MB answers within 5 ms.*nearest is ofa_w100_k33-33-.* with 8\.5 MB"),
        ((9, 0.5), "ofa*", r"within 0\.5 ms at 64 px with 2 classes and 1 thread on this machine.* MB and 1\.\d\d ms"),
        ((0, None), None, r"--max-mb must be above 0, got 0"),
        ((-2, None), None, r"--max-mb must be above 0, got -2"),
        ((None, 0), None, r"--max-ms must be above 0, got 0"),
        ((None, float("nan")), None, r"--max-ms must be above 0, got nan"),
        ((5, None), "no_such_network*", "No network is called"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_with_the_nearest(clock, limits, pattern, said):
    with pytest.raises(UsageError, match=said):
        within(Budget(*limits, 64, 2, 1), pattern)


def test_no_network_takes_the_size():
    with pytest.raises(UsageError, match="None of these networks takes images of 10 px"):
        within(Budget(500, None, 10, 2, 1), "vit_small_patch14_dinov2")


def test_networks_are_spread_over_the_range():
    line = list(range(100))
    assert module._spread(line, 4) == [0, 33, 66, 99]
    assert module._spread(line[:3], 4) == [0, 1, 2]


# -- measured -----------------------------------------------------------------------------------------------------
def test_timing_uses_the_threads_and_images_asked_for_and_puts_them_back(monkeypatch):
    seen = []

    def profile(network, *, channels, size, batches):
        seen.append((torch.get_num_threads(), size, network.classes, batches, tuple(network.input_size)))
        return {"latency_ms": {"batch_1": {"median": 1.23456}}}

    before = torch.get_num_threads()
    cards = describe(["test_resnet", "vit_small_patch14_dinov2"], size=40, classes=3)
    monkeypatch.setattr("stillroom.models.efficiency.profile", profile)
    found = module.timed(cards, classes=3, threads=2, show_progress=False)
    assert [card.latency_ms for card in found] == [1.235, None]  # 40 px are no multiple of 14
    assert seen == [(2, 40, 3, (1,), (40, 40))]
    assert torch.get_num_threads() == before
    with pytest.raises(UsageError, match="--threads must be at least 1"):
        module.timed(cards, classes=3, threads=0)


@pytest.fixture
def stillroom(capsys):
    """Run the command; gives exit code, standard output and standard error."""

    def run(*arguments):
        try:
            main(list(arguments))
            code = 0
        except SystemExit as stop:
            code = stop.code
        return code, *capsys.readouterr()

    return run


def test_json_has_multiply_adds_always_and_latencies_when_asked(stillroom):
    code, out, _ = stillroom("models", "resnet18", "--json")
    (card,) = json.loads(out)
    assert code == 0
    assert (card["size"], card["macs"], card["latency_ms"]) == (224, 1814.1, None)  # published: 1.8 G
    code, out, _ = stillroom("models", "test_resnet", "--size", "32", "--classes", "2", "--measure", "--json")
    (card,) = json.loads(out)
    assert card["size"] == 32
    assert 0 < card["latency_ms"] < 1000
    code, out, _ = stillroom("models", "vit_small_patch14_dinov2", "--size", "64", "--json")
    assert json.loads(out)[0]["macs"] is None


def test_the_command_keeps_a_budget_that_was_measured(stillroom):
    code, out, _ = stillroom(
        "models", "mobilenetv3_small*", "--max-mb", "5", "--max-ms", "500", "--size", "32", "--json"
    )
    found = json.loads(out)
    assert code == 0
    assert {card["name"] for card in found} >= {"mobilenetv3_small_050", "mobilenetv3_small_075"}
    assert all(card["megabytes"] <= 5 and 0 < card["latency_ms"] <= 500 for card in found)
    assert [card["latency_ms"] for card in found] == sorted(card["latency_ms"] for card in found)
    code, out, err = stillroom("models", "mobilenetv3_small*", "--max-mb", "5", "--size", "32")
    assert "mobilenetv3_small_050" in out
    assert "Latency" not in out + err


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--max-mb", "0"], "--max-mb must be above 0"),
        (["--max-mb", "9", "--size", "0"], "--size must be at least 1, got 0"),
        (["--classes", "0"], "--classes must be at least 1, got 0"),
        (["test_resnet", "--measure", "--threads", "0"], "--threads must be at least 1, got 0"),
        (["ofa_w100_k3_e3"], "after k stand five stages"),
    ],
)
def test_wrong_use_of_the_command_is_one_line_and_exit_code_2(stillroom, flags, said):
    code, out, err = stillroom("models", *flags)
    assert (code, out) == (2, "")
    assert said in err
    assert err.count("\n") == 1


def test_the_prediction_that_preselects_is_the_fitted_line():
    points = [config_of(name) for name in ("ofa_w100_k33-33-33-33-33_e33-33-33-33-33", "ofa595")]
    limits = Budget(None, 1, 64, 2, 1)
    rows = np.array([[len(point.blocks()), point.macs(64, 2) / 1e6] for point in points])
    times = rows @ [0.2, 0.03]
    np.testing.assert_allclose(module._foretell(points, list(times), points[::-1], limits), times[::-1])
