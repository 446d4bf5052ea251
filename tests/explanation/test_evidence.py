import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from stillroom.errors import UsageError
from stillroom.explanation.agreement import agreement
from stillroom.explanation.claims import FAITHFUL, NOT_FAITHFUL, NOT_SHOWN
from stillroom.explanation.controls import TRIVIAL, stretched, trivial_maps
from stillroom.explanation.evidence import Explained, gather
from stillroom.explanation.faithfulness import SHARES, deletion_insertion

SIDE, COUNT = 24, 24
CORNER = torch.zeros(SIDE, SIDE)
CORNER[:10, :10] = 1
OTHER_CORNER = CORNER.flip(0, 1)


class Looking(nn.Module):
    """Two classes, told apart by the mean brightness where ``where`` is 1."""

    def __init__(self, where=CORNER, slope=12.0):
        super().__init__()
        self.where, self.slope = nn.Parameter(where.clone(), requires_grad=False), slope

    def forward(self, images):
        seen = (images.mean(dim=1) * self.where).sum(dim=(1, 2)) / self.where.abs().sum().clamp(min=1)
        return torch.stack([-seen, seen - 1], dim=1) * self.slope


def honest(network, images, classes, *, method, layer, advance):
    """The map of what a :class:`Looking` truly looks at."""
    advance(len(images))
    return stretched(network.where).expand(len(images), -1, -1).contiguous()


def constant(where, network, images, classes, *, method, layer, advance):
    return where.expand(len(images), -1, -1).contiguous()


def probabilities(networks):
    return lambda role: lambda images: networks[role](images).softmax(dim=1)


@pytest.fixture
def explained():
    generator = torch.Generator().manual_seed(0)
    images = 0.2 + 0.2 * torch.rand(COUNT, 1, SIDE, SIDE, generator=generator)
    images += CORNER * (0.3 + 0.3 * torch.rand(COUNT, 1, 1, 1, generator=generator))
    masks = np.zeros((COUNT, SIDE, SIDE), dtype=bool)
    masks[:9, :8, :8] = True  # the last masks are empty
    return Explained(
        images=images,
        rows=np.arange(COUNT),
        classes=np.ones(COUNT, dtype=np.int64),
        right=np.arange(COUNT) < 8,
        masks=masks,
        has_mask=np.arange(COUNT) < 10,
        patients=None,
    )


def gathered(networks, explained, draw=honest, seed=0):
    return gather(
        networks,
        explained,
        probability=probabilities(networks),
        methods=dict.fromkeys(networks, "score_cam"),
        layers=dict.fromkeys(networks),
        seed=seed,
        show_progress=False,
        heat_maps=draw,
    )


def test_the_map_of_what_the_network_looks_at_is_faithful(explained):
    networks = {"student": Looking()}
    evidence = gathered(networks, explained)
    found = evidence.figures["faithfulness"]["student"]
    assert found["faithful"] is True
    assert found["reasons"] == []
    assert found["gap"]["value"] == pytest.approx((found["gap_blur"]["value"] + found["gap_mean"]["value"]) / 2)
    assert found["gap_mean"]["value"] == pytest.approx(
        found["insertion_mean"]["value"] - found["deletion_mean"]["value"], abs=1e-6
    )
    assert found["road"]["low"] > 0
    for name in TRIVIAL:
        assert found["advantage"][name]["value"] == pytest.approx(
            found["gap"]["value"] - found["controls"][name]["gap"]["value"]
        )
        assert 0 < found["advantage"][name]["low"] <= found["advantage"][name]["value"]
    assert (found["verdict"], found["unit"], found["units"], found["needed"]) == (FAITHFUL, "image", COUNT, None)
    assert 0 < found["gap"]["value"] < found["reach"]["value"]
    assert abs(found["sanity"]["pearson"]["value"]) < 0.3
    assert evidence.figures["statement"]["student"].startswith(
        "The student's maps are faithful: insertion minus deletion"
    )
    assert evidence.maps["student"].dtype == np.float16
    assert np.array_equal(evidence.maps["student"][3], CORNER.numpy())


