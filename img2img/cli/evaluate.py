"""`img2img evaluate`."""

import sys
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import Positional

from img2img.cli.usage import parse_style, run_command
from img2img.core.errors import UsageError
from img2img.metrics.distribution import Features
from img2img.metrics.segmentation import Architecture


def command(
    folders: Annotated[tuple[Path, ...], Positional] = (),
    model: Path | None = None,
    data: Path | None = None,
    split: Literal["train", "val", "test"] | None = None,
    direction: Literal["AtoB", "BtoA"] | None = None,
    size: int | None = None,
    mode: Literal["eval", "paper"] | None = None,
    seed: int = 0,
    style: tuple[str, ...] = (),
    features: Features | None = None,
    feature_weights: Path | None = None,
    count: int | None = None,
    truncation: float | None = None,
    segmenter: Architecture | None = None,
    segmenter_weights: Path | None = None,
    device: str = "auto",
    json: Path | None = None,
) -> int:
    """Scores a model on a data set (--model, --data), or one folder of images against another.

    L1 is of values in [0, 1], PSNR in dB; PSNR and SSIM are scikit-image's, KID and FID torchmetrics'. The perceptual distance
    is LPIPS by features of EfficientNet-Lite0: 0 for equal images.

    Args:
        folders: Instead of --model and --data: a folder of images and a folder of the truth, matched by stem.
        model: A translator's or a run's folder, another project's file of weights, a FILE.onnx, or USER/NAME on the Hugging Face Hub.
        data: The folder of a data set, in any layout that training takes.
        split: By default val if there is one, else test, else train.
        direction: By default the one that the translator was trained in; picks the translator of a run that learned both.
        size: Scale the shorter side to so many pixels; by default images are taken at their own size.
        mode: eval or paper; by default the translator's.
        seed: Of mode paper, or of the first sample.
        style: The domain, or the style, of the translations; as of `img2img convert`.
        features: Compare translations and targets as sets, too (KID, FID), which models of unpaired methods are anyway, where there are no pairs: lite, EfficientNet-Lite0, the default; inception, FID's network; random, a VGG-16 with random weights; or a classifier of torchvision, with its --feature-weights.
        feature_weights: A file of its weights (.pth or .safetensors); of Inception by default PyTorch's cache, else they are downloaded.
        count: Of a model that makes images from noise: how many samples; by default as many as there are real images.
        truncation: Of such a model: draw noise beyond this again.
        segmenter: Of label maps: a network of torchvision that finds the labels in the translations, to be compared (mean IoU, pixel accuracy).
        segmenter_weights: Its weights (.pth or .safetensors), trained on the real images.
        device: auto, cpu, cuda, cuda:1 or mps.
        json: Write all scores to this file.
    """
    from img2img.inference import evaluate as room
    from img2img.inference.evaluate_samples import evaluate_samples
    from img2img.interop import makes_images_from_noise
    from img2img.metrics.segmentation import make_segmenter

    progress = sys.stderr.isatty()
    if (segmenter is None) != (segmenter_weights is None):
        raise UsageError("--segmenter and --segmenter-weights belong together.")
    if folders:
        if len(folders) != 2 or model or data or segmenter:
            raise UsageError("give two folders, or --model and --data.")
        result = room.compare(*folders, progress=progress)
    elif model is None or data is None:
        raise UsageError("give --model and --data, or two folders of images.")
    elif makes_images_from_noise(model):
        if segmenter or direction or size or mode or style:
            raise UsageError(
                "--segmenter, --direction, --size, --mode and --style are for translators; leave them out."
            )
        result = evaluate_samples(
            model, data, split=split, count=count, seed=seed, truncation=truncation, features=features or "lite",
            feature_weights=feature_weights, device=device, progress=progress,
        )  # fmt: skip
    elif count is not None or truncation is not None:
        raise UsageError("--count and --truncation are for models that make images from noise; leave them out.")
    else:
        result = room.evaluate(
            model, data, split=split, direction=direction, size=size, mode=mode, seed=seed, style=parse_style(style),
            features=features, feature_weights=feature_weights, device=device, progress=progress,
            segmenter=make_segmenter(segmenter, segmenter_weights) if segmenter and segmenter_weights else None,
        )  # fmt: skip
    if json:
        result.write(json)
    _print_scores(result)
    for name, reason in list(result.failed.items())[:20]:
        print(f"not scored: {name}: {reason}", file=sys.stderr)
    return 1 if result.failed else 0


def evaluate(arguments: list[str]) -> int:
    """`img2img evaluate`."""
    return run_command(command, "evaluate", arguments)


def _print_scores(result: Any) -> None:
    from rich.console import Console
    from rich.table import Table

    from img2img.metrics.distribution import FEATURE_NAMES

    size = result.about.get("size")
    way = f", {result.about['direction']}" if "direction" in result.about else ""
    table = Table(title=f"{result.about['count']} images at {f'{size} pixels' if size else 'their own size'}{way}")
    table.add_column("")
    shown = {name: form for name, form in SCORES.items() if name in result.metrics}
    for heading, _ in shown.values():
        table.add_column(heading, justify="right")
    translated = "direction" in result.about
    rows = {
        "translation" if translated else "samples" if "real" in result.about else "images": result.metrics,
        "copy of the input": result.copy_input,
        "real images": result.real,
    }
    for row, scores in rows.items():
        if scores:
            table.add_row(
                row, *(form.format(scores[name]) if name in scores else "" for name, (_, form) in shown.items())
            )
    Console().print(table)
    if "features" in result.about:
        name = result.about["features"]
        print(f"KID and FID by features of {FEATURE_NAMES.get(name, name)}.")
    if "remark" in result.about:
        print(result.about["remark"])


SCORES = {
    "l1": ("L1 in [0, 1] ↓", "{:.4f}"),
    "psnr": ("PSNR in dB ↑", "{:.2f}"),
    "ssim": ("SSIM ↑", "{:.4f}"),
    "perceptual": ("perceptual ↓", "{:.4f}"),
    "kid": ("KID ↓", "{:.5f}"),
    "fid": ("FID ↓", "{:.2f}"),
    "precision": ("precision ↑", "{:.3f}"),
    "recall": ("recall ↑", "{:.3f}"),
    "inception_score": ("Inception Score ↑", "{:.2f}"),
    "miou": ("mean IoU ↑", "{:.4f}"),
    "accuracy": ("pixel accuracy ↑", "{:.4f}"),
}
