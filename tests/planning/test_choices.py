"""The rules of the plan, as a pure function of made-up facts, networks and times."""

import dataclasses

import pytest

from stillroom import (
    Baseline,
    Best,
    DataSettings,
    EvaluationSettings,
    MedAlmighty,
    Settings,
    StudentSettings,
    TeacherSettings,
    TrainingSettings,
    UsageError,
)
from stillroom.planning.choices import CROP, MIN_STEPS, choose
from stillroom.planning.facts import Facts
from stillroom.planning.networks import SIDES
from stillroom.planning.sheet import GIVEN, Limits
from stillroom.planning.teachers import (
    FINE_TUNE_STEPS,
    FROZEN_ALPHA,
    FROZEN_SHARE,
    FROZEN_SIDE,
    MOST_SEEDS,
    TEACH_SHARE,
    TUNED_ALPHA,
)

MEGABYTES = {
    "efficientnet_b0": 16.0,
    "mobilenet_edgetpu_100": 11.3,
    "mobilenetv2_100": 8.9,
    "mobilenetv2_075": 5.4,
    "mobilenetv2_050": 2.8,
    "mobilenetv2_035": 1.6,
    "resnet10t_050": 4.9,
    "lcnet_035": 1.5,
    "mobilenetv3_small_050": 2.3,
}
FACTS = Facts(
    kind="multiclass",
    images=1000,
    training=640,
    labelled=640,
    unlabelled=0,
    validation=160,
    test=200,
    classes={"a": 320, "b": 320},
    patients=None,
    side=400,
    smallest=300,
    largest=500,
    colour=True,
    resolution=None,
    weights=("mobilenet_edgetpu_100", "mobilenetv2_100"),
    student_weights=("mobilenet_edgetpu_100", "mobilenetv2_100"),
    weights_from="here",
    device="cpu",
    machine="a machine",
)


class Shelf:
    def megabytes(self, name):
        return MEGABYTES.get(name, 20.0)

    def native(self, name):
        return 224

    def trains(self, name):
        return not name.endswith(".onnx")

    def takes(self, name, side):
        return not name.startswith("vit") or side == 224


class Times:
    """A step takes ``step_ms`` for an image of 64 px, in proportion to its area; asking a third of it."""

    def __init__(self, step_ms=4.0, factors=None):
        self.step_ms, self.factors = step_ms, factors or {}

    def step(self, name, side):
        return self.step_ms / 1000 * (side / 64) ** 2 * self.factors.get(name, 1.0)

    def forward(self, name, side):
        return self.step(name, side) / 3

    def latency_ms(self, name, side):
        return MEGABYTES.get(name, 20.0)

    def export(self, name):
        return 7.0


def plan(facts=FACTS, times=None, minutes=20.0, max_mb=10.0, max_ms=None, given=None, fixed=(), **changed):
    facts = dataclasses.replace(facts, **changed)
    given = given or Settings("x")
    return choose(facts, Shelf(), times or Times(), Limits(minutes, max_mb, max_ms), given, frozenset(fixed))


def value(found, name):
    return found.choices[name].value


# -- the student --------------------------------------------------------------------------------------------------
def test_the_best_pretrained_student_within_the_megabytes_taught_by_its_own_start_fine_tuned():
    found = plan()
    assert value(found, "student.student") == "mobilenetv2_100"  # mobilenet_edgetpu_100 has 11.3 MB
    assert value(found, "student.student_pretrained") is True
    assert value(found, "teacher.teacher") == "mobilenetv2_100"
    assert value(found, "teacher.teacher_mode") == "finetune"
    assert value(found, "teacher.teacher_size") == value(found, "data.size")
    larger = plan(max_mb=12)
    assert value(larger, "student.student") == value(larger, "teacher.teacher") == "mobilenet_edgetpu_100"


