"""Checks that a change of the code changes no result: hashes tiny runs of every method, a converted folder and samples.

    python tools/check_same_bytes.py --write before.json     # before the change
    python tools/check_same_bytes.py --compare before.json   # after it, on the same machine

Equal seeds give equal bytes on one machine with one configuration only, so a file of hashes is of no use elsewhere.
"""

import argparse
import hashlib
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

SMALL_TRANSLATOR = ["--size", "32", "--batch-size", "2", "--steps", "6", "--validate-every", "3"]
SMALL_NETWORKS = ["--generator.channels", "8", "--discriminator.channels", "8", "--discriminator.layers", "1"]
UNET = [*SMALL_TRANSLATOR, *SMALL_NETWORKS]
RESNET = [*UNET, "--generator.blocks", "5"]
BY_L1 = ["--best", "l1"]
LABELS = ["--size", "64", "--batch-size", "2", "--steps", "4", "--perceptual.weight", "0", *SMALL_NETWORKS]
NOISE = ["--size", "32", "--batch-size", "8", "--steps", "6", "--validate-every", "3", "--features", "random"]
DCGAN = [*NOISE, "--generator.channels", "8", "--discriminator.channels", "8"]

TRAIN: dict[str, list[str]] = {
    "pix2pix": ["pix2pix", "--data", "pairs", *UNET, *BY_L1, "--ema", "0.9"],
    "pix2pix-options": [
        "pix2pix", "--data", "pairs", *UNET, *BY_L1, "--adversarial", "hinge", "--discriminator.norm", "instance", "--r1", "1",
        "--r1-every", "2", "--gradient-penalty", "1", "--feature-matching", "10", "--generator.upsampling", "resize",
        "--accumulation", "2", "--discriminator.spectral-norm", "--data.rotate", "10", "--data.colour-jitter", "0.3",
    ],
    "pix2pix-derived": ["pix2pix", "--data", "pairs/trainB", "--data.derive", "edges", "--data.holdout", "0.3", *UNET, *BY_L1],
    "pix2pix-labels": ["pix2pix", "--data", "labels", *UNET, *BY_L1],
    "pix2pix-resnet": [
        "pix2pix", "--data", "pairs", "--generator.kind", "resnet", *RESNET, *BY_L1, "--gradient-checkpointing",
        "--discriminator.kind", "multiscale", "--discriminator.scales", "2", "--augment", "colour", "translation",
        "--adversarial", "relativistic-average",
    ],
    "cyclegan": ["cyclegan", "--data", "pairs", *RESNET, "--pool", "2", "--features", "random", "--ema", "0.9"],
    "cut": ["cut", "--data", "pairs", *RESNET, "--patches", "16", "--features", "random"],
    "fastcut": ["fastcut", "--data", "pairs", "--direction", "BtoA", *RESNET, "--patches", "16", "--features", "random"],
    "pix2pixhd": [
        "pix2pixhd", "--data", "labels", *LABELS, *BY_L1, "--generator.downsampling", "2", "--generator.blocks", "1",
        "--discriminator.scales", "2", "--encoder", "--instance-encoder.channels", "4", "--pool", "3", "--styles", "2",
        "--instance-encoder.downsampling", "2",
    ],
    "spade": [
        "spade", "--data", "labels", *LABELS, *BY_L1, "--discriminator.scales", "1", "--generator.hidden", "8", "--encoder",
        "--image-encoder.channels", "4", "--image-encoder.latent", "8", "--ema", "0.9",
    ],
    "gan": ["gan", "--data", "classes", *DCGAN, "--instance-noise", "0.1", "--orthogonal", "1e-4", "--augment", "cutout"],
    "gan-unconditional": [
        "gan", "--data", "classes", *DCGAN, "--unconditional", "--adversarial", "wasserstein", "--gradient-penalty", "10",
        "--discriminator-steps", "2", "--r1", "1", "--r1-every", "2",
    ],
    "gan-clipped": ["gan", "--data", "classes", *DCGAN, "--weight-clip", "0.01", "--adversarial", "relativistic"],
    "gan-auxiliary": [
        "gan", "--data", "classes", *DCGAN, "--auxiliary-weight", "1", "--discriminator.conditioning", "none",
        "--label-smoothing", "0.1",
    ],
    "biggan": [
        "gan", "--data", "classes", *DCGAN, "--generator.kind", "biggan", "--discriminator.kind", "resnet",
        "--adversarial", "hinge", "--generator.attention", "16",
    ],
    "progressive": [
        "gan", "--data", "classes", *DCGAN, "--generator.kind", "progressive", "--discriminator.kind", "progressive",
        "--generator.grow-updates", "1",
    ],
    "infogan": ["infogan", "--data", "classes", *DCGAN],
    "stargan": [
        "stargan", "--data", "classes", *SMALL_TRANSLATOR, *SMALL_NETWORKS[:4], "--generator.blocks", "1",
        "--discriminator-steps", "2", "--features", "random",
    ],
    "tuned": [
        "pix2pix", "--data", "pairs", "--init", "runs/pix2pix", "--warmup-discriminator", "2", "--freeze", "down.0",
        "--layer-lr", "0.9", *SMALL_TRANSLATOR, *BY_L1, "--discriminator.channels", "8", "--discriminator.layers", "1",
    ],
    "adapted": [
        "pix2pix", "--data", "pairs", "--init", "runs/pix2pix", "--init-discriminator", "runs/pix2pix", "--lora", "2",
        "--save-adapter", "--freeze-discriminator", "1", *SMALL_TRANSLATOR, *BY_L1,
    ],
}  # fmt: skip

