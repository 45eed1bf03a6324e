"""The networks of pytorch-CycleGAN-and-pix2pix, as its files name their layers."""

from typing import Any, cast

from img2img.interop.family import Family, Guess, Shapes, convolutions, explain_norm, guess_norm, index_keys
from img2img.networks import ResNetConfig, UNetConfig, build_discriminator, build_generator
from img2img.networks.discriminators.patchgan import PatchGANConfig, PixelGANConfig
from img2img.networks.layers import Norm

PROJECT = "pytorch-CycleGAN-and-pix2pix"


def resnet_guess(shapes: Shapes) -> Guess | None:
    """A ResNet's architecture, of this project or of CUT, whose layers that blur shift the numbers of the others."""
    layers = index_keys(shapes, "model.")
    blocks = [number for number, rest in layers.items() if rest.startswith("conv_block.")]
    stem, convs = shapes.get("model.1.weight", ()), convolutions(shapes, "model.")
    if len(stem) != 4 or stem[2:] != (7, 7) or len(convs) != 6 or "model1_1.1.weight" in shapes:
        return None
    after = blocks[-1] if blocks else 9 if convs[2] == 7 else 11
    norm, bias = guess_norm(shapes, "model.1", "model.2")
    first = f"model.{blocks[0]}.conv_block." if blocks else ""
    inside = convolutions(shapes, first) if blocks else []
    padding = "zero" if inside[:1] == [0] else "reflect"
    dropout = 0.5 if len(inside) == 2 and inside[1] - inside[0] > (3 if padding == "zero" else 4) else 0.0
    config = ResNetConfig(
        in_channels=stem[1],
        out_channels=shapes[f"model.{convs[-1]}.weight"][0],
        channels=stem[0],
        blocks=len(blocks),
        norm=cast(Norm, norm),
        bias=bias,
        dropout=dropout,
        downsampling="stride" if convs[2] == 7 else "blur",
        upsampling="transpose" if convs[3] == after + 1 else "blur",
        padding=padding,  # type: ignore[arg-type]
    )
    assumed = explain_norm(norm, bias)
    if padding == "reflect" and blocks:
        assumed += ("padding: reflect, as published (--padding)",)
    if dropout:
        assumed += ("dropout: 0.5, as published (--dropout)",)
    return Guess(config, stem[1], assumed)


def resnet_layers(config: ResNetConfig) -> dict[str, str]:
    """The names of a ResNet's layers."""
    assert config.blocks is not None
    found, at = {"model.1": "stem.1", "model.2": "stem.2"}, 4
    for level in range(2):
        found |= {f"model.{at}": f"down.{level}.0", f"model.{at + 1}": f"down.{level}.1"}
        at += 4 if config.downsampling == "blur" else 3
    dropped, padded = bool(config.dropout), config.padding != "zero"
    theirs = [0, 1, 3 + dropped, 4 + dropped] if not padded else [1, 2, 5 + dropped, 6 + dropped]
    ours = [1, 2, 5 + dropped, 6 + dropped]
    for block in range(config.blocks):
        found |= {f"model.{at}.conv_block.{a}": f"blocks.{block}.layers.{b}" for a, b in zip(theirs, ours, strict=True)}
        at += 1
    blur = config.upsampling == "blur"  # then a layer that doubles comes before the convolution
    for level in range(2):
        found |= {f"model.{at + blur}": f"up.{level}.{int(blur)}", f"model.{at + blur + 1}": f"up.{level}.{1 + blur}"}
        at += 3 + blur
    return found | {f"model.{at + 1}": "head.1"}


def _plain(shapes: Shapes) -> Guess | None:
    guess = resnet_guess(shapes)
    return None if guess is None or "blur" in (guess.config.downsampling, guess.config.upsampling) else guess


