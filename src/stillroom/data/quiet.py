"""Warnings of decoders, which would stand on the terminal between a user's lines, and may quote what a file says."""

from __future__ import annotations

import re
import warnings


def hush(package: str) -> None:
    """Keep the UserWarnings of a package's modules from every output of this process.

    For good: to catch them around each call is not safe in threads. Called again it does nothing, unless somebody has put the
    filters back.
    """
    pattern = rf"{re.escape(package)}(\.|$)"
    for action, _, category, module, _ in warnings.filters:
        if action == "ignore" and category is UserWarning and getattr(module, "pattern", None) == pattern:
            return
    warnings.filterwarnings("ignore", category=UserWarning, module=pattern)
