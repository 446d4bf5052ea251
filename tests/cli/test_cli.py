"""The command line as a user meets it: what is printed where, exit codes, and one clear line for every mistake."""

import errno
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from hand_made import write_model
from PIL import Image

from stillroom.cli.app import main
from stillroom.explanation.claims import FAITHFUL, NOT_FAITHFUL, NOT_SHOWN
from stillroom.files.digests import begin_ledger, record

QUICK = [
    *("--student", "test_resnet", "--teacher", "test_vit", "--teacher-size", "32", "--no-pretrained", "--size", "32"),
    *("--epochs", "2", "--views", "2", "--batch-size", "16", "--resamples", "100", "--no-latency", "--device", "cpu"),
    *("--explain", "4", "--no-plan"),
]
VERBS = ("distill", "plan", "evaluate", "predict", "explain", "export", "audit", "models", "recipes", "demo")


class Answer:
    """What a command left: exit code, standard output, standard error."""

    def __init__(self, code, out, err):
        self.code, self.out, self.err = code, out, err

    @property
    def error(self):
        """The one line of a refusal, without its ``error: ``."""
        assert self.err.count("\n") == 1, self.err
        assert self.err.startswith("error: "), self.err
        return self.err.removeprefix("error: ").strip()


@pytest.fixture
def stillroom(tmp_path, monkeypatch, capsys):
    """``stillroom("audit", folder)`` runs the command in an empty folder and gives its :class:`Answer`."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)

    def run(*arguments):
        capsys.readouterr()
        try:
            main([str(argument) for argument in arguments])
            code = 0
        except SystemExit as stop:
            code = stop.code
        return Answer(code, *capsys.readouterr())

    return run


@pytest.fixture
def refuse(stillroom, tmp_path):
    """Like ``stillroom``, for wrong use: exit code 2, one line, nothing on standard output, nothing left behind."""

    def run(*arguments):
        before = sorted((tmp_path / "here").rglob("*"))
        answer = stillroom(*arguments)
        assert answer.code == 2
        assert answer.out == ""
        assert sorted((tmp_path / "here").rglob("*")) == before
        return answer.error

    return run


@pytest.fixture(scope="module")
def finished(tiny_run, tmp_path_factory):
    """The folder of a finished run on ``picture_folder``, with a space in its name."""
    return shutil.copytree(tiny_run.path, tmp_path_factory.mktemp("finished") / "a run")


@pytest.fixture
def broken(finished, tmp_path):
    """``broken(name=text)``: an unfinished run folder with some of its files replaced."""

    def make(**files):
        folder = tmp_path / "broken"
        folder.mkdir()
        manifest = json.loads((finished / "manifest.json").read_text())
        del manifest["finished"]
        contents = {"settings": (finished / "settings.yaml").read_text(), "manifest": json.dumps(manifest)} | files
        begin_ledger(folder)
        for name, text in contents.items():
            file = folder / {"settings": "settings.yaml", "manifest": "manifest.json"}[name]
            file.write_text(text)
            record(file)
        return folder

    return make


# -- help ---------------------------------------------------------------------------------------------------------
def test_help_shows_every_verb_and_what_to_do_first(stillroom):
    answer = stillroom("--help")
    assert answer.code == 0
    assert answer.err == ""
    assert all(re.search(rf"│ {verb} ", answer.out) for verb in VERBS)
    assert "stillroom demo" in answer.out
    assert stillroom().out == answer.out


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_a_verb_fits_80_columns_and_shows_no_names_of_python(stillroom, verb):
    text = stillroom(verb, "--help").out
    assert max(map(len, text.splitlines())) <= 80
    assert "\x1b" not in text
    flags = re.findall(r"--[a-z][\w-]*", text)
    assert not [flag for flag in flags if "_" in flag]
    for name in ("own", "training", "evaluation", "data", "no-json", "source", "moved", "run"):
        assert f"--{name} " not in text or (name == "source" and verb in ("distill", "evaluate", "export"))


@pytest.mark.parametrize("verb", ["distill", "evaluate", "predict", "explain", "export", "audit", "models"])
def test_each_example_stands_on_a_line_of_its_own(stillroom, verb):
    lines = [line.rstrip() for line in stillroom(verb, "--help").out.splitlines()]
    assert sum(line.startswith(f" stillroom {verb}") for line in lines) >= 1


def test_flags_follow_the_recipe(stillroom):
    assert "--alpha" in stillroom("distill", "--help").out
    assert "--alpha" not in stillroom("distill", "--recipe", "baseline", "--help").out


def test_version_and_completion(stillroom):
    assert re.fullmatch(r"\d+\.\d+\.\d+\S*\n", stillroom("--version").out)
    assert "bash" in stillroom("--install-completion", "--help").out


# -- wrong use ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--epochs", "0"], "epochs must be at least 1, got 0"),
        (["--epochs", "many"], '--epochs: unable to convert "many" into int'),
        (["--lr", "-1"], "lr must be above 0 and finite, got -1"),
        (["--lr", "nan"], "lr must be above 0 and finite, got nan"),
        (["--size", "7"], "size must be at least 16, got 7"),
        (["--val-fraction", "2"], "val_fraction must lie between 0 and 0.9, got 2"),
        (["--fit", "squash"], 'Choose from: "pad", "resize"'),
        (["--epohs", "3"], "Unknown option: --epohs. Did you mean --epochs?"),
        (["--alpha"], "--alpha requires an argument"),
        (["more"], "Nothing is known of the argument 'more'"),
        (["--explain", "-1"], "explain must be at least 0, got -1"),
        (["--explain-method", "gradcam"], "--explain-method"),
        ([*QUICK, "--explain-layer", "nonsense"], "The network has no layer 'nonsense'"),
        (["--recipe", "medalmigty"], "no recipe 'medalmigty'. Did you mean medalmighty?"),
        (["--settings", "none.yaml"], "none.yaml cannot be read: No such file or directory"),
    ],
)
def test_wrong_flags(refuse, picture_folder, flags, words):
    assert words in refuse("distill", picture_folder, *flags)


def test_wrong_commands_and_no_source(refuse):
    assert 'Unknown command "distil"' in refuse("distil")
    assert "stillroom distill SOURCE" in refuse("distill")
    assert "Did you mean pneumoniamnist" in refuse("audit", "pneumoniamnits")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("source: [", "is not valid YAML"),
        ("- 1", "expected settings by name, got list"),
        ("", "expected settings by name, got NoneType"),
        ("seed: 1", "`source` is missing"),
        ("source: x\nepochs: 3", "no setting 'epochs'"),
        ("source: x\ntraining: {epohs: 3}", "training: there is no setting 'epohs'. Did you mean epochs"),
        ("source: x\ntraining: 5", "training must hold settings by name, got 5"),
        ("source: x\ntraining: {epochs: soon}", "training: epochs: must be a whole number"),
        ("source: x\ntraining: {epochs: 0}", "epochs must be at least 1, got 0"),
        ("source: x\nrecipe: {name: medalmighty, beta: 1}", "recipe medalmighty: there is no setting 'beta'"),
        ("source: x\nrecipe: {name: magic}", "There is no recipe 'magic'"),
    ],
)
def test_wrong_settings_files(refuse, tmp_path, text, words):
    file = tmp_path / "settings.yaml"
    file.write_text(text)
    assert words in refuse("distill", "--settings", file)


def test_a_settings_file_that_is_no_text(refuse, tmp_path):
    file = tmp_path / "settings.yaml"
    file.write_bytes(b"\x89PNG\xff\xfe")
    assert "not text in UTF-8" in refuse("distill", "--settings", file)


def test_a_place_that_cannot_hold_a_run(refuse, picture_folder, finished, tmp_path):
    """Refused before the images are read."""
    assert re.search("exists already.*--resume", refuse("distill", picture_folder, *QUICK, "--out", finished))
    (tmp_path / "file").touch()
    assert "is a file" in refuse("distill", picture_folder, *QUICK, "--out", tmp_path / "file" / "run")


def test_resume_of_what_is_no_stopped_run(stillroom, refuse, picture_folder, finished, broken):
    assert "is not a run folder" in refuse("distill", "--resume", picture_folder)
    assert "There is no run folder" in refuse("distill", "--resume", "nowhere")
    assert "is not valid YAML" in refuse("distill", "--resume", broken(settings="source: [\n"))
    again = stillroom("distill", "--resume", finished)
    assert again.code == 0
    assert "has finished already" in again.err


def test_resume_with_a_damaged_manifest(refuse, broken):
    assert "manifest.json is damaged" in refuse("distill", "--resume", broken(manifest="{"))


def test_resume_takes_no_other_flags(refuse, finished):
    message = refuse("distill", "--resume", finished, "--epochs", "9")
    assert "--epochs cannot be given beside it" in message
    assert "--settings" in message
    refuse("distill", "elsewhere", f"--resume={finished}")


# -- results ------------------------------------------------------------------------------------------------------
def test_a_run_ends_with_its_figures_and_its_report(stillroom, picture_folder):
    answer = stillroom("distill", picture_folder, *QUICK, "--recipe", "baseline")
    assert answer.code == 0
    assert re.search(r"^AUC .*\d\.\d{3} \(\d\.\d{3}-\d\.\d{3}\)", answer.out, re.MULTILINE)
    name = f"{picture_folder.name}-baseline"
    assert answer.out.splitlines()[-1] == f"Report: runs/{name}/report.html"
    assert "\x1b" not in answer.out + answer.err
    message = stillroom("distill", picture_folder, *QUICK, "--recipe", "baseline", "--epochs=1")
    assert message.code == 2  # given twice


def test_figures_are_not_broken_over_lines(stillroom, finished):
    lines = stillroom("distill", "--resume", finished).out.splitlines()
    auc = next(line for line in lines if line.startswith("AUC"))
    assert len(re.findall(r"\d\.\d{3} \(\d\.\d{3}-\d\.\d{3}\)", auc)) == 3
    assert len(auc.rstrip()) <= 80
    assert lines[-1] == f"Report: {finished}/report.html"


@pytest.mark.parametrize(
    ("command", "keys"),
    [
        (["audit", "{pictures}"], {"warnings"}),
        (["models", "test_res*"], {"name", "parameters"}),
        (["recipes"], {"name", "settings", "tasks"}),
        (["evaluate", "{run}", "{pictures}"], {"test", "split"}),
        (
            ["predict", "{run}", "{pictures}/left/000.png"],
            {"decision", "probabilities", "answer", "possible", "foreign"},
        ),
        (
            ["explain", "{run}", "{pictures}/left/000.png"],
            {"answer", "class", "picture", "array", "verdict", "faithful", "statement"},
        ),
        (["evaluate", "{copy}", "{pictures}/left", "--foreign"], {"auroc", "refused", "images"}),
        (["evaluate", "{copy}", "--corruptions"], {"summary", "clean"}),
    ],
)
def test_json_stands_alone(stillroom, finished, picture_folder, tmp_path, command, keys):
    copy = shutil.copytree(finished, tmp_path / "copy") if "{copy}" in command else None
    arguments = [part.format(run=finished, copy=copy, pictures=picture_folder) for part in command]
    answer = stillroom(*arguments, "--json")
    assert answer.code == 0
    found = json.loads(answer.out)
    assert keys <= set(found[0] if isinstance(found, list) else found)


def test_what_needs_no_torch_imports_none(finished, picture_folder, tmp_path):
    """One process gives the commands in turn, and says which of them had loaded it; the last one must."""
    copy, image = shutil.copytree(finished, tmp_path / "copy"), picture_folder / "left" / "000.png"
    commands = [
        ["--help"],
        ["distill", "--help"],
        ["recipes"],
        ["predict", copy, image],
        ["audit", picture_folder, "--size", "16"],
        ["evaluate", copy, picture_folder],
        ["evaluate", copy, picture_folder / "left", "--foreign"],
        ["explain", copy, image],
        ["explain", copy / "student.onnx", image, "--out", copy],
        ["explain", copy, image, "--method", "score_cam_fast", "--out", copy],
        ["explain", copy, image, "--method", "grad_cam", "--out", copy],
    ]
    code = f"""import sys
