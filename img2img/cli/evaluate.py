"""`img2img evaluate`."""

import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import Positional

from img2img.cli.usage import refuse_file, run_command
from img2img.core.errors import UsageError
from img2img.metrics.distribution import Features
from img2img.metrics.lpips import LpipsNetwork
from img2img.metrics.segmentation import Architecture

if TYPE_CHECKING:
    from img2img.inference.evaluate import Evaluation


def command(
    folders: Annotated[tuple[Path, ...], Positional] = (),
    model: tuple[Path, ...] = (),
    data: Path | None = None,
    split: Literal["train", "val", "test"] | None = None,
    holdout: float = 0.0,
    direction: Literal["AtoB", "BtoA"] | None = None,
    size: int | None = None,
    mode: Literal["eval", "paper"] | None = None,
    seed: int = 0,
    style: tuple[str, ...] = (),
    nfe: int | None = None,
    features: Features | None = None,
    feature_weights: Path | None = None,
    count: int | None = None,
    truncation: float | None = None,
    segmenter: Architecture | None = None,
    segmenter_weights: Path | None = None,
    lpips: LpipsNetwork | None = None,
    lpips_weights: Path | None = None,
    device: str = "auto",
    json: Path | None = None,
    page: Path | None = None,
) -> int:
    """Scores a model on a data set (--model, --data), or one folder of images against another.

    L1 is of values in [0, 1], PSNR in dB; PSNR and SSIM are scikit-image's, KID and FID torchmetrics'. The perceptual distance
    is LPIPS by features of EfficientNet-Lite0: 0 for equal images.

    Args:
        folders: Instead of --model and --data: a folder of images and a folder of the truth, matched by stem.
        model: A translator's or a run's folder, another project's file of weights, a FILE.onnx, or USER/NAME on the Hugging Face Hub; several translators are compared.
        data: The folder of a data set, in any layout that training takes.
        split: By default val if there is one, else test, else train.
        holdout: Without a val split: the share that the training held out (--data.holdout); those images are scored.
        direction: By default the one that the translator was trained in; picks the translator of a run that learned both.
        size: Scale the shorter side to so many pixels; by default images are taken at their own size.
        mode: eval or paper; by default the translator's.
        seed: Of mode paper, or of the first sample.
        style: The domain, or the style, of the translations; as of `img2img convert`.
        nfe: Of a translator trained by unsb: how many steps it takes; as of `img2img convert`.
        features: Compare translations and targets as sets, too (KID, FID), which models of unpaired methods are anyway, where there are no pairs: lite, EfficientNet-Lite0, the default; inception, FID's network; random, a VGG-16 with random weights; or a classifier of torchvision, with its --feature-weights.
        feature_weights: A file of its weights (.pth or .safetensors); of Inception by default PyTorch's cache, else they are downloaded.
        count: Of a model that makes images from noise: how many samples; by default as many as there are real images.
        truncation: Of such a model: draw noise beyond this again.
        segmenter: Of label maps: a network of torchvision that finds the labels in the translations, to be compared (mean IoU, pixel accuracy).
        segmenter_weights: Its weights (.pth or .safetensors), trained on the real images.
        lpips: Also score pairs by LPIPS with its published networks. Papers usually report alex.
        lpips_weights: A file of that network's weights, as torchvision has them (.pth or .safetensors); by default PyTorch's cache, else they are downloaded (alex 233 MB, vgg 528 MB, squeeze 5 MB).
        device: auto, cpu, cuda, cuda:1 or mps.
        json: Write all scores to this file.
        page: Write a page to look at: scores, histograms, and the images from worst to best, with maps of where they differ.
    """
    from img2img.core.downloads import announce
    from img2img.inference import evaluate as room
    from img2img.inference.evaluate_samples import evaluate_samples
    from img2img.interop import makes_images_from_noise
    from img2img.metrics.lpips import make_lpips
    from img2img.metrics.segmentation import make_segmenter
    from img2img.models.styles import parse_style
    from img2img.pages.gallery import Gallery

    progress = sys.stderr.isatty()
    gallery = Gallery() if page else None
    if page:
        refuse_file(page, "--page", b"<!doctype ")
    if (segmenter is None) != (segmenter_weights is None):
        raise UsageError("--segmenter and --segmenter-weights belong together.")
    if lpips_weights and not lpips:
        raise UsageError("--lpips-weights needs the network's name, too: --lpips alex, vgg or squeeze.")
    if json and page and json.absolute() == page.absolute():
        raise UsageError("--json and --page are the same file; give another one.")
    results: dict[str, Evaluation] = {}
    if folders:
        if len(folders) != 2 or model or data or segmenter:
            raise UsageError("give two folders, or --model and --data.")
        look = partial(gallery.add, "images") if gallery else None
        published = make_lpips(lpips, lpips_weights, announce) if lpips else None
        results["images"] = room.compare(*folders, lpips=published, device=device, progress=progress, look=look)
    elif not model or data is None:
        raise UsageError("give --model and --data, or two folders of images.")
    elif any(makes_images_from_noise(each) for each in model):
        if segmenter or direction or size or mode or style or nfe or lpips or page or len(model) > 1:
            raise UsageError(
                "--segmenter, --direction, --size, --mode, --style, --nfe, --lpips, --page and several models are for translators; leave them out."
            )
        results["samples"] = evaluate_samples(
            model[0], data, split=split, holdout=holdout, count=count, seed=seed, truncation=truncation, features=features or "lite",
            feature_weights=feature_weights, device=device, progress=progress,
        )  # fmt: skip
    elif count is not None or truncation is not None:
        raise UsageError("--count and --truncation are for models that make images from noise; leave them out.")
    else:
        published = make_lpips(lpips, lpips_weights, announce) if lpips else None
        for each in dict.fromkeys(model):
            name = "translation" if len(model) == 1 else str(each)
            results[name] = room.evaluate(
                each, data, split=split, holdout=holdout, direction=direction, size=size, mode=mode, seed=seed, style=parse_style(style), nfe=nfe,
                features=features, feature_weights=feature_weights, device=device, progress=progress,
                segmenter=make_segmenter(segmenter, segmenter_weights) if segmenter and segmenter_weights else None,
                lpips=published, look=partial(gallery.add, name) if gallery else None,
            )  # fmt: skip
    first = next(iter(results.values()))
    if json:
        values = {name: result.values() for name, result in results.items()}
        room.write_json(json, first.values() if len(results) == 1 else {"models": values})
    rows = {name: result.metrics for name, result in results.items()}  # first
    rows |= {row: scores for name, result in results.items() for row, scores in result.rows(name).items()}
    _print_scores(first.about, rows)
    if page and gallery:
        gallery.write(page, rows, _describe(first.about))
    failed = {name: reason for result in results.values() for name, reason in result.failed.items()}
    for name, reason in list(failed.items())[:20]:
        print(f"not scored: {name}: {reason}", file=sys.stderr)
    return 1 if failed else 0


