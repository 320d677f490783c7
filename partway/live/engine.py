"""What computes a network: the front half of a cut at a device, the back half at the server."""

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

Tensors = Mapping[str, np.ndarray]
Specs = Mapping[str, tuple[np.dtype[Any], tuple[int, ...]]]
"""Data type and shape of tensors, by their names."""


class Engine(Protocol):
    """The halves of one network."""

    async def front(self, share: float, number: int, inputs: Tensors | None, device: int) -> tuple[str, Tensors]:
        """Task `number` of a device up to the cut that leaves `share` of the work: the model of the back half, what it
        needs.

        inputs  of the network, by name; None: random ones, which depend on `device` and `number`

        Where nothing is left, the model is "" and the tensors are the result.
        """
        ...

    async def back(self, model: str, tensors: Tensors) -> Tensors:
        """The result of the back half `model`."""
        ...

    def refusal(self, model: str, tensors: Tensors) -> str | None:
        """Why `back` cannot be computed of these, or None."""
        ...

    def models(self) -> list[str]:
        """The back halves that there are."""
        ...

    def specs(self, model: str) -> tuple[Specs, Specs]:
        """What a back half takes, as it travels, and what it gives."""
        ...

    def max_bytes(self) -> int:
        """Bytes of the largest tensors that a back half takes."""
        ...


class NoEngine:
    """No network: tasks take their time, and nothing is computed."""

    async def front(self, share: float, number: int, inputs: Tensors | None, device: int) -> tuple[str, Tensors]:
        """Nothing."""
        del share, number, inputs, device
        return "", {}

    async def back(self, model: str, tensors: Tensors) -> Tensors:
        """Nothing."""
        del model
        return tensors

    def refusal(self, model: str, tensors: Tensors) -> str | None:
        """None: everything is accepted."""
        del model, tensors

    def models(self) -> list[str]:
        """None."""
        return []

    def specs(self, model: str) -> tuple[Specs, Specs]:
        """Nothing."""
        del model
        return {}, {}

    def max_bytes(self) -> int:
        """0."""
        return 0
