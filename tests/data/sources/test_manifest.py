"""Tables as spreadsheets, data frames and hospital exports write them; errors point at the cell."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from stillroom.data.sources.manifest import read_manifest
from stillroom.data.table import UnreadableImage
from stillroom.errors import UsageError
from stillroom.settings.sections import DataSettings

AUTO = DataSettings()


@pytest.fixture
def folder(tmp_path):
    """A folder with images/0.png to images/9.png and masks/0.png, masks/1.png."""
    for part, count in (("images", 10), ("masks", 2)):
        (tmp_path / part).mkdir()
        for number in range(count):
            Image.new("L", (4, 4), number + 1).save(tmp_path / part / f"{number}.png")
    return tmp_path


@pytest.fixture
def write(folder):
    def writer(text, name="labels.csv", encoding="utf-8"):
        (folder / name).write_bytes(text.encode(encoding))
        return folder / name

    return writer


def rows(*labels, header="path,label", join=","):
    """A table of as many images as labels (each the rest of a line)."""
    return "\n".join([header, *(f"images/{i}.png{join}{label}" for i, label in enumerate(labels))]) + "\n"


def error(path, settings=AUTO):
    with pytest.raises(UsageError) as caught:
        read_manifest(path, settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_all_columns(write, folder):
    text = rows(
        "benign,p1,train,masks/0.png",
        "malignant,p2,Validation,",
        "malignant,,TEST,masks/0.png;masks/1.png",
        "benign,p1,,nan",
        "malignant,p3,train,",
        header="path,label,patient,split,mask",
    )
    table = read_manifest(write(text), AUTO)
    assert (table.name, table.source) == ("labels", "table labels.csv")
    assert table.task.classes == ("benign", "malignant")
    assert table.ids.tolist() == [f"images/{i}.png" for i in range(5)]
    assert table.targets.tolist() == [0, 1, 1, 0, 1]
    assert table.splits.tolist() == ["train", "val", "test", "", "train"]
    assert table.patients.tolist() == ["p1", "p2", "", "p1", "p3"]
    assert table.has_masks
    assert [len(masks) for masks in table.reader.masks] == [1, 0, 2, 0, 0]
    assert int(table.reader.read(3)[0, 0]) == 4


def test_only_path_and_label(write):
    table = read_manifest(write(rows("a", "b", "a")), AUTO)
    assert table.patients is None
    assert not table.has_masks
    assert table.splits.tolist() == ["", "", ""]
    assert table.splits.dtype == np.dtype("<U5")


def test_other_columns_by_name_and_in_any_case(write):
    text = rows("x,b,q1", "y,a,q1", header="File,comment,Finding,Patient")
    table = read_manifest(write(text), DataSettings(path_column="File", label_column="finding"))
    assert table.task.classes == ("a", "b")
    assert table.patients.tolist() == ["q1", "q1"]


@pytest.mark.parametrize("mark", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_delimiters_and_encodings(write, mark, encoding):
    text = rows(f"grün{mark}p", f"'a b'{mark}q", header=f"path{mark}label{mark}patient", join=mark)
    table = read_manifest(write(text, encoding=encoding), AUTO)
    assert table.task.classes == ("'a b'", "grün")
    assert table.patients.tolist() == ["p", "q"]


def test_marks_of_byte_order_wherever_they_stand(write):
    text = '\ufeff\ufeff"path",\ufefflabel\n"images/0.png",a\nimages/1.png,\ufeffb\n'
    assert read_manifest(write(text), AUTO).task.classes == ("a", "b")


def test_windows_paths_line_ends_quotes_and_blank_lines(write):
    text = 'path,label\r\n"images\\0.png","a, b"\r\n\r\n.\\images\\1.png, c \r\n,\r\n'
    table = read_manifest(write(text), AUTO)
    assert table.ids.tolist() == ["images/0.png", "images/1.png"]
    assert table.task.classes == ("a, b", "c")


def test_absolute_paths_and_paths_outside(write, folder):
    (folder / "tables").mkdir()
    path = write(f"path,label\n{folder}/images/0.png,a\n../images/1.png,b\n", name="tables/t.csv")
    table = read_manifest(path, AUTO)
    assert table.ids.tolist() == ["../images/0.png", "../images/1.png"]
    assert [int(table.reader.read(row)[0, 0]) for row in (0, 1)] == [1, 2]


def test_parquet_is_read_as_the_csv_would_be(folder):
    frame = pd.DataFrame(
        {
            "path": [f"images/{i}.png" for i in range(4)],
            "label": [2.0, 10.0, 2.0, 10.0],
            "patient": [7, 7, 8, 9],
            "mask": ["masks/0.png", None, None, float("nan")],
        }
    )
    frame.to_parquet(folder / "t.parquet")
    frame.to_csv(folder / "t.csv", index=False)
    one, two = read_manifest(folder / "t.parquet", AUTO), read_manifest(folder / "t.csv", AUTO)
    assert one.task == two.task
    assert one.task.classes == ("2", "10")
    assert one.patients.tolist() == two.patients.tolist() == ["7", "7", "8", "9"]
    assert one.reader == two.reader


def test_parquet_lists_are_several_labels(folder):
    paths = [f"images/{i}.png" for i in range(3)]
    pd.DataFrame({"path": paths, "label": [["a", "b"], [], ["b"]]}).to_parquet(folder / "t.parquet")
    table = read_manifest(folder / "t.parquet", AUTO)
    assert table.targets.tolist() == [[1, 1], [0, 0], [0, 1]]


def test_numbers_are_ordered_by_value(write):
    table = read_manifest(write(rows("10", "9", "-1", "2.5")), AUTO)
    assert table.task.classes == ("-1", "2.5", "9", "10")
    table = read_manifest(write(rows("0", "2", "1", "1")), DataSettings(task="ordinal"))
    assert table.task.kind == "ordinal"
    assert table.targets.tolist() == [0, 2, 1, 1]


def test_grades_without_visible_order_must_be_named(write):
    path = write(rows("mild", "severe", "none"))
    assert "names do not show their order" in error(path, DataSettings(task="ordinal"))
    table = read_manifest(path, DataSettings(task="ordinal", classes=("none", "mild", "severe")))
    assert table.targets.tolist() == [1, 2, 0]


@pytest.mark.parametrize("mark", [";", "|"])
def test_joined_labels_make_it_multi_label(write, mark):
    table = read_manifest(write(rows(f"edema{mark} mass", "", "mass", f"mass{mark}mass{mark}")), AUTO)
    assert table.task.kind == "multilabel"
    assert table.task.classes == ("edema", "mass")
    assert table.targets.dtype == np.uint8
    assert table.targets.tolist() == [[1, 1], [0, 0], [0, 1], [0, 1]]


def test_single_labels_may_be_called_multi_label(write):
    table = read_manifest(write(rows("b", "", "a")), DataSettings(task="multilabel", classes=("b", "a")))
    assert table.targets.tolist() == [[1, 0], [0, 0], [0, 1]]


def test_joined_labels_stay_whole_where_one_class_is_asked_for(write):
    table = read_manifest(write(rows("a|b", "c")), DataSettings(task="multiclass"))
    assert table.task.classes == ("a|b", "c")


def test_a_few_missing_files_are_left_to_the_reader(write):
    table = read_manifest(write(rows("a", "b", "a") + "images/lost.png,b\n"), AUTO)
    assert len(table) == 4
    with pytest.raises(UnreadableImage, match="the file does not exist"):
        table.reader.read(3)


def test_missing_files_are_counted_by_class(write):
    path = write(rows("a", "b", "a", "b") + "images/lost.png,b\nimages/gone.png,b\n")
    (finding,) = read_manifest(path, AUTO).findings
    assert (finding.level, finding.code) == ("warning", "files_missing")
    assert (
        "2 of 6 files in the column 'path' do not exist, so that images are left out (b 2); the first is"
        in finding.text
    )
    assert "images/lost.png" in finding.text


def test_images_whose_masks_are_missing_are_counted_by_class(write):
    text = rows("a,masks/0.png", "b,masks/1.png", "b,masks/0.png;masks/lost.png", header="path,label,mask")
    (finding,) = read_manifest(write(text), AUTO).findings
    assert "1 of 4 files in the column 'mask' do not exist, so that images are left out (b 1)" in finding.text
    assert "every image of 'a'" in error(write(text.replace("a,masks/0.png", "a,masks/gone.png")))


def test_what_is_there_but_no_file_is_left_to_the_reader_and_endings_are_hinted_at(write, folder):
    (folder / "images" / "in").mkdir()
    text = rows(*"ababab") + "images/in,a\nimages/7,b\n"
    (finding,) = read_manifest(write(text), AUTO).findings
    assert finding.text.startswith("1 of 8 files in the column 'path' do not exist")
    assert re.search(r"images/7 \(there is .*images/7.png: names need their endings\)\.$", finding.text)


def test_words_that_mean_one_split_are_told(write):
    words = ["train", "Train", "val", "dev", "holdout", "test"]
    table = read_manifest(
        write(rows(*(f"{'ab'[i % 2]},{word}" for i, word in enumerate(words)), header="path,label,split")), AUTO
    )
    (finding,) = table.findings
    assert finding.text.endswith(": 'val' 1, 'dev' 1 as val; 'holdout' 1, 'test' 1 as test.")


def test_patients_who_may_be_one_are_pointed_at(write):
    table = read_manifest(write(rows("a,P1", "b,p1", "a,P2", "b,P2\u200b", header="path,label,patient")), AUTO)
    assert table.patients.tolist() == ["P1", "p1", "P2", "P2"]
    (finding,) = table.findings
    assert (finding.level, finding.code) == ("warning", "patients_look_alike")
    assert "count as different patients: 'P1' and 'p1'. Write" in finding.text


def test_nothing_and_a_word_are_told_apart_in_parquet(folder):
    frame = pd.DataFrame(
        {
            "path": [f"images/{i}.png" for i in range(4)],
            "label": ["None", "x", None, "x"],
            "patient": [12.0, None, 12.0, 7.0],
        }
    )
    frame.to_parquet(folder / "t.parquet")
    assert "row 4: the column 'label' is empty" in error(folder / "t.parquet")
    frame.assign(label=["None", "x", "None", "x"]).to_parquet(folder / "t.parquet")
    table = read_manifest(folder / "t.parquet", AUTO)
    assert table.task.classes == ("None", "x")
    assert table.patients.tolist() == ["12", "", "12", "7"]


def test_a_class_whose_files_are_all_missing_is_no_class_without_images(write):
    path = write(rows("a", "a", "a", "b", "b") + "images/lost.png,ill\nimages/gone.png,ill\n")
    message = error(path)
    assert "2 of 7 files in the column 'path' do not exist, among them every image of 'ill'; the first is" in message
    assert "images/lost.png" in message
    known = DataSettings(classes=("a", "b", "ill"), task="multiclass")
    assert len(read_manifest(path, known, training=False)) == 7  # which learns nothing, and says so of the files


def test_paths_in_another_unicode_form_find_their_files(write, folder):
    composed, apart = "Me\u0301nie\u0300re", "M\u00e9ni\u00e8re"
    (folder / "images").rename(folder / composed)
    table = read_manifest(write(rows("a", "b").replace("images", apart)), AUTO)
    assert table.ids.tolist() == [f"{composed}/0.png", f"{composed}/1.png"]
    assert not table.findings
    assert "name the same image" in error(write(rows("a").replace("images", apart) + f"{composed}/0.png,b\n"))


# -- names of classes and missing labels --------------------------------------------------------------------------
@pytest.mark.parametrize("odd", ["very\u00a0ill", "very ill\u200b", "very  ill", "\ufeffvery ill "])
def test_classes_that_look_alike_are_one(write, odd):
    table = read_manifest(write(rows(odd, "very ill", "well")), AUTO)
    assert table.task.classes == ("very ill", "well")
    assert table.targets.tolist() == [0, 0, 1]
    assert "very ill (2 ways, 2 images)" in table.findings[0].text
    table = read_manifest(write(rows(f"{odd};well", "very ill", "well")), AUTO)
    assert table.targets.tolist() == [[1, 1], [1, 0], [0, 1]]


def test_the_settings_spelling_goes_first(write):
    composed, apart = "M\u00e9ni\u00e8re", "Me\u0301nie\u0300re"
    path = write(rows(composed, apart, "well", "bad"))
    for name in (composed, apart):
        settings = DataSettings(classes=("well", name), drop_class=("bad",))
        assert read_manifest(path, settings).task.classes == ("well", name)
        table = read_manifest(path, DataSettings(merge=(f"{name}=ill", "bad=ill"), positive="ill"))
        assert table.task.classes == ("well", "ill")
        assert table.targets.tolist() == [1, 1, 0, 1]


@pytest.mark.parametrize("twin", ["GRADE 2", "grade \u00b2", "grade\u200d 2"])
def test_classes_that_only_seem_alike_are_refused(write, twin):
    assert re.search(
        "which (look alike|differ only in case); write them alike", error(write(rows("grade 2", twin, "x")))
    )


@pytest.mark.parametrize("word", ["NA", "n/a", "NaN", "null", "-", "?", "<NA>"])
def test_a_missing_label_is_refused_with_its_count_unless_it_is_named(write, word):
    path = write(rows("a", word, "b", "", "a"))
    message = error(path)
    assert f"row 3: the column 'label' holds {word!r}, which is no label" in message
    assert f"2 of 5 rows have no label: {word!r} 1, empty 1" in message
    path = write(rows("a", word, "b"))
    assert read_manifest(path, DataSettings(classes=("a", "b", word))).targets.tolist() == [0, 2, 1]
    assert len(read_manifest(path, DataSettings(drop_class=(word,)))) == 2
    assert read_manifest(path, DataSettings(merge=(f"{word}=b",))).targets.tolist() == [0, 1, 1]


@pytest.mark.parametrize("word", ["none", "None", "unknown", "missing"])
def test_an_honest_class_of_such_a_name_stays_with_a_warning(write, word):
    path = write(rows("mild", word, word, "severe"))
    table = read_manifest(path, AUTO)
    assert table.task.classes == tuple(sorted(("mild", word, "severe"), key=str.lower))
    (finding,) = table.findings
    assert (finding.level, finding.code) == ("warning", "label_perhaps_missing")
    assert f"{word!r} (2 of 4 images)" in finding.text
    assert f"--drop-class {word}" in finding.text
    assert not read_manifest(path, DataSettings(classes=(word, "mild", "severe"))).findings


def test_with_several_labels_an_empty_cell_is_counted_and_a_mark_refused(write):
    table = read_manifest(write(rows("a;b", "", "nan", "None", "b")), AUTO)
    assert table.targets.tolist() == [[1, 1], [0, 0], [0, 0], [0, 0], [0, 1]]
    assert "3 of 5 images have no label" in table.findings[0].text
    assert "row 3: the column 'label' holds '?'" in error(write(rows("a;b", "?", "b")))
    assert "row 2: the column 'label' holds 'NA'" in error(write(rows("a;NA", "b", "b")))


def test_missing_is_missing_in_every_column(write):
    header = "path,label,patient,split,mask"
    for word in ("", "NA", "N/A", "nan", "None", "null", "-", "?"):
        table = read_manifest(write(rows(f"a,{word},{word},{word}", "b,P,train,masks/0.png", header=header)), AUTO)
        assert (table.patients[0], table.splits[0], table.reader.masks[0]) == ("", "", ())


def test_real_images_through_a_table(real_data, tmp_path):
    root = real_data("breast_ultrasound")
    masks = sorted((root / "malignant").glob("*_mask.png"))[:5]
    lines = [f"{path.parent / path.name.replace('_mask', '')},malignant,{path}" for path in masks]
    lines += [f"{path},normal," for path in sorted((root / "normal").glob("normal (?).png"))]
    (tmp_path / "t.csv").write_text("path,label,mask\n" + "\n".join(lines))
    table = read_manifest(tmp_path / "t.csv", AUTO)
    assert table.reader.read_mask(0).shape == table.reader.read(0).shape[:2]
    assert table.reader.read_mask(len(table) - 1) is None


P = "path,label,patient,split,mask"


@pytest.mark.parametrize(
    ("text", "settings", "message"),
    [
        ("", {}, "is empty; it needs a header"),
        ("\n\n", {}, "is empty"),
        ("path,label\n", {}, r"has a header \(path, label\) but no rows"),
        ("image,label\nx,a\n", {}, r"no column 'path'; its columns are image, label\. Set `path_column`"),
        ("path,lable\nx,a\n", {}, r"no column 'label'; .* Did you mean lable\? Set `label_column`"),
        ("path,label,label\nx,a,a\n", {}, "2 columns named 'label'"),
        (rows("a", "b"), {"patient_column": "subject"}, "no column 'subject'.*Set `patient_column`"),
        (rows("a", "b"), {"split_column": "fold"}, "no column 'fold'"),
        (rows("a", "b,c"), {}, "row 3: 3 cells where the header has 2"),
        ("path,label\nx.png,a\ny\0.png,b\n", {}, "row 3, holds a zero byte: the file is damaged"),
        ("path,label\nx.png,a\ny.png,\0\n", {}, "row 3, holds a zero byte"),
        (rows("a", "", "b"), {}, r"row 3: the column 'label' is empty"),
        ("path,label\nimages/0.png,a\n,b\n", {}, r"row 3: the column 'path' is empty\."),
        ("path,label\nimages/0.png,a\nNA,b\n,c\n", {}, "row 3: .* 'path' holds 'NA', .* as in 1 more of 3 rows"),
        ("path,label\n\nimages/0.png,a\nnan,NaN\nimages/1.png,\n", {}, "row 5: the column 'label' is empty"),
        ("path,label\n\nimages/0.png,a\n\nimages/1.png,\n", {}, "row 5: the column 'label' is empty"),
        ("path,label\nimages/0.png,a\nimages/1.png,b\n./images/0.png,a\n", {}, "rows 2 and 4 name the same image"),
        (rows("a,,tarin,", "b,,,", header=P.replace("patient", "p")), {}, "row 2, column 'split': 'tarin' is not a"),
        (rows("a", "c"), {"classes": ("a", "b")}, "row 3, column 'label': the label 'c' is not among .*: a, b"),
        (rows("a;c", "b"), {"classes": ("a", "b")}, "row 2, column 'label': the label 'c' is not among"),
        (rows("a", "a"), {"classes": ("a", "b")}, "no image of 'b'"),
        (rows("a", "a"), {}, "has only one class, 'a'"),
        (rows("", ""), {"task": "multilabel"}, "has no class"),
        (rows("fi", "\ufb01"), {}, "which look alike"),
        (rows("Benign", "benign"), {}, "'Benign' and 'benign', which differ only in case"),
        (rows("a,train", "b,train", "c,test", header="path,label,split"), {}, "'c' in its test split but not among"),
        (rows("a;b,train", "c;a,val", header="path,label,split"), {}, "'c' in its val split but not among"),
        ("path,label\nx/0.png,a\nx/1.png,b\n", {}, "2 of 2 files in the column 'path' do not exist.*x/0.png. Relative"),
        (rows("a,m/0.png", "b,", header="path,label,mask"), {}, "1 of 1 files in the column 'mask' do not exist"),
    ],
)
def test_errors_point_at_the_cell(write, text, settings, message):
    path = write(text)
    found = error(path, DataSettings(**settings))
    assert re.search(message, found), found
    assert str(path) in found


def test_files_that_are_no_tables(write, folder):
    assert "does not exist" in error(folder / "no.csv")
    assert "save it as CSV in UTF-8" in error(write("x", name="labels.xlsx"))
    assert "not a readable Parquet file" in error(write("x", name="labels.parquet"))
    assert "line 2, is not valid UTF-8" in error(write("path,label\ngr\xfcn,a\n", encoding="latin-1"))


def test_class_given_without_split_counts_as_training(write):
    table = read_manifest(write(rows("a,train", "b,", "b,test", header="path,label,split")), AUTO)
    assert table.splits.tolist() == ["train", "", "test"]
