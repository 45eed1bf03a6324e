"""The networks of SPADE (GauGAN), as its files name their layers."""

import math
from typing import Any

from img2img.interop.cyclegan import generator
from img2img.interop.family import Family, Guess, Shapes
from img2img.networks import ImageEncoderConfig, SPADEConfig, build_encoder

PROJECT = "SPADE"
BLOCKS = ("head_0", "G_middle_0", "G_middle_1", "up_0", "up_1", "up_2", "up_3", "up_4")


def _guess(shapes: Shapes) -> Guess | None:
    stem, head = shapes.get("fc.weight", ()), shapes.get("conv_img.weight", ())
    shared = shapes.get("head_0.norm_0.mlp_shared.0.weight", ())
    if len(stem) not in (2, 4) or len(head) != 4 or len(shared) != 4 or shared[2:] != (3, 3):
        return None
    most = "up_4.conv_0.weight" in shapes
    width = head[1] * (2 if most else 1)
    latent = latent_size = None
    batch = "head_0.norm_0.param_free_norm.running_mean" in shapes
    norm = (
        "sync-batch, whose statistics in training are all processes'"
        if batch
        else "instance, for norms have no statistics"
    )
    assumed: tuple[str, ...] = (f"norm: {norm} (--norm)",)
    if not most:
        assumed += ("upsampling: normal, 5 doublings (--upsampling more for 6, as published for Cityscapes)",)
    if len(stem) == 2:
        latent, latent_size = stem[1], max(1, math.isqrt(stem[0] // (16 * width)))
        assumed += (f"the first features are square: {latent_size} × {latent_size}",)
    config = SPADEConfig(
        in_channels=shared[1],
        out_channels=head[0],
        channels=width,
        upsampling="most" if most else "normal",
        norm="sync-batch" if batch else "instance",
        hidden=shared[0],
        latent=latent,
        latent_size=latent_size,
        bias="head_0.conv_0.bias" in shapes,
    )
    return Guess(config, shared[1], assumed)


def _layers(config: SPADEConfig) -> dict[str, str]:
    found = {"fc": "stem", "conv_img": "head"}
    for number, name in enumerate(BLOCKS):
        ours = f"blocks.{number}"
        for part in ("0", "1", "s"):
            theirs = f"{name}.norm_{part}"
            found |= {
                f"{name}.conv_{part}": f"{ours}.conv_{part}",
                f"{theirs}.param_free_norm": f"{ours}.norm_{part}.norm",
                f"{theirs}.mlp_shared.0": f"{ours}.norm_{part}.shared.0",
                f"{theirs}.mlp_gamma": f"{ours}.norm_{part}.scale",
                f"{theirs}.mlp_beta": f"{ours}.norm_{part}.shift",
            }
    return found


def _encoder_guess(shapes: Shapes) -> Guess | None:
    stem, mean = shapes.get("layer1.0.weight", ()), shapes.get("fc_mu.weight", ())
    if len(stem) != 4 or len(mean) != 2:
        return None
    count = sum(f"layer{number}.0.weight" in shapes for number in range(1, 9))
    config = ImageEncoderConfig(in_channels=stem[1], channels=stem[0], size=4 * 2**count, latent=mean[0])
    return Guess(config, stem[1], ("norm: instance, as published",))


def _encoder_layers(config: ImageEncoderConfig) -> dict[str, str]:
    assert config.size
    count = int(math.log2(config.size // 4))
    found = {f"layer{number + 1}.0": f"down.{number}.0" for number in range(count)}
    return found | {"fc_mu": "mean", "fc_var": "logvar"}


def _encoder(guess: Guess) -> Any:
    return build_encoder(guess.config)


FAMILIES = (
    Family("spade", f"{PROJECT}'s generator", "generator", _guess, _layers, generator),
    Family("spade-encoder", f"{PROJECT}'s encoder", "encoder", _encoder_guess, _encoder_layers, _encoder),
)
