"""The training itself: paddle.Model with the losses, metrics and callbacks of a session."""

import contextlib
import io

import paddle

from dataset import BatchLoader
from models.classifier import Classifier
from system.workers import reporting_dead_workers
from training import callbacks, setup, signals
from training.running_metrics import Accuracy, MeanLoss, Recall
from training.session import Session


def fit(
    session: Session,
    network: Classifier,
    loss: paddle.nn.Layer,
    loaders: dict[str, BatchLoader],
    class_names: list[str],
    device: str,
) -> None:
    """Trains a network with paddle.Model, from the session's epoch and step on.

    Args:
        loaders: By split, train and valid.

    Raises:
        UserError: An image cannot be read, the loss is not finite, or a checkpoint cannot be written.
    """
    settings = session.settings
    recall = Recall(len(class_names))
    # In several processes paddle lists the flags that machine.prepare has set.
    with contextlib.redirect_stderr(io.StringIO()):
        model = paddle.Model(network)
    # Paddle's own mixed precision is float16; bf16 is one of the faster layers below.
    amp = None if settings.amp in ("none", "bf16") else settings.amp
    model.prepare(session.optimizer, loss, [MeanLoss(), Accuracy(), recall], amp_configs=amp)
    watching = callbacks.make_callbacks(session, class_names, recall, loaders["valid"].dataset.labels)
    faster = setup.accelerated(network, settings, device, session.run.path)
    with faster, reporting_dead_workers(), signals.deferred(session):
        model.fit(
            loaders["train"],
            loaders["valid"],
            epochs=session.epochs_left,
            verbose=0,
            accumulate_grad_batches=settings.accumulate,
            callbacks=watching,
        )
