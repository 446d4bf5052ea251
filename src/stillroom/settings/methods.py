"""The heat maps that Stillroom draws, by name."""

from __future__ import annotations

from typing import Literal, get_args

Method = Literal["score_cam", "score_cam_fast", "grad_cam", "grad_cam_pp", "eigen_cam", "rise"]
METHODS: tuple[Method, ...] = get_args(Method)
DEFAULT: Method = "rise"
"""Of those that need no gradients the one that finds planted evidence best (docs/evidence.md)."""

BY_MASKS: tuple[Method, ...] = ("score_cam", "score_cam_fast", "rise")
"""Those that ask a network of nothing but its answers to masked images: the exported file draws them without torch."""
