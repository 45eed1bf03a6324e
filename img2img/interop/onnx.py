"""ONNX files: a translator written as one and checked on the spot; and one read back as a translator."""

import copy
import json
import os
import tempfile
import warnings
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from img2img.core.errors import UsageError, UserError
from img2img.core.files import write_whole
from img2img.models import Mode, Translator, TranslatorConfig, build_empty
from img2img.models.styles import spread_features
from img2img.models.test_time import test_time
from img2img.networks import build_generator
from img2img.networks.labels import append_domain, encode_label_maps, mask_ignored
from img2img.networks.layers import BlurPool, ImageNetwork, InstanceNorm, ReflectionPad, SyncBatchNorm
from img2img.tiling.translate import round_up_size

NEAR = 0.01  # of 255: what rounding leaves of 8 bits
KIND = "img2img"  # the name of our description in a file's metadata


def needs_onnx() -> None:
    """Raises:
    UsageError: if what ONNX needs is not installed.
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UsageError(f"ONNX needs {error.name}, which is not installed: pip install 'img2img[onnx]'.") from None


def needs_weights(translator: Translator) -> None:
    """Raises:
    UsageError: if a translator is an ONNX file, whose weights can't be had.
    """
    if isinstance(translator.generator, OnnxGenerator):
        raise UsageError(translator.generator.not_saved)


def load_onnx(file: Path) -> Translator:
    """A translator whose generator is an ONNX file; on the CPU, in fp32.

    Raises:
        UsageError: if it can't be read, or `img2img export` didn't write it.
    """
    try:
        import onnxruntime
    except ImportError:
        raise UsageError("ONNX needs onnxruntime, which is not installed: pip install 'img2img[onnx]'.") from None
    if not file.is_file():
        raise UsageError(f"{file}: there is no such file.")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", os.devnull)
    try:  # a file that is all there is has no tensors in other files, and may not read any
        session = onnxruntime.InferenceSession(file.read_bytes(), options, providers=["CPUExecutionProvider"])
        about = session.get_modelmeta().custom_metadata_map.get(KIND)
    except Exception as error:  # onnxruntime has its own exceptions for each kind of damage
        reason = " ".join(str(error).split())[:150]
        raise UsageError(f"{file} is damaged, or no ONNX file ({reason}).") from None
    if about is None:
        raise UsageError(
            f"{file} doesn't say how its images are prepared; only files that img2img export wrote can be used."
        )
    try:
        values = json.loads(about)
        config, raw = TranslatorConfig.model_validate(values["config"]), bool(values["raw"])
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{file}: its description is damaged ({error}).") from None
    if not raw and config.classes is not None:
        raise UsageError(f"{file} takes label maps whole, for other programs; export it with --raw to use it here.")
    if config.encoder is not None and config.encoder.kind == "instances":
        raise UsageError(f"{file} has no styles in it; use the translator itself.")
    config = config.model_copy(update={"encoder": None})
    translator = Translator(config, OnnxGenerator(session, config, raw).eval())
    if not raw and translator.draws_styles:  # the one that was chosen is inside
        translator.style = None
    return translator


class OnnxGenerator(ImageNetwork):
    """A network that onnxruntime computes; a `raw` file holds the network alone, others 8-bit images in and out."""

    not_saved = (
        "an ONNX file only translates; to train on, save, share or export it, use the translator that it was made from."
    )
    only_whole = True
    """Images aren't computed in strips."""

    def __init__(self, session: Any, config: TranslatorConfig, raw: bool) -> None:
        super().__init__()
        self.session, self.raw, self.zero_to_one = session, raw, config.value_range[0] == 0
        if raw:
            limits = build_empty(build_generator, config.generator)
            self.size_multiple, self.min_size = limits.size_multiple, limits.min_size
        self.place = nn.Parameter(torch.zeros(1), requires_grad=False)  # says where it is: on the CPU

    def __deepcopy__(self, memo: Any) -> Self:
        return self  # sessions can't be copied, and needn't be

    def forward(self, source: Tensor, style: Tensor | None = None) -> Tensor:
        """(B, in_channels, H, W) → (B, out_channels, H, W), both in the network's range of values."""
        if source.device.type != "cpu":
            raise UserError("onnxruntime computes on the CPU here; use --device cpu.")
        if self.raw:
            given = {"source": source.float().contiguous().numpy()}
            if style is not None:
                given["style"] = style.float().numpy()
            return torch.from_numpy(self._run(given))
        values = source.float() * 255 if self.zero_to_one else (source.float() + 1) * 127.5
        rounded = values.round().clamp(0, 255)
        if (values - rounded).abs().max() > NEAR:
            raise UsageError("this ONNX file takes 8-bit images; one that is exported with --raw takes others, too.")
        images = rounded.to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()
        made = torch.from_numpy(self._run({"images": images}).astype(np.float32)).permute(0, 3, 1, 2)
        return made / 255 if self.zero_to_one else made / 127.5 - 1

    def _run(self, given: dict[str, Any]) -> Any:
        try:
            return self.session.run(None, given)[0]
        except Exception as error:  # onnxruntime has its own
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"onnxruntime can't compute this: {reason}") from None


