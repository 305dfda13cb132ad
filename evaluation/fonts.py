"""Fonts of figures: installed ones that show the names of classes and files, Chinese ones too."""

import functools
import sys
import warnings
from collections.abc import Iterable
from pathlib import Path

import matplotlib
from matplotlib import font_manager
from matplotlib.ft2font import FT2Font

# Beginnings of the file names of common fonts with Chinese, Japanese and Korean glyphs, preferred ones first.
CJK_FILES = ("notosanscjk", "notosanssc", "sourcehansans", "wqy", "pingfang", "hiragino", "msyh", "simhei", "droidsans")

# Characters that were reported as missing: one line a command, however many figures it draws.
_REPORTED: set[str] = set()


def choose_fonts(texts: Iterable[str]) -> None:
    """Sets fonts that show these texts: adds installed fonts until every character has a glyph.

    Characters that no font has are drawn as boxes; the first time, one line on stderr says so.
    """
    missing = {character for text in texts for character in text if character.isprintable()}
    missing -= _glyphs(font_manager.findfont("DejaVu Sans"))
    if not missing:
        return
    families = []
    for path in _system_fonts():
        if covered := missing & _glyphs(path):
            # matplotlib's list of fonts lacks those installed after it was made.
            font_manager.fontManager.addfont(path)
            families.append(FT2Font(path).family_name)
            missing -= covered
        if not missing:
            break
    matplotlib.rcParams["font.family"] = ["DejaVu Sans", *families]
    if missing and not _REPORTED:
        _REPORTED.update(missing)
        shown = "".join(sorted(missing)[:10])
        print(f"figures: no installed font shows {shown}; install one, such as fonts-noto-cjk", file=sys.stderr)
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")


def _system_fonts() -> list[str]:
    def rank(path: str) -> tuple[int, str]:
        name = Path(path).name.lower().replace("-", "").replace("_", "")
        # Bold faces of a family look wrong as body text.
        return next((i for i, start in enumerate(CJK_FILES) if name.startswith(start)), 99) + 50 * (
            "bold" in name
        ), path

    return sorted(font_manager.findSystemFonts(), key=rank)


@functools.cache
def _glyphs(path: str) -> frozenset[str]:
    try:
        return frozenset(map(chr, FT2Font(path).get_charmap()))
    # FreeType does not open some bitmap and emoji fonts.
    except (RuntimeError, OSError):
        return frozenset()
