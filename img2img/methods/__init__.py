"""One file a paper. METHODS maps the name on the command line to the method's settings, which build the method."""

from img2img.methods.cut import CUTConfig, FastCUTConfig
from img2img.methods.cyclegan import CycleGANConfig
from img2img.methods.pix2pix import Pix2PixConfig

METHODS = {"pix2pix": Pix2PixConfig, "cyclegan": CycleGANConfig, "cut": CUTConfig, "fastcut": FastCUTConfig}
