"""One file a paper. METHODS has the settings of each method, which build it, by the name on the command line; whoever adds one adds a line."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from img2img.methods.base import MethodConfig

METHODS = {
    "pix2pix": "pix2pix.Pix2PixConfig",
    "bicyclegan": "bicyclegan.BicycleGANConfig",
    "pix2pixhd": "pix2pixhd.Pix2PixHDMethodConfig",
    "spade": "spade.SPADEMethodConfig",
    "cyclegan": "cyclegan.CycleGANConfig",
    "cut": "cut.CUTConfig",
    "fastcut": "cut.FastCUTConfig",
    "unsb": "unsb.UNSBConfig",
    "distill": "distill.DistillConfig",
    "inpaint": "inpaint.InpaintConfig",
    "stargan": "stargan.StarGANConfig",
    "gan": "gan.GANConfig",
    "lapgan": "lapgan.LAPGANConfig",
    "stylegan2": "stylegan2.StyleGAN2Config",
    "vae": "vae.VAEConfig",
    "infogan": "infogan.InfoGANConfig",
}


def load_method(name: str) -> "type[MethodConfig]":
    """The settings of a method of `METHODS`; imported only now, for it takes seconds."""
    module, _, settings = METHODS[name].rpartition(".")
    found: type[MethodConfig] = getattr(import_module(f"img2img.methods.{module}"), settings)
    return found