def test_a_recipe_of_one_teacher_takes_the_strongest_other_network():
    given = Settings("x", MedAlmighty())
    assert value(plan(given=given, fixed={"recipe.name"}), "teacher.teacher") == "mobilenet_edgetpu_100"
    larger = plan(given=given, fixed={"recipe.name"}, max_mb=12)
    assert value(larger, "teacher.teacher") == "mobilenetv2_100"  # never the student itself


def test_a_file_teaches_as_it_is_and_the_plan_says_so():
    given = Settings("x", teacher=TeacherSettings("/nets/m.onnx"))
    found = plan(given=given, fixed={"teacher.teacher"}, weights=(*FACTS.weights, "/nets/m.onnx"), minutes=60)
    assert value(found, "teacher.teacher") == "/nets/m.onnx"
    assert value(found, "teacher.teacher_mode") == "frozen"
    assert "cannot be fine-tuned" in found.choices["teacher.teacher_mode"].why


@pytest.mark.parametrize(
    ("max_mb", "student"), [(8, "mobilenetv2_075"), (3, "mobilenetv2_050"), (2.5, "mobilenetv2_035")]
)
def test_a_student_is_cut_out_of_a_larger_sibling_where_no_pretrained_one_is_small_enough(max_mb, student):
    found = plan(max_mb=max_mb)
    assert value(found, "student.student") == student
    assert value(found, "student.student_from") == "mobilenetv2_100"
    assert "student.student_pretrained" not in found.choices


def test_random_weights_only_where_nothing_else_is_at_hand_and_then_an_untrained_teacher():
    found = plan(weights=(), student_weights=())
    assert value(found, "student.student") == "resnet10t_050"
    assert value(found, "student.student_pretrained") is False
    assert value(found, "teacher.pretrained") is False
    assert value(found, "teacher.teacher_mode") == "finetune"
    assert value(found, "teacher.teacher_epochs") >= 1
    assert found.expected_s["teach"] <= 1200 * TEACH_SHARE
    assert "no pretrained weights are at hand" in found.choices["teacher.teacher"].why


def test_a_student_from_random_weights_is_taught_softly_by_answers_and_features_on_many_views():
    found = plan(weights=(), student_weights=())
    assert [value(found, f"recipe.{name}") for name in ("alpha", "temperature", "feature_weight")] == [0.2, 4.0, 3.0]
    assert value(found, "views.views") == 40
    given = Settings("x", Best(temperature=2.0))
    fixed = {"recipe.name", "recipe.temperature", "views.views"}
    found = plan(weights=(), student_weights=(), given=given, fixed=fixed)
    assert [value(found, f"recipe.{name}") for name in ("alpha", "temperature", "feature_weight")] == [0.2, 2.0, 3.0]
    assert value(found, "views.views") == 8
    found = plan(weights=(), student_weights=(), given=Settings("x", MedAlmighty()), fixed={"recipe.name"})
    assert not {"recipe.alpha", "recipe.feature_weight"} & set(found.choices)


def test_a_student_that_starts_from_weights_is_not_taught_as_one_that_has_none():
    given = Settings("x", teacher=TeacherSettings("", pretrained=False))
    found = plan(given=given, fixed={"teacher.pretrained"})
    assert value(found, "student.student_pretrained") is True
    assert value(found, "teacher.pretrained") is False
    assert "recipe.feature_weight" not in found.choices


def test_an_untrained_teacher_is_not_asked_about_views_that_nobody_sees():
    given = Settings("x", training=TrainingSettings(epochs=5))
    found = plan(weights=(), student_weights=(), given=given, fixed={"training.epochs"})
    assert value(found, "views.views") == 5
    often = plan(weights=(), student_weights=(), given=given, fixed={"training.epochs", "views.views"})
    assert value(found, "teacher.teacher_epochs") >= value(often, "teacher.teacher_epochs")


