"""The HTTP server: an application in front, a bounded queue, and worker processes that run the exported model."""