OPSET = 23
MANY = 2**20  # more than an image has sides of what a network halves to a pixel
SIZES = ((64, 64), (97, 131), (256, 192), (13, 16))
"""In which a file is compared; and in one that the deepest layers see as more than a pixel."""
CLOSE_ENOUGH = 1e-3
"""Largest difference allowed, of values in [-1, 1]; 8-bit values may be rounded the other way, one step."""


@dataclass(frozen=True)
class Exported:
    """What was written."""

    file: Path
    differences: dict[tuple[int, int], float]
    """The largest difference from PyTorch by height and width: of values in [-1, 1], or in steps of 8 bits."""
    raw: bool
    notes: tuple[str, ...] = ()
    """What should be known of it."""


def export_onnx(
    translator: Translator, file: Path, *, raw: bool = False, mode: Mode | None = None, overwrite: bool = False
) -> Exported:
    """Writes a translator as ONNX, for batches and images of any size, and compares onnxruntime with PyTorch.

    Args:
        translator: on the CPU.
        file: .onnx.
        raw: whether the file holds the network alone: ``source`` (B, in_channels, H, W), float in [-1, 1], of sizes that it takes, to
            ``translation`` (B, out_channels, H, W). Else all that is around it is inside: ``images`` (B, H, W, in_channels), uint8, of
            any size, to ``translations`` (B, H, W, out_channels), uint8; of label maps ``labels`` (B, H, W, 1 or 2), int32.
        mode: as of `Translator.__call__`; by default the translator's. In mode ``paper`` each image has statistics of its own, but
            dropout, which is random, is left out.

    Raises:
        UserError: if it can't be exported or written, or onnxruntime gives something else.
    """
    needs_onnx()
    needs_weights(translator)
    if translator.nfe is not None:
        raise UsageError(
            "this translator takes several steps, with noise between them, and an ONNX file holds one network; compress it "
            "(img2img compress) to one that takes one step, and export that."
        )
    if not raw:
        translator.chosen_domain()
    if not raw and (translator.config.in_range or translator.config.out_range):
        raise UsageError(
            "this translator is of measurements, and an ONNX file with all around the network takes 8-bit images: add --raw."
        )
    chosen = mode or translator.config.mode
    plain = copy.copy(translator)
    plain.generator = _build_plain(translator.generator, chosen)
    notes = []
    if chosen == "paper" and any(isinstance(layer, nn.Dropout) and layer.p for layer in translator.generator.modules()):
        notes.append("dropout is left out: it is random, and an ONNX file has no seed")
    module = (_RawModel(plain) if raw else _PackedModel(plain)).eval()
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder, "made.onnx")
        multiple = plain.generator.size_multiple
        # an exporter takes sizes that are 1, or equal, for always so
        deep = (max(64, multiple + 1), max(96, 2 * multiple + 1))
        _convert(module, module.example(2, *_fit_size(plain, deep, raw)), made, translator, chosen, raw)
        differences = _compare(
            made,
            module,
            _remove_dropout(translator, chosen),
            [_fit_size(plain, size, raw) for size in (*SIZES, deep[::-1])],
        )
        worst = max(differences.values())
        if not worst <= (CLOSE_ENOUGH if raw else 1):
            raise UserError(
                f"{file} isn't written: onnxruntime's results differ by {worst:.3g} from PyTorch's; this network doesn't survive the export."
            )
        write_whole(file, made.read_bytes(), replace=overwrite)
    return Exported(file, differences, raw, tuple(notes))


def _fit_size(translator: Translator, size: tuple[int, int], raw: bool) -> tuple[int, int]:
    """The size itself, or for the network alone the next that it takes."""
    if not raw:
        return size
    return round_up_size(translator.generator, size[0]), round_up_size(translator.generator, size[1])


