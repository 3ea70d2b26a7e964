"""Handwritten digits, small: the test set of UCI's optdigits."""

from __future__ import annotations

import functools
from dataclasses import dataclass

from tidings.api import Dataset, problems
from tidings.problems.images import ImageClassification, packaged_images


@problems.register("digits")
@dataclass(frozen=True)
class Digits(ImageClassification):
    """Digit classification on 1,797 images (Alpaydin and Kaynak, UCI 1998), 8 x 8 pixels, 17 greys.

    The copy that scikit-learn carries (extra "data"); 1,438 images are for training and 359 for
    testing, stratified by class.
    """

    @property
    def side(self) -> int:
        """8 pixels."""
        return 8

    def data(self) -> tuple[Dataset, Dataset]:
        """Training and test images; MissingExtra without scikit-learn."""
        return digits_images()


@functools.cache
def digits_images() -> tuple[Dataset, Dataset]:
    """The images as (N, 1, 8, 8) float32; logistic regression uses them too."""
    return packaged_images("sklearn", "datasets/data/digits.csv.gz", "data set 'digits'", 8, 16)
