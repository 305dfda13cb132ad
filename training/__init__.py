"""What paddle.Model is given to train with: loss, measures and callbacks."""

import paddle

from training.callbacks import Divergence, Keeper, Progress, Recorder, Steps
from training.overview import show_batch, write_summary
from training.running_metrics import Accuracy, Loss, MeanLoss, Recall
from training.session import Session
from training.visualdl import Board

__all__ = ["Accuracy", "Keeper", "Loss", "MeanLoss", "Recall", "Session", "Steps", "callbacks", "write_summary"]


def callbacks(session: Session, class_names: list[str], recall: Recall) -> list[paddle.callbacks.Callback]:
    """Lists what fit calls, in order.

    The rate moves after all that note it, and before the Keeper, so that a saved rate is that of the next step.
    """
    rate = paddle.callbacks.LRScheduler(by_step=True)
    if session.rank:
        return [Steps(session), Divergence(session), Recorder(session), rate, Keeper(session)]
    progress = Progress(session)
    board = Board(session.run.path / "vdl", session, class_names, recall, show_batch(session, class_names))
    return [Steps(session), Divergence(session), progress, board, Recorder(session, progress), rate, Keeper(session)]
