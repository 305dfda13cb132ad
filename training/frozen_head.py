"""The head of a frozen network: a logistic regression on features that are computed once, in seconds."""

from collections.abc import Iterator, Mapping

import numpy as np
import paddle

from annotation.lists import Sample, list_digest, read_samples
from evaluation import metrics, plots
from features import linear_head
from features.backbone import find_head
from features.extraction import FeatureExtractor, of_samples
from features.linear_head import LinearHead
from models.checkpoint import BEST, LAST, Run
from models.classifier import Classifier
from models.networks import BASES
from system import machine
from system.errors import UserError
from system.settings import Settings
from training import overview
from training.selection import is_better
from training.session import Session

Row = dict[str, float]
# Settings that have no part in a head that is fitted on features.
WITHOUT_PART = (
    "augment, epochs, batch_size, optimizer, learning_rate, schedule, decay_epochs, decay_factor, warmup_epochs, "
    "momentum, weight_decay, label_smoothing, clip_norm, accumulate, ema, amp, patience and save_every_minutes"
)


def obstacle(settings: Settings, network: Classifier) -> str:
    """Returns why the head cannot be fitted on features; "" if it can."""
    if settings.features == "off":
        return "features=off"
    if settings.augment.mixup or settings.augment.cutmix:
        return "mixed images have other features in each epoch"
    if settings.loss != "cross_entropy":
        return f"loss={settings.loss} is not that of a logistic regression"
    if settings.network in BASES:
        return f"more than the last layer of {settings.network} is trained"
    network.eval()
    head = find_head(network, settings.image_shape)
    if head is None or head.bias is None:
        return f"the logits of {settings.network} are not computed by a dense layer with a bias"
    return ""


def is_unfrozen_later(settings: Settings) -> bool:
    """Returns whether epochs follow in which all weights are trained."""
    return 0 < settings.unfreeze_epoch <= settings.epochs


def describe(settings: Settings) -> str:
    """Returns one line: how the head is trained, and the settings that have no part in it."""
    if is_unfrozen_later(settings):
        return f"head: fitted on features, in place of the epochs before unfreeze_epoch={settings.unfreeze_epoch}"
    return f"head: fitted on features; {WITHOUT_PART} have no part in it (features=off trains with them)"


def fit_if_possible(settings: Settings, network: Classifier, run: Run, device: str, num_classes: int) -> Row:
    """Prints how the head is trained; if it is on features, fits it (see `fit`), else returns {}."""
    reason, is_first = obstacle(settings, network), machine.rank()[0] == 0
    if is_first:
        print(f"head: trained by epochs ({reason})" if reason else describe(settings))
    return {} if reason else fit(settings, network, run, device, num_classes)


def fit(settings: Settings, network: Classifier, run: Run, device: str, num_classes: int) -> Row:
    """Fits the head of a network at several strengths of its penalty, and gives it the one that is best on valid.

    A run whose network stays frozen is finished with it: weights, state, history and curves are saved.

    Args:
        network: Frozen; its head becomes the best one, in every process.

    Returns:
        The row of the best head: strength, and loss and accuracy of train and valid.

    Raises:
        UserError: An image cannot be read, or all training images are of one class.
    """
    lists = {split: read_samples(settings, split, num_classes) for split in ("train", "valid")}
    labels = {split: np.array([sample.label for sample in samples]) for split, samples in lists.items()}
    if len(np.unique(labels["train"])) < 2:
        raise UserError(f"{settings.lists / 'train.txt'}: all images are of one class; a classifier needs two or more")
    extractor = FeatureExtractor(network, settings, device)
    layer = extractor.head
    assert layer is not None, "see `obstacle`"
    features = {split: of_samples(extractor, samples, split) for split, samples in lists.items()}
    rows: list[Row] = []
    best: Row = {}
    if machine.rank()[0] == 0:
        for head, row in _fits(features, labels, num_classes, settings):
            rows.append(row)
            if not best or is_better(row, best, settings.monitor):
                best = row
                layer.weight.set_value(head.weight)
                layer.bias.set_value(head.bias)
        if not is_unfrozen_later(settings):
            _finish(run, network, settings, rows, best, lists)
    return _shared(best, layer)


def start_unfrozen(session: Session, network: Classifier, row: Row) -> None:
    """Begins the epochs in which all weights are trained, as if those before had led to the fitted head.

    Source: Kumar et al. 2022, "Fine-Tuning can Distort Pretrained Features" (arXiv:2202.10054): first the head alone.
    """
    session.epoch = session.settings.unfreeze_epoch - 1
    scores = {key: value for key, value in row.items() if key != "strength"}
    session.best = {"epoch": session.epoch, "learning_rate": 0.0, **scores}
    session.save_epoch(network, session.best, improved=True, finished=False)
    session.schedule.step(session.epoch * session.loader.steps)
    session.epoch += 1


def _fits(
    features: Mapping[str, np.ndarray], labels: Mapping[str, np.ndarray], num_classes: int, settings: Settings
) -> Iterator[tuple[LinearHead, Row]]:
    balanced = settings.class_balance != "none"
    for head in linear_head.fit(features["train"], labels["train"], num_classes, balanced):
        row = {"strength": head.strength}
        for split in ("train", "valid"):
            logits = head.logits(features[split])
            row[f"{split}_loss"] = metrics.log_loss(logits, labels[split])
            row[f"{split}_accuracy"] = float((logits.argmax(axis=1) == labels[split]).mean())
        print(
            f"strength {head.strength:g}: "
            + ", ".join(
                f"{split} loss {row[f'{split}_loss']:.4f} accuracy {row[f'{split}_accuracy']:.4f}"
                for split in ("train", "valid")
            ),
            flush=True,
        )
        yield head, row


def _finish(
    run: Run, network: Classifier, settings: Settings, rows: list[Row], best: Row, lists: Mapping[str, list[Sample]]
) -> None:
    overview.write_summary(network, settings, run.path / "summary.txt")
    for row in rows:
        run.save(row=row)
    plots.curves(run.history(), run.path / "curves.png", best["strength"])
    state = {
        "epoch": 0,
        "step": 0,
        "finished": True,
        "best_strength": best["strength"],
        "best_accuracy": best["valid_accuracy"],
        "best_loss": best["valid_loss"],
        "lists": {split: list_digest(samples) for split, samples in lists.items()},
        "threads": machine.threads(settings),
    }
    weights = network.network.state_dict()
    run.save(weights={BEST: weights, LAST: weights}, state=state)


def _shared(best: Row, head: paddle.nn.Linear) -> Row:
    """Gives every process the head and the row of the first one."""
    if machine.rank()[1] == 1:
        return best
    names = ("strength", "train_loss", "train_accuracy", "valid_loss", "valid_accuracy")
    values = paddle.to_tensor(np.array([best.get(name, 0) for name in names]))
    for tensor in (values, head.weight, head.bias):
        paddle.distributed.broadcast(tensor, src=0)
    return dict(zip(names, values.numpy().tolist(), strict=True))
