"""Metrics, figures, and the reports of evaluate.py."""
