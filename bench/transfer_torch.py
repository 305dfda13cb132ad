"""What bench/transfer.py times with PyTorch: a frozen MobileNetV2 and a new head, in the two usual ways.

python bench/transfer_torch.py DATA WEIGHTS.npz epochs|features
"""

import sys
from pathlib import Path

import numpy as np
import torch
import torchvision
from sklearn.linear_model import LogisticRegression
from torchvision import transforms

EPOCHS, BATCH = 8, 16
NORMALISE = [transforms.ToTensor(), transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))]
PLAIN = transforms.Compose([transforms.Resize(256), transforms.CenterCrop(224), *NORMALISE])
VARIED = transforms.Compose([transforms.RandomResizedCrop(224), transforms.RandomHorizontalFlip(), *NORMALISE])


def loader(folder: Path, split: str, transform, shuffle: bool = False) -> torch.utils.data.DataLoader:
    """Loads a split, in the way of the tutorials; files that are no images are left out."""
    suffixes = (".jpg", ".jpeg", ".png")
    data = torchvision.datasets.ImageFolder(
        str(folder / split), transform, is_valid_file=lambda name: name.lower().endswith(suffixes)
    )
    return torch.utils.data.DataLoader(data, BATCH, shuffle=shuffle, num_workers=2)


def backbone(file: str) -> torch.nn.Module:
    """MobileNetV2 with the weights of an .npz of arrays in torch's layout."""
    network = torchvision.models.mobilenet_v2()
    with np.load(file) as kept:
        network.load_state_dict({key: torch.from_numpy(kept[key]) for key in kept.files}, strict=False)
    for weight in network.parameters():
        weight.requires_grad = False
    return network


def by_epochs(folder: Path, network: torch.nn.Module) -> float:
    """Trains the head as the transfer-learning tutorial does; returns the test accuracy."""
    network.classifier[1] = torch.nn.Linear(1280, 2)
    optimizer = torch.optim.AdamW(network.classifier.parameters(), 3e-3)
    loss = torch.nn.CrossEntropyLoss()
    batches, valid = loader(folder, "train", VARIED, True), loader(folder, "valid", PLAIN)
    for _ in range(EPOCHS):
        network.train()
        for images, labels in batches:
            optimizer.zero_grad()
            loss(network(images), labels).backward()
            optimizer.step()
        network.eval()
        with torch.no_grad():
            for images, _ in valid:
                network(images)
    right = count = 0
    with torch.no_grad():
        for images, labels in loader(folder, "test", PLAIN):
            right += int((network(images).argmax(1) == labels).sum())
            count += len(labels)
    return right / count


def by_features(folder: Path, network: torch.nn.Module) -> float:
    """Computes features once and fits logistic regressions on them; returns the test accuracy."""
    network.classifier = torch.nn.Identity()
    network.eval()
    kept = {}
    with torch.no_grad():
        for split in ("train", "valid", "test"):
            parts = [(network(images).numpy(), labels.numpy()) for images, labels in loader(folder, split, PLAIN)]
            kept[split] = tuple(np.concatenate(part) for part in zip(*parts, strict=True))
    heads = [LogisticRegression(C=c, max_iter=500).fit(*kept["train"]) for c in (0.01, 0.1, 1, 10, 100)]
    return max(heads, key=lambda head: head.score(*kept["valid"])).score(*kept["test"])


if __name__ == "__main__":
    torch.manual_seed(1)
    ways = {"epochs": by_epochs, "features": by_features}
    print(f"{ways[sys.argv[3]](Path(sys.argv[1]), backbone(sys.argv[2])):.4f}")
