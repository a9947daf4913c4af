"""Things made with different models are refused, naming both."""

import pytest

from imtalker import InputError
from imtalker.motion.match import Side, check_match

ONE = Side("the renderer", "v2", 32)


@pytest.mark.parametrize("other", [ONE, Side("the source"), Side("the source", "v2"), Side("the source", size=32)])
def test_what_is_equal_or_unknown_matches(other):
    check_match(ONE, other)
    check_match(other, ONE)


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (Side("the source", "v1", 32), "The renderer is v2 but the source is v1: use a renderer and a generator of"),
        (Side("the source", None, 8), "The renderer has 32 values per frame but the source has 8: use a"),
    ],
)
def test_what_differs_is_named_with_a_remedy(other, words):
    with pytest.raises(InputError, match=words):
        check_match(ONE, other)
    with pytest.raises(InputError, match=r": encode it again\.$"):
        check_match(ONE, other, "encode it again.")
