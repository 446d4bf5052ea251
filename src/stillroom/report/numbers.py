"""Numbers in words: figures with their intervals, counts, ratios, durations. Nothing here knows a run."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

METRICS = {
    "auc": "AUC",
    "quadratic_kappa": "Quadratic kappa",
    "accuracy": "Accuracy",
    "balanced_accuracy": "Balanced accuracy",
    "sensitivity": "Sensitivity",
    "specificity": "Specificity",
    "precision": "Precision",
    "f1": "F1",
    "mcc": "MCC",
    "average_precision": "Average precision",
    "calibration_error": "Calibration error",
    "ece": "ECE",
    "brier": "Brier score",
    "nll": "Log loss",
}
CHANCE = {"auc": 0.5, "quadratic_kappa": 0.0}
"""What guessing scores, by selection metric."""
LOWER_IS_BETTER = ("calibration_error", "ece", "brier", "nll")
MISSING = "n/a"


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval; ``low`` and ``high`` are None where there is none."""

    value: float
    low: float | None = None
    high: float | None = None

    @property
    def ends(self) -> tuple[float, float]:
        """The interval, or the value twice where there is none."""
        return (self.value, self.value) if self.low is None or self.high is None else (self.low, self.high)

    def text(self, signed: bool = False) -> str:
        """``0.913 (0.887 to 0.936)``."""
        value = fixed(self.value, signed=signed)
        if self.low is None:
            return value
        return f"{value} ({fixed(self.low, signed=signed)} to {fixed(self.high, signed=signed)})"


def estimate(raw: Any) -> Estimate | None:
    """Read ``{"value", "low", "high"}`` or a bare number; None where the figure is null, NaN or absent."""
    if not isinstance(raw, Mapping):
        return Estimate(float(raw)) if finite(raw) else None
    value, low, high = raw.get("value"), raw.get("low"), raw.get("high")
    if not finite(value):
        return None
    return Estimate(value, low, high) if finite(low) and finite(high) else Estimate(value)


def fixed(value: Any, digits: int = 3, signed: bool = False) -> str:
    """A number with a fixed count of decimals and a true minus sign; ``n/a`` where there is none."""
    if not finite(value):
        return MISSING
    text = f"{value:+.{digits}f}" if signed else f"{value:.{digits}f}"
    if float(text) == 0:
        text = text.lstrip("+-")
    return text.replace("-", "−")


def true_minus(text: str) -> str:
    """A sentence with a true minus sign before negative numbers."""
    return re.sub(r"(?<!\w)-(?=\d)", "−", text)


def p_value(value: Any) -> str:
    """``p = 0.034``, ``p < 0.001``, or nothing."""
    if not finite(value):
        return ""
    text = "p < 0.001" if value < 0.001 else f"p = {value:.3f}"
    return text.replace(" ", "\u00a0")


def count(value: Any) -> str:
    """A whole number with thousands separated, or a large one as ``1.53 M`` or ``4.2 G``."""
    if not finite(value):
        return MISSING
    for unit, size in (("G", 1e9), ("M", 1e6)):
        if abs(value) >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:,.0f}"


def ratio(larger: Any, smaller: Any) -> str | None:
    """``12×`` for 12.3 to 1; None unless both are positive numbers."""
    if not (finite(larger) and finite(smaller)) or larger <= 0 or smaller <= 0:
        return None
    factor = larger / smaller
    return f"{factor:.0f}×" if factor >= 10 else f"{factor:.1f}×"


def duration(seconds: Any) -> str:
    """``48 s``, ``12 min`` or ``3 h 05 min``."""
    if not finite(seconds):
        return MISSING
    if seconds < 90:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def plain(item: Any) -> str:
    """A value out of a file as one line of text, whatever its form."""
    if isinstance(item, Mapping):
        return ", ".join(f"{key}: {plain(value)}" for key, value in item.items())
    if isinstance(item, list | tuple):
        return ", ".join(plain(value) for value in item)
    if isinstance(item, float):
        return f"{item:.6g}"
    return MISSING if item is None else str(item)


def finite(value: Any) -> TypeGuard[float]:
    """Whether ``value`` is a number, and neither NaN nor infinite."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
