"""Image classification: the models, and what the image data sets share."""

from __future__ import annotations

import gzip
from abc import abstractmethod
from dataclasses import dataclass
from typing import Literal

import numpy as np
from torch import nn

from tidings.api import Dataset
from tidings.problems.packaged import hold_out, packaged_file, small_integers, standardized
from tidings.problems.supervised import SupervisedProblem

#: every fifth image is held out
_TEST_FRACTION = 0.2


@dataclass(frozen=True)
class ImageClassification(SupervisedProblem):
    """Ten classes of square grey images, by a multilayer perceptron or a convolutional net."""

    #: "mlp": one hidden layer of ReLU; "cnn": two strided convolutions, then the same
    model: Literal["mlp", "cnn"] = "mlp"
    #: units of the hidden layer
    hidden: int = 64

    def __post_init__(self) -> None:
        """ValueError for a hidden layer without units."""
        super().__post_init__()
        if self.hidden < 1:
            raise ValueError(f"hidden must be at least 1, got {self.hidden}")

    @property
    @abstractmethod
    def side(self) -> int:
        """Pixels along an edge."""

    def module(self) -> nn.Module:
        """``model`` for images of (batch, 1, side, side) and ten classes."""
        if self.model == "mlp":
            return nn.Sequential(
                nn.Flatten(),
                nn.Linear(self.side**2, self.hidden),
                nn.ReLU(),
                nn.Linear(self.hidden, 10),
            )
        edge = (self.side + 3) // 4  # each strided convolution halves, rounding up
        return nn.Sequential(
            nn.Conv2d(1, 8, kernel_size=5, stride=2, padding=2),
            nn.ReLU(),
            nn.Conv2d(8, 16, kernel_size=3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(16 * edge**2, self.hidden),
            nn.ReLU(),
            nn.Linear(self.hidden, 10),
        )


def packaged_images(
    package: str, path: str, feature: str, side: int, white: int
) -> tuple[Dataset, Dataset]:
    """Training and test set of a gzipped CSV of pixels and, last in each row, the class.

    Features are (N, 1, side, side) float32: pixels in [0, 1] (``white`` is 1), then standardised by
    the training set's mean and standard deviation over all pixels.
    """
    text = gzip.decompress(packaged_file(package, path, feature).read_bytes())
    table = small_integers(text, side * side + 1)
    pixels = (table[:, :-1] / np.float32(white)).reshape(-1, 1, side, side)
    data = Dataset(pixels, table[:, -1].astype(np.int64))
    train, test = hold_out(data.targets, _TEST_FRACTION)
    return standardized(data.take(train), data.take(test), axis=None)
