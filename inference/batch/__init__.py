"""Predictions for any number of images, in files, resumable and in several processes."""