@pytest.mark.parametrize("name", [*TRIVIAL, "wrong corner", "flat"])
def test_no_other_map_is_faithful(explained, name):
    wrong = {"wrong corner": OTHER_CORNER, "flat": torch.zeros(SIDE, SIDE)}

    def draw(network, images, classes, *, method, layer, advance):
        if name in wrong:
            return constant(wrong[name], network, images, classes, method=method, layer=layer, advance=advance)
        return trivial_maps(images, seed=0)[name]

    found = gathered({"student": Looking()}, explained, draw).figures
    faithfulness = found["faithfulness"]["student"]
    assert faithfulness["faithful"] is False
    assert faithfulness["verdict"] == NOT_FAITHFUL
    assert "The student's maps are not faithful" in found["statement"]["student"]
    # All of these maps also survive random weights, but for the flat one, and the random one, which is another one whenever
    # it is drawn of other images.
    if name == "random":
        return
    assert any("flat" if name == "flat" else "random weights" in reason for reason in faithfulness["reasons"])
    assert faithfulness["sanity"]["pearson"]["value"] == (None if name == "flat" else pytest.approx(1))


def test_a_good_map_that_random_weights_do_not_change_is_not_faithful(explained):
    found = gathered({"student": Looking()}, explained, partial(constant, CORNER)).figures["faithfulness"]["student"]
    assert all(figure["low"] > 0 for figure in found["advantage"].values())
    assert found["faithful"] is False
    (reason,) = found["reasons"]
    assert "correlate with them by 1.000 (95 % interval 1.000 to 1.000), and the limit is 0.5" in reason


def test_a_network_that_ignores_its_input_has_no_faithful_map(explained):
    found = gathered({"student": Looking(slope=0.0)}, explained).figures["faithfulness"]["student"]
    assert found["gap"]["value"] == 0
    assert found["faithful"] is False
    assert found["verdict"] == NOT_FAITHFUL
    assert "hiding everything takes 0.000 from the answer" in found["reasons"][0]


def test_a_twin_that_sees_nothing_has_kept_nothing(explained):
    def draw(network, images, classes, *, method, layer, advance):
        drawn = honest(network, images, classes, method=method, layer=layer, advance=advance)
        return drawn if torch.equal(network.where, CORNER) else torch.zeros_like(drawn)

    sanity = gathered({"student": Looking()}, explained, draw).figures["faithfulness"]["student"]["sanity"]
    assert sanity["pearson"]["value"] == 0


def test_figures_are_those_of_the_functions_behind_them(explained):
    networks, explained = {"student": Looking()}, first(explained, 12)
    evidence = gathered(networks, explained)
    maps = CORNER.expand(12, -1, -1)
    curves = deletion_insertion(
        probabilities(networks)("student"), explained.images, maps, explained.classes, baseline="mean"
    )
    found = evidence.figures["faithfulness"]["student"]
    assert found["deletion_mean"]["value"] == pytest.approx(curves.areas[0].mean().item(), abs=0.005)
    assert found["gap_mean"]["value"] == pytest.approx(curves.gap.mean().item(), abs=0.005)
    drawn = evidence.figures["curves"]["student"]
    assert drawn["shares"] == [0, *SHARES, 1]
    area = np.trapezoid(drawn["insertion"], dx=1 / 13) - np.trapezoid(drawn["deletion"], dx=1 / 13)
    assert area == pytest.approx(found["gap_blur"]["value"], abs=1e-6)
    assert set(drawn["controls"]) == set(TRIVIAL)
    assert drawn["controls"]["edges"]["deletion"][0] == pytest.approx(drawn["deletion"][0])


