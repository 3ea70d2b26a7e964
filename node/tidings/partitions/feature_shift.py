"""The same labels, seen differently by every node."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from tidings.api import Dataset, Partition, partitions
from tidings.partitions.shares import even_shares


@partitions.register("feature_shift")
@dataclass(frozen=True)
class FeatureShift(Partition):
    """A random split, then a fixed distortion of the features per node.

    Node i sees ``g_i R_i(a) + o_i + noise``: contrast ``g_i = exp(scale z)``, brightness ``o_i =
    offset z'`` with standard normal z, z'; ``R_i`` rotates images by an angle uniform in +-rotation
    (the rotated MNIST of Ghifary et al., ICCV 2015); and Gaussian noise whose standard deviation
    grows from 0 on the first node to ``noise`` on the last (noise-based feature skew, Li, Diao,
    Chen, He, ICDE 2022). All in units of the features, which our data sets standardise.
    """

    #: largest angle in degrees; 0 for features that are not images
    rotation: float = 0.0
    #: standard deviation of the logarithm of the contrast
    scale: float = 0.2
    #: standard deviation of the brightness
    offset: float = 0.2
    #: standard deviation of the noise on the last node
    noise: float = 0.0
    #: the distortions are drawn from it, and not from the run's seed
    seed: int = 0

    def __post_init__(self) -> None:
        """ValueError for a negative size of a distortion, or a negative seed."""
        for name in ("rotation", "scale", "offset", "noise", "seed"):
            if not 0 <= getattr(self, name) < np.inf:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")

    def split(self, data: Dataset, nodes: int, rng: np.random.Generator) -> Sequence[np.ndarray]:
        """As 'iid': sorted shares; ValueError where there are fewer samples than nodes."""
        return even_shares(data, nodes, rng, self.kind)

    def transform(self, data: Dataset, node: int, nodes: int) -> Dataset:
        """``data`` with node ``node``'s distortion; ValueError where it has no such features."""
        if data.features.dtype != np.float32:
            raise ValueError(f"'{self.kind}' distorts real features, not tokens")
        rng = np.random.default_rng([self.seed, node])
        contrast = np.exp(self.scale * rng.standard_normal())
        brightness = self.offset * rng.standard_normal()
        angle = np.deg2rad(self.rotation * rng.uniform(-1, 1))
        features = data.features if self.rotation == 0 else self._rotated(data.features, angle)
        deviation = self.noise * node / max(nodes - 1, 1)
        noise = deviation * rng.standard_normal(features.shape, np.float32)
        seen = contrast * features + brightness + noise
        return Dataset(seen.astype(np.float32), data.targets, data.groups)

    def _rotated(self, images: np.ndarray, angle: float) -> np.ndarray:
        if images.ndim != 4:
            raise ValueError(f"'{self.kind}': only images can be rotated, set rotation to 0")
        cosine, sine = np.cos(angle), np.sin(angle)
        inverse = torch.tensor([[cosine, -sine, 0.0], [sine, cosine, 0.0]], dtype=torch.float32)
        batch = torch.from_numpy(images).clone()
        grid = functional.affine_grid(inverse.expand(len(batch), 2, 3), list(batch.shape), False)
        # The border is continued: zero is not black once pixels are standardised.
        turned = functional.grid_sample(batch, grid, padding_mode="border", align_corners=False)
        return turned.numpy()
