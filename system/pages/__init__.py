"""What the pages of annotate.py, explore.py and evaluate.py share: the base template, its style and its filters."""

from pathlib import Path

# Files that the pages of servers share; they are served beside each page's own.
SHARED = Path(__file__).parent / "app"
