"""What bench/transfer.py times with Keras: a frozen MobileNetV2 and a new head, in the two usual ways.

Its MobileNetV2 pads otherwise than torch's and paddle's, so their weights do not fit: it runs with random ones, and its
accuracy says nothing.

    python bench/transfer_keras.py DATA epochs|features
"""

import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from sklearn.linear_model import LogisticRegression

EPOCHS, BATCH, SIDE = 8, 16, 224


def images_of(folder: Path, split: str, shuffle: bool = False):
    """Loads a split, in the way of Keras's guide to transfer learning."""
    return keras.utils.image_dataset_from_directory(
        str(folder / split), image_size=(SIDE, SIDE), batch_size=BATCH, shuffle=shuffle, seed=1, verbose=False
    )


def backbone() -> keras.Model:
    """MobileNetV2 without its head, with the scaling of its pixels."""
    inputs = keras.Input((SIDE, SIDE, 3))
    network = keras.applications.MobileNetV2(include_top=False, weights=None, pooling="avg")
    network.trainable = False
    return keras.Model(inputs, network(keras.layers.Rescaling(1 / 127.5, -1)(inputs), training=False))


def by_epochs(folder: Path) -> float:
    """Trains the head as the guide does."""
    varied = keras.Sequential([keras.layers.RandomFlip("horizontal"), keras.layers.RandomRotation(0.1)])
    inputs = keras.Input((SIDE, SIDE, 3))
    model = keras.Model(inputs, keras.layers.Dense(2)(backbone()(varied(inputs))))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(3e-3), loss, metrics=["accuracy"])
    model.fit(images_of(folder, "train", True), validation_data=images_of(folder, "valid"), epochs=EPOCHS, verbose=0)
    return model.evaluate(images_of(folder, "test"), verbose=0)[1]


def by_features(folder: Path) -> float:
    """Computes features once and fits logistic regressions on them."""
    network, kept = backbone(), {}
    for split in ("train", "valid", "test"):
        data = images_of(folder, split)
        kept[split] = network.predict(data, verbose=0), np.concatenate([labels for _, labels in data])
    heads = [LogisticRegression(C=c, max_iter=500).fit(*kept["train"]) for c in (0.01, 0.1, 1, 10, 100)]
    return max(heads, key=lambda head: head.score(*kept["valid"])).score(*kept["test"])


if __name__ == "__main__":
    keras.utils.set_random_seed(1)
    ways = {"epochs": by_epochs, "features": by_features}
    print(f"{ways[sys.argv[2]](Path(sys.argv[1])):.4f}")
