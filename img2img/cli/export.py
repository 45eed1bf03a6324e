"""`img2img export`: a translator as ONNX, or in the layout of another project."""

from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from img2img.cli.usage import run_command
from img2img.core.errors import UsageError


def command(
    model: Positional[Path],
    file: Positional[Path],
    to: Literal["onnx", "reference"] | None = None,
    raw: bool = False,
    mode: Literal["eval", "paper"] | None = None,
    direction: Literal["AtoB", "BtoA"] | None = None,
    style: tuple[str, ...] = (),
    overwrite: bool = False,
) -> int:
    """Writes a translator for use elsewhere.

    Args:
        model: A translator's or a run's folder.
        file: The file to write.
        to: onnx; or reference, the layout of the project that has such a network; by default as the file's name ends: .onnx, .pth.
        raw: Of ONNX: the network alone, floats (B, C, H, W) in [-1, 1]; by default 8-bit images (B, H, W, C) of any size go in and come out.
        mode: Of ONNX: eval or paper; by default the translator's.
        direction: Which translator of a run that learned both ways; by default AtoB.
        style: Of ONNX: the domain, or the style, that the file is to make; as of `img2img convert`.
        overwrite: Replace the file if it exists.
    """
    if file.exists() and not overwrite:
        raise UsageError(f"{file} exists; add --overwrite, or choose another name.")
    kind = to or {".onnx": "onnx", ".pth": "reference", ".pt": "reference"}.get(file.suffix)
    if kind == "reference" and file.suffix == ".onnx":
        raise UsageError(f"{file}: --to reference writes a state dict; call it .pth.")
    if kind is None:
        raise UsageError(f"{file}: call it .onnx or .pth, or say --to onnx or --to reference.")
    if kind == "reference":
        from img2img.interop import export_reference

        if raw or mode or style:
            raise UsageError("--raw, --mode and --style are about ONNX files; leave them out.")
        notes = export_reference(model, file, direction, overwrite)
    else:
        from img2img.interop import load_translator
        from img2img.interop.onnx import export_onnx
        from img2img.models.styles import parse_style

        if raw and style:
            raise UsageError("--raw writes the network alone, which is given its style; leave --style out.")
        translator, chosen = load_translator(model, direction=direction), parse_style(style)
        translator = translator if chosen is None else translator.with_style(chosen)
        done = export_onnx(translator, file, raw=raw, mode=mode, overwrite=overwrite)
        unit = "of values in [-1, 1]" if raw else "of 255"
        notes = [
            f"{width}×{height}: largest difference from PyTorch {each:.2g} {unit}"
            for (height, width), each in done.differences.items()
        ]
        notes += done.notes
    print("\n  ".join([f"{file} is written.", *notes]))
    return 0


def export(arguments: list[str]) -> int:
    """`img2img export`."""
    return run_command(command, "export", arguments)
