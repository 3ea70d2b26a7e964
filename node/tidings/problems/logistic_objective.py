"""The whole objective of logistic regression in float64, and its minimiser."""

from __future__ import annotations

import torch

#: Newton decrement g^T H^-1 g below which one more step gives all digits of float64
_DECREMENT = 1e-10
_STEPS = 100


class LogisticObjective:
    """``f(x) = sum_k w_k (-log p_x(y_k | a_k)) + l2/2 |x|^2`` over weighted samples.

    x is the vector of a torch Linear: C rows of D weights, then C biases; C = 1 for two classes.
    Inside, it is the (C, D + 1) matrix X whose last column is the bias, for features that end in 1.
    """

    def __init__(
        self,
        features: torch.Tensor,
        classes: torch.Tensor,
        weights: torch.Tensor,
        l2: float,
        count: int | None = None,
    ) -> None:
        """(N, D) float64 features, (N,) int64 classes from 0, (N,) float64 weights.

        ``count`` is the number of classes, by default one more than the largest that occurs.
        """
        ones = torch.ones(len(features), 1, dtype=torch.float64)
        self.features = torch.cat([features, ones], dim=1)
        self.weights = weights
        self.l2 = l2
        count = int(classes.max()) + 1 if count is None else count
        #: rows of X: one for two classes
        self.outputs = 1 if count <= 2 else count
        wanted = torch.nn.functional.one_hot(classes, max(count, 2)).double()
        self._wanted = wanted[:, 1:] if self.outputs == 1 else wanted

    def value(self, x: torch.Tensor) -> torch.Tensor:
        """f at ``x`` ((d,) float64), a scalar."""
        return self._value(self._matrix(x))

    def minimizer(self, linear: torch.Tensor | None = None, ridge: float = 0.0) -> torch.Tensor:
        """Of ``f(x) + ridge/2 |x|^2 - <linear, x>``, by damped Newton steps; (d,) float64 all.

        l2 + ridge > 0 makes it unique.
        """
        x = torch.zeros(self.outputs, self.features.shape[1], dtype=torch.float64)
        b = x if linear is None else self._matrix(linear)

        def value(x: torch.Tensor) -> float:
            return float(self._value(x) + ridge / 2 * torch.sum(x**2) - torch.sum(b * x))

        for _ in range(_STEPS):
            gradient, hessian = self._derivatives(x)
            gradient = gradient + ridge * x - b
            hessian = hessian + ridge * torch.eye(len(hessian), dtype=torch.float64)
            step = torch.linalg.solve(hessian, gradient.reshape(-1)).view_as(x)
            decrement = float(torch.sum(gradient * step))
            if decrement < _DECREMENT:
                return self._vector(x - step)
            size, before = 1.0, value(x)
            while value(x - size * step) > before - size * decrement / 4:
                size /= 2
            x = x - size * step
        raise ArithmeticError(f"no minimiser of logistic regression after {_STEPS} Newton steps")

    def _value(self, x: torch.Tensor) -> torch.Tensor:
        logits = self.features @ x.T
        # log sum exp over the classes; with one logit the other class has logit 0
        if self.outputs == 1:
            normalizer = torch.logaddexp(logits, torch.zeros_like(logits)).squeeze(1)
        else:
            normalizer = torch.logsumexp(logits, dim=1)
        losses = normalizer - (logits * self._wanted).sum(dim=1)
        return self.weights @ losses + self.l2 / 2 * torch.sum(x**2)

    def _derivatives(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Gradient (C, D + 1), and Hessian as a square matrix over the entries of X row by row."""
        logits = self.features @ x.T
        p = torch.sigmoid(logits) if self.outputs == 1 else torch.softmax(logits, dim=1)
        gradient = ((p - self._wanted) * self.weights[:, None]).T @ self.features + self.l2 * x
        rows, width = x.shape
        hessian = torch.empty(rows, width, rows, width, dtype=torch.float64)
        for a in range(rows):
            for b in range(rows):
                curvature = self.weights * p[:, a] * (float(a == b) - p[:, b])
                hessian[a, :, b, :] = (self.features * curvature[:, None]).T @ self.features
        square = hessian.view(rows * width, rows * width)
        return gradient, square + self.l2 * torch.eye(rows * width, dtype=torch.float64)

    def _matrix(self, x: torch.Tensor) -> torch.Tensor:
        weights, bias = x[: -self.outputs], x[-self.outputs :]
        return torch.cat([weights.view(self.outputs, -1), bias[:, None]], dim=1)

    def _vector(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x[:, :-1].reshape(-1), x[:, -1]])
