"""Pretrained weights: every one fits or is refused by name."""

import pytest

from models.networks import construct
from models.pretrained import head_axes, imagenet_weights, load_strictly
from system.errors import UserError

SHAPE = (3, 24, 24)


@pytest.fixture(scope="module")
def weights():
    """Weights of a small CNN for five classes."""
    return construct("cnn", 5, SHAPE).state_dict()


@pytest.mark.parametrize("fault", ["missing", "misshapen", "unknown"])
def test_weights_that_do_not_fit_are_refused(weights, fault):
    """Guards against paddle's set_state_dict, which warns and trains on with random weights."""
    network, weights = construct("cnn", 3, SHAPE), dict(weights)
    first = next(iter(weights))
    if fault == "missing":
        del weights[first]
    elif fault == "misshapen":
        weights[first] = weights[first][:, :1]
    else:
        weights["extra.weight"] = weights[first]
    expected = {"missing": f"{first} is missing", "misshapen": f"{first} is [", "unknown": "extra.weight is unknown"}
    with pytest.raises(UserError, match=r"^FILE: .*; these are weights of another network") as error:
        load_strictly(network, weights, "FILE", head_axes(network, "cnn", 3, SHAPE))
    assert expected[fault] in str(error.value)


def test_the_head_has_to_fit_too_unless_it_is_named(weights):
    """Guards against a run of other classes that is loaded with a random head."""
    with pytest.raises(UserError, match="weights of another network"):
        load_strictly(construct("cnn", 3, SHAPE), weights, "FILE", head=set())


@pytest.mark.parametrize("name", ["cnn", "alexnet"])
def test_imagenet_weights_of_a_registered_network_are_refused(name):
    """Guards against a search for weights that nobody trained, and paddle's weights for another AlexNet."""
    with pytest.raises(UserError, match=rf"pretrained=true: there are no ImageNet weights for {name}; .*FILE"):
        imagenet_weights(name)
