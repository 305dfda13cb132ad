"""What serve.py is made of: HTTP in front, a queue that gathers pictures, and worker processes that judge them."""
