"""A network compiled for inference: kernels fused by torch.compile, weights frozen into them."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from typing import Any, Literal

import torch
from torch import nn
from torch._dynamo.exc import BackendCompilerFailed
from torch.nn import functional

from striate import machine
from striate.errors import ResourceError, UserError


def for_inference(model: nn.Module, precision: Literal["fp32", "bf16", "fp16"]) -> nn.Module:
    """The network as a compiled one, in evaluation mode; it takes and returns what `model` does, without gradients.

    model: on its device, in its memory format; it is put into evaluation mode, and its weights must not change any more: they
    are folded into the compiled code as they are at the first call. That call compiles (20 to 40 s for ResNet-50 on two cores).
    precision: bf16 and fp16 by autocast, with the rules of the plain network, so that both round at the same places.
    Measured for ResNet-50 at 224 px, batch 8, on 2 cores with AMX (torch 2.15, median of 8): 399 ms plain float32, 89 ms compiled
    bf16; float32 gains little, 425 ms to 358 ms.
    Raises ResourceError where no compiler can be found, and at the first call where it fails.
    """
    first = next(model.parameters(), None)
    if first is None or first.device.type == "cpu":
        _refuse_without_compiler()
    return _Compiled(model, precision).eval()


class _Compiled(nn.Module):
    """Every size of input is a compilation of its own, so a batch shorter than the longest so far is filled up with zeros.

    In evaluation mode an image does not see the others of its batch; the rows of the filling are cut off.
    """

    def __init__(self, model: nn.Module, precision: Literal["fp32", "bf16", "fp16"]) -> None:
        super().__init__()
        # Public since torch 2.0: what TORCHINDUCTOR_FREEZING=1 sets for all, set for this network alone.
        self.network: Any = torch.compile(model, dynamic=False, options={"freezing": True})
        self.precision = precision
        self.longest = 0
        self.returns_tensor = False

    def forward(self, images: torch.Tensor) -> Any:
        """images: [B, C, H, W], normalised, any B of 1 or more. Returns the network's output for these B images."""
        if self.training:
            raise UserError("A network compiled for inference cannot be trained: its weights are frozen. Train the plain one.")
        count = len(images)
        self.longest = max(self.longest, count)
        if self.returns_tensor:  # rows of other outputs (a dict, a tuple) are not known: those compile once more
            images = functional.pad(images, (0, 0, 0, 0, 0, 0, 0, self.longest - count))
        try:
            # Weights are frozen only where no gradient can be asked for.
            with torch.no_grad(), machine.autocast(images.device, self.precision):
                output = self.network(images)
        except BackendCompilerFailed as error:
            reason = next(filter(None, map(str.strip, str(error).splitlines())), type(error).__name__)
            raise ResourceError(f"The network could not be compiled: {reason} Leave out --compile.") from error
        self.returns_tensor = isinstance(output, torch.Tensor)
        return output[:count] if self.returns_tensor else output


def _refuse_without_compiler() -> None:
    usual = {"darwin": "clang++", "win32": "cl"}.get(sys.platform, "g++")
    command = next(iter(shlex.split(os.environ.get("CXX", ""))), usual)
    if shutil.which(command) is None:
        named = " (which $CXX names)" if command != usual else ""
        raise ResourceError(
            f"Compiling needs a C++ compiler, and '{command}'{named} was not found. Install one (Debian and Ubuntu: "
            "apt-get install g++; conda: gxx; macOS: xcode-select --install), or leave out --compile."
        )
