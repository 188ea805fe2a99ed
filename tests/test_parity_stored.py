"""What paper S did to its films of NIH-CXR14 before its models saw them, and what they then saw."""

import numpy as np
import pytest
from PIL import Image

from cxrlib.models import registry
from cxrlib.models.images import each, stored_by_s
from tests import upstream

CASES = upstream.figures("theosourget_preprocess")["cases"]


def film(case):
    return upstream.film("narrow_300x260" if case == "narrow_range" else case)


@pytest.mark.parametrize("case", CASES)
def test_stored_films_are_those_of_paper_s(case):
    stored = stored_by_s(film(case))
    assert stored.dtype == np.uint8
    upstream.assert_summary(stored, CASES[case]["stage1_uint8_gray"])


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(
    "key, name",
    [
        ("medclip", "medclip_vit"),
        ("biovil_and_biovil_t", "biovil"),
        ("biovil_and_biovil_t", "biovil_t"),
        ("cxrclip", "cxr_clip_rn50"),
    ],
)
def test_what_models_saw_of_stored_films_is_as_in_paper_s(case, key, name):
    made = registry.recipe(name)
    found = each(made.preprocess_s or made.preprocess)(stored_by_s(film(case)))[0]
    channels = CASES[case][key]["shape"][1]  # MedCLIP's one is repeated inside its network
    upstream.assert_summary(found[:channels], CASES[case][key])


def test_a_film_of_one_grey_is_stored_black():
    assert not stored_by_s(np.full((300, 260), 90, np.uint8)).any()


@pytest.mark.parametrize("case", CASES)
def test_antialiasing_would_be_seen(case):
    """The comparison can fail: the same steps with antialiasing do not pass it."""
    small = np.asarray(Image.fromarray(film(case)).resize((224, 224), Image.Resampling.BILINEAR))
    span = np.ptp(small)
    stored = np.round((small - small.min().astype(float)) * 255 / span)
    with pytest.raises(AssertionError):
        upstream.assert_summary(stored, CASES[case]["stage1_uint8_gray"])
