"""The report's part on heat maps, from evidence that is really gathered."""

import base64
import io
import json
import re

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from stillroom.errors import RunError
from stillroom.explanation.claims import FAITHFUL, NOT_FAITHFUL, NOT_SHOWN
from stillroom.report import write_model_card, write_report
from stillroom.report.explanation import explanation_section
from stillroom.report.map_gallery import correlations, map_gallery, outlined
from stillroom.report.numbers import Estimate
from stillroom.report.record import load
from stillroom.report.wording import findings
from stillroom.task import MultiClass

ALONE = ("student",)


def section_of(run):
    return explanation_section(load(run))


@pytest.mark.parametrize("kind", ["binary", "ordinal", "multilabel"])
def test_the_page_shows_what_was_measured(make_run, kind, page_of):
    run = make_run(kind, images=600 if kind == "multilabel" else 240, featured=16, explained=7, lesions=True)
    page = page_of(run)
    found = json.loads((run / "metrics.json").read_text())["explanation"]
    ids = [attributes.get("id") for _, attributes in page.elements]
    assert "explanation" in ids
    assert ("a", {"href": "#explanation"}) in page.elements
    for role in ("student", "control", "teacher"):
        assert found["statement"][role].replace(" -", " −") in page.words
        for value in (found["faithfulness"][role]["gap"], found["lesions"][role]["energy"]):
            assert "{value:z.3f} {low:z.3f} to {high:z.3f}".format(**value).replace("-", "−") in page.words
    said, *others = found["notes"]
    assert said.startswith("The class explained is the one to which the student gives")  # the page says it another way
    assert "for the class to which the student gives the highest probability, whichever network" in page.words
    for note in others:
        assert note in page.words
    assert "Score-CAM A heat map made without gradients" in page.words
    assert not re.search(r"\b(nan|None|undefined)\b", page.words)


def test_tables_are_whole_and_in_the_order_of_roles(make_run):
    run = make_run(images=120, explained=6, lesions=True)
    section = section_of(run)
    assert [row[0] for row in section.maps.rows[::4]] == ["Student, own map", "Control, own map", "Teacher, own map"]
    assert [row[0] for row in section.maps.rows[1:4]] == ["Student, centre blob", "Student, edges", "Student, random"]
    for table in (section.maps, section.measures, section.lesions, section.agreement):
        assert all(len(row) == len(table.columns) for row in table.rows)
    own, centre = section.maps.rows[:2]
    assert centre[2].value == pytest.approx(own[1].value - centre[1].value, abs=1e-9)  # the advantage over it
    assert section.lesions.rows[-1][0].startswith("Flat map")
    assert section.lesion_images == 5  # the first image's mask is empty
    parts = {row[0]: row[1] for row in section.agreement.rows}
    assert parts["Student and teacher, all"] == "6"
    kinds = [int(parts.get(f"Student and teacher, {kind}", 0)) for kind in ("right", "wrong")]
    assert sum(kinds) == 6
    assert [text.split(",")[0] for text in section.guidance] == [
        "Correlation with the teacher's map", "Overlap with the teacher's top 20 %", "Heat on the marked region",
    ]  # fmt: skip


def test_a_network_whose_maps_were_not_judged_is_compared_all_the_same(make_run, page_of, change):
    run = make_run(images=120, explained=6, lesions=True)

    def edit(metrics):
        for part in ("faithfulness", "statement", "curves", "fast"):
            metrics["explanation"][part].pop("control", None)

    change(run, "metrics.json", edit)
    section = section_of(run)
    assert [judged.role for judged in section.judgements] == ["student", "teacher"]
    assert [row[0] for row in section.maps.rows[::4]] == ["Student, own map", "Teacher, own map"]
    assert "Control's map" in [row[0] for row in section.lesions.rows]
    assert "Control and teacher, all" in [row[0] for row in section.agreement.rows]
    assert not re.search(r"\b(nan|None|undefined)\b", page_of(run).words)


