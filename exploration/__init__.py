"""Exploration: what a pretrained network makes of a data set before any training."""
