"""The state of DADAO at one node: what flows between events and what jumps at them.

Constants as in the authors' code, with nu = mu / 2 and r = sqrt(nu / L)::

    X'  = (r/8) (X~ - X)        Y'  = (r/4) (Y~ - Y)                Z'  = (r/4) (Z~ - Z)
    X~' = (r/8) (X - X~)        Y~' = -(1/2r) (nu X~ + Y + Z)       Z~' = (r/8) (Z - Z~)

    gradient event, G = grad f(X) - nu X - Y~:
        X -= G / 4L             X~ -= G / (4 sqrt(nu L))            Y~ += (r/4 + 1) G
    gossip event, D = (Y + Z) - (Y + Z of the neighbour):
        Z -= D / 2              Z~ -= (2 chi_1 / r) D
"""

from __future__ import annotations

import math

import torch


class State:
    """The vectors X, X~, Y, Y~, Z, Z~ of one node as rows of (6, d) float64, brought to ``t``.

    ``mu`` and ``smoothness`` are those of the local objectives; ``chi_1`` is the inverse of the
    smallest non-zero eigenvalue of the gossip Laplacian per unit of time.
    """

    def __init__(self, x: torch.Tensor, mu: float, smoothness: float, chi_1: float) -> None:
        nu = self.nu = mu / 2
        root = math.sqrt(nu / smoothness)
        a, th = root / 8, 1 / (2 * root)
        self.gradient_gain = torch.tensor(
            [-1 / (4 * smoothness), -1 / (4 * math.sqrt(nu * smoothness)), 0, root / 4 + 1, 0, 0]
        ).double()
        self.gossip_gain = torch.tensor([0, 0, 0, 0, -0.5, -2 * chi_1 / root]).double()
        self.flow = torch.tensor(
            [
                [-a, a, 0, 0, 0, 0],
                [a, -a, 0, 0, 0, 0],
                [0, 0, -2 * a, 2 * a, 0, 0],
                [0, -th * nu, -th, 0, -th, 0],
                [0, 0, 0, 0, -2 * a, 2 * a],
                [0, 0, 0, 0, a, -a],
            ],
        ).double()
        self.rows = torch.zeros(6, x.numel(), dtype=torch.float64)
        self.rows[0] = x
        self.t = 0.0

    def advance(self, t: float) -> None:
        """Follow the linear flow up to ``t``; never back."""
        if t > self.t:
            self.rows = torch.matrix_exp(self.flow * (t - self.t)) @ self.rows
            self.t = t

    def gradient_event(self, x: torch.Tensor, gradient: torch.Tensor) -> None:
        """The jump of a gradient taken at ``x``."""
        self.rows += torch.outer(self.gradient_gain, gradient - self.nu * x - self.rows[3])

    def gossip_event(self, mine: torch.Tensor, theirs: torch.Tensor) -> None:
        """The jump of a gossip; equal and opposite at the other end."""
        self.rows += torch.outer(self.gossip_gain, mine.double() - theirs.double())
