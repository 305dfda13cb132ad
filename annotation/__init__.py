"""Label lists, and checking a folder of images: scan, verdicts, copies, splits, report."""
