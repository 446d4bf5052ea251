"""A package's warnings are kept back, once and for good; others are not."""

import warnings

from stillroom.data.quiet import hush


def test_only_the_package_s_own_warnings_are_kept_back():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        hush("some.package")
        count = len(warnings.filters)
        hush("some.package")
        assert len(warnings.filters) == count
        for module in ("some.package", "some.package.part", "some.packages", "other"):
            warnings.warn_explicit("said", UserWarning, "file.py", 1, module=module)
        warnings.warn_explicit("gone", DeprecationWarning, "file.py", 1, module="some.package")
    assert [str(one.message) for one in caught] == ["said", "said", "gone"]