def test_asking_takes_a_quarter_of_an_untrained_teachers_time_at_most():
    slow = plan(weights=(), student_weights=(), minutes=1.0)
    views = value(slow, "views.views")
    assert 4 <= views < 40
    asking = views * 640 * Times().forward("resnet10t", value(slow, "data.size"))
    assert views == 4 or asking <= 0.25 * 60 * 0.97 * TEACH_SHARE


def test_the_only_network_with_weights_teaches_itself():
    found = plan(weights=("mobilenetv2_100",), student_weights=("mobilenetv2_100",))
    assert value(found, "student.student") == value(found, "teacher.teacher") == "mobilenetv2_100"
    assert "the student's own network" in found.choices["teacher.teacher"].why
    given = Settings("x", MedAlmighty())
    found = plan(weights=("mobilenetv2_100",), student_weights=("mobilenetv2_100",), given=given, fixed={"recipe.name"})
    assert found.choices["teacher.teacher"].why == "no other network has weights at hand"


def test_a_limit_that_nothing_keeps_names_what_comes_nearest():
    with pytest.raises(UsageError, match=r"at most 0.5 MB: the smallest is lcnet_035 with 1.50 MB"):
        plan(max_mb=0.5)
    with pytest.raises(UsageError, match=r"within 1 ms: the nearest is lcnet_035 with 1.5 ms"):
        plan(max_ms=1)
    assert value(plan(max_ms=6), "student.student") == "mobilenetv2_075"


@pytest.mark.parametrize("limits", [{"minutes": 0}, {"minutes": -1}, {"max_mb": 0}, {"max_ms": float("nan")}])
def test_limits_are_above_zero(limits):
    with pytest.raises(UsageError, match="must be above 0 and finite"):
        plan(**limits)


# -- the side -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("step_ms", "minutes"), [(4.0, 20), (4.0, 1), (1.0, 20), (40.0, 20), (400.0, 1)])
def test_the_side_is_the_largest_with_passes_enough(step_ms, minutes):
    times = Times(step_ms)
    side = value(plan(times=times, minutes=minutes), "data.size")
    student_s = 60 * minutes * (1 - FROZEN_SHARE)

    def passes(at):
        return student_s / (640 * times.step("any", at))

    larger, enough = [other for other in SIDES if other > side], MIN_STEPS / 20
    assert passes(side) >= 0.9 * enough or side == SIDES[0]
    assert not larger or passes(larger[0]) < 1.2 * enough


@pytest.mark.parametrize(("true", "side"), [(28, 64), (64, 64), (90, 96), (97, 128), (1000, 224)])
def test_the_side_does_not_exceed_that_of_the_images(true, side):
    found = plan(times=Times(0.1), side=true)
    assert value(found, "data.size") == side
    assert value(found, "teacher.teacher_size") <= side
    frozen = found.choices.get("recipe.frozen_size", found.choices["teacher.teacher_size"])
    assert frozen.value >= FROZEN_SIDE
    assert str(true) in found.choices["data.size"].why


# -- the teacher --------------------------------------------------------------------------------------------------
def test_a_teacher_that_is_too_slow_makes_way_for_a_weaker_one():
    both = ("vit_small_patch16_224", *FACTS.weights)
    frozen = {
        "given": Settings("x", MedAlmighty(), teacher=TeacherSettings(teacher_mode="frozen")),
        "fixed": {"recipe.name", "teacher.teacher_mode"},
    }
    assert value(plan(weights=both, minutes=60, **frozen), "teacher.teacher") == "vit_small_patch16_224"
    slow = Times(factors={"vit_small_patch16_224": 50.0})
    assert value(plan(times=slow, weights=both, minutes=60, **frozen), "teacher.teacher") == "mobilenet_edgetpu_100"


def test_the_teacher_keeps_to_its_share():
    for minutes in (1, 4, 20, 60):
        for step_ms in (0.5, 2.0):
            found = plan(minutes=minutes, times=Times(step_ms))
            assert found.expected_s["teach"] <= 60 * minutes * TEACH_SHARE + 1e-6


