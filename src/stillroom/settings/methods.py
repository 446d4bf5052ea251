"""The heat maps that Stillroom draws, by name."""

from __future__ import annotations

from typing import Literal, get_args

Method = Literal["score_cam", "score_cam_fast", "grad_cam", "grad_cam_pp", "eigen_cam"]
METHODS: tuple[Method, ...] = get_args(Method)
