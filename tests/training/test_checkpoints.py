"""The last two states are kept; one that is damaged is passed over, and the training ends with the same weights."""

import copy
import shutil
from functools import partial
from pathlib import PurePosixPath

import pytest
import torch

from stillroom.distillation.objectives.labels import LabelLoss
from stillroom.files.own_digest import end_state, seal_end
from stillroom.models.zoo import create
from stillroom.progress import remark
from stillroom.settings.sections import TrainingSettings
from stillroom.training import checkpoints
from stillroom.training.loop import fit

CPU = torch.device("cpu")


def state(epoch, best=0):
    networks = {"student": {"weight": torch.full((3,), float(epoch))}, "objective": {}, "optimizer": {}}
    return networks | {"epoch": epoch, "best_epoch": best, "waited": 0, "losses": None, "best_losses": None}


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def flip(path, byte, bit=0):
    content = bytearray(path.read_bytes())
    content[byte] ^= 1 << bit
    path.write_bytes(content)


@pytest.fixture(autouse=True)
def _say_it_again():
    remark.cache_clear()


def test_the_last_two_are_kept_and_the_best_weights_that_they_name(tmp_path):
    kept = []
    for epoch, best in ((1, 1), (2, 2), (3, 2), (4, 2), (5, 5), (6, 5)):
        checkpoints.save(tmp_path, state(epoch, best), {"student": {"of": epoch}} if best == epoch else None)
        kept.append(names(tmp_path))
    assert kept == [
        ["best-1.pt", "checkpoint-1.pt"],
        ["best-1.pt", "best-2.pt", "checkpoint-1.pt", "checkpoint-2.pt"],
        ["best-2.pt", "checkpoint-2.pt", "checkpoint-3.pt"],
        ["best-2.pt", "checkpoint-3.pt", "checkpoint-4.pt"],
        ["best-2.pt", "best-5.pt", "checkpoint-4.pt", "checkpoint-5.pt"],
        ["best-5.pt", "checkpoint-5.pt", "checkpoint-6.pt"],
    ]
    assert checkpoints.newest(tmp_path, CPU)["epoch"] == 6
    assert checkpoints.best_weights(tmp_path, 5, CPU) == {"student": {"of": 5}}


def test_a_damaged_one_falls_back_to_the_one_before_with_a_word(tmp_path, capsys):
    for epoch in (1, 2):
        checkpoints.save(tmp_path, state(epoch), None)
    flip(tmp_path / "checkpoint-2.pt", 100)
    assert checkpoints.newest(tmp_path, CPU)["epoch"] == 1
    path = tmp_path / "checkpoint-2.pt"
    assert capsys.readouterr().err == (
        f"{path} was changed or damaged after it was written: training goes on from the one before.\n"
    )
    assert names(tmp_path) == ["checkpoint-1.pt"]
    flip(tmp_path / "checkpoint-1.pt", 100)
    assert checkpoints.newest(tmp_path, CPU) is None
    assert "this training starts anew.\n" in capsys.readouterr().err
    assert names(tmp_path) == []


def test_a_state_whose_best_weights_are_damaged_is_none(tmp_path, capsys):
    checkpoints.save(tmp_path, state(1, 1), {"student": {"of": 1}})
    checkpoints.save(tmp_path, state(2, 2), {"student": {"of": 2}})
    flip(tmp_path / "best-2.pt", 50)
    assert checkpoints.newest(tmp_path, CPU)["epoch"] == 1
    assert f"{tmp_path / 'best-2.pt'} was changed or damaged" in capsys.readouterr().err
    assert checkpoints.best_weights(tmp_path, 2, CPU) is None


def test_those_of_before_digests_are_gone_on_from(tmp_path, capsys):
    torch.save(state(3, 2), tmp_path / "checkpoint.pt")
    torch.save({"student": {"of": 2}}, tmp_path / "best.pt")
    assert checkpoints.newest(tmp_path, CPU)["epoch"] == 3
    assert checkpoints.best_weights(tmp_path, 2, CPU) == {"student": {"of": 2}}
    assert capsys.readouterr().err == ""
    (tmp_path / "checkpoint.pt").write_bytes(b"PK\x03\x04 no archive")
    assert checkpoints.newest(tmp_path, CPU) is None
    assert "anew" in capsys.readouterr().err


def test_no_code_of_a_checkpoint_is_run(tmp_path):
    checkpoints.save(tmp_path, state(1) | {"optimizer": PurePosixPath("x")}, None)
    assert end_state(tmp_path / "checkpoint-1.pt") == "whole"
    assert checkpoints.newest(tmp_path, CPU) is None


def test_names_that_are_no_checkpoints_are_left_alone(tmp_path):
    for name in ("checkpoint-old.pt", "checkpoint-1-copy.pt", "best-.pt", "checkpoint-²."):
        (tmp_path / name).write_text("mine")
    (tmp_path / "checkpoint-9.pt").mkdir()
    before = names(tmp_path)
    checkpoints.save(tmp_path, state(1), None)
    assert checkpoints.newest(tmp_path, CPU)["epoch"] == 1
    assert names(tmp_path) == sorted([*before, "checkpoint-1.pt"])


