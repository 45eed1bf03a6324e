"""The same translator, made for speed: norms folded into convolutions, half precision where it is exact enough, a faster layout."""

import copy
import itertools
import math
import time
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from img2img.core.device import choose_precision
from img2img.core.errors import UsageError, UserError
from img2img.interop.onnx import OnnxGenerator
from img2img.models import Mode, Translator

DType = Literal["auto", "fp32", "tf32", "bf16", "fp16", "int8"]
Backend = Literal["auto", "torch", "onnx", "openvino"]
TORCH = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
BATCH_PIXELS = 8 * 256 * 256  # larger batches are no faster, measured on a CPU
SMALL = 32  # pixels a side
CLOSE_ENOUGH = 40.0  # dB of PSNR to fp32
MANY = 200 * 256 * 256  # pixels to compute, from which on it pays to try OpenVINO
FASTER = 1.1  # times as fast as PyTorch, by which OpenVINO is taken
RUNS = 3  # of which the fastest counts


def allows_half_precision(bits: int, height: int, width: int) -> bool:
    """Whether bf16 or int8 will do: not for more than 8 bits, nor where a norm's statistics are those of a few pixels."""
    return bits == 8 and min(height, width) >= SMALL


class Choice(NamedTuple):
    """What translates an image, and how."""

    translator: Translator
    dtype: str
    backend: str


