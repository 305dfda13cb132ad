"""Features: what a network computes below its head, and heads that are fitted on them."""