@pytest.mark.parametrize("held", [[1, 2], {"epoch": 2}, state(2) | {"best_epoch": "x"}], ids=["list", "keys", "type"])
def test_what_is_no_state_is_damaged(tmp_path, capsys, held):
    checkpoints.save(tmp_path, state(1), None)
    torch.save(held, tmp_path / "checkpoint-2.pt")
    seal_end(tmp_path / "checkpoint-2.pt")
    assert checkpoints.newest(tmp_path, CPU)["epoch"] == 1
    assert "checkpoint-2.pt was changed or damaged" in capsys.readouterr().err
    torch.save(held, tmp_path / "best-1.pt")
    seal_end(tmp_path / "best-1.pt")
    assert (checkpoints.best_weights(tmp_path, 1, CPU) is None) == (not isinstance(held, dict) or "student" not in held)


def without(name, *inside):
    def change(state):
        for part in inside:
            state = state[part]
        del state[name]

    return change


def put(value, name, *inside):
    def change(state):
        for part in inside:
            state = state[part]
        state[name] = value(state[name])

    return change


FOREIGN = {
    "losses gone": without("losses"),
    "losses of two axes": put(lambda was: was[None], "losses"),
    "losses no tensor": put(list, "best_losses"),
    "a weight gone": without("backbone.fc.weight", "student"),
    "a weight of another shape": put(lambda was: was[:1], "backbone.fc.weight", "student"),
    "a weight too many": put(lambda was: was | {"other": torch.ones(1)}, "student"),
    "an objective with a state": put(lambda was: {"other": torch.ones(1)}, "objective"),
    "an optimizer without its state": without("state", "optimizer"),
    "an optimizer without groups": without("param_groups", "optimizer"),
    "an optimizer of other groups": put(lambda was: was[:0], "param_groups", "optimizer"),
    "a moment of another shape": put(lambda was: was[None], "exp_avg", "optimizer", "state", 0),
    "a moment of no weight": put(lambda was: was | {10_000: was[0]}, "state", "optimizer"),
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A checkpoint of two looks, as the loop writes it, with what takes it up."""
    net = create("test_resnet", classes=2, size=32, seed=0)
    optimizer = torch.optim.AdamW(net.parameters())
    net(torch.rand(2, 3, 32, 32)).sum().backward()
    optimizer.step()
    held = state(2, 1) | {"losses": torch.ones(4), "best_losses": torch.ones(4)}
    return held | {"student": net.state_dict(), "optimizer": optimizer.state_dict()}, net, optimizer


@pytest.mark.parametrize("change", FOREIGN.values(), ids=FOREIGN)
def test_whole_but_not_of_this_training_falls_back_as_well(tmp_path, capsys, trained, change):
    held, net, optimizer = trained
    other = copy.deepcopy(held)
    change(other)

    def fits(found):
        return checkpoints.is_of(found, net.state_dict(), {}, optimizer)

    checkpoints.save(tmp_path, held | {"epoch": 1}, {"student": held["student"]})
    checkpoints.save(tmp_path, other, None)
    assert checkpoints.newest(tmp_path, CPU, fits)["epoch"] == 1
    assert "checkpoint-2.pt was changed or damaged" in capsys.readouterr().err


def test_best_weights_of_another_network_are_damaged(tmp_path, capsys, trained):
    held, net, optimizer = trained
    checkpoints.save(tmp_path, held | {"epoch": 1}, {"student": {"other": torch.ones(1)}})
    fits = partial(checkpoints.is_of, student=net.state_dict(), objective={}, optimizer=optimizer)
    assert checkpoints.newest(tmp_path, CPU, fits) is None
    assert "best-1.pt was changed or damaged" in capsys.readouterr().err


@pytest.mark.parametrize("damaged", [["checkpoint-3.pt"], ["checkpoint-3.pt", "checkpoint-2.pt"]], ids=["one", "both"])
def test_a_training_goes_on_to_the_same_weights(toy, tmp_path, damaged):
    data, settings = toy(), TrainingSettings(epochs=4, batch_size=64, lr=1e-3)

    def go(folder, log=lambda line: None):
        net = create("test_resnet", classes=2, size=32, seed=0)
        return fit(net, LabelLoss(), data, settings, folder=folder, role="student", log=log, show_progress=False)

    def die(line):
        if line["epoch"] == 4:
            raise KeyboardInterrupt

    whole, lines = go(tmp_path / "whole"), []
    shutil.rmtree(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        go(tmp_path / "parts", die)
    for name in damaged:
        flip(tmp_path / "parts" / name, 5000)
    resumed = go(tmp_path / "parts", lines.append)
    assert [line["epoch"] for line in lines] == list(range(4 - len(damaged) if len(damaged) < 2 else 1, 5))
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