CONVERT: dict[str, list[str]] = {
    "pix2pix": ["photos", "converted/pix2pix", "--model", "runs/pix2pix", "--dtype", "fp32"],
    "pix2pix-auto": ["photos", "converted/pix2pix-auto", "--model", "runs/pix2pix", "--format", "png"],
    "pix2pix-paper": ["photos", "converted/pix2pix-paper", "--model", "runs/pix2pix", "--mode", "paper"],
    "cyclegan": ["photos", "converted/cyclegan", "--model", "runs/cyclegan", "--direction", "BtoA", "--tile", "40"],
    "spade": ["labels/test_label", "converted/spade", "--model", "runs/spade", "--style", "3"],
    "pix2pixhd": ["labels/test_label", "converted/pix2pixhd", "--model", "runs/pix2pixhd", "--style", "1"],
    "stargan": ["photos", "converted/stargan", "--model", "runs/stargan", "--style", "b"],
    "adapted": ["photos", "converted/adapted", "--model", "runs/adapted"],
}

SAMPLE: dict[str, list[str]] = {
    "gan": ["--model", "runs/gan", "--count", "12", "--output", "samples/gan"],
    "biggan": ["--model", "runs/biggan", "--count", "5", "--truncation", "0.5", "--output", "samples/biggan"],
    "walk": ["--model", "runs/gan", "--interpolate", "1", "2", "--steps", "4", "--output", "samples/walk"],
    "sweep": ["--model", "runs/infogan", "--sweep", "0", "--count", "3", "--output", "samples/sweep"],
}

EVALUATE: dict[str, list[str]] = {
    "pix2pix": ["--model", "runs/pix2pix", "--data", "pairs", "--split", "test", "--features", "random"],
    "cyclegan": ["--model", "runs/cyclegan", "--data", "pairs", "--split", "test"],
    "spade": ["--model", "runs/spade", "--data", "labels", "--split", "test"],
    "gan": ["--model", "runs/gan", "--data", "classes", "--features", "random"],
}


def draw_data() -> None:
    """Pairs, label maps, classes, and odd photos, in the current folder."""
    random = np.random.default_rng(0)
    for split, count in (("train", 12), ("test", 10)):
        for number in range(count):
            shape = np.zeros((40, 48), np.uint8)
            top, left = random.integers(0, 20, 2)
            shape[top : top + 18, left : left + 22] = 1 + number % 3
            colours = random.integers(0, 255, (4, 3)).astype(np.uint8)
            picture = colours[shape] // 2 + random.integers(0, 90, (40, 48, 3)).astype(np.uint8)
            outline = np.where(shape[..., None] > 0, 0, 255).repeat(3, 2).astype(np.uint8)
            for folder, image in (
                (f"pairs/{split}A", outline), (f"pairs/{split}B", picture), (f"labels/{split}_label", shape),
                (f"labels/{split}_inst", shape * 7), (f"labels/{split}_img", picture),
                (f"classes/{'val' if split == 'test' else split}/{'ab'[number % 2]}", picture),
            ):  # fmt: skip
                Path(folder).mkdir(parents=True, exist_ok=True)
                Image.fromarray(image).save(Path(folder, f"{number:02d}.png"))
    Path("photos/more").mkdir(parents=True)
    noise = random.integers(0, 255, (70, 93, 4)).astype(np.uint8)
    Image.fromarray(noise[..., :3]).save("photos/colour.jpg")
    Image.fromarray(noise).save("photos/more/alpha.png")
    Image.fromarray(noise[:33, :17, 0]).save("photos/gray.png")
    Image.fromarray(noise[..., 0].astype(np.uint16) * 200).save("photos/deep.png")
    frames = [Image.fromarray(np.roll(noise[:40, :40, :3], 5 * k, 0)) for k in range(3)]
    frames[0].save("photos/moving.gif", save_all=True, append_images=frames[1:], duration=80)
    np.save("photos/array.npy", noise[:24, :24, :3].astype(np.float32) / 255)