def unet_guess(shapes: Shapes) -> Guess | None:
    """A U-Net's architecture: its levels stand inside each other."""
    outermost = shapes.get("model.model.0.weight", ())
    if len(outermost) != 4 or outermost[2:] != (4, 4):
        return None
    depth = 1
    while f"{_level(depth)}.1.weight" in shapes:
        depth += 1
    head = shapes.get("model.model.3.weight", (0, 3))
    norm, _ = guess_norm(shapes, "model.model.0", f"{_level(1)}.2" if depth > 2 else f"{_level(1)}.4")
    bias = "model.model.0.bias" in shapes
    config = UNetConfig(
        in_channels=outermost[1],
        out_channels=head[1],
        channels=outermost[0],
        depth=depth if depth <= 12 else 12,
        norm=cast(Norm, norm),
        bias=bias,
        dropout_levels=tuple(range(4, depth - 1)),
    )
    dropout = (
        (f"dropout: 0.5 at level{f's 5 to {depth - 1}' if depth > 6 else ' 5'}, as published (--dropout)",)
        if depth > 5
        else ()
    )
    return Guess(config, outermost[1], explain_norm(norm, bias) + dropout)


def _level(depth: int) -> str:
    """Where a level's layers are; 0 is the outermost."""
    return "model.model" + ".1.model" * min(depth, 1) + ".3.model" * (depth - 1)


def unet_layers(config: UNetConfig) -> dict[str, str]:
    """The names of a U-Net's layers."""
    assert config.depth
    last = config.depth - 1
    found = {"model.model.0": "down.0.0", "model.model.3": "head.1"}
    for level in range(1, config.depth):
        place, innermost = _level(level), level == last
        up = 3 if innermost else 5
        found |= {
            f"{place}.1": f"down.{level}.1",
            f"{place}.{up}": f"up.{last - level}.1",
            f"{place}.{up + 1}": f"up.{last - level}.2",
        }
        if not innermost:
            found[f"{place}.2"] = f"down.{level}.2"
    return found


def patch_guess(shapes: Shapes) -> Guess | None:
    """A PatchGAN's architecture, of this project or of CUT."""
    convs, stem = convolutions(shapes, "model."), shapes.get("model.0.weight", ())
    if len(stem) != 4 or stem[2:] != (4, 4) or len(convs) < 3 or len(convs) > 10:
        return None
    blur = convs[1] == 3
    norm, bias = guess_norm(shapes, f"model.{convs[1]}", f"model.{convs[1] + 1}")
    config = PatchGANConfig(
        layers=len(convs) - 2,
        channels=stem[0],
        norm=cast(Norm, norm),
        bias=bias,
        downsampling="blur" if blur else "stride",
    )
    return Guess(config, stem[1], explain_norm(norm, bias))


def patch_layers(config: PatchGANConfig) -> dict[str, str]:
    """The names of a PatchGAN's layers."""
    step = 4 if config.downsampling == "blur" else 3
    found = {"model.0": "stem.0"}
    for block in range(config.layers):
        at = step - 1 + step * block
        found |= {f"model.{at}": f"blocks.{block}.0", f"model.{at + 1}": f"blocks.{block}.1"}
    return found | {f"model.{step - 1 + step * (config.layers - 1) + 3}": "head"}


def _plain_patch(shapes: Shapes) -> Guess | None:
    guess = patch_guess(shapes)
    return None if guess is None or guess.config.downsampling == "blur" else guess


def _pixel_guess(shapes: Shapes) -> Guess | None:
    stem = shapes.get("net.0.weight", ())
    if len(stem) != 4 or stem[2:] != (1, 1):
        return None
    norm, bias = guess_norm(shapes, "net.2", "net.3")
    return Guess(PixelGANConfig(channels=stem[0], norm=cast(Norm, norm), bias=bias), stem[1], explain_norm(norm, bias))


def _pixel_layers(config: PixelGANConfig) -> dict[str, str]:
    return {"net.0": "stem.0", "net.2": "blocks.0", "net.3": "blocks.1", "net.5": "head"}


def generator(guess: Guess) -> Any:
    """The network of a guess."""
    return build_generator(guess.config)


def discriminator(guess: Guess) -> Any:
    """The network of a guess."""
    return build_discriminator(guess.config, guess.in_channels)


FAMILIES = (
    Family("cyclegan-resnet", f"{PROJECT}'s ResNet generator", "generator", _plain, resnet_layers, generator),
    Family("cyclegan-unet", f"{PROJECT}'s U-Net generator", "generator", unet_guess, unet_layers, generator),
    Family("cyclegan-patch", f"{PROJECT}'s PatchGAN", "discriminator", _plain_patch, patch_layers, discriminator),
    Family("cyclegan-pixel", f"{PROJECT}'s pixel discriminator", "discriminator", _pixel_guess, _pixel_layers, discriminator),
)  # fmt: skip
