"""Writes weights of torchvision and timm, random ones with random statistics, and the logits that they give there.

Run by bench/zoos.py in an environment with torch, torchvision and timm (docs/pretrained.md):

    python bench/zoo_reference.py FOLDER
"""

import json
import sys
from pathlib import Path

import numpy as np
import safetensors.torch
import timm
import torch
import torchvision

# Names in paddle.vision.models that torchvision has too, and the side of their images.
TORCHVISION = {
    "resnet18": 64, "resnet34": 64, "resnet50": 64, "resnet101": 64, "resnet152": 64, "resnext50_32x4d": 64,
    "resnext101_64x4d": 64, "wide_resnet50_2": 64, "wide_resnet101_2": 64, "mobilenet_v2": 64,
    "mobilenet_v3_small": 64, "mobilenet_v3_large": 64, "vgg11": 64, "vgg13": 64, "vgg16": 64, "vgg19": 64,
    "densenet121": 64, "densenet161": 64, "densenet169": 64, "densenet201": 64,
    "shufflenet_v2_x0_5": 64, "shufflenet_v2_x1_0": 64, "shufflenet_v2_x1_5": 64,
    "inception_v3": 128,
}  # fmt: skip
TIMM = ("resnet18", "resnet34", "resnet50", "resnet101", "resnext50_32x4d", "wide_resnet50_2", "densenet121")
CLASSES = 1000


def randomise(network: torch.nn.Module) -> None:
    """Gives every weight and statistic a random value of a sensible size."""
    for name, tensor in network.state_dict().items():
        if name.endswith("running_var"):
            tensor.copy_(torch.rand_like(tensor) + 0.5)
        elif name.endswith("running_mean") or (name.endswith("bias") and tensor.ndim == 1):
            tensor.copy_(torch.randn_like(tensor) * 0.1)
        elif tensor.ndim == 1:
            tensor.copy_(torch.rand_like(tensor) + 0.5)


def main() -> None:
    """Writes, for each network: ZOO-NAME.pth (both forms), .safetensors, and .npz of images and logits."""
    folder, listed = Path(sys.argv[1]), []
    folder.mkdir(parents=True, exist_ok=True)
    for zoo, names in (("torchvision", TORCHVISION), ("timm", dict.fromkeys(TIMM, 64))):
        for name, side in names.items():
            torch.manual_seed(len(listed))
            options = {"init_weights": False} if name == "inception_v3" else {}
            build = getattr(torchvision.models, name) if zoo == "torchvision" else timm.create_model
            network = build(**options) if zoo == "torchvision" else build(name)
            randomise(network)
            network.eval()
            images = torch.randn(2, 3, side, side)
            with torch.no_grad():
                logits = network(images)
            key = f"{zoo}-{name}"
            torch.save(network.state_dict(), folder / f"{key}.pth")
            torch.save({"state_dict": network.state_dict(), "epoch": 3}, folder / f"{key}.old.pth",
                       _use_new_zipfile_serialization=False)  # fmt: skip
            tensors = {one: value.contiguous() for one, value in network.state_dict().items()}
            safetensors.torch.save_file(tensors, folder / f"{key}.safetensors", metadata={"format": "pt"})
            np.savez(folder / f"{key}.npz", images=images.numpy(), logits=logits.numpy())
            listed.append({"key": key, "zoo": zoo, "network": name, "side": side})
            print(key, flush=True)
    versions = {"torch": torch.__version__, "torchvision": torchvision.__version__, "timm": timm.__version__}
    (folder / "zoos.json").write_text(json.dumps({"versions": versions, "networks": listed}))


if __name__ == "__main__":
    main()