def hash_files(pattern: str) -> dict[str, str]:
    """The hash of each file below the current folder that a pattern finds; of safetensors that of names and values."""
    found = {}
    for file in sorted(Path().glob(pattern)):
        if not file.is_file() or "checkpoints" in file.parts:
            continue
        digest = hashlib.sha256()
        if file.suffix == ".safetensors":
            from safetensors.numpy import load_file

            for name, values in sorted(load_file(file).items()):
                digest.update(name.encode())
                digest.update(np.ascontiguousarray(values).tobytes())
        else:
            digest.update(file.read_bytes())
        found[file.as_posix()] = digest.hexdigest()
    return found


def run(what: str, arguments: list[str]) -> None:
    """One command, which must end well."""
    from img2img.cli import main

    print(what, flush=True)
    code = main(arguments)
    if code:
        sys.exit(f"{what} ended with exit code {code}: img2img {' '.join(arguments)}")


def hash_everything(only: list[str]) -> dict[str, str]:
    """Trains, converts, samples and evaluates in the current folder; the hashes of all that came out."""
    draw_data()
    for name, options in TRAIN.items():
        if not only or name in only:
            run(
                f"train {name}",
                [
                    "train",
                    *options,
                    "--recipe",
                    "paper",
                    "--output",
                    f"runs/{name}",
                    "--device",
                    "cpu",
                    "--log-every",
                    "3",
                ],
            )
    if not only or "pix2pix" in only:
        stopped = [
            *TRAIN["pix2pix"],
            "--recipe",
            "paper",
            "--output",
            "runs/resumed",
            "--device",
            "cpu",
            "--checkpoint-every",
            "3",
        ]
        run("train resumed", ["train", *stopped, "--steps", "3"])
        run("resume", ["train", "--resume", "runs/resumed", "--steps", "9"])
    for name, options in ({} if only else CONVERT).items():
        run(f"convert {name}", ["convert", *options, "--device", "cpu"])
    for name, options in ({} if only else SAMPLE).items():
        run(f"sample {name}", ["sample", *options, "--device", "cpu"])
    for name, options in ({} if only else EVALUATE).items():
        run(f"evaluate {name}", ["evaluate", *options, "--device", "cpu", "--json", f"scores/{name}.json"])
    patterns = "runs/**/*.safetensors", "runs/*/samples/*.png", "converted/**/*", "samples/**/*", "scores/*.json"
    return {name: value for pattern in patterns for name, value in hash_files(pattern).items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", type=Path, help="write the hashes to this file")
    parser.add_argument("--compare", type=Path, help="compare with the hashes of this file")
    parser.add_argument("--only", nargs="*", default=[], help="names of single training runs")
    parser.add_argument("--keep", type=Path, help="leave what was made in this folder")
    options = parser.parse_args()
    files = {name: getattr(options, name) and getattr(options, name).resolve() for name in ("write", "compare", "keep")}
    folder = files["keep"] or Path(tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
    before = Path.cwd()
    os.chdir(folder)
    found = hash_everything(options.only)
    os.chdir(before)
    if not files["keep"]:
        shutil.rmtree(folder)
    if files["write"]:
        files["write"].write_text(json.dumps(found, indent=1))
    if files["compare"]:
        known = json.loads(files["compare"].read_text())
        known = {name: value for name, value in known.items() if not options.only or name.split("/")[1] in options.only}
        differ = sorted(name for name in known.keys() | found.keys() if known.get(name) != found.get(name))
        print("\n".join(f"differs: {name}" for name in differ) or f"All {len(found)} files are the same.")
        sys.exit(1 if differ else 0)


if __name__ == "__main__":
    main()
