"""Next-character prediction by a small transformer on text that comes with Python."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from tidings.api import Dataset, problems
from tidings.problems.supervised import SupervisedProblem

#: line end, the 95 printable ASCII characters, and one token for all others. Fixed, and not taken
#: from the text, so that the dimension does not depend on the Python version.
VOCABULARY = 97
#: one window in so many is held out, the last ones of each topic
_TEST_EVERY = 20


@problems.register("char_transformer")
@dataclass(frozen=True)
class CharTransformer(SupervisedProblem):
    """Character-level language model: a causal pre-norm transformer (Radford et al., 2019, GPT-2).

    The text is the Python language reference as the standard library carries it for help(), about
    465,000 characters in 79 topics, which are the natural groups (``partition: by_group``). Each
    topic is cut into windows of ``context`` characters; the last 5 % of a topic are held out. The
    text is that of the running Python, so all nodes must run the same version. Input and output
    embedding are shared; no dropout.
    """

    #: characters that the model sees at once
    context: int = 64
    #: features of a character, a multiple of ``heads``
    width: int = 64
    layers: int = 2
    heads: int = 2
    batch_size: int | None = 16

    def __post_init__(self) -> None:
        """ValueError for sizes below 1 or a width that the heads cannot share."""
        super().__post_init__()
        if min(self.context, self.width, self.layers, self.heads) < 1:
            raise ValueError("context, width, layers and heads must be at least 1")
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")

    def data(self) -> tuple[Dataset, Dataset]:
        """(N, context) int64 characters, the same shifted by one as targets, and their topics."""
        from pydoc_data.topics import topics

        parts: tuple[list[Dataset], list[Dataset]] = ([], [])
        for group, name in enumerate(sorted(topics)):
            windows = _windows(_encode(topics[name]), self.context, group)
            kept = len(windows) - len(windows) // _TEST_EVERY
            parts[0].append(windows.take(np.arange(kept)))
            parts[1].append(windows.take(np.arange(kept, len(windows))))
        train, test = _joined(parts[0]), _joined(parts[1])
        if len(test) == 0:
            raise ValueError(f"context {self.context} is too long for the topics of this text")
        return train, test

    def module(self) -> nn.Module:
        """The transformer: (batch, context) characters to (batch, context, 97) logits."""
        return Transformer(self.context, self.width, self.layers, self.heads)


class Transformer(nn.Module):
    """Token and position embedding, ``layers`` blocks, and logits by the token embedding."""

    def __init__(self, context: int, width: int, layers: int, heads: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(VOCABULARY, width)
        self.positions = nn.Parameter(torch.empty(context, width))
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(layers)))
        self.norm = nn.LayerNorm(width)
        # GPT-2's initial scale; with torch's default of 1 the shared embedding gives huge logits.
        for embedding in (self.tokens.weight, self.positions):
            nn.init.normal_(embedding, std=0.02)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Logits of the next character at every position."""
        x = self.tokens(tokens) + self.positions[: tokens.shape[1]]
        return functional.linear(self.norm(self.blocks(x)), self.tokens.weight)


class Block(nn.Module):
    """Causal self-attention and a two-layer perceptron, each on normed input, each added."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_1, self.norm_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.queries_keys_values = nn.Linear(width, 3 * width)
        self.projection = nn.Linear(width, width)
        self.perceptron = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, length, width) to the same shape."""
        joint = self.queries_keys_values(self.norm_1(x))
        query, key, value = joint.unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        seen = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.projection(seen.transpose(1, 2).flatten(2))
        y: torch.Tensor = x + self.perceptron(self.norm_2(x))
        return y


def _encode(text: str) -> np.ndarray:
    codes = np.frombuffer(text.encode("utf-32-le"), "<u4").astype(np.int64)
    printable = (codes >= 32) & (codes < 127)
    return np.where(printable, codes - 31, np.where(codes == ord("\n"), 0, VOCABULARY - 1))


def _windows(codes: np.ndarray, context: int, group: int) -> Dataset:
    """Windows that do not overlap; what is left at the end of a topic is not used."""
    count = (len(codes) - 1) // context
    features = codes[: count * context].reshape(count, context)
    targets = codes[1 : count * context + 1].reshape(count, context)
    return Dataset(features, targets, np.full(count, group, np.int64))


def _joined(parts: list[Dataset]) -> Dataset:
    features = np.concatenate([part.features for part in parts])
    targets = np.concatenate([part.targets for part in parts])
    groups = np.concatenate([part.groups for part in parts if part.groups is not None])
    return Dataset(features, targets, groups)
