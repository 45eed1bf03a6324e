"""One file a paper. METHODS maps the name on the command line to the method's settings, which build the method."""

from img2img.methods.cut import CUTConfig, FastCUTConfig
from img2img.methods.cyclegan import CycleGANConfig
from img2img.methods.gan import GANConfig
from img2img.methods.infogan import InfoGANConfig
from img2img.methods.pix2pix import Pix2PixConfig
from img2img.methods.pix2pixhd import Pix2PixHDMethodConfig
from img2img.methods.spade import SPADEMethodConfig

METHODS = {
    "pix2pix": Pix2PixConfig,
    "pix2pixhd": Pix2PixHDMethodConfig,
    "spade": SPADEMethodConfig,
    "cyclegan": CycleGANConfig,
    "cut": CUTConfig,
    "fastcut": FastCUTConfig,
    "gan": GANConfig,
    "infogan": InfoGANConfig,
}
