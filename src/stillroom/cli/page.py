"""The verb that writes a page which classifies in the browser."""

from __future__ import annotations

from pathlib import Path


def page(run: Path, /, *, out: Path = Path("classifier.html"), language: str | None = None) -> None:
    """Write one HTML file that classifies and explains images in the browser: no network, nothing to install.

    Model, runtime, rules and texts are inside. It opens from a disk or a stick in any browser of today, reads PNG, JPEG, WebP
    and DICOM, answers as `predict` and explains as `explain`. Images stay in the browser's window: the page cannot send.

    ```
    stillroom page runs/first --out classifier.html
    stillroom page student.onnx --language de
    ```

    Args:
        run: a finished run folder, or an exported .onnx file. Of a run, `student.onnx` is taken: in a browser int8 is slower.
        out: the HTML file to write.
        language: in which the page opens, `en` or `de`; the browser's by default. It can be changed there.
    """
    from stillroom.cli import console
    from stillroom.deployment.page import write_page

    target = write_page(run, out, language=language)
    console.out().print(
        f"{target}: {target.stat().st_size / 1e6:.1f} MB. Open it in a browser.", markup=False, soft_wrap=True
    )
