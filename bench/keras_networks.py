"""The networks of bench/train.py in Keras, with the weights and the work of those in paddle.vision.models.

keras.applications differs: its ResNet50 has biases before batch norm and strides in the 1x1 convolutions, its VGG16 no
pooling to 7x7. Its MobileNetV2 is taken as it is; there is no ShuffleNet.
"""

import keras
from keras import layers

# Width, blocks and stride of each stage.
RESNET_STAGES = ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2))


def _cnn(side: int, num_classes: int) -> keras.Model:
    return keras.Sequential([
        keras.Input((side, side, 3)),
        layers.Conv2D(32, 3, activation="relu"), layers.MaxPooling2D(),
        layers.Conv2D(64, 3, activation="relu"), layers.MaxPooling2D(),
        layers.Conv2D(64, 3, activation="relu"), layers.Flatten(),
        layers.Dense(64, activation="relu"), layers.Dense(num_classes),
    ])  # fmt: skip


def _unit(maps: keras.KerasTensor, filters: int, kernel: int, stride: int = 1, relu: bool = True) -> keras.KerasTensor:
    """Convolution, batch norm and perhaps ReLU; borders of kernel // 2, as PyTorch and Paddle have them."""
    if kernel > 1 and stride > 1:
        # "same" would give strided convolutions a border on the right and below only.
        maps = layers.ZeroPadding2D(kernel // 2)(maps)
    padding = "valid" if stride > 1 else "same"
    maps = layers.Conv2D(filters, kernel, stride, padding, use_bias=False)(maps)
    maps = layers.BatchNormalization()(maps)
    return layers.ReLU()(maps) if relu else maps


def _resnet50(side: int, num_classes: int) -> keras.Model:
    inputs = keras.Input((side, side, 3))
    maps = layers.ZeroPadding2D(1)(_unit(inputs, 64, 7, 2))
    maps = layers.MaxPooling2D(3, 2)(maps)
    for width, blocks, first in RESNET_STAGES:
        for stride in (first, *[1] * (blocks - 1)):
            chain = _unit(_unit(maps, width, 1), width, 3, stride)
            chain = _unit(chain, 4 * width, 1, relu=False)
            if maps.shape[-1] != 4 * width:
                maps = _unit(maps, 4 * width, 1, stride, relu=False)
            maps = layers.ReLU()(layers.Add()([chain, maps]))
    return keras.Model(inputs, layers.Dense(num_classes)(layers.GlobalAveragePooling2D()(maps)))


def _mobilenet_v2(side: int, num_classes: int) -> keras.Model:
    shape = (side, side, 3)
    return keras.applications.MobileNetV2(shape, weights=None, classes=num_classes, classifier_activation=None)


def _vgg16(side: int, num_classes: int) -> keras.Model:
    features = keras.applications.VGG16(include_top=False, weights=None, input_shape=(side, side, 3))
    return keras.Sequential([
        features, layers.AdaptiveAveragePooling2D(7), layers.Flatten(),
        layers.Dense(4096, activation="relu"), layers.Dropout(0.5),
        layers.Dense(4096, activation="relu"), layers.Dropout(0.5),
        layers.Dense(num_classes),
    ])  # fmt: skip


def construct(name: str, side: int, num_classes: int) -> keras.Model:
    """Builds a network float32 [N, side, side, 3] -> logits [N, num_classes] with random weights.

    Raises:
        KeyError: There is no network of that name.
    """
    made = {"cnn": _cnn, "resnet50": _resnet50, "mobilenet_v2": _mobilenet_v2, "vgg16": _vgg16}
    return made[name](side, num_classes)
