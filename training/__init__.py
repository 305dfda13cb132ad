"""Training: losses, running metrics, optimizer, callbacks of `paddle.Model.fit`, training state."""
