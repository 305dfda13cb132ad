"""Batch prediction: files of predictions for any number of images, resumable, in several processes (optional)."""
