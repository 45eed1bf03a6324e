"""The networks of pix2pixHD, as its files name their layers."""

import re
from functools import partial
from typing import Any, cast

from img2img.interop.cyclegan import discriminator, generator
from img2img.interop.family import Family, Guess, Shapes, convolutions, explain_norm, guess_norm, index_keys
from img2img.networks import InstanceEncoderConfig, MultiScaleConfig, Pix2PixHDConfig, build_encoder
from img2img.networks.layers import Norm

PROJECT = "pix2pixHD"
MOST_CHANNELS = 512  # of a discriminator


def _guess(shapes: Shapes, enhancers: bool) -> Guess | None:
    stem, convs = shapes.get("model.1.weight", ()), convolutions(shapes, "model.")
    blocks = sum(rest.startswith("conv_block.") for rest in index_keys(shapes, "model.").values())
    outside = 1 if enhancers else 2  # the head belongs to the last enhancer
    if len(stem) != 4 or stem[2:] != (7, 7) or len(convs) <= outside or ("model1_1.1.weight" in shapes) != enhancers:
        return None
    downsampling = (len(convs) - outside) // 2
    count = len({key.partition(".")[0] for key in shapes if re.match(r"model\d+_1\.", key)})
    last = f"model{count}_2." if enhancers else "model."
    head = convolutions(shapes, last)
    norm, bias = guess_norm(shapes, "model.1", "model.2")
    local = index_keys(shapes, last).values() if enhancers else ()
    if not 1 <= downsampling <= 6 or not head or count > 3 or not blocks:  # without blocks it is an encoder
        return None
    config = Pix2PixHDConfig(
        in_channels=stem[1],
        out_channels=shapes[f"{last}{head[-1]}.weight"][0],
        channels=stem[0],
        downsampling=downsampling,
        blocks=blocks,
        enhancers=count,
        enhancer_blocks=sum(rest.startswith("conv_block.") for rest in local) if enhancers else 3,
        norm=cast(Norm, norm),
        bias=bias,
    )
    return Guess(config, stem[1], explain_norm(norm, bias))


def _layers(config: Pix2PixHDConfig) -> dict[str, str]:
    found, at = {"model.1": "inside.stem.1", "model.2": "inside.stem.2"}, 4
    for level in range(config.downsampling):
        found |= _pair(f"model.{at}", f"model.{at + 1}", f"inside.down.{level}")
        at += 3
    for block in range(config.blocks):
        found |= _block(f"model.{at}", f"inside.blocks.{block}")
        at += 1
    for level in range(config.downsampling):
        found |= _pair(f"model.{at}", f"model.{at + 1}", f"inside.up.{level}")
        at += 3
    if not config.enhancers:
        return found | {f"model.{at + 1}": "head.1"}
    for number in range(1, config.enhancers + 1):
        first, second, ours = f"model{number}_1", f"model{number}_2", f"enhancers.{number - 1}"
        found |= {f"{first}.1": f"{ours}.stem.1", f"{first}.2": f"{ours}.stem.2"}
        found |= _pair(f"{first}.4", f"{first}.5", f"{ours}.down")
        for block in range(config.enhancer_blocks):
            found |= _block(f"{second}.{block}", f"{ours}.blocks.{block}")
        at = config.enhancer_blocks
        found |= _pair(f"{second}.{at}", f"{second}.{at + 1}", f"{ours}.up")
    return found | {f"model{config.enhancers}_2.{config.enhancer_blocks + 4}": "head.1"}


def _pair(convolution: str, norm: str, ours: str) -> dict[str, str]:
    return {convolution: f"{ours}.0", norm: f"{ours}.1"}


def _block(theirs: str, ours: str) -> dict[str, str]:
    return {f"{theirs}.conv_block.{number}": f"{ours}.layers.{number}" for number in (1, 2, 5, 6)}