def test_a_network_is_asked_about_210_times_an_image_in_large_batches(explained):
    networks, sizes = {"student": Looking()}, []

    def probability(role):
        def ask(images):
            sizes.append(len(images))
            return networks[role](images).softmax(dim=1)

        return ask

    gather(
        networks,
        explained,
        probability=probability,
        methods={"student": "score_cam"},
        layers={"student": None},
        seed=0,
        show_progress=False,
        heat_maps=honest,
    )
    assert sum(sizes) == COUNT * (2 * (2 * 4 * 12 + 2) + 5 + 8)
    assert max(sizes) <= 128
    assert np.mean(sizes) > 75


def test_lesions_are_measured_where_they_are_drawn(explained):
    found = gathered({"student": Looking()}, explained).figures["lesions"]
    assert found["images"] == 9
    # 64 of the map's 100 pixels lie in the mask of 8 by 8; a flat map has 64 of 576.
    assert found["student"]["energy"]["value"] == pytest.approx(0.64)
    assert found["share"]["value"] == pytest.approx(64 / SIDE**2)
    assert found["student"]["pointing"]["value"] == pytest.approx(0.64)
    assert set(found) == {"student", *TRIVIAL, "share", "images"}


def test_without_masks_there_is_nothing_on_lesions(explained):
    figures = gathered({"student": Looking()}, replace(explained, masks=None)).figures
    assert figures["lesions"] is None
    undrawn = gathered({"student": Looking()}, replace(explained, has_mask=np.zeros(COUNT, dtype=bool))).figures
    assert undrawn["lesions"] is None
    assert any("No explained image has a marked region" in note for note in undrawn["notes"])
    assert figures["notes"] == ["The check against random weights is of 16 of the 24 images judged."]


def test_agreement_between_networks_by_whether_the_student_is_right(explained):
    half = CORNER.clone()
    half[:, 5:] = 0
    networks = {"student": Looking(half), "control": Looking(OTHER_CORNER), "teacher": Looking()}
    figures = gathered(networks, explained).figures
    assert set(figures["agreement"]) == {"student_vs_teacher", "student_vs_control", "control_vs_teacher"}
    pair = figures["agreement"]["student_vs_teacher"]
    assert pair["images"] == {"all": 24, "right": 8, "wrong": 16}
    expected = agreement(half[None], CORNER[None])
    for part in ("all", "right", "wrong"):
        for name, value in expected.items():
            assert pair[part][name]["value"] == pytest.approx(value.item())
    against = agreement(OTHER_CORNER[None], CORNER[None])
    guidance = figures["guidance"]
    for name in ("pearson", "iou"):
        assert guidance[name]["value"] == pytest.approx((expected[name] - against[name]).item())
    # Of the student's 50 pixels 40 lie in the mask, of the control's none.
    assert guidance["energy"]["value"] == pytest.approx(0.8)
    assert set(figures["faithfulness"]) == set(figures["statement"]) == set(figures["curves"]) == set(networks)
    assert figures["faithfulness"]["control"]["faithful"] is False  # it looks where the images say nothing


def test_without_a_teacher_only_what_is_there_is_compared(explained):
    pair = gathered({"student": Looking(), "control": Looking(OTHER_CORNER)}, explained).figures
    assert set(pair["agreement"]) == {"student_vs_control"}
    assert pair["guidance"]["pearson"] is None
    assert pair["guidance"]["iou"] is None
    assert pair["guidance"]["energy"]["value"] == pytest.approx(0.64)
    alone = gathered({"student": Looking()}, explained).figures
    assert alone["agreement"] == {}
    assert alone["guidance"] is None


def test_patients_are_the_unit_where_they_are_known(explained):
    patients = np.array([*("a" * 8), *("b" * 8), *("c" * 7), ""])
    figures = gathered({"student": Looking()}, replace(explained, patients=patients)).figures
    assert figures["patients"] == 4
    assert figures["interval"]["unit"] == "patient"
    found = figures["faithfulness"]["student"]
    assert (found["verdict"], found["unit"], found["units"]) == (NOT_SHOWN, "patient", 4)
    assert found["needed"] >= 12
    assert found["reasons"] == ["They are of 4 patients; nothing is said of fewer than 12."]
    assert "1 image of unknown patient is resampled as a patient each." in figures["notes"]
    unknown = gathered({"student": Looking()}, replace(explained, patients=np.full(COUNT, ""))).figures
    assert unknown == gathered({"student": Looking()}, explained).figures
    assert unknown["patients"] is None


