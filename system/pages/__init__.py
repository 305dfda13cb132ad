"""What the pages of annotate.py, explore.py and evaluate.py share: the base template, its style and its filters."""