def test_curves_are_drawn_of_the_student_and_every_trivial_map(make_run):
    section = section_of(make_run(images=120, explained=6))
    assert [drawing["heading"].split(":")[0] for drawing in section.drawings] == ["Deletion", "Insertion"]
    for drawing in section.drawings:
        for name in ("centre blob", "edges", "random", "student's map"):
            assert name in drawing["svg"]


@pytest.mark.parametrize(
    ("verdict", "badge", "headline", "tone"),
    [
        (FAITHFUL, None, "The student's maps are faithful: they mark what it uses", "neutral"),
        (NOT_FAITHFUL, "maps not faithful", "The student's maps are not faithful: do not show them as reasons.", "bad"),
        (NOT_SHOWN, NOT_SHOWN, f"Whether the student's maps are faithful is {NOT_SHOWN}. Do not show them", "neutral"),
    ],
)
def test_each_verdict_has_its_words_on_page_and_card(make_run, verdict, badge, headline, tone, page_of, change):
    run = make_run(images=120, featured=16, explained=6, roles=ALONE)

    def edit(metrics):
        found = metrics["explanation"]
        reasons = ["They are <b>flat</b>."] if badge else []
        told = {"verdict": verdict, "faithful": verdict == FAITHFUL, "reasons": reasons}
        found["faithfulness"]["student"] |= told
        found["statement"]["student"] = "Stated of -0.1."

    change(run, "metrics.json", edit)
    page = page_of(run)
    badges = [attributes for _, attributes in page.elements if attributes.get("class") == "badge"]
    assert len(badges) == (1 if badge else 0)
    assert ("maps not faithful" in page.words) == (verdict == NOT_FAITHFUL)
    assert ("They are <b>flat</b>." in page.words) == ("Do not take them for reasons." in page.words) == bool(badge)
    assert "Stated of −0.1." in page.words
    (finding,) = [finding for finding in findings(load(run)) if "maps are" in finding.headline]
    assert finding.headline.startswith(headline)
    assert finding.tone == tone
    card = write_model_card(run).read_text(encoding="utf-8")
    stated = (
        f"**{badge.capitalize()}.** Stated of −0.1. They are &lt;b&gt;flat&lt;/b&gt;." if badge else "- Stated of −0.1."
    )
    assert stated in card
    assert "\n\n\n" not in card


def test_a_run_of_before_there_were_three_verdicts_is_shown(make_run, page_of, change):
    run = make_run(images=120, featured=16, explained=6, roles=ALONE)

    def edit(metrics):
        found = metrics["explanation"]
        for name in ("verdict", "reach", "unit", "units", "needed"):
            del found["faithfulness"]["student"][name]
        found["faithfulness"]["student"] |= {"faithful": False, "reasons": ["They are flat."]}

    change(run, "metrics.json", edit)
    assert "maps not faithful" in page_of(run).words


@pytest.mark.parametrize(
    ("part", "reason"),
    [
        (None, "No heat maps were asked for."),
        ({"images": 0, "reason": "The student has no feature map."}, "The student has no feature map."),
    ],
)
def test_a_run_without_maps_says_why(make_run, part, reason, page_of, change):
    run = make_run(images=120, featured=16, roles=ALONE)
    change(run, "metrics.json", lambda metrics: metrics.update(explanation=part))
    page = page_of(run)
    assert reason in page.words
    assert "Score-CAM" not in page.words
    assert "Insertion minus deletion" not in page.words  # the glossary explains what is there
    assert not any("maps" in finding.headline for finding in findings(load(run)))
    card = write_model_card(run).read_text(encoding="utf-8")
    assert f"## Heat maps\n\n{reason}\n" in card
    assert "\n\n\n" not in card


def test_an_older_run_has_no_such_part(make_run, page_of):
    run = make_run(images=120, featured=16, roles=ALONE)
    assert section_of(run) is None
    assert "Where it looks" not in page_of(run).words
    assert "Heat maps" not in write_model_card(run).read_text(encoding="utf-8")


