"""What serve.py is made of: HTTP in front, a queue that gathers images, and worker processes that judge them."""
