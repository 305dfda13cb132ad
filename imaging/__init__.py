"""Pixels: decoding, transforms, augmentation, cache."""