from stillroom.cli.app import main
for command in {[[str(part) for part in command] for command in commands]!r}:
    try:
        main(command)
        code = 0
    except SystemExit as end:
        code = end.code or 0
    print(code, "torch" in sys.modules, file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    said = [line for line in done.stderr.splitlines() if re.fullmatch(r"\d+ (True|False)", line)]
    assert said == ["0 False"] * (len(commands) - 1) + ["0 True"], done.stderr


def test_a_reader_that_stops_early_hears_nothing_of_it(finished, picture_folder):
    command = f"{sys.executable} -m stillroom predict '{finished}' '{picture_folder}' --json | head -n 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout == "[\n"
    assert done.stderr == ""


@pytest.mark.parametrize("more", [["--json"], []], ids=["json", "rich"])
def test_a_closed_pipe_ends_as_shells_expect(more):
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "stillroom", "recipes", *more], stdout=write, stderr=subprocess.PIPE, check=False
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.parametrize("verb", ["predict", "explain", "evaluate", "serve", "page"])
def test_a_model_that_may_not_be_read_is_a_line(refuse, picture_folder, tmp_path, monkeypatch, verb):
    model, plain = write_model(tmp_path / "student.onnx"), Path.open

    def open_unless(path, *arguments, **options):  # permissions do not hold root back
        if path == model:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return plain(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", open_unless)
    sources = [] if verb in ("serve", "page") else [picture_folder]
    assert refuse(verb, model, *sources) == f"{model} cannot be read: Permission denied."
    assert "There is no model at" in refuse(verb, model / "below.onnx", *sources)


# -- predict, evaluate, export ------------------------------------------------------------------------------------
def test_predict_names_what_it_cannot_read_and_answers_the_rest(stillroom, finished, picture_folder, tmp_path):
    (tmp_path / "empty.png").touch()
    whole = (picture_folder / "left" / "000.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    images = [tmp_path / "empty.png", picture_folder / "left" / "001.png", tmp_path / "cut.png", tmp_path / "none.png"]
    answer = stillroom("predict", finished, *images, "--json")
    assert answer.code == 3
    assert answer.error.startswith(f"3 of 4 images could not be read and have no answer; the first is {images[0]}: ")
    first, second, third, fourth = json.loads(answer.out)
    assert "0 bytes" in first["error"]
    assert second["decision"]
    assert "truncated or damaged" in third["error"]
    assert "does not exist" in fourth["error"]
    shown = stillroom("predict", finished, *images).out
    assert "empty.png  the file is empty (0 bytes)" in shown


def test_predict_says_what_it_passes_over(stillroom, finished, picture_folder, tmp_path):
    for name in ("000.png", "000_mask.png", "deep/@eaDir/000.png", "001.mha", "pipe.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        if name == "pipe.png":
            os.mkfifo(tmp_path / name)
        else:
            (tmp_path / name).write_bytes((picture_folder / "left" / "000.png").read_bytes())
    answer = stillroom("predict", finished, tmp_path, "--json")
    assert [Path(found["path"]).name for found in json.loads(answer.out)] == ["000.png", "pipe.png"]
    assert f"Masks of images in {tmp_path} are left out: 1." in answer.err
    assert "are not read: .mha." in answer.err
    assert "it is a named pipe, not a file" in answer.err


def test_predict_of_nothing(stillroom, refuse, finished, picture_folder, tmp_path):
    answer = stillroom("predict", finished, "none.png")
    assert answer.code == 2
    assert answer.error.startswith("None of the images could be read. none.png: ")
    (tmp_path / "bare").mkdir()
    assert "no image in the folder" in refuse("predict", finished, tmp_path / "bare")
    assert "There is no model at nowhere" in refuse("predict", "nowhere", picture_folder)
    assert "is not an ONNX model" in refuse("predict", picture_folder / "left" / "000.png", picture_folder)


def test_explain_writes_a_picture_and_a_map_of_the_images_own_size(stillroom, finished, tmp_path):
    Image.new("L", (51, 23), 90).save(tmp_path / "scan.png")
    (tmp_path / "note.png").write_text("no image")
    answer = stillroom("explain", finished, tmp_path / "note.png", tmp_path / "scan.png", "--of", "left", "--json")
    assert answer.code == 3
    assert answer.error.startswith("1 of 2 images could not be read")
    bad, good = json.loads(answer.out)
    assert "no PNG" in bad["error"]
    assert bad["picture"] is bad["array"] is bad["class"] is None
    assert good["class"] == "left"
    assert good["picture"] == str(finished / "explanations" / "scan.left.png")
    assert Image.open(good["picture"]).size == (51, 23)
    assert np.load(good["array"]).shape == (23, 51)
    assert good["statement"] == bad["statement"]
    answer = stillroom("explain", finished / "student.onnx", tmp_path / "scan.png", "--method", "score_cam_fast")
    assert answer.code == 0
    assert "scan.png" in answer.out
    assert "explanations/scan." in answer.out
    assert sorted(path.suffix for path in (tmp_path / "here" / "explanations").iterdir()) == [".npy", ".png"]


def test_explain_says_how_far_to_trust_it(stillroom, finished, picture_folder, tmp_path):
    image = picture_folder / "left" / "000.png"
    tested = json.loads((finished / "metrics.json").read_text())["explanation"]
    shown = stillroom("explain", finished, image, "--out", tmp_path).out
    verdict = tested["faithfulness"]["student"]["verdict"]
    mark = {FAITHFUL: "", NOT_FAITHFUL: "maps not faithful: ", NOT_SHOWN: "Note: "}[verdict]
    reasons = tested["faithfulness"]["student"]["reasons"]
    assert " ".join([mark + tested["statement"]["student"], *reasons[:1]]) in shown
    other = stillroom("explain", finished, image, "--method", "grad_cam", "--out", tmp_path)
    assert other.code == 0
    assert "Note: Maps by grad_cam were not tested. Of those by rise, which were: " in other.out
    written = json.loads(
        stillroom("explain", finished, image, "--method", "eigen_cam", "--out", tmp_path, "--json").out
    )
    assert (written[0]["method"], written[0]["faithful"]) == ("eigen_cam", None)


def test_explain_trusts_a_map_only_where_it_was_tested(stillroom, finished, picture_folder, tmp_path, reseal):
    """Every image has a verdict of its own; people see each of them once."""
    import onnx

    copy, image = shutil.copytree(finished, tmp_path / "copy"), picture_folder / "right" / "000.png"
    model = onnx.load(copy / "student.onnx")
    for entry in model.metadata_props:
        if entry.key == "stillroom.explanation":
            tested = json.loads(entry.value) | {"faithful": True, "statement": "The maps are faithful."}
            del tested["verdict"]  # as before there were three: judged were answers of both classes
            entry.value = json.dumps(tested)
    reseal(model, copy / "student.onnx")
    Image.new("L", (40, 40), 255).save(tmp_path / "odd.png")
    images = [image, tmp_path / "odd.png"]
    own, _ = json.loads(stillroom("predict", copy, *images, "--json").out)
    (decided,) = own["decision"]
    other = {"left": "right", "right": "left"}[decided]
    verdicts = {}
    for name in (decided, other):
        found = json.loads(stillroom("explain", copy, *images, "--of", name, "--out", tmp_path, "--json").out)
        verdicts[name] = [(entry["faithful"], entry["statement"]) for entry in found]
    untested = (None, "Maps of classes that the model does not decide for were not tested.")
    assert verdicts[decided][0] == (True, "The maps are faithful.")
    assert verdicts[other][0] == untested
    assert len({*verdicts[decided], *verdicts[other]}) > 1
    shown = stillroom("explain", copy, image, image, "--of", other, "--out", tmp_path).out
    assert shown.count("The maps are faithful.") == shown.count(f"Note: {untested[1]}") == 1
    assert "maps not faithful" not in shown


def test_explain_refuses_what_cannot_be_explained(stillroom, refuse, finished, picture_folder, tmp_path):
    image = picture_folder / "left" / "000.png"
    assert "There is no model at nowhere" in refuse("explain", "nowhere", image)
    assert "no class 'lfet'. Did you mean left?" in refuse("explain", finished, image, "--of", "lfet")
    assert '"score_cam"' in refuse("explain", finished, image, "--method", "lime")
    assert "grad_cam needs gradients or torch" in refuse(
        "explain", finished / "student.onnx", image, "--method", "grad_cam"
    )
    (tmp_path / "bare").mkdir()
    assert "no image in the folder" in refuse("explain", finished, tmp_path / "bare")
    (tmp_path / "note.png").write_text("no image")
    answer = stillroom("explain", finished, tmp_path / "note.png")
    assert answer.code == 2
    assert answer.error.startswith(f"None of the images could be read. {tmp_path / 'note.png'}: ")
    assert "not faithful" not in answer.out  # of no map nothing is said
    assert "note.png is a file. Choose another --out." in refuse(
        "explain", finished, image, "--out", tmp_path / "note.png"
    )


def test_a_flag_that_takes_several_is_not_given_without_any(refuse, tmp_path):
    assert "--groups requires at least 1" in refuse("distill", tmp_path, "--groups")


def test_evaluate_on_nothing_foreign_images_and_corruptions(stillroom, refuse, finished, picture_folder, tmp_path):
    assert "stillroom evaluate RUN SOURCE" in refuse("evaluate", finished)
    assert "stillroom evaluate RUN SOURCE" in refuse("evaluate", finished, "--foreign")
    for more in ([picture_folder], ["--foreign"], ["--split", "test"]):
        assert "leave out the source, --foreign and --split" in refuse("evaluate", finished, *more, "--corruptions")
    (tmp_path / "bare").mkdir()
    assert "no image in the folder" in refuse("evaluate", finished, tmp_path / "bare", "--foreign")

    copy = shutil.copytree(finished, tmp_path / "copy")
    answer = stillroom("evaluate", copy, picture_folder, "--foreign")  # class folders, whose classes it knows
    assert answer.code == 0
    assert answer.out.startswith(f"{picture_folder.name}: 120 images")
    assert re.search(r"^Refused: \d\.\d{3}", answer.out, re.MULTILINE)
    (tmp_path / "plain").mkdir()
    shutil.copy(picture_folder / "left" / "000.png", tmp_path / "plain")
    (tmp_path / "plain" / "note.png").write_text("no image")
    answer = stillroom("evaluate", copy, tmp_path / "plain", "--foreign")
    assert answer.code == 0
    assert answer.out.startswith("plain: 1 image\n")
    assert "1 image could not be read; the first is" in answer.err
    answer = stillroom("evaluate", copy, "--corruptions")
    assert answer.code == 0
    assert re.search(r"^Accuracy, corrupted .*\d\.\d{3} \(", answer.out, re.MULTILINE)
    assert answer.out.splitlines()[-1] == f"Report: {copy}/report.html"


def test_a_run_of_an_earlier_stillroom(stillroom, refuse, old_run, picture_folder):
    """Nothing of it fails but in words, and after an export all goes on."""
    image = picture_folder / "left" / "000.png"
    for command in (["predict"], ["explain"], ["evaluate"]):
        message = refuse(*command, old_run.path, image if command != ["evaluate"] else picture_folder)
        assert "has format 1, this Stillroom reads format 3: export the model again" in message
    assert stillroom("distill", "--resume", old_run.path).code == 0
    assert stillroom("export", old_run.path).code == 0
    assert "left" in stillroom("predict", old_run.path, image).out
    assert stillroom("evaluate", old_run.path, picture_folder).code == 0
    assert "Train it again" in refuse("evaluate", old_run.path, picture_folder, "--foreign")
    shown = stillroom("explain", old_run.path, image)
    assert shown.code == 0
    assert "was not tested" in shown.out


def test_evaluate_refuses_what_cannot_be_compared(refuse, finished, picture_folder, broken, tmp_path):
    assert "has the class 'normal', which the model does not know" in refuse("evaluate", finished, "phantoms:40")
    assert "has no test split" in refuse("evaluate", finished, picture_folder, "--split", "test")
    assert "Unknown option: --size" in refuse("evaluate", finished, picture_folder, "--size", "64")
    table = tmp_path / "labels.csv"
    table.write_text(f"path,label\n{picture_folder}/left/000.png,left;right\n{picture_folder}/left/001.png,left\n")
    assert "the label 'left;right' is not among the model's classes: left, right" in refuse("evaluate", finished, table)
    assert "has not finished. Go on with" in refuse("evaluate", broken(), picture_folder)


def test_export_once_more(stillroom, finished, tmp_path):
    answer = stillroom("export", finished, "--out", tmp_path / "again.onnx")
    assert answer.code == 0
    assert answer.out.startswith(f"{tmp_path}/again.onnx: ")
    assert (tmp_path / "again.onnx").stat().st_size > 0
    assert stillroom("export", finished, "--out", tmp_path / "again.onnx").code == 0  # one of ours is replaced


@pytest.mark.parametrize("name", ["settings.yaml", "predictions.parquet", "labels.csv"])
def test_export_replaces_nothing_but_exported_files(refuse, finished, tmp_path, name):
    there = finished / name if (finished / name).exists() else tmp_path / name
    if not there.exists():
        there.write_text("path,label\n", encoding="utf-8")
    before = there.read_bytes()
    assert "is no exported model: it is not overwritten" in refuse("export", finished, "--out", there)
    assert there.read_bytes() == before


def test_export_gives_no_other_file_of_a_run_its_network(stillroom, refuse, finished, tmp_path):
    run = shutil.copytree(finished, tmp_path / "run")
    for _ in range(2):  # an export of before is replaced
        assert stillroom("export", run, "--out", run / "again.onnx").code == 0
    for name in ("student.int8.onnx", "student.fp16.onnx"):
        assert "is the name of another file of this run" in refuse("export", run, "--out", run / name)
    other = shutil.copytree(finished, tmp_path / "other")
    for place in ("student.onnx", "new.onnx", "deeper/new.onnx"):
        assert f"is in the folder of another run, {other}" in refuse("export", run, "--out", other / place)
    assert not (other / "new.onnx").exists()
    assert not (run / "student.int8.onnx").exists()


@pytest.mark.parametrize("number", ["1.5", "1.5e0", "1e1", "1_0", "nan", "\u0663"])
def test_what_counts_is_written_in_digits(refuse, number):
    assert "--epochs must be a whole number, written in digits" in refuse("distill", "phantoms", "--epochs", number)
    assert "--epochs must be a whole number, written in digits" in refuse("distill", "phantoms", f"--epochs={number}")


def test_a_closed_output_is_no_failure(finished, picture_folder):
    image = next(picture_folder.rglob("*.png"))
    command = (
        f"{shlex.quote(sys.executable)} -m stillroom predict {shlex.quote(str(finished))} {shlex.quote(str(image))} >&-"
    )
    ran = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")


@pytest.mark.slow
def test_unusual_names_of_folders_and_classes(stillroom, picture_folder, tmp_path):
    """Names go through pages, files and terminals as they are, brackets of rich's markup and HTML's among them."""
    root = tmp_path / "Bilder [bold] ä ö, 図"
    for source, name in (("left", "<b>left & more"), ("right", "right, [red]wide[∕red]")):
        shutil.copytree(picture_folder / source, root / name)
    run = tmp_path / "run [bold]"
    answer = stillroom("distill", root, *QUICK, "--recipe", "baseline", "--out", run)
    assert answer.code == 0, answer.err
    assert f"Report: {run}/report.html" in answer.out
    image = next(root.rglob("*.png"))
    shown = stillroom("predict", run, image).out
    assert image.name in shown
    assert "right, [red]wide[∕red]" in shown
    assert stillroom("evaluate", run, root).out.startswith(f"image folder {root.name}: 120 images")
    page = (run / "report.html").read_text("utf-8")
    assert "<b>left" not in page
    assert "&lt;b&gt;left" in page


# -- a run repeated from its settings -----------------------------------------------------------------------------
@pytest.mark.slow
def test_settings_repeat_a_run(stillroom, finished, tmp_path):
    answer = stillroom("distill", "--settings", finished / "settings.yaml", "--out", tmp_path / "again")
    assert answer.code == 0, answer.err
    first, second = ((folder / "settings.yaml").read_text() for folder in (finished, tmp_path / "again"))
    assert second == first
    figures = [json.loads((folder / "metrics.json").read_text())["test"] for folder in (finished, tmp_path / "again")]
    assert figures[0] == figures[1]


def test_every_setting_comes_back_from_a_file(monkeypatch, tmp_path, capsys):
    """Values unlike the defaults, of every kind; what stands on the command line goes before them."""
    import stillroom.run.pipeline
    from stillroom.settings.whole import Settings, from_dict, to_dict

    values = to_dict(Settings("phantoms:50")) | {"seed": 7, "device": "cpu"}
    values["recipe"] |= {"alpha": 0.5, "alpha_role": "teacher", "paper_softmax": True}
    values["data"] |= {"classes": ["a b", "c, d", "--e", "1"], "resolution": 28, "group_duplicates": False}
    values["data"] |= {"data_dir": "some where", "val_fraction": 0.3}
    values["teacher"] |= {"pretrained": False, "teacher_epochs": 3, "weights": "w"}
    values["training"] |= {"precision": "bf16", "lr": 1e-5, "class_weights": True}
    values["evaluation"] |= {"control": False}
    file = tmp_path / "settings.yaml"
    file.write_text(yaml.safe_dump(values))
    seen = []

    def start(settings, out):
        seen.append(settings)
        raise KeyboardInterrupt

    monkeypatch.setattr(stillroom.run.pipeline, "distill", start)
    others = ["elsewhere", "--alpha", "0.1", "--control", "--classes", "x y", "z", "--seed=1"]
    for more in ([], others, ["--recipe", "baseline"]):
        with pytest.raises(SystemExit):
            main(["distill", "--settings", str(file), *more])
    assert to_dict(seen[0]) == values
    assert seen[0] == from_dict(values)
    assert (seen[1].source, seen[1].recipe.alpha, seen[1].evaluation.control) == ("elsewhere", 0.1, True)
    assert (seen[1].data.classes, seen[1].seed, seen[1].training.lr) == (("x y", "z"), 1, 1e-5)
    assert (seen[2].recipe.name, seen[2].training.lr) == ("baseline", 1e-5)
