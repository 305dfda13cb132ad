"""Names of the files that annotate writes."""

from annotation.lists import CORRECTED, GROUPS, LABELS, SPLITS

REJECTS = "rejects.tsv"
REMARKS = "remarks.tsv"
DUPLICATES = "duplicates.tsv"
# Written by people and by review.py, read by annotate.
CORRECTIONS = "corrections.tsv"
REPORT = "annotate.html"
CSV = "labels.csv"
LIST_FORMATS = ("tsv", "csv", "paddlex")
PADDLEX_LABELS = "label.txt"
PADDLEX_LISTS = {"train": "train.txt", "valid": "val.txt", "test": "test.txt"}


def written_files(list_format: str) -> list[str]:
    """Names of the files that a run writes, for one of LIST_FORMATS."""
    if list_format == "paddlex":
        lists = [PADDLEX_LABELS, *PADDLEX_LISTS.values()]
    else:
        lists = [LABELS, *(f"{split}.txt" for split in SPLITS), *([CSV] if list_format == "csv" else [])]
    return [*lists, REJECTS, REMARKS, DUPLICATES, GROUPS, CORRECTED, REPORT]
