"""Names of settings in the config.py of the zodiac course and in PaddleClas's first configurations, for config.get."""

from system.errors import UserError, shorten

# Settings that mean the same.
SETTINGS = {
    "architecture.name": "network",
    "pretrained_model": "pretrained",
    "topk": "top_k",
    "ls_epsilon": "label_smoothing",
    "learning_rate.function": "schedule",
    "learning_rate.params.lr": "learning_rate",
    "optimizer.function": "optimizer",
    "optimizer.params.momentum": "momentum",
    "optimizer.regularizer.factor": "weight_decay",
    "train.batch_size": "batch_size",
    "train.num_workers": "num_workers",
    "train.data_dir": "data_dir",
}
NUM_CLASSES = frozenset("num_classes classes_num class_num class_dim".split())
LISTS = {
    name: f"{split}.txt"
    for split in ("train", "valid", "test")
    for name in (f"{split}_list", f"{split}_file_list", f"{split}.file_list")
}
# What takes the place of groups that nothing here is equal to.
REPLACED = {
    "optimizer.regularizer": "weight_decay",
    "optimizer.params": "optimizer and momentum",
    "learning_rate.params": "learning_rate, schedule, decay_epochs, decay_factor and warmup_epochs",
    "transforms": "the settings of the group augment, image_shape, resize, mean and std",
    "augmentation": "the settings of the group augment",
    "image_enhance_strategy": "the settings of the group augment",
    "mix": "augment.mixup and augment.cutmix",
    "use_mix": "augment.mixup and augment.cutmix",
}


def replaced(path: str) -> UserError | None:
    """Returns the error for a dotted name of these that nothing here is equal to; None for any other name."""
    name = path.lower().removeprefix("train.").removeprefix("valid.").removeprefix("test.")
    for group, settings in REPLACED.items():
        if name == group or name.startswith(f"{group}."):
            return UserError(f"config.get: there is no setting {shorten(path)} here; {settings} take its place")
    return None