def test_null_figures_are_shown_as_missing(make_run, page_of, change):
    run = make_run(images=120, explained=6, lesions=True, featured=16)
    missing = {"value": None, "low": None, "high": None}

    def edit(metrics):
        found = metrics["explanation"]
        student = found["faithfulness"]["student"]
        student["drop"] = student["sanity"]["pearson"] = found["guidance"]["energy"] = missing
        found["guidance"]["iou"] = {"value": 0.1, "low": None, "high": None}
        del student["road"], found["faithfulness"]["teacher"]["road"], found["faithfulness"]["control"]["road"]
        found["lesions"]["student"]["pointing"] = missing
        found["agreement"]["student_vs_teacher"]["all"] = dict.fromkeys(("pearson", "ssim", "iou"), missing)

    change(run, "metrics.json", edit)
    section = section_of(run)
    assert section.maps.rows[0][3] == section.lesions.rows[0][2] == section.agreement.rows[0][2] == "n/a"
    assert not any("ROAD" in row[0] for row in section.measures.rows)
    assert len(section.guidance) == 2
    assert "without an interval nothing can be claimed" in section.guidance[1]
    assert not re.search(r"\b(nan|None)\b", page_of(run).words)


@pytest.mark.parametrize(
    ("low", "high", "claim"), [(0.1, 0.2, "is higher"), (-0.2, -0.1, "is lower"), (-0.1, 0.1, "no difference is shown")]
)
def test_guidance_claims_what_the_interval_allows(make_run, low, high, claim, change):
    run = make_run(images=60, explained=3)
    guided = {"pearson": {"value": (low + high) / 2, "low": low, "high": high}, "iou": None, "energy": None}
    change(run, "metrics.json", lambda metrics: metrics["explanation"].update(guidance=guided))
    (text,) = section_of(run).guidance
    assert claim in text


def test_a_student_alone_has_neither_agreement_nor_guidance(make_run):
    section = section_of(make_run(images=60, explained=3, roles=ALONE))
    assert (section.agreement, section.guidance, section.lesions) == (None, (), None)
    assert section.maps.columns[0] == "Network and map"
    assert all(isinstance(row[1], Estimate) for row in section.maps.rows)


# -- pictures -----------------------------------------------------------------------------------------------------------
def test_the_gallery_begins_where_the_maps_agree_least(make_run):
    run = make_run(images=240, explained=16)
    gallery = map_gallery(load(run))
    assert (gallery.total, len(gallery.items), gallery.other) == (16, 12, "teacher")
    file = np.load(run / "explanations" / "maps.npz")
    flat = [file[f"map_{role}"].reshape(16, -1).astype(float) for role in ("student", "teacher")]
    expected = sorted(np.corrcoef(*pair)[0, 1] for pair in zip(*flat, strict=True))[:12]
    shown = [float(item.agreement.replace("−", "-")) for item in gallery.items]
    assert shown == pytest.approx(expected, abs=0.006)
    assert [picture.heading for picture in gallery.items[0].pictures] == ["Image", "Student", "Teacher"]


def test_without_a_teacher_the_control_stands_beside_the_student(make_run):
    gallery = map_gallery(load(make_run(images=120, explained=4, roles=("student", "control"))))
    assert gallery.other == "control"
    assert [answer.heading for answer in gallery.items[0].answers] == ["Student", "Control"]
    shown = [float(item.agreement.replace("−", "-")) for item in gallery.items]
    assert shown == sorted(shown)


def test_without_either_wrong_answers_come_first(make_run):
    gallery = map_gallery(load(make_run(images=300, explained=30, roles=ALONE)))
    wrong = [item.answers[0].wrong for item in gallery.items]
    assert any(wrong)
    assert wrong == sorted(wrong, reverse=True)
    assert all(item.agreement is None and len(item.answers) == 1 and not item.explained for item in gallery.items)
    for item in gallery.items:
        assert (item.truth != item.answers[0].said.rsplit(" ", 1)[0]) == item.answers[0].wrong


