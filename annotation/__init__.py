"""Label lists, and the checks that write them."""