def _convert(
    module: "_RawModel | _PackedModel",
    example: tuple[Tensor, ...],
    file: Path,
    translator: Translator,
    mode: Mode,
    raw: bool,
) -> None:
    dynamic, inputs = torch.export.Dim.DYNAMIC, module.inputs
    image = dict.fromkeys((0, 2, 3) if raw else (0, 1, 2), dynamic)
    shapes = [image, *({0: dynamic} for _ in inputs[1:])]
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()), torch.no_grad():
            warnings.simplefilter("ignore")
            traced = torch.export.export(module, example, dynamic_shapes=tuple(shapes), strict=False)
            program = torch.onnx.export(
                traced, opset_version=OPSET, input_names=list(inputs), output_names=[module.output], verbose=False
            )
        assert program is not None
        config = translator.config.model_copy(update={"mode": mode})
        if config.domains and not raw:  # the one that was chosen is inside
            whole = config.generator.model_copy(update={"in_channels": translator.in_channels})
            config = config.model_copy(update={"domains": (), "generator": whole})
        program.model.metadata_props[KIND] = json.dumps({"raw": raw, "config": config.model_dump(mode="json")})
        program.save(str(file), external_data=False)
        _forget_sizes(file)
    except Exception as error:  # the exporter has many ways to fail
        while error.__cause__ is not None:
            error = error.__cause__  # type: ignore[assignment]
        if isinstance(error, OSError) and error.errno:
            raise UserError(
                f"{file} can't be written ({error.strerror}): make room there, or set TMPDIR to another folder."
            ) from None
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"this network can't be exported to ONNX ({type(error).__name__}: {reason}).") from None


def _forget_sizes(file: Path) -> None:
    """Drops what the exporter noted of sizes inside: programs trust it to reuse memory, and it is wrong for some sizes."""
    import onnx

    model = onnx.load(str(file))
    del model.graph.value_info[:]
    for function in model.functions:
        del function.value_info[:]
    onnx.save(model, str(file))


def _remove_dropout(translator: Translator, mode: Mode) -> Translator:
    """The same translator in one mode; dropout can't be compared."""
    reference = copy.copy(translator)
    reference.config, reference.generator = (
        translator.config.model_copy(update={"mode": mode, "resize": "none"}),  # the file computes images as they are
        copy.deepcopy(translator.generator),
    )
    for layer in reference.generator.modules():
        if isinstance(layer, nn.Dropout):
            layer.p = 0.0
    return reference


def _compare(
    file: Path, module: "_RawModel | _PackedModel", reference: Translator, sizes: Sequence[tuple[int, int]]
) -> dict[tuple[int, int], float]:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    found = {}
    for number, (height, width) in enumerate(sizes):
        given = module.example(1 + number % 2, height, width)
        wanted = module.truth(reference, *given).numpy()
        try:
            (made,) = session.run(None, {name: each.numpy() for name, each in zip(module.inputs, given, strict=True)})
        except Exception as error:  # it has its own
            reason = " ".join(str(error).split())[:300]
            raise UserError(
                f"it isn't written, for onnxruntime can't compute {width}×{height} pixels: {reason}"
            ) from None
        if made.shape != wanted.shape:
            raise UserError(f"onnxruntime gives {made.shape} instead of {wanted.shape} for {width}×{height} pixels.")
        found[height, width] = float(np.abs(made.astype(np.float64) - wanted.astype(np.float64)).max())
    return found


class _RawModel(nn.Module):
    """The network alone."""

    output = "translation"

    def __init__(self, translator: Translator) -> None:
        super().__init__()
        self.network, self.translator = translator.generator, [translator]
        self.latent: int = getattr(translator.config.generator, "latent", None) or 0
        self.inputs = ("source", "style") if self.latent else ("source",)

    def example(self, batch: int, height: int, width: int) -> tuple[Tensor, ...]:
        random = torch.Generator().manual_seed(height)
        channels = self.translator[0].config.generator.in_channels
        source = torch.rand(batch, channels, height, width, generator=random) * 2 - 1
        return (source, torch.randn(batch, self.latent, generator=random)) if self.latent else (source,)

    def forward(self, source: Tensor, style: Tensor | None = None) -> Tensor:
        return self.network(source, style) if self.latent else self.network(source)

    @staticmethod
    def truth(reference: Translator, *given: Tensor) -> Tensor:
        """What the translator's network gives, for each image alone."""
        with test_time(reference.generator, reference.config.mode, 0):
            return torch.cat(
                [reference.generator(*(each[number : number + 1] for each in given)) for number in range(len(given[0]))]
            )