@pytest.mark.parametrize("older", [False, True])
def test_every_network_is_quoted_with_its_own_answer_whoever_is_explained(make_run, older, page_of, change):
    """Of a teacher that is handed over: a run of before says of the class explained what was true of students alone."""
    run = make_run("multiclass", images=300, featured=16, explained=40, explains="teacher")

    def edit(metrics):
        metrics["kept"] = {"role": "teacher", "why": "It is the likeliest.", "candidates": []}
        found = metrics["explanation"]
        found["faithfulness"]["teacher"]["verdict"] = NOT_FAITHFUL
        found["statement"] = {role: f"Stated of the {role}." for role in found["statement"]}
        if older:
            del found["of"]
            found["notes"][0] = "The class explained is the one that the student decides for, for every network."

    change(run, "metrics.json", edit)
    record, page = load(run), page_of(run)
    frame, file = (
        pd.read_parquet(run / "predictions.parquet").set_index("id"),
        np.load(run / "explanations" / "maps.npz"),
    )
    explained = dict(zip(record.predictions.ids[file["index"]], file["classes"], strict=True))
    gallery = map_gallery(record)
    assert (gallery.other, len(gallery.items)) == ("student", 12)
    for item in gallery.items:
        row, (teacher, student) = frame.loc[item.name], item.answers
        assert [picture.heading for picture in item.pictures] == ["Image", "Teacher", "Student"]
        named = []
        for answer, role in ((teacher, "teacher"), (student, "student")):
            said = {name: row[f"{role}:{name}"] for name in record.task.classes}
            named.append(max(said, key=said.get))
            assert (answer.heading, answer.said) == (role.capitalize(), f"{named[-1]} {said[named[-1]]:.2f}")
            assert answer.wrong == (named[-1] != row["target"])
        assert named[0] == record.task.classes[explained[item.name]]
        assert item.explained == ("" if named[0] == named[1] else named[0])
    assert any(item.explained for item in gallery.items)
    assert any(item.answers[1].wrong and not item.answers[0].wrong for item in gallery.items)
    for item in gallery.items:
        if item.explained:
            assert f"<dt>Maps of</dt><dd>{item.explained}</dd>" in page.source

    section = section_of(run)
    assert [judged.role for judged in section.judgements] == ["teacher", "student", "control"]
    assert re.search(r'<h2 id="explanation-title">[^<]+</h2><span class="gist">Stated of the teacher<', page.source)
    assert "for the class to which the teacher gives the highest probability" in page.words
    assert "The teacher's probability of the class explained, mean over images" in page.words
    assert "on those where the teacher is right and wrong" in page.words
    assert (
        "on which the teacher's map agrees least with the student's. The teacher's maps are not faithful." in page.words
    )
    assert all("teacher's map" in drawing["svg"] for drawing in section.drawings)
    assert "The class explained is the one" not in page.words
    card = write_model_card(run).read_text(encoding="utf-8")
    assert "for the class to which the teacher gives the highest probability" in card
    assert "student decides" not in card + page.words


def test_of_several_labels_the_one_explained_is_named(make_run):
    run = make_run("multilabel", images=300, explained=6)
    record = load(run)
    file = np.load(run / "explanations" / "maps.npz")
    classes = {
        record.predictions.ids[row]: record.task.classes[k]
        for row, k in zip(file["index"], file["classes"], strict=True)
    }
    for item in map_gallery(record).items:
        row = list(record.predictions.ids).index(item.name)
        k = record.task.classes.index(classes[item.name])
        assert item.truth == f"{classes[item.name]}: {'present' if record.predictions.targets[row, k] else 'absent'}"
        assert not item.explained  # every answer names it
        assert [answer.heading for answer in item.answers] == ["Student", "Teacher"]
        for answer, role in zip(item.answers, ("student", "teacher"), strict=True):
            probability = record.predictions.probabilities[role][row, k]
            decided = probability > 0.5
            assert answer.said == f"{classes[item.name]} {probability:.2f}: {'present' if decided else 'absent'}"
            assert answer.wrong == (decided != record.predictions.targets[row, k])


