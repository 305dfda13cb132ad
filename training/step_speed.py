"""Speed of a network's training steps on made-up images, in this process or in one of several."""

import statistics
import time

import numpy as np
import paddle

from models import networks
from models.classifier import Classifier
from system import machine
from system.settings import Settings
from training import losses, optim, processes, setup
from training.running_metrics import Accuracy, MeanLoss, Recall

# Classes of the made-up labels; their number hardly changes the speed.
CLASSES = 10
# Steps that warm up, the fewest that are measured, and the seconds after which no more are.
WARM_UP, FEWEST, SECONDS = 2, 3, 3.0


def new_model(settings: Settings) -> tuple[Classifier, paddle.Model]:
    """Makes a new network, and the model that trains it as train.py does, for CLASSES classes."""
    inner = networks.construct(settings.network, CLASSES, settings.image_shape)
    network = Classifier(inner, settings.mean, settings.std)
    optimizer = optim.make_optimizer(settings, network, optim.Schedule(settings, 1))
    model = paddle.Model(network)
    model.prepare(optimizer, losses.Loss(), [MeanLoss(), Accuracy(), Recall(CLASSES)])
    return network, model


def seconds_per_step(settings: Settings) -> float:
    """Trains with the network, image_shape, batch_size and amp of the settings, as train.py does, and takes the time.

    Of several processes the first one measures; the others go on until they are ended.

    Returns:
        The median.
    """
    device = setup.select_device(settings)
    network, model = new_model(settings)
    generator, count = np.random.default_rng(settings.seed), processes.images_per_process(settings)
    images = generator.integers(0, 256, (count, *settings.image_shape), np.uint8)
    labels = generator.integers(0, CLASSES, count)
    times: list[float] = []
    with setup.accelerated(network, settings, device):
        while machine.rank()[0] or len(times) < WARM_UP + FEWEST or sum(times[WARM_UP:]) < SECONDS:
            started = time.perf_counter()
            model.train_batch([images], [labels])
            times.append(time.perf_counter() - started)
    return statistics.median(times[WARM_UP:])