def first(explained, count):
    arrays = {
        name: getattr(explained, name)[:count] for name in ("images", "rows", "classes", "right", "masks", "has_mask")
    }
    return replace(explained, **arrays)


@pytest.mark.parametrize("count", [1, 2, COUNT])
@pytest.mark.parametrize("where", [CORNER, torch.zeros(SIDE, SIDE)])
def test_every_outcome_is_plain_json(explained, count, where):
    networks = {"student": Looking(where), "control": Looking(), "teacher": Looking(where)}
    figures = gathered(networks, first(explained, count)).figures
    assert json.loads(json.dumps(figures, allow_nan=False)) == figures
    assert figures["images"] == count
    if count == 1:
        assert figures["faithfulness"]["control"]["gap"]["low"] is None
        assert figures["faithfulness"]["control"]["faithful"] is False
        assert figures["agreement"]["student_vs_teacher"]["wrong"]["pearson"]["value"] is None
    if not where.any():
        assert figures["agreement"]["student_vs_teacher"]["all"]["pearson"]["value"] is None
        assert any(f"The student's map is flat for {count} of {count} images" in note for note in figures["notes"])


def test_only_images_decided_positive_are_judged(explained):
    """Half of the images show nothing: their maps move no answer, and a perfect map must not suffer from that."""
    positive = np.arange(COUNT) % 2 == 0
    images = torch.where(torch.from_numpy(positive)[:, None, None, None], explained.images, torch.full((), 0.3))
    mixed = replace(explained, images=images, positive=positive, classes=positive.astype(np.int64))
    evidence = gathered({"student": Looking()}, mixed)
    found, alone = evidence.figures["faithfulness"]["student"], gathered({"student": Looking()}, mixed.part(positive))
    assert (found["verdict"], found["units"]) == (FAITHFUL, COUNT // 2)
    assert found["gap"]["value"] == pytest.approx(alone.figures["faithfulness"]["student"]["gap"]["value"], abs=1e-6)
    assert len(evidence.maps["student"]) == evidence.figures["images"] == COUNT
    assert evidence.figures["notes"][0] == (
        "The verdict rests on the 12 of 24 images that are decided positive: of an answer that nothing is there, no map "
        "can show the place."
    )


def test_without_any_positive_nothing_is_shown(explained):
    """Where answers may say that nothing is there, it is said which images were judged."""
    nothing = replace(explained, positive=np.zeros(COUNT, dtype=bool))
    found = gathered({"student": Looking()}, nothing).figures
    judged = found["faithfulness"]["student"]
    assert (judged["verdict"], judged["units"], judged["needed"]) == (NOT_SHOWN, 0, 12)
    assert judged["reasons"] == ["None of the images is decided positive."]
    assert "not shown: too few images" in found["statement"]["student"]
    assert "It takes 12 images decided positive or more" in found["statement"]["student"]


def test_advantages_have_t_intervals_over_patients(explained):
    """A patient's images say the same twice: of eight images each, three patients have two degrees of freedom."""
    patients = np.repeat(["a", "b", "c"], 8)
    single = gathered({"student": Looking()}, explained).figures["faithfulness"]["student"]["advantage"]
    known = replace(explained, patients=patients)
    grouped = gathered({"student": Looking()}, known).figures["faithfulness"]["student"]["advantage"]
    for name in TRIVIAL:
        assert single[name]["low"] < single[name]["value"] < single[name]["high"]
        assert grouped[name]["value"] == single[name]["value"]
        assert grouped[name] != single[name]


def test_of_few_maps_that_are_not_flat_nothing_is_claimed(explained):
    def draw(drawn_of, network, images, classes, *, method, layer, advance):
        drawn = honest(network, images, classes, method=method, layer=layer, advance=advance)
        keep = torch.arange(len(images)) < drawn_of
        return drawn * keep[:, None, None]

    # The check looks at 16 of the 24 images, spread evenly: rows 0, 2, 3, 5, 6, 8, 9 ...
    for drawn_of, told in ((8, False), (9, True)):
        found = gathered({"student": Looking()}, explained, partial(draw, drawn_of)).figures["faithfulness"]["student"]
        assert any("Too few of them are not flat" in reason for reason in found["reasons"]) != told


def test_fast_and_exact_maps_are_compared_but_for_the_teachers(explained):
    networks = {"student": Looking(), "control": Looking(), "teacher": Looking()}
    methods = {"student": "score_cam", "control": "eigen_cam", "teacher": "score_cam_fast"}
    drawn = []

    def draw(network, images, classes, *, method, layer, advance):
        drawn.append((network, method))
        return honest(network, images, classes, method=method, layer=layer, advance=advance)

    figures = gather(
        networks,
        explained,
        probability=probabilities(networks),
        methods=methods,
        layers=dict.fromkeys(networks),
        seed=0,
        show_progress=False,
        heat_maps=draw,
    ).figures
    assert {role: part["images"] for role, part in figures["fast"].items()} == {"student": 16}
    assert figures["fast"]["student"]["pearson"]["value"] == pytest.approx(1)
    asked = {role: {method for network, method in drawn if network is networks[role]} for role in networks}
    assert asked == {
        "student": {"score_cam", "score_cam_fast"},
        "control": {"eigen_cam"},
        "teacher": {"score_cam_fast"},
    }


def test_the_same_seed_gives_the_same_figures(explained):
    one, same, other = (gathered({"student": Looking()}, explained, seed=seed).figures for seed in (0, 0, 1))
    assert one == same
    assert one["faithfulness"] != other["faithfulness"]


def plain(count, side):
    return Explained(
        images=torch.rand(count, 1, side, side),
        rows=np.arange(count),
        classes=np.ones(count, dtype=np.int64),
        right=np.ones(count, dtype=bool),
        masks=None,
        has_mask=np.zeros(count, dtype=bool),
        patients=None,
    )


def test_large_images_do_without_road():
    figures = gathered({"student": Looking(torch.rand(226, 226))}, plain(1, 226)).figures
    assert "road" not in figures["faithfulness"]["student"]
    assert figures["notes"] == ["ROAD is left out: it takes too long above 224 px, and these images have 226."]
    assert "They are of 1 image; nothing is said of fewer than 12." in figures["faithfulness"]["student"]["reasons"]


def test_of_many_images_a_sample_is_checked_against_random_weights():
    figures = gathered({"student": Looking(torch.rand(12, 12))}, plain(34, 12)).figures
    assert figures["notes"] == ["The check against random weights is of 17 of the 34 images judged."]


def test_real_maps_of_a_real_network_are_measured(explained):
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 8, 5, stride=2),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(512, 2),
    )
    networks = {"student": network.eval()}
    few = first(explained, 3)
    evidence = gather(
        networks,
        few,
        probability=probabilities(networks),
        methods={"student": "score_cam"},
        layers={"student": "4"},
        seed=0,
        show_progress=False,
    )
    assert evidence.maps["student"].shape == (3, SIDE, SIDE)
    assert evidence.figures["method"] == {"student": "score_cam"}
    assert evidence.figures["layer"] == {"student": "4"}
    json.dumps(evidence.figures, allow_nan=False)


def test_what_does_not_fit_together_is_refused(explained):
    with pytest.raises(UsageError, match="student's network, got teacher"):
        gathered({"teacher": Looking()}, explained)
    with pytest.raises(UsageError, match="24 images, 5 classes"):
        gathered({"student": Looking()}, replace(explained, classes=explained.classes[:5]))
    with pytest.raises(UsageError, match="no image to explain"):
        gathered({"student": Looking()}, first(explained, 0))
