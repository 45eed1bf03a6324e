"""The same translator, made for speed: norms folded into convolutions, half precision where it is exact enough, a faster layout."""

import copy
import itertools
import math
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from img2img.core.device import choose_precision
from img2img.core.errors import UsageError, UserError
from img2img.interop.onnx import OnnxGenerator
from img2img.models import Mode, Translator

DType = Literal["auto", "fp32", "tf32", "bf16", "fp16"]
TORCH = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
SMALL = 32  # pixels a side
CLOSE_ENOUGH = 40.0  # dB of PSNR between bf16 and fp32


def allows_half_precision(bits: int, height: int, width: int) -> bool:
    """Whether bf16 will do: not for more than 8 bits, nor where a norm's statistics are those of a few pixels."""
    return bits == 8 and min(height, width) >= SMALL


class Engine:
    """Translates batches with the fastest copy of a translator that is exact enough.

    Args:
        translator: in fp32; stays as it is.
        mode: how it is run. In mode ``paper``, batch norms have no fixed values that could be folded.
        dtype: of weights and activations. ``auto`` is bf16 for 8-bit images where the device computes in it, in mode ``eval``, if
            what comes out for the sample is within 40 dB of PSNR of fp32's; else fp32.
        compile: whether to torch.compile the network, once for all sizes.
        sample: for ``auto``: an image, (1, C, H, W) in [-1, 1], if there is one.

    Raises:
        UsageError: for fp16 or TF32 on a CPU.
    """

    def __init__(
        self,
        translator: Translator,
        mode: Mode,
        dtype: DType = "auto",
        compile: bool = False,
        sample: Tensor | None = None,
    ) -> None:
        if dtype in ("fp16", "tf32") and translator.device.type == "cpu":
            raise UsageError(f"--dtype {dtype} needs a GPU; use bf16, fp32 or auto.")
        self.translator, self.mode, self.compile = translator, mode, compile
        self.by_onnx = isinstance(translator.generator, OnnxGenerator)
        if self.by_onnx and dtype not in ("auto", "fp32"):
            raise UsageError(
                f"--dtype {dtype}: an ONNX file computes in the type that it was written in; leave it out."
            )
        if self.by_onnx and mode != translator.config.mode:
            raise UsageError(
                f"--mode {mode}: this ONNX file was exported in mode {translator.config.mode}, and stays in it."
            )
        self.note = ""
        """What a user should know about the choice."""
        self.dtype: Literal["fp32", "tf32", "bf16", "fp16"] = "fp32" if dtype == "auto" else dtype
        """Of 8-bit images."""
        self.for_8_bits: Translator
        if (
            dtype == "auto"
            and not self.by_onnx
            and mode == "eval"
            and choose_precision("auto", translator.device) == "bf16"
        ):
            half = optimise(translator, mode, "bf16", compile)
            near = math.inf if sample is None else _psnr(half(sample), translator(sample))
            if near >= CLOSE_ENOUGH:
                self.dtype, self.for_8_bits, self.for_16_bits_too = "bf16", half, False
                return
            self.note = f"Computing in fp32: on the first image, bf16 comes only within {near:.0f} dB of it (--dtype bf16 insists)."
        self.for_8_bits, self.for_16_bits_too = optimise(translator, mode, self.dtype, compile), True

    def chosen(self, bits: int, height: int, width: int) -> Translator:
        """What translates images of so many bits and this size.

        Raises:
            UserError: for more than 8 bits, if it is an ONNX file that takes 8.
        """
        generator = self.translator.generator
        if isinstance(generator, OnnxGenerator) and not generator.raw and bits > 8:
            raise UserError("this ONNX file takes 8-bit images; one that is exported with --raw takes 16 bits, too")
        return self.for_8_bits if allows_half_precision(bits, height, width) else self.for_16_bits

    @cached_property
    def for_16_bits(self) -> Translator:
        """bf16 has fewer than 16 bits, so that it would leave bands: only who asks for it gets it."""
        return self.for_8_bits if self.for_16_bits_too else optimise(self.translator, self.mode, "fp32", self.compile)


def _psnr(image: Tensor, truth: Tensor) -> float:
    """In dB, of values in [-1, 1]. (torchmetrics would take two seconds of each conversion to be imported.)"""
    error = float((image.clamp(-1, 1) - truth.clamp(-1, 1)).square().mean())
    return 10 * math.log10(4 / error) if error else math.inf


def optimise(
    translator: Translator, mode: Mode, dtype: Literal["fp32", "tf32", "bf16", "fp16"], compile: bool
) -> Translator:
    """A copy of a translator that computes the same in another dtype, folded and in a faster layout; see `Engine`."""
    if isinstance(translator.generator, OnnxGenerator):
        return translator
    generator = copy.deepcopy(translator.generator).eval().requires_grad_(False)
    if mode == "eval":
        _fold(generator)
    copied = copy.copy(translator)
    copied.generator = generator
    if mode == "eval" and translator.device.type != "mps":  # in another layout, dropout would draw other values
        copied.memory_format = torch.channels_last
    copied.tf32 = dtype == "tf32"
    generator.to(TORCH[dtype]).to(memory_format=copied.memory_format)
    if compile:
        generator.compile(dynamic=True)
    return copied


def _fold(module: nn.Module) -> None:
    """Multiplies each batch norm that follows a convolution into its weights; in place."""
    for parent in list(module.modules()):
        if not isinstance(parent, nn.Sequential):
            continue
        for before, after in itertools.pairwise(list(parent._modules)):
            norm, holder, name = parent._modules[after], parent, before
            while isinstance(inner := holder._modules[name], nn.Sequential):  # such as a resizing convolution
                holder, name = inner, list(inner._modules)[-1]
            if isinstance(norm, nn.BatchNorm2d) and isinstance(inner, nn.Conv2d | nn.ConvTranspose2d):
                holder._modules[name] = fuse_conv_bn_eval(inner, norm, isinstance(inner, nn.ConvTranspose2d))
                parent._modules[after] = nn.Identity()
