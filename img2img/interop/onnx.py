"""ONNX files that `img2img export` wrote, as translators that onnxruntime computes."""

import json
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from img2img.errors import UsageError, UserError
from img2img.translator import Translator, TranslatorConfig, skeleton

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
    try:
        session = onnxruntime.InferenceSession(file.read_bytes(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has its own exceptions for each kind of damage
        reason = " ".join(str(error).split())[:150]
        raise UsageError(f"{file} is damaged, or no ONNX file ({reason}).") from None
    about = session.get_modelmeta().custom_metadata_map.get(KIND)
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
    return Translator(config, OnnxGenerator(session, config, raw).eval())


class OnnxGenerator(nn.Module):
    """A network that onnxruntime computes.

    Args:
        session: of the file.
        config: of the translator.
        raw: whether the file holds the network alone, not 8-bit images in and out.
    """

    not_saved = (
        "an ONNX file only translates; to train on, save, share or export it, use the translator that it was made from."
    )
    only_whole = True
    """Images aren't computed in strips."""

    def __init__(self, session: Any, config: TranslatorConfig, raw: bool) -> None:
        super().__init__()
        self.session, self.raw, self.zero_to_one = session, raw, config.value_range[0] == 0
        limits: Any = skeleton(config.generator)
        self.size_multiple: int = limits.size_multiple if raw else 1
        self.min_size: int = limits.min_size if raw else 1
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
