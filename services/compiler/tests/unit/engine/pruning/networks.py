"""Small networks with the traits that make pruning hard, one each."""

from __future__ import annotations

import math

import torch
from torch import nn


class Residual(nn.Module):
    """Three layers write into one stream."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.first, self.second = nn.Conv2d(8, 16, 3, padding=1), nn.Conv2d(16, 8, 3, padding=1)
        self.last = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x).relu()
        x = (x + self.second(self.first(x).relu())).relu()
        return self.last(x.mean((2, 3)))


class Squeezing(nn.Module):
    """Depthwise, squeeze-and-excite with hard-swish, average pool and Flatten, as MobileNetV3."""

    def __init__(self) -> None:
        super().__init__()
        self.expand, self.depthwise = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.down, self.up = nn.Conv2d(16, 8, 1), nn.Conv2d(8, 16, 1)
        self.project, self.last = nn.Conv2d(16, 8, 1), nn.Linear(8, 5)
        self.pool = nn.AdaptiveAvgPool2d(1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = nn.functional.hardswish(self.depthwise(nn.functional.hardswish(self.expand(x))))
        x = x * self.up(self.down(self.pool(x)).relu()).sigmoid()
        return self.last(self.pool(self.project(x)).flatten(1))


class ChunkedStages(nn.Module):
    """C2f as in YOLOv8: a convolution is chunked, one half runs on with a shortcut, all parts are joined."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.split = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 16, 1)
        self.first, self.second = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.join, self.boxes, self.classes = nn.Conv2d(24, 16, 1), nn.Conv2d(16, 4, 1), nn.Conv2d(16, 3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        kept, part = nn.functional.silu(self.split(nn.functional.silu(self.stem(x)))).chunk(2, 1)
        more = part + nn.functional.silu(self.second(nn.functional.silu(self.first(part))))
        x = nn.functional.silu(self.join(torch.cat([kept, part, more], 1)))
        return torch.cat([self.boxes(x).flatten(2) * 16, self.classes(x).flatten(2).sigmoid()], 1)


class Shuffling(nn.Module):
    """Grouped convolutions, slices and a channel shuffle, as ShuffleNet; a transposed convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.grouped = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 16, 3, padding=1, groups=4)
        self.inner, self.up = nn.Conv2d(8, 8, 1), nn.ConvTranspose2d(16, 8, 2, 2)
        self.last = nn.Conv2d(8, 5, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.grouped(self.stem(x).relu()).relu()
        x = torch.cat([x[:, :8], self.inner(x[:, 8:])], 1)
        b, c, h, w = x.shape
        x = x.view(b, 2, c // 2, h, w).transpose(1, 2).reshape(b, c, h, w)
        return self.last(self.up(x).relu())


class Attention(nn.Module):
    """A transformer block over patches: fused queries, keys and values, four heads, layer norms."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.last = nn.Conv2d(3, 32, 4, 4), nn.Linear(32, 5)
        self.before, self.after = nn.LayerNorm(32), nn.LayerNorm(32)
        self.qkv, self.project = nn.Linear(32, 96), nn.Linear(32, 32)
        self.up, self.down = nn.Linear(32, 64), nn.Linear(64, 32)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        b, n, c = x.shape
        q, k, v = self.qkv(self.before(x)).reshape(b, n, 3, 4, 8).permute(2, 0, 3, 1, 4).unbind(0)
        mixed = ((q @ k.transpose(-2, -1)) / math.sqrt(8)).softmax(-1) @ v
        x = x + self.project(mixed.transpose(1, 2).reshape(b, n, c))
        x = x + self.down(nn.functional.gelu(self.up(self.after(x))))
        return self.last(x.mean(1))


class SharedHead(nn.Module):
    """One head on two scales, as anchor-free detectors have, and a Flatten in front of a Linear."""

    def __init__(self) -> None:
        super().__init__()
        self.near, self.far = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, 2, 1)
        self.tower, self.out = nn.Conv2d(8, 12, 3, padding=1), nn.Conv2d(12, 4, 1)
        self.flat = nn.Linear(8 * 4 * 4, 7)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        near = self.near(x).relu()
        far = self.far(near).relu()
        parts = [self.out(self.tower(level).relu()).flatten(2) for level in (near, far)]
        return torch.cat(parts, 2), self.flat(far.flatten(1))


NETWORKS = (Residual, Squeezing, ChunkedStages, Shuffling, Attention, SharedHead)
