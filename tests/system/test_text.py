"""Numbers with their nouns, and widths on a terminal."""

import pytest

from system.text import columns, counted, pad, start


def test_nouns_agree_with_their_number():
    """Guards against "1 images", "0 image", and a number that is hard to read."""
    assert [counted(number, "image") for number in (0, 1, 2, 1200)] == [
        "0 images",
        "1 image",
        "2 images",
        "1,200 images",
    ]
    assert (counted(1, "class", "classes"), counted(3, "class", "classes")) == ("1 class", "3 classes")


@pytest.mark.parametrize(
    ("text", "width"), [("ox", 2), ("老虎", 4), ("ＯＸ", 4), ("e\u0301", 1), ("ก็", 1), ("a\u200db", 2), ("❤\ufe0f", 1)]
)
def test_columns(text, width):
    """Guards against characters of two columns that count as one, and marks and joiners that count at all."""
    assert columns(text) == width
    assert columns(pad(text, 8)) == 8


def test_a_cut_text_fits():
    """Guards against a text cut in the middle of a wide character's columns, and one that needed no cut."""
    assert (start("老虎", 4), start("老虎和龙", 6), start("dragon", 4), start("", 3)) == ("老虎", "老虎…", "dra…", "")
