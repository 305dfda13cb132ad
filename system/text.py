"""Texts for people: numbers with their nouns, and columns of a terminal."""

import unicodedata


def counted(count: int, noun: str, plural: str = "") -> str:
    """Writes a number with its noun: "1 image", "1,200 images".

    Args:
        noun: For one.
        plural: For any other number; by default noun with an s.
    """
    return f"{count:,} {inflect(count, noun, plural)}"


def inflect(count: int, singular: str, plural: str = "") -> str:
    """Returns the word for one, or that for any other number; by default with an s."""
    return singular if count == 1 else plural or f"{singular}s"


def columns(text: str) -> int:
    """Counts the columns that a text takes on a terminal: Chinese characters two, marks and joiners none.

    Source: Unicode Standard Annex #11, "East Asian Width".
    """
    return sum(_columns(character) for character in text)


def _columns(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def pad(text: str, width: int) -> str:
    """Fills a text with spaces on its right up to so many columns of a terminal."""
    return text + " " * (width - columns(text))


def rjust(text: str, width: int) -> str:
    """Fills a text with spaces on its left up to so many columns of a terminal."""
    return " " * (width - columns(text)) + text


def start(text: str, width: int) -> str:
    """Cuts the end of a text that takes more than so many columns, and marks that with an ellipsis."""
    if columns(text) <= width:
        return text
    kept = ""
    for character in text:
        if columns(kept + character) >= width:
            break
        kept += character
    return f"{kept}…"