class Engine:
    """Translates batches with the fastest copy of a translator that is exact enough.

    Args:
        translator: in fp32; stays as it is.
        mode: how it is run. In mode ``paper``, batch norms have no fixed values that could be folded.
        dtype: of weights and activations. ``auto`` is bf16 for 8-bit images where the device computes in it, in mode ``eval``, if
            what comes out for the sample is within 40 dB of PSNR of fp32's; else fp32. ``int8`` is OpenVINO's, for the inner convolutions; as
            many of them as keep what comes out for the samples within 40 dB.
        compile: whether to torch.compile the network, once for all sizes.
        samples: images, (1, C, H, W) in [-1, 1], if there are some: the first decides for ``auto``, all on what int8 keeps.
        backend: what computes. ``auto`` is PyTorch, or on a CPU OpenVINO, if it is installed, there is much to do, and it is measured to be faster.
        work: pixels to be computed, all together, as far as that is known.

    Raises:
        UsageError: for fp16 or TF32 on a CPU, or what OpenVINO can't do.
    """

    def __init__(
        self,
        translator: Translator,
        mode: Mode,
        dtype: DType = "auto",
        compile: bool = False,
        samples: Sequence[Tensor] = (),
        backend: Backend = "torch",
        work: int = 0,
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
        if compile and translator.nfe is not None:
            raise UsageError("--compile is not for translators that take several steps; leave it out.")
        self.notes: list[str] = []
        """What a user should know about the choice."""
        self.backend: Literal["torch", "onnx", "openvino"] = "onnx" if self.by_onnx else "torch"
        """Of 8-bit images."""
        self.dtype: Literal["fp32", "tf32", "bf16", "fp16", "int8"] = "fp32"
        """Of 8-bit images."""
        if backend == "torch" and dtype == "int8":
            raise UsageError("--dtype int8 is computed by OpenVINO; leave --engine torch out.")
        asked = backend == "openvino" or dtype == "int8"
        if asked and (reason := self._explain_no_openvino()):
            raise UsageError(f"{'--engine openvino' if backend == 'openvino' else '--dtype int8'} {reason}.")
        self._copies: dict[str, Translator] = {}
        self.for_16_bits_too = dtype not in ("auto", "int8")
        self.dtype = self._choose_dtype(dtype, samples)
        if asked:
            self.for_8_bits = self._build_openvino(samples)
        else:
            assert self.dtype != "int8"
            self.for_8_bits = self._copy(self.dtype)
            self.for_16_bits_too |= self.dtype == "fp32"
            worth = work >= MANY and bool(samples) and find_spec("openvino") is not None
            if backend == "auto" and worth and not self._explain_no_openvino():
                self._take_openvino_if_faster(samples)

    def _choose_dtype(self, dtype: DType, samples: Sequence[Tensor]) -> Literal["fp32", "tf32", "bf16", "fp16", "int8"]:
        if dtype != "auto":
            return dtype
        native = choose_precision("auto", self.translator.device) == "bf16"
        if self.by_onnx or self.mode != "eval" or not native:
            return "fp32"
        near = math.inf
        if samples:
            near = _psnr(self._copy("bf16")(samples[0], mode=self.mode), self.translator(samples[0], mode=self.mode))
        if near >= CLOSE_ENOUGH:
            return "bf16"
        del self._copies["bf16"]
        self.notes.append(
            f"Computing in fp32: on the first image, bf16 comes only within {near:.0f} dB of it (--dtype bf16 insists)."
        )
        return "fp32"

    def _explain_no_openvino(self) -> str:
        """Why OpenVINO can't compute this; empty if it can."""
        if self.by_onnx:
            return "is for translators, and onnxruntime computes an ONNX file; give the translator's folder"
        if self.translator.device.type != "cpu":
            return "computes on the CPU: add --device cpu"
        if self.mode != "eval":
            return "computes with running statistics and without dropout: add --mode eval"
        if self.translator.config.encoder is not None and not self.translator.draws_styles:
            return "can't compute translators with styles of instances"
        if self.translator.nfe is not None:
            return "can't compute translators that take several steps"
        return "and --compile exclude each other" if self.compile else ""

    def _build_openvino(self, samples: Sequence[Tensor]) -> Translator:
        """A copy that OpenVINO computes, in `dtype`.

        Raises:
            UsageError: if it can't.
        """
        from img2img.inference.openvino import OpenVinoGenerator, convert_network, quantise

        exact = optimise(self.translator, self.mode, "fp32", False)
        exact.memory_format = torch.contiguous_format
        copied = copy.copy(exact)
        precision = self._rest
        model = convert_network(exact.generator)
        if self.dtype == "int8":
            if not samples:
                raise UsageError(
                    "--dtype int8 sets its ranges by the images to convert, and none of the first can be read."
                )
            found = quantise(model, *_record(exact, samples, self.mode), CLOSE_ENOUGH, precision)
            model = found.model
            self.notes.append(
                f"{found.count} of {found.total} convolutions compute in int8, the others in {precision}; within {found.psnr:.0f} dB of fp32 on the first images."
            )
        copied.generator = OpenVinoGenerator(exact.generator, precision, model)
        self.backend = "openvino"
        return copied

    def _take_openvino_if_faster(self, samples: Sequence[Tensor]) -> None:
        """Measures both on a batch of the first sample."""
        before, batch = self.for_8_bits, samples[0]
        batch = batch.expand(max(1, BATCH_PIXELS // batch[0, 0].numel()), -1, -1, -1)
        try:
            other = self._build_openvino(samples)
            near = _psnr(other(samples[0], mode=self.mode), self.translator(samples[0], mode=self.mode))
            seconds = [min(_time(each, batch) for _ in range(RUNS)) for each in (before, other)]
        except UserError:  # a network that it doesn't know, or can't compute
            self.backend = "torch"
            return
        if near >= CLOSE_ENOUGH and seconds[0] > FASTER * seconds[1]:
            self.for_8_bits, self.for_16_bits_too = other, False
            self.notes.append(
                f"OpenVINO computes, {seconds[0] / seconds[1]:.1f} times as fast here as PyTorch (--engine torch or openvino insists)."
            )
        else:
            self.backend = "torch"

    @property
    def _rest(self) -> Literal["fp32", "bf16"]:
        """The precision of what isn't computed in int8, by OpenVINO."""
        native = choose_precision("auto", self.translator.device) == "bf16"
        return "bf16" if self.dtype == "bf16" or (self.dtype == "int8" and native) else "fp32"

    def choose(self, bits: int, height: int, width: int, tile: int | None = None) -> Choice:
        """What translates images of so many bits and this size; `tile` as of `Translator.__call__`.

        Raises:
            UserError: for more than 8 bits, if it is an ONNX file that takes 8.
        """
        generator = self.translator.generator
        if isinstance(generator, OnnxGenerator) and not generator.raw and bits > 8:
            raise UserError("this ONNX file takes 8-bit images; one that is exported with --raw takes 16 bits, too")
        if not allows_half_precision(bits, height, width) and not self.for_16_bits_too:
            return Choice(self._copy("fp32"), "fp32", "torch")  # bf16 would leave bands: only who asks for it gets it
        if self.backend == "openvino" and not self.for_8_bits.fits(height, width, tile):
            return Choice(self._copy(self._rest), self._rest, "torch")  # OpenVINO can't compute strips
        return Choice(self.for_8_bits, self.dtype, self.backend)

    def _copy(self, dtype: Literal["fp32", "tf32", "bf16", "fp16"]) -> Translator:
        """PyTorch's copy in this dtype, made once."""
        if dtype not in self._copies:
            self._copies[dtype] = optimise(self.translator, self.mode, dtype, self.compile)
        return self._copies[dtype]


@torch.inference_mode()
def _time(translator: Translator, batch: Tensor) -> float:
    """Seconds."""
    before = time.perf_counter()
    translator(batch, mode="eval")
    return time.perf_counter() - before


def _record(translator: Translator, samples: Sequence[Tensor], mode: Mode) -> tuple[list[Any], list[Any]]:
    """What the network sees of images, and what it makes of them, each (1, C, H, W)."""
    seen: list[Any] = []
    made: list[Any] = []

    def note(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        seen.append(inputs[0].contiguous().numpy())
        made.append(output.contiguous().numpy())

    handle = translator.generator.register_forward_hook(note)
    try:
        for sample in samples:
            translator(sample, tile=0, mode=mode)
    finally:
        handle.remove()
    return seen, made


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
    if translator.style is not None and translator.draws_styles:
        copied.generator, copied.style = generator.with_style(translator.style), None
    if mode == "eval" and translator.device.type != "mps":  # in another layout, dropout would draw other values
        copied.memory_format = torch.channels_last
    copied.tf32 = dtype == "tf32"
    copied.generator.to(TORCH[dtype]).to(memory_format=copied.memory_format)
    if compile:
        copied.generator.compile(dynamic=True)
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