def evaluate(arguments: list[str]) -> int:
    """`img2img evaluate`."""
    return run_command(command, "evaluate", arguments)


def _describe(about: Mapping[str, Any]) -> str:
    """What was evaluated, for a person."""
    size = about.get("size")
    way = f", {about['direction']}" if "direction" in about else ""
    where = f" of {about['data']}" if "data" in about else ""
    network = f", LPIPS by {about['lpips_network']}" if "lpips_network" in about else ""
    return f"{about['count']} images{where} at {f'{size} pixels' if size else 'their own size'}{way}{network}"


def _print_scores(about: Mapping[str, Any], rows: Mapping[str, Mapping[str, float]]) -> None:
    from rich.console import Console
    from rich.table import Table

    from img2img.metrics.distribution import FEATURE_NAMES

    table = Table(title=_describe({key: value for key, value in about.items() if key != "data"}))
    table.add_column("", overflow="fold")
    shown = {name: form for name, form in SCORES.items() if any(name in scores for scores in rows.values())}
    for heading, _ in shown.values():
        table.add_column(heading, justify="right")
    for row, scores in rows.items():
        table.add_row(row, *(form.format(scores[name]) if name in scores else "" for name, (_, form) in shown.items()))
    Console().print(table)
    if "features" in about:
        name = about["features"]
        print(f"KID and FID by features of {FEATURE_NAMES.get(name, name)}.")
    if "remark" in about:
        print(about["remark"])


SCORES = {
    "l1": ("L1 in [0, 1] ↓", "{:.4f}"),
    "psnr": ("PSNR in dB ↑", "{:.2f}"),
    "ssim": ("SSIM ↑", "{:.4f}"),
    "perceptual": ("perceptual ↓", "{:.4f}"),
    "lpips": ("LPIPS ↓", "{:.4f}"),
    "diversity": ("diversity ↑", "{:.4f}"),
    "kid": ("KID ↓", "{:.5f}"),
    "fid": ("FID ↓", "{:.2f}"),
    "precision": ("precision ↑", "{:.3f}"),
    "recall": ("recall ↑", "{:.3f}"),
    "ppl": ("path length ↓", "{:.1f}"),
    "inception_score": ("Inception Score ↑", "{:.2f}"),
    "miou": ("mean IoU ↑", "{:.4f}"),
    "accuracy": ("pixel accuracy ↑", "{:.4f}"),
}
