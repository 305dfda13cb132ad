"""Networks, their weights, and run folders."""