def test_longer_minutes_bring_copies_and_larger_frozen_networks():
    short, long = plan(minutes=1, times=Times(2.0), side=64), plan(minutes=60, times=Times(2.0), side=64)
    assert "recipe.teacher_seeds" not in short.choices
    assert value(long, "recipe.teacher_seeds") == MOST_SEEDS
    assert value(long, "recipe.frozen_size") == FROZEN_SIDE  # 64 px tell a network that was made for 224 too little


@pytest.mark.parametrize("labelled", [64, 640, 6400])
def test_the_teacher_is_fine_tuned_for_steps_enough_where_the_minutes_allow(labelled):
    found = plan(minutes=60, times=Times(1.0), training=labelled, labelled=labelled)
    assert value(found, "teacher.teacher_mode") == "finetune"
    batch = value(found, "training.batch_size")
    steps = value(found, "teacher.teacher_epochs") * -(-labelled // batch)
    assert steps >= 0.9 * FINE_TUNE_STEPS
    tight = {"minutes": 0.5, "times": Times(8.0), "labelled": labelled, "training": labelled}
    assert value(plan(**tight), "teacher.teacher_mode") == "frozen"


def test_frozen_networks_join_the_panel():
    tuned, frozen = plan(minutes=60, times=Times(2.0)), plan(minutes=2, times=Times(8.0))
    assert value(tuned, "recipe.name") == "best"
    assert value(tuned, "recipe.frozen_teachers") == ("mobilenet_edgetpu_100", "mobilenetv2_100")
    assert value(tuned, "recipe.alpha") == TUNED_ALPHA
    assert value(frozen, "teacher.teacher") == "mobilenet_edgetpu_100"  # the strongest, where none is fine-tuned
    assert value(frozen, "teacher.teacher_mode") == "frozen"
    assert value(frozen, "recipe.alpha") == FROZEN_ALPHA
    few = plan(minutes=2, times=Times(8.0), labelled=64)
    assert "no label" in few.choices["recipe.alpha"].why or value(few, "teacher.teacher_mode") == "finetune"
    assert "recipe.frozen_teachers" not in plan(given=Settings("x", MedAlmighty()), fixed={"recipe.name"}).choices
    cut = plan(minutes=60, max_mb=2, times=Times(2.0))
    assert "mobilenetv2_100" in value(cut, "recipe.frozen_teachers")  # what the student is cut out of


def test_a_teacher_is_asked_about_fewer_views_where_there_are_few_passes():
    many, few = plan(minutes=20), plan(minutes=3, times=Times(4.0), side=64, labelled=6400, training=6400, images=8000)
    assert value(many, "views.views") >= 5
    assert 2 <= value(few, "views.views") < 5


def test_views_are_crops_and_mirrored_unless_a_class_is_named_after_a_side():
    found = plan()
    assert value(found, "views.crop") == CROP
    assert value(found, "views.flips") is True
    for name in ("Left ear", "OD", "situs inversus"):
        sided = plan(classes={name: 320, "b": 320})
        assert value(sided, "views.flips") is False
        assert name in sided.choices["views.flips"].why
    assert value(plan(classes={"cleft lip": 320, "b": 320}), "views.flips") is True  # a word, not letters


def test_what_validation_finds_best_is_handed_over():
    assert value(plan(), "evaluation.keep") == "best"
    given = Settings("x", evaluation=EvaluationSettings(repeats=3))
    assert "evaluation.keep" not in plan(given=given, fixed={"evaluation.repeats"}).choices


# -- the training -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("minutes", [2, 5, 20, 45])
@pytest.mark.parametrize("step_ms", [2.0, 8.0])
def test_teaching_and_training_fill_the_minutes(minutes, step_ms):
    found = plan(minutes=minutes, times=Times(step_ms))
    seconds = found.expected_s["teach"] + found.expected_s["student"]
    assert seconds <= 60 * minutes
    enough = "have then taught what they can" in found.choices["training.steps"].why
    assert enough or seconds >= 0.85 * 60 * minutes
    assert found.expected_s["control"] == found.expected_s["student"]


def test_steps_are_whole_passes_and_one_at_least():
    assert value(plan(), "training.steps") % 20 == 0
    found = plan(times=Times(4000.0), minutes=1)
    assert value(found, "training.steps") == 20
    assert "more than there is" in found.choices["training.steps"].why


def test_repeats_share_the_minutes():
    given = Settings("x", evaluation=EvaluationSettings(repeats=4))
    fixed = {"evaluation.repeats"}
    one, four = plan(), plan(given=given, fixed=fixed)
    assert four.expected_s["teach"] + four.expected_s["student"] <= 1200
    assert value(four, "data.size") < value(one, "data.size")


def test_images_without_labels_count_in_a_pass():
    few = {"labelled": 64, "classes": {"a": 32, "b": 32}}
    with_rest = plan(**few)
    given = Settings("x", training=TrainingSettings(teach_rest=False))
    without = plan(given=given, fixed={"training.teach_rest"}, **few)
    assert "640 images teach" in with_rest.choices["training.batch_size"].why
    assert "64 images teach" in without.choices["training.batch_size"].why


def test_uneven_classes_are_weighed():
    assert value(plan(), "training.class_weights") is False
    found = plan(classes={"a": 600, "b": 40})
    assert value(found, "training.class_weights") is True
    assert found.choices["training.class_weights"].why.startswith("15.0 images")
    assert "training.class_weights" not in plan(kind="multilabel", classes={"a": 600, "b": 40}).choices


# -- what is given ------------------------------------------------------------------------------------------------
def test_what_is_given_stands_and_the_rest_is_planned_around_it():
    given = Settings(
        "x",
        MedAlmighty(alpha=0.7),
        data=DataSettings(size=128),
        student=StudentSettings("mobilenetv2_050"),
        training=TrainingSettings(lr=0.5, label_fraction=0.5),
    )
    fixed = {"recipe.name", "recipe.alpha", "data.size", "student.student", "training.lr", "training.label_fraction"}
    found = plan(given=given, fixed=fixed, times=Times(1.0, factors={"mobilenetv2_050": 2.0}), minutes=6)
    for name, expected in (
        ("recipe.name", "medalmighty"),
        ("recipe.alpha", 0.7),
        ("data.size", 128),
        ("student.student", "mobilenetv2_050"),
        ("training.lr", 0.5),
        ("training.label_fraction", 0.5),
    ):
        assert found.choices[name].value == expected
        assert found.choices[name].why == GIVEN
    assert value(found, "student.student_from") == "mobilenetv2_100"  # no weights of its own are at hand
    slower = value(found, "training.steps")
    faster = value(plan(given=given, fixed=fixed, times=Times(1.0), minutes=6), "training.steps")
    assert 1.3 * slower < faster <= 2.2 * slower  # what it saves goes to its teacher as well


def test_a_given_teacher_without_pretraining_is_fine_tuned():
    given = Settings("x", teacher=TeacherSettings("resnet18", pretrained=False))
    found = plan(given=given, fixed={"teacher.teacher", "teacher.pretrained"})
    assert value(found, "teacher.teacher") == "resnet18"
    assert value(found, "teacher.teacher_mode") == "finetune"


def test_given_epochs_stand_in_the_place_of_steps():
    given = Settings("x", training=TrainingSettings(epochs=3))
    found = plan(given=given, fixed={"training.epochs"})
    assert "training.steps" not in found.choices
    assert found.expected_s["student"] < 150


def test_without_a_teacher_there_is_none():
    found = plan(given=Settings("x", Baseline()), fixed={"recipe.name"})
    assert not [name for name in found.choices if name.startswith("teacher.")]
    assert "teach" not in found.expected_s
    assert "control" not in found.expected_s
    assert value(found, "views.views") == 0


def test_every_choice_has_a_reason_in_a_line():
    for found in (plan(), plan(weights=(), student_weights=()), plan(max_mb=2), plan(minutes=0.5)):
        for choice in found.choices.values():
            assert choice.why
            assert "\n" not in choice.why


def test_the_demonstration_trains_its_own_teacher():
    from stillroom.cli.demo import GIVEN as FIXED
    from stillroom.cli.demo import MINUTES, demo_settings

    given = demo_settings()
    found = plan(given=given, fixed=FIXED, minutes=MINUTES, weights=(), student_weights=(), times=Times(1.0))
    assert (value(found, "teacher.teacher"), value(found, "teacher.pretrained")) == ("test_resnet", False)
    assert value(found, "student.student") == "test_efficientnet"
    assert value(found, "teacher.teacher_epochs") >= 14
    assert value(found, "recipe.name") == "best"
    assert found.expected_s["teach"] + found.expected_s["student"] <= 60 * MINUTES


# -- a panel that is given in part ---------------------------------------------------------------------------------
THREE = {"weights": (*FACTS.weights, "vit_small_patch14_dinov2"), "minutes": 60, "times": Times(1.0)}


def asked_for(found, recipe):
    """The settings of a decision, checked as a run would."""
    from stillroom.settings.whole import from_dict

    content = {"source": "x"}
    for name, choice in found.choices.items():
        section, _, field = name.partition(".")
        content.setdefault(section, {})[field] = choice.value
    settings = from_dict(content, "plan")
    settings.recipe.check(settings)
    return settings


def given_panel(minutes, **recipe):
    best = Best(**recipe)
    fixed = {"recipe.name", *(f"recipe.{name}" for name in recipe)}
    return plan(given=Settings("x", best), fixed=fixed, minutes=minutes, times=Times(4.0)), best


@pytest.mark.parametrize("minutes", [0.3, 1, 3, 60])
@pytest.mark.parametrize(
    "recipe",
    [
        {"frozen_teachers": ("mobilenet_edgetpu_100",)},
        {"frozen_teachers": ("mobilenet_edgetpu_100", "mobilenetv2_100")},
        {"frozen_teachers": ("mobilenet_edgetpu_100",), "frozen_size": 224},
        {"teacher_seeds": 3},
        {"teachers": ("convnext_tiny",)},
    ],
)
def test_what_is_given_of_a_panel_is_in_it_and_goes_with_the_rest(minutes, recipe):
    found, best = given_panel(minutes, **recipe)
    settings = asked_for(found, best)
    for name, wanted in recipe.items():
        assert getattr(settings.recipe, name) == wanted
    if recipe.get("teacher_seeds", 1) > 1:
        assert settings.teacher.teacher_mode == "finetune"


def test_a_given_network_costs_its_minutes():
    sides = (96, 224)
    small, large = (given_panel(30, frozen_teachers=("mobilenet_edgetpu_100",), frozen_size=side)[0] for side in sides)
    assert value(large, "recipe.frozen_size") == 224
    assert [small.expected_s["teach"], value(small, "views.views")] != [
        large.expected_s["teach"],
        value(large, "views.views"),
    ]


def test_every_frozen_network_takes_its_side():
    shelf = Shelf()
    found = plan(**THREE | {"minutes": 6, "times": Times(8.0)})
    for name in found.choices.get("recipe.frozen_teachers", found.choices["teacher.teacher"]).value:
        side = found.choices.get("recipe.frozen_size", found.choices["teacher.teacher_size"]).value
        assert not name.startswith("vit") or shelf.takes(name, side)


def test_the_larger_sibling_teaches_though_no_list_names_it():
    found = plan(weights=("lcnet_050",), student_weights=("lcnet_050",), max_mb=1.6)
    assert value(found, "student.student_from") == "lcnet_050"
    assert value(found, "teacher.teacher") == "lcnet_050"