class _PackedModel(nn.Module):
    """A translator as it is called, of 8-bit images or label maps, written with what an exporter understands."""

    output = "translations"

    def __init__(self, translator: Translator) -> None:
        super().__init__()
        self.translator, config = [translator], translator.config
        self.multiple, self.least = translator.generator.size_multiple, translator.generator.min_size
        assert self.least in (self.multiple, 2 * self.multiple)
        self.network = translator.generator
        if translator.style is not None and translator.draws_styles:
            self.network = translator.generator.with_style(translator.style)
        self.inputs = ("images",) if config.classes is None else ("labels",)

    def example(self, batch: int, height: int, width: int) -> tuple[Tensor, ...]:
        random, classes = torch.Generator().manual_seed(height), self.translator[0].config.classes
        if classes is None:
            shape = (batch, height, width, self.translator[0].in_channels)
            return (torch.randint(0, 256, shape, generator=random).to(torch.uint8),)
        coarse = (batch, 1 + self.translator[0].config.edges, -(-height // 9), -(-width // 9))
        labels = torch.randint(0, classes.count, coarse, generator=random).float()
        whole = F.interpolate(labels, scale_factor=9)[..., :height, :width]
        return (whole.permute(0, 2, 3, 1).to(torch.int32).contiguous(),)

    def forward(self, images: Tensor) -> Tensor:
        translator = self.translator[0]
        config = translator.config
        given = images.permute(0, 3, 1, 2)
        height, width = given.shape[2:]
        if config.classes is not None:
            maps = mask_ignored(given, config.classes.ignore)
            source = encode_label_maps(maps, config.classes.count, config.edges)
            if translator.style is not None and translator.styles is not None:
                source = torch.cat([source, spread_features(maps[:, 0], translator.style)], dim=1)
        else:
            source = given.float() / 255 if config.value_range[0] == 0 else given.float() / 127.5 - 1
        if (domain := translator.chosen_domain()) is not None:
            source = append_domain(source, domain.expand(source.shape[0], -1))
        source = source.index_select(2, self._reflect(height)).index_select(3, self._reflect(width))
        done = self.network(source)[:, :, :height, :width]
        values = done * 255 if config.value_range[0] == 0 else (done + 1) * 127.5
        return values.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)

    def _reflect(self, side: int) -> Tensor:
        """Which rows, or columns, stand for those of the next size that the network takes: there and back, again and again."""
        count = (side + self.multiple - 1) // self.multiple
        if self.least > self.multiple:  # then at least 2; exporters know no maximum of sizes
            count = count + 1 - (count + MANY - 2) // MANY
        period = (2 * torch.arange(side)[-1:]).clamp(min=1)
        place = torch.arange(count * self.multiple).remainder(period)
        return torch.minimum(place, period - place)

    @staticmethod
    def truth(reference: Translator, given: Tensor) -> Tensor:
        """What the translator itself gives."""
        return torch.stack([torch.from_numpy(np.atleast_3d(reference(each.numpy(), tile=0))) for each in given])


def _build_plain(generator: ImageNetwork, mode: Mode) -> ImageNetwork:
    """A copy that computes the same by stock layers, in one mode for good."""
    network = copy.deepcopy(generator).eval().requires_grad_(False).to(memory_format=torch.contiguous_format)
    for parent in list(network.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, InstanceNorm):
                setattr(parent, name, _InstanceNorm(layer.eps))
            elif isinstance(layer, ReflectionPad):
                setattr(parent, name, nn.ReflectionPad2d(layer.pixels))
            elif isinstance(layer, BlurPool):
                setattr(parent, name, _Blur(layer.kernel))
            elif isinstance(layer, nn.BatchNorm2d) and mode == "paper":
                setattr(parent, name, _InstanceNorm(layer.eps, layer.weight, layer.bias))
            elif isinstance(layer, SyncBatchNorm):
                layer.__class__ = nn.BatchNorm2d  # type: ignore[assignment]
            elif isinstance(layer, nn.Dropout):
                setattr(parent, name, nn.Identity())
    return network


class _InstanceNorm(nn.Module):
    """Each image's own statistics, and perhaps a scale and a shift."""

    def __init__(self, epsilon: float, scale: Tensor | None = None, shift: Tensor | None = None) -> None:
        super().__init__()
        self.epsilon = epsilon
        self.register_buffer("scale", scale)
        self.register_buffer("shift", shift)

    def forward(self, x: Tensor) -> Tensor:
        done = F.instance_norm(x, eps=self.epsilon)
        if self.scale is None or self.shift is None:
            return done
        return done * self.scale.view(-1, 1, 1) + self.shift.view(-1, 1, 1)  # type: ignore[operator]


class _Blur(nn.Module):
    """`BlurPool` without a gradient of its own."""

    def __init__(self, kernel: Tensor) -> None:
        super().__init__()
        self.register_buffer("kernel", kernel)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.kernel.expand(x.shape[1], 1, -1, -1)  # type: ignore[operator]
        return F.conv2d(F.pad(x, (1,) * 4, "reflect"), weight, stride=2, groups=x.shape[1])
