import pytest
import timm

from stillroom.errors import UsageError
from stillroom.models.normalisation import HALF, IMAGENET, Normalisation, from_metadata


def test_constants_are_the_published_ones():
    assert IMAGENET.mean == timm.data.constants.IMAGENET_DEFAULT_MEAN
    assert IMAGENET.std == timm.data.constants.IMAGENET_DEFAULT_STD
    assert HALF.mean == timm.data.constants.IMAGENET_INCEPTION_MEAN
    assert HALF.std == timm.data.constants.IMAGENET_INCEPTION_STD


def test_a_header_may_state_it():
    assert from_metadata({"format": "pt", "mean": "0.5,0.5,0.5", "std": "0.5, 0.5, 0.5"}) == HALF
    assert from_metadata({"format": "pt"}) is None


@pytest.mark.parametrize(
    "header", [{"mean": "0.5,0.5,0.5"}, {"mean": "0.5", "std": "0.5"}, {"mean": "a,b,c", "std": "1,1,1"}]
)
def test_half_a_statement_is_refused(header):
    with pytest.raises(UsageError, match="header states mean and std"):
        from_metadata(header)


def test_a_zero_deviation_is_refused():
    with pytest.raises(UsageError, match="positive"):
        Normalisation((0.0, 0.0, 0.0), (1.0, 0.0, 1.0))
