"""The page's rules and words against the predictor's, over many made-up tasks, rules and outputs of the network."""

import json

import numpy as np
import pytest

from stillroom.after.heat_map import Explanation, trust
from stillroom.deployment.metadata import ModelMetadata
from stillroom.deployment.page.notes import notes_on
from stillroom.deployment.page.scripts import HERE, joined
from stillroom.deployment.predictor import Predictor
from stillroom.evaluation.questions import question_names
from stillroom.explanation.claims import VERDICTS
from stillroom.task import MultiClass, MultiLabel

TEXTS = {name: json.loads((HERE / "texts" / f"{name}.json").read_text("utf-8")) for name in ("en", "de")}
METHODS = ("rise", "score_cam", "score_cam_fast")


class Told(Predictor):
    """A predictor whose network answers what it was told."""

    def __init__(self, metadata, found):
        super().__init__(None, metadata, None)
        self.found = found

    digest = "0" * 64

    def outputs(self, batch, names):
        return {name: self.found[name] for name in names}


def task_of(rng):
    names = ("benign", "malignant", "normal", "other")[: rng.integers(2, 5)]
    kind = rng.integers(3)
    return (
        MultiLabel(names, paper_softmax=bool(rng.random() < 0.2)) if kind == 0 else MultiClass(names, ordinal=kind == 1)
    )


def rules_of(task, rng) -> dict:
    """Conformal sets, a rule for foreign images and thresholds, each there or not; the rarest cases come often."""
    count = len(task.classes)
    shape = (count,) if task.exclusive else (count, 2)
    thresholds = np.where(rng.random(shape) < 0.2, np.nan, rng.uniform(0, 3, shape))
    plain = [None if value != value else value for value in thresholds.ravel().tolist()]
    pairs = [plain[i : i + 2] for i in range(0, len(plain), 2)]
    conformal = {
        "coverage": 0.9,
        "class_conditional": False,
        "images": 50,
        "thresholds": plain if task.exclusive else pairs,
    }
    foreign = {"energy_location": -1.0, "energy_scale": 1.5, "distance_location": 1.0, "distance_scale": 0.5}
    foreign |= {"threshold": None if rng.random() < 0.2 else 1.5, "refusals": 0.05, "images": 50}
    points = [
        {
            "of": name,
            "for": kind,
            "wanted": wanted,
            "threshold": rng.random(),
            "promised": promised,
            "images": 9,
            "units": 9.0,
        }
        for name in question_names(task)
        for kind, wanted, promised in (
            ("sensitivity", 0.95, 0.95),
            ("specificity", 0.9, 0.7166),
            ("sensitivity", 0.8, 0.29),
        )
        if rng.random() < 0.5
    ]
    tested = {
        "method": str(rng.choice(METHODS)), "statement": "So it is.", "verdict": str(rng.choice(VERDICTS)),
        "faithful": rng.choice([True, False, None]), "fast": {"pearson": {"value": 0.876}, "images": 31},
    }  # fmt: skip
    if rng.random() < 0.3:
        del tested["verdict"]
    some = {"conformal": conformal, "foreign": foreign, "points": tuple(points), "explanation": tested}
    return {name: rule for name, rule in some.items() if rng.random() < 0.7}


def cases(count: int) -> list[dict]:
    """What the page is given, and what the predictor says."""
    made = []
    for seed in range(count):
        rng = np.random.default_rng(seed)
        task = task_of(rng)
        how = {"name": "n", "size": 8, "channels": 1, "white": 4095.0, "fit": "pad"}
        metadata = ModelMetadata(task=task, temperature=float(rng.uniform(0.5, 2)), **how, **rules_of(task, rng))
        logits = rng.normal(0, rng.choice([0.3, 3.0, 40.0]), (1, len(task.classes))).astype(np.float32)
        if rng.random() < 0.05:
            logits[0, 0] = np.nan
        with np.errstate(invalid="ignore"):
            chance = task.probabilities(logits, metadata.temperature).astype(np.float32)
        found = {"logits": logits, "probabilities": chance, "distance": rng.uniform(0, 2, 1).astype(np.float32)}
        predictor = Told(metadata, found)
        (said,) = predictor.answers(np.zeros((1, 1, 8, 8), np.float32), [None])
        of, method = str(rng.choice(task.classes)), str(rng.choice(METHODS))
        verdict, statement = trust(predictor, method, Explanation(said, of))
        model = notes_on(predictor, TEXTS) | {"language": "en"}
        outputs = {
            name: [str(value) for value in values.ravel().tolist()] for name, values in found.items()
        }  # NaN, too
        made.append(
            {
                "asked": {"model": model | {"rise": None, "words": None}, "found": outputs, "of": of, "method": method},
                "expected": said.to_dict() | {"flags": said.flags, "verdict": verdict, "statement": statement},
                "words": model["words"]["en"],
            }
        )
    return made


@pytest.fixture(scope="module")
def answered(browser):
    """What the page's own modules say of the cases."""
    given = cases(200)
    asked = json.dumps([case["asked"] for case in given])
    words = json.dumps(given[0]["words"])
    code = f"""(() => {{
        {joined(HERE / "engine" / "answer.js")}
        const words = {words};
        return {asked}.map(({{ model, found, of, method }}) => {{
            const numbers = Object.fromEntries(Object.entries(found).map(([name, values]) =>
                [name, values.map((value) => (value === "nan" ? NaN : Number(value)))]));
            const answer = module_answer.answerOf(model, numbers, {{ path: null, frame: null, clipped: 0 }});
            const said = module_words.worded(answer, model, words);
            const coarse = module_words.trust(model, method, said, of, words, {{ asked: 57, channels: 2048, coarse: true }});
            return {{ ...said, coarse, ...(said.error ? {{}} : module_words.trust(model, method, said, of, words)) }};
        }});
    }})()"""
    return list(zip(given, browser.evaluate(code), strict=True))


def test_every_answer_is_the_predictors_in_every_word(answered):
    for case, said in answered:
        expected = dict(case["expected"])
        if expected["error"]:
            assert said["error"] == expected["error"]
            continue
        for key in ("probabilities", "foreign_score"):
            assert said[key] == (pytest.approx(expected[key], abs=1e-5) if expected[key] is not None else None)
        for key in expected.keys() - {"probabilities", "foreign_score"}:
            assert said[key] == expected[key], (key, case)


def test_the_cases_reach_every_kind_of_answer(answered):
    answers = {case["expected"]["answer"] for case, _ in answered}
    assert {None, "not this kind of image", "no finding", "any of the 3 classes", "any of the 4 classes"} <= answers
    assert any(" or " in str(answer) for answer in answers)
    assert any("perhaps" in str(answer) for answer in answers)
    assert any("surely reached" in case["expected"]["flags"] for case, _ in answered)
    assert len({case["expected"]["statement"] for case, _ in answered}) > 6


def test_of_a_coarse_map_no_verdict_is_said(answered):
    told = set()
    for case, said in answered:
        tested = case["asked"]["model"]["explanation"]
        assert said["coarse"]["verdict"] is None
        known = tested is not None and tested["faithful"] is not None
        assert said["coarse"]["statement"].endswith("Of those: So it is." if known else "was stopped before.")
        assert ("57 of the network's 2048 channels" in said["coarse"]["statement"]) == known
        told.add(known)
    assert told == {True, False}