def test_a_flat_map_has_no_correlation_and_comes_last(make_run):
    run = make_run(images=60, explained=4)
    path = run / "explanations" / "maps.npz"
    arrays = dict(np.load(path))
    arrays["map_student"][0] = 0
    np.savez(path, **arrays)
    last = map_gallery(load(run)).items[-1]
    assert last.agreement == "n/a (a map is flat)"
    assert last.name == load(run).predictions.ids[arrays["index"][0]]


def test_correlations_of_equal_opposite_and_flat_maps():
    heat = np.random.default_rng(0).random((1, 9, 9)).astype(np.float16)
    assert correlations(heat, heat) == pytest.approx([1])
    assert correlations(heat, 1 - heat) == pytest.approx([-1], abs=1e-3)
    assert np.isnan(correlations(heat, 0 * heat)).all()


def test_a_lesion_is_outlined_at_its_border_and_nowhere_else():
    grey, mask = np.full((200, 200), 120, dtype=np.uint8), np.zeros((200, 200), dtype=bool)
    mask[50:100, 60:120] = True
    drawn = outlined(grey, mask)
    assert drawn.shape == (200, 200, 3)
    changed = (drawn != 120).any(axis=2)
    rows, columns = np.nonzero(changed)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (49, 100, 59, 120)
    assert not changed[55:95, 65:115].any()
    small = outlined(grey[:40, :40], mask[60:100, 40:80])
    assert small.shape == (160, 160, 3)


def test_pictures_are_the_image_and_its_overlays(make_run):
    run = make_run(images=60, explained=3, lesions=True, side=230)
    file = np.load(run / "explanations" / "maps.npz")
    item = map_gallery(load(run)).items[0]
    place = list(file["index"]).index(list(load(run).predictions.ids).index(item.name))
    drawn = [np.asarray(Image.open(io.BytesIO(base64.b64decode(p.source.split(",")[1])))) for p in item.pictures]
    assert item.lesion == file["masks"][place].any()
    assert all(picture.shape[:2] == (230, 230) for picture in drawn)
    student = drawn[1].astype(float)
    assert student.ndim == 3
    colour = student.max(axis=2) - student.min(axis=2)  # a grey image has none where its map is cold
    heat = file["map_student"][place].astype(float)
    assert colour[heat > 0.4].mean() > 4 * colour[heat < 0.02].mean() if (heat < 0.02).any() else colour.mean() > 5


@pytest.mark.parametrize("name", ["explanations/maps.npz", "predictions.parquet"])
def test_lost_pictures_spoil_no_report(make_run, name, page_of):
    run = make_run(images=120, featured=16, explained=6)
    (run / name).unlink()
    page = page_of(run)
    assert "The run folder does not hold the maps' pictures." in page.words
    assert "Student, own map" in page.words


def test_maps_that_point_beyond_the_predictions_are_refused(make_run):
    run = make_run(images=120, featured=16, explained=6)
    path = run / "explanations" / "maps.npz"
    arrays = dict(np.load(path))
    np.savez(path, **arrays | {"index": arrays["index"] + 10_000})
    with pytest.raises(RunError, match="evaluate the run again"):
        write_report(run)


@pytest.mark.slow
def test_a_full_page_of_large_noisy_pictures_stays_small(make_run, page_of):
    task = MultiClass(("<b>one</b>", "two", "three"))
    run = make_run(task=task, images=480, explained=13, lesions=True, side=240, channels=3, uncertain=True)
    page = page_of(run)
    assert (run / "report.html").stat().st_size < 3_000_000
    assert "12 of 13 images" in page.words
    assert "<b>one</b>" in page.words
