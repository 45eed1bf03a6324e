"""Tiny settings of every method."""

from pathlib import Path
from typing import Any

from img2img.config import RunConfig, run_type

TINY: dict[str, dict[str, Any]] = {
    "pix2pix": {"generator": {"kind": "unet", "channels": 4, "depth": 2}},
    "cyclegan": {"generator": {"kind": "resnet", "channels": 4, "blocks": 1}, "pool": 3},
    "fastcut": {"generator": {"kind": "resnet", "channels": 4, "blocks": 5}, "projection_channels": 8},
    "inpaint": {"generator": {"kind": "resnet", "channels": 4, "blocks": 1}},
    "cut": {"generator": {"kind": "resnet", "channels": 4, "blocks": 5}, "projection_channels": 8},
    "unsb": {
        "generator": {"kind": "resnet", "channels": 4, "blocks": 5},
        "projection_channels": 8,
        "energy": {"channels": 4, "layers": 1},
        "nfe": 3,
    },
    "bicyclegan": {
        "generator": {"channels": 4, "depth": 2},
        "image_encoder": {"channels": 2, "size": 16, "latent": 4},
    },
    "pix2pixhd": {
        "generator": {"channels": 4, "downsampling": 1, "blocks": 1, "enhancers": 1, "enhancer_blocks": 1},
        "discriminator": {"kind": "multiscale", "channels": 4, "layers": 1, "scales": 2},
        "perceptual": {"weight": 0},
        "instance_encoder": {"channels": 4, "downsampling": 1, "features": 2},
        "styles": 3,
    },
    "gan": {
        "generator": {"kind": "dcgan", "channels": 2, "latent": 8},
        "discriminator": {"kind": "dcgan", "channels": 2},
    },
    "lapgan": {"generator": {"channels": 2, "latent": 8}, "discriminator": {"kind": "dcgan", "channels": 2}},
    "stylegan2": {
        "generator": {"channels": 2, "most_channels": 4, "latent": 8, "mapping_layers": 2},
        "discriminator": {"kind": "style", "channels": 2, "most_channels": 4},
    },
    "vae": {"generator": {"kind": "dcgan", "channels": 2, "latent": 8}, "image_encoder": {"channels": 2}},
    "infogan": {
        "generator": {"kind": "dcgan", "channels": 2, "latent": 8},
        "discriminator": {"kind": "dcgan", "channels": 2},
        "codes": {"categorical": (3,), "continuous": 1},
    },
    "stargan": {
        "generator": {"kind": "resnet", "channels": 4, "blocks": 1},
        "discriminator": {"kind": "stargan", "channels": 4},
        "discriminator_steps": 2,
    },
    "spade": {
        "generator": {"channels": 2, "hidden": 4},
        "discriminator": {"kind": "multiscale", "channels": 4, "layers": 1, "scales": 2, "spectral_norm": True},
        "perceptual": {"weight": 0},
        "image_encoder": {"channels": 2, "size": 16, "latent": 4},
    },
}


def tiny_config(folder: Path, output: Path, method: dict[str, Any] | None = None, **values: Any) -> RunConfig:
    """A method, pix2pix unless it is named, with a few thousand weights at 16 pixels, on the CPU in fp32 unless `values` say otherwise."""
    name = (method or {}).get("name", "pix2pix")
    settings = {
        "name": name,
        **({} if name == "vae" else {"discriminator": {"kind": "patch", "channels": 4, "layers": 1}}),
        **TINY[name],
        **(method or {}),
    }
    from_noise = name in ("gan", "lapgan", "stylegan2", "infogan", "vae")
    about_data = {"path": folder, "size": 32 if from_noise else 16, **values.pop("data", {})}
    values = {"batch_size": 4, "features": "none", **values} if from_noise else values
    defaults = {
        "recipe": "paper",
        "steps": 4,
        "workers": 0,
        "device": "cpu",
        "mixed_precision": "no",
        "log_every": 1,
        "output": output,
    }
    config: RunConfig = run_type(name)(method=settings, data=about_data, **{**defaults, **values})
    return config
