"""Checks of a data set: finding the files, judging them, copies, splits, lists and the report."""
