"""One HTML file that classifies in the browser, without a network: the exported model, ONNX Runtime, rules and texts inside.

``engine/`` decodes, prepares, answers and explains in a worker, in the same arithmetic as the predictor; ``face/`` is what
people see; ``texts/`` holds every word. Python puts them together.
"""

from __future__ import annotations

from stillroom.deployment.page.writing import LANGUAGES, page_of, write_page

__all__ = ["LANGUAGES", "page_of", "write_page"]
