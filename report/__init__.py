"""What evaluate.py tells: calibrated confidence, explanations, mistakes, label suspects, comparisons, and the page."""