def _encoder_guess(shapes: Shapes) -> Guess | None:
    stem, convs = shapes.get("model.1.weight", ()), convolutions(shapes, "model.")
    if len(stem) != 4 or stem[2:] != (7, 7) or any("conv_block" in key for key in shapes) or not 4 <= len(convs) <= 14:
        return None
    config = InstanceEncoderConfig(
        in_channels=stem[1],
        channels=stem[0],
        downsampling=(len(convs) - 2) // 2,
        features=min(64, shapes[f"model.{convs[-1]}.weight"][0]),
        bias="model.1.bias" in shapes,
    )
    return Guess(config, stem[1], ("norm: instance, as published",))


def _encoder_layers(config: InstanceEncoderConfig) -> dict[str, str]:
    found, at = {"model.1": "stem.1"}, 4
    for part in ("down", "up"):
        for level in range(config.downsampling):
            found[f"model.{at}"] = f"{part}.{level}.0"
            at += 3
    return found | {f"model.{at + 1}": "head.1"}


def _encoder(guess: Guess) -> Any:
    return build_encoder(guess.config)


def _scales_guess(shapes: Shapes, features: bool) -> Guess | None:
    """Several PatchGANs; with features each layer has a name of its own, else those of a scale are numbered."""
    pattern = r"scale(\d+)_layer(\d+)\.0\.weight" if features else r"layer(\d+)\.(\d+)\.weight"
    places = [(int(m[1]), int(m[2]), key) for key in shapes if (m := re.fullmatch(pattern, key))]
    places = [place for place in places if len(shapes[place[2]]) == 4]
    first = "scale0_layer0.0.weight" if features else "layer0.0.weight"
    stem = shapes.get(first, ())
    layers = sum(scale == 0 for scale, _, _ in places) - 2
    if len(stem) != 4 or stem[2:] != (4, 4) or not 1 <= layers <= 8:
        return None
    where = ("scale0_layer1.0", "scale0_layer1.1") if features else ("layer0.2", "layer0.3")
    norm, bias = guess_norm(shapes, *where)
    config = MultiScaleConfig(
        scales=min(6, 1 + max(scale for scale, _, _ in places)),
        layers=layers,
        channels=stem[0],
        norm=cast(Norm, norm),
        bias=bias,
        most_channels=MOST_CHANNELS,
    )
    return Guess(config, stem[1], explain_norm(norm, bias))


def _scales_layers(config: MultiScaleConfig, features: bool) -> dict[str, str]:
    found: dict[str, str] = {}
    for scale in range(config.scales):
        ours, theirs = f"scales.{scale}", config.scales - 1 - scale  # theirs: the highest is the full resolution
        if features:
            named = [f"scale{theirs}_layer{layer}" for layer in range(config.layers + 2)]
            found |= {f"{named[0]}.0": f"{ours}.stem.0", f"{named[-1]}.0": f"{ours}.head"}
            for block, name in enumerate(named[1:-1]):
                found |= _pair(f"{name}.0", f"{name}.1", f"{ours}.blocks.{block}")
        else:
            place = f"layer{theirs}"
            found |= {f"{place}.0": f"{ours}.stem.0", f"{place}.{2 + 3 * config.layers}": f"{ours}.head"}
            for block in range(config.layers):
                found |= _pair(f"{place}.{2 + 3 * block}", f"{place}.{3 + 3 * block}", f"{ours}.blocks.{block}")
    return found


def _family(name: str, described: str, features: bool) -> Family:
    guess, layers = partial(_scales_guess, features=features), partial(_scales_layers, features=features)
    return Family(name, f"{PROJECT}'s multi-scale discriminator {described}", "discriminator", guess, layers, discriminator)  # fmt: skip


FAMILIES = (
    Family("pix2pixhd-enhancer", f"{PROJECT}'s local enhancer", "generator", partial(_guess, enhancers=True), _layers, generator),
    Family("pix2pixhd-global", f"{PROJECT}'s global generator", "generator", partial(_guess, enhancers=False), _layers, generator),
    Family("pix2pixhd-encoder", f"{PROJECT}'s encoder", "encoder", _encoder_guess, _encoder_layers, _encoder),
    _family("pix2pixhd-scales", "with intermediate features", features=True),
    _family("pix2pixhd-scales-plain", "without intermediate features", features=False),
)  # fmt: skip
