"""Exported models: what a folder holds, how it is run, and how it is verified."""
