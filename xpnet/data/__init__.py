"""From what users hand in to batches a training step can take; and augmentation, by the names below."""

from .augmentation import (
    Augmentation,
    CutMix,
    Cutout,
    GaussianNoise,
    MixUp,
    RandomBrightness,
    RandomContrast,
    RandomCrop,
    RandomFlip,
    RandomRotation,
    RandomZoom,
    apply,
)

__all__ = [
    "Augmentation",
    "CutMix",
    "Cutout",
    "GaussianNoise",
    "MixUp",
    "RandomBrightness",
    "RandomContrast",
    "RandomCrop",
    "RandomFlip",
    "RandomRotation",
    "RandomZoom",
    "apply",
]
