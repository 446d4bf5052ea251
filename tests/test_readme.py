"""The README's program, run as it stands but for the names of images and networks and the number of epochs."""

import re
from pathlib import Path

from PIL import Image

README = (Path(__file__).parents[1] / "README.md").read_text("utf-8")


def test_the_program_runs(picture_folder, tmp_path, monkeypatch, capsys):
    (code,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    changes = {
        '"./my_images"': repr(str(picture_folder)),
        '"vit_small_patch14_dinov2"': '"test_vit", pretrained=False, teacher_size=32',
        '"mobilenetv2_035"': '"test_resnet"',
        "size=96": "size=32",
        "    ),\n    out=": "        training=TrainingSettings(epochs=1),\n    ),\n    out=",
        "import DataSettings": "import TrainingSettings, DataSettings",
    }
    for old, new in changes.items():
        assert old in code
        code = code.replace(old, new)
    monkeypatch.chdir(tmp_path)
    Image.open(next(picture_folder.rglob("*.png"))).save("new_image.png")
    exec(compile(code, "README.md", "exec"), {})
    auc, prediction = capsys.readouterr().out.strip().splitlines()
    assert {"value", "low", "high"} <= set(eval(auc))
    assert "left" in prediction
    assert (tmp_path / "runs" / "first" / "report.html").exists()
