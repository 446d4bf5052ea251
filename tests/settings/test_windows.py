"""Windows by numbers and by name."""

from pathlib import Path

import pytest

from stillroom.errors import UsageError
from stillroom.settings.sections import DataSettings
from stillroom.settings.windows import PRESETS, Window, parse_window


def test_numbers_and_names():
    assert parse_window("") is None
    assert parse_window(" 40, 400 ") == Window(40, 400)
    assert parse_window("Soft Tissue") == parse_window("soft-tissue") == Window(50, 400, "soft-tissue")
    assert str(parse_window("lung")) == "lung (-600,1500)"
    assert str(parse_window("-600,1500")) == "-600,1500"


@pytest.mark.parametrize("text", ["lungs", "40", "40,400,1", "a,b", "40,1", "40,-3", "nan,4", "1,inf"])
def test_what_is_no_window_is_refused_with_the_setting_s_name(text):
    with pytest.raises(UsageError, match="window must be"):
        DataSettings(window=text)


def test_the_page_gives_every_window_as_it_is():
    page = (Path(__file__).parents[2] / "docs" / "how-to.md").read_text("utf-8")
    for name, (centre, width) in PRESETS.items():
        assert f"`{name}` ({centre:g},{width:g})" in page
