"""Scoring any number of pictures: where they come from, how they are shared out, and where the answers go."""
