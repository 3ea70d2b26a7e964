"""Between the flat vector that travels and the parameters of a torch module."""

from __future__ import annotations

import torch
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd


class FlatModule:
    """A module whose trainable parameters are read and written as one vector.

    The vector holds the parameters in the order of ``module.parameters()``, shared ones once.
    Not thread-safe: a thread that computes has its own.
    """

    def __init__(self, module: torch.nn.Module) -> None:
        """ValueError for layers whose result is not a function of (parameters, batch) alone."""
        for name, layer in module.named_modules():
            if isinstance(layer, _BatchNorm) or (isinstance(layer, _DropoutNd) and layer.p > 0):
                raise ValueError(
                    f"layer '{name}' is a {type(layer).__name__}: batch statistics and dropout "
                    "live outside the vector that nodes exchange; use GroupNorm or LayerNorm"
                )
        self.module = module
        self.parameters = [p for p in module.parameters() if p.requires_grad]
        self.sizes = [p.numel() for p in self.parameters]
        self.dim = sum(self.sizes)
        if self.dim == 0:
            raise ValueError(f"{type(module).__name__} has no trainable parameters")

    def read(self) -> torch.Tensor:
        """The parameters as a new (dim,) float32 tensor."""
        return torch.cat([p.detach().reshape(-1) for p in self.parameters])

    def write(self, x: torch.Tensor) -> None:
        """Copy ``x`` ((dim,) float32) into the parameters.

        A copy and not a view: kernels may add in another order where memory is aligned otherwise,
        and the result must have the same bits in every process.
        """
        with torch.no_grad():
            for parameter, piece in zip(self.parameters, torch.split(x, self.sizes), strict=True):
                parameter.copy_(piece.view_as(parameter))

    def gradient(self, loss: torch.Tensor) -> torch.Tensor:
        """The gradient of ``loss`` (a scalar of this module's outputs): a new (dim,) tensor."""
        gradients = torch.autograd.grad(loss, self.parameters, materialize_grads=True)
        return torch.cat([gradient.reshape(-1) for gradient in gradients])
