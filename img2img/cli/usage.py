"""What the commands are, and how their options are parsed."""

import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from img2img.core.errors import UsageError
from img2img.methods import METHODS

USAGE = """img2img: image-to-image translation

usage: img2img COMMAND [OPTIONS]

  demo                      draw a data set, train on it, convert the rest, write a page to look at
  train METHOD --data PATH  train a translator on a folder of images; METHOD: {methods}
  train --resume RUN        go on with a run that was stopped
  convert SOURCE TARGET --model MODEL
                            translate a folder, a file or a video, of images or label maps; --direction BtoA takes a cyclegan's other way
  evaluate --model MODEL --data PATH
                            PSNR, SSIM and L1 of a translator, or of two folders of images
  compress MODEL --data PHOTOS --output RUN
                            a small, fast translator that imitates a large one
  sample --model MODEL --output FOLDER
                            images from noise, of a model that gan, stylegan2, lapgan, vae or infogan trained
  invert MODEL PHOTO ... --output FOLDER
                            the styles of which a model of stylegan2 makes photos
  serve MODEL ...           a page in the browser: translate, draw, paint label maps, explore, watch runs
  import FILE.pth --output FOLDER
                            another project's weights as a translator
  export MODEL FILE         a translator as ONNX (FILE.onnx), or as another project's weights (FILE.pth)
  fetch NAME                a published CycleGAN, pix2pix or CUT model, or (--dataset) data set
  push MODEL USER/NAME      share a model on the Hugging Face Hub, or in a folder, with a card
  check PATH                what is wrong with a data set, paired or not, or of label maps
  index FOLDER              keep what is known of a folder's images in it, so that other machines needn't read them to check them
  shard PATH OUTPUT         pack a data set into tar files

img2img COMMAND --help says more; for training, img2img train METHOD --help. MODEL is a translator's or a run's folder, a file of weights, or USER/NAME on the Hub.
Several processes: accelerate launch -m img2img train METHOD ..., with the same options.
Exit codes: 0 all done, 1 something failed, 2 wrong usage or data, 130 stopped by Ctrl-C."""


def method_names() -> list[str]:
    """What can be trained."""

    return list(METHODS)


def usage() -> str:
    """The help that `img2img` alone prints."""
    return USAGE.format(methods=" ".join(method_names()))


def run_command(function: Callable[..., int], name: str, arguments: list[str]) -> int:
    """Calls a function with the options that its signature names."""
    import tyro

    return tyro.cli(function, args=arguments, prog=f"img2img {name}", config=(tyro.conf.FlagCreatePairsOff,))


def refuse_file(file: Path, option: str, beginning: bytes) -> None:
    """Says before the work what would go wrong after it; a file of its own kind, by its first ten bytes, may be replaced."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=file.parent):
            pass
    except OSError as error:
        raise UsageError(f"{option} {file} can't be written: {error.strerror}.") from None
    if file.is_dir():
        raise UsageError(f"{option} {file} is a folder; give a file.")
    with suppress(FileNotFoundError), file.open("rb") as opened:
        if opened.read(10) not in (b"", beginning):
            raise UsageError(f"{option} {file} is there already, and is something else; give another file.")
