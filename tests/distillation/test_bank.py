"""The bank replays exactly what the teacher would have said, and never mistakes one teacher for another."""

import dataclasses
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from stillroom.data.images import Images
from stillroom.data.inference import evaluating, run_over
from stillroom.distillation.bank import build_bank
from stillroom.errors import RunError
from stillroom.models.weights import weights_digest
from stillroom.models.zoo import create
from stillroom.settings.sections import ViewSettings


def make(data, network, cache, rows=None, views=(None, 0, 1), ask=None):
    calls = []

    def answer(images):
        calls.append(len(images))
        return {"logits": network(images)}

    bank = build_bank(
        network,
        weights_digest(network),
        data.images,
        data.train if rows is None else rows,
        views,
        ask or answer,
        asks="logits",
        label="bank",
        cache=cache,
        show_progress=False,
    )
    return bank, sum(calls)


@pytest.fixture
def network():
    return create("test_resnet", classes=2, size=32)


def test_it_replays_what_the_teacher_says_online(toy, tmp_path, network):
    data = toy()
    bank, _ = make(data, network, tmp_path)
    some = np.array([data.train[5], data.train[0], data.train[17]])
    for view in (None, 0, 1):
        online = run_over(network, data.images, some, view=view)
        assert bank.at("logits", some, view) == pytest.approx(online, abs=2e-3)
    assert np.abs(bank.at("logits", some, 0) - bank.at("logits", some, 1)).max() > 1e-3


def test_a_second_run_does_not_ask_again(toy, tmp_path, network):
    data = toy()
    first, asked = make(data, network, tmp_path)
    second, again = make(data, network, tmp_path)
    assert asked == 3 * len(data.train)
    assert again == 0
    assert np.array_equal(first.arrays["logits"], second.arrays["logits"])


def test_another_teacher_seed_or_image_is_another_bank(toy, tmp_path, network):
    data = toy()
    make(data, network, tmp_path)
    assert make(data, create("test_resnet", classes=2, size=32, seed=1), tmp_path)[1] > 0
    assert make(toy(seed=1), network, tmp_path)[1] > 0
    assert make(data, network, tmp_path, rows=data.train[:-1])[1] > 0
    assert make(data, network, tmp_path, views=(None, 0))[1] > 0
    with torch.no_grad():
        next(network.parameters()).add_(1e-3)
    assert make(data, network, tmp_path)[1] > 0


def test_another_crop_mixture_or_pool_is_another_bank(toy, tmp_path, network):
    def mixing(views, pool):
        images = Images(data.images.store, torch.device("cpu"), views, 0, [pool])
        return make(dataclasses.replace(data, images=images), network, tmp_path, views=(0, 1))[1]

    data, mix = toy(), ViewSettings(mix="mixup")
    kinds = [
        (ViewSettings(), data.train),
        (ViewSettings(crop=0.5), data.train),
        (mix, data.train),
        (mix, data.train[::2]),
    ]
    assert all(mixing(*kind) > 0 for kind in kinds)
    assert all(mixing(*kind) == 0 for kind in kinds)
    assert mixing(ViewSettings(views=5), data.train) == 0  # how many views there are changes none of them


def test_a_damaged_bank_is_built_anew(toy, tmp_path, network):
    data = toy()
    bank, _ = make(data, network, tmp_path)
    expected = np.array(bank.arrays["logits"])
    (folder,) = (tmp_path / "banks").iterdir()
    (folder / "meta.json").unlink()
    again, asked = make(data, network, tmp_path)
    assert asked > 0
    assert np.array_equal(again.arrays["logits"], expected)


def test_a_bank_with_a_flipped_bit_is_asked_for_again_with_a_word(toy, tmp_path, network, capsys):
    data = toy()
    expected = np.array(make(data, network, tmp_path)[0].arrays["logits"])
    (folder,) = (tmp_path / "banks").iterdir()
    content = bytearray((folder / "logits.npy").read_bytes())
    content[-9] ^= 1
    (folder / "logits.npy").write_bytes(content)
    again, asked = make(data, network, tmp_path)
    assert asked == 3 * len(data.train)
    assert np.array_equal(again.arrays["logits"], expected)
    assert f"{folder / 'logits.npy'} was changed or damaged" in capsys.readouterr().err


def test_two_builders_at_once_agree(toy, tmp_path, network):
    data = toy()
    with ThreadPoolExecutor(2) as pool:
        banks = [job.result()[0] for job in [pool.submit(make, data, network, tmp_path) for _ in range(2)]]
    assert np.array_equal(banks[0].arrays["logits"], banks[1].arrays["logits"])
    assert len(list((tmp_path / "banks").iterdir())) == 1


def test_rows_it_does_not_hold_are_refused(toy, tmp_path, network):
    data = toy()
    bank, _ = make(data, network, tmp_path)
    with pytest.raises(KeyError):
        bank.at("logits", data.val[:1], None)
    with pytest.raises(ValueError):
        bank.at("logits", data.train[:1], 7)


def test_outputs_that_are_not_finite_stop_the_run(toy, tmp_path, network):
    data = toy()
    with pytest.raises(RunError, match="not finite"):
        make(data, network, tmp_path, ask=lambda images: {"logits": network(images) * 1e9})
    assert not list((tmp_path / "banks").glob("*")) or make(data, network, tmp_path)[1] > 0


def test_asking_leaves_the_network_as_it_was(toy, tmp_path, network):
    network.train()
    make(toy(), network, tmp_path)
    assert network.training
    with evaluating(network):
        assert not network.training
    assert all(module.training for module in network.modules())
