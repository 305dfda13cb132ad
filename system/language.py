"""The language of reports and terminal summaries: sentences are written in English, zh.yaml has them in Chinese."""

import ctypes
import locale
import os
import sys
from functools import cache
from pathlib import Path

from system import text
from system.yaml_files import read_yaml

CATALOGUE = Path(__file__).with_name("zh.yaml")
ENGLISH, CHINESE = "en", "zh"
# What `<html lang>` says.
TAGS = {ENGLISH: "en", CHINESE: "zh-CN"}
# In the order in which POSIX reads them; the first that is set counts.
VARIABLES = ("LC_ALL", "LC_MESSAGES", "LANG")
_chosen = ENGLISH


def choose(setting: str) -> None:
    """Chooses the language of this process: "en", "zh", or "auto" for that of the system."""
    global _chosen
    _chosen = of_system() if setting == "auto" else setting


def chosen() -> str:
    """The language that was chosen: "en", "zh"."""
    return _chosen


def of_system() -> str:
    """Returns "zh" where the system's language is Chinese, else "en"."""
    name = next((value for variable in VARIABLES if (value := os.environ.get(variable))), "")
    if not name and sys.platform == "win32":
        name = locale.windows_locale.get(ctypes.windll.kernel32.GetUserDefaultUILanguage(), "")
    return CHINESE if name.lower().startswith("zh") else ENGLISH


@cache
def catalogue() -> dict[str, str]:
    """The Chinese sentence of each English one."""
    return read_yaml(CATALOGUE)


def translate(sentence: str, **values: object) -> str:
    """Returns a sentence in the chosen language, in English where the catalogue lacks it.

    Args:
        values: Of the sentence's placeholders; without any, braces stay.
    """
    found = catalogue().get(sentence, sentence) if _chosen == CHINESE else sentence
    return found.format(**values) if values else found


def counted(count: int, noun: str, plural: str = "") -> str:
    """Writes a number with its noun as text.counted does; in Chinese it is the catalogue's `{count:,} <noun>`."""
    sentence = "{count:,} " + noun
    if _chosen == CHINESE and sentence in catalogue():
        return translate(sentence, count=count)
    return text.counted(count, noun, plural)


def inflect(count: int, singular: str, plural: str = "") -> str:
    """Returns the word for a number of things as text.inflect does; in Chinese it is that of the singular."""
    if _chosen == CHINESE and singular in catalogue():
        return translate(singular)
    return text.inflect(count, singular, plural)
