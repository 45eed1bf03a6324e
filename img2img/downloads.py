"""Weights that others have trained: kept where PyTorch keeps them, downloaded with a word and a checksum, read without a pickle."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from img2img.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Weights:
    """A file of weights on the internet."""

    name: str
    """For people."""
    url: str
    sha256: str
    """Or how it begins."""
    megabytes: int

    @property
    def file(self) -> Path:
        """Where it is kept, whoever downloaded it."""
        import torch

        return Path(torch.hub.get_dir(), "checkpoints", self.url.rpartition("/")[2])

    def fetched(self, say: Callable[[str], None], remedy: str) -> Path:
        """The file; downloads it if it is not there.

        Args:
            say: is told what is downloaded.
            remedy: what a user can do instead, to end the sentence of an error.

        Raises:
            UsageError: if it can't be downloaded, or its checksum is wrong.
        """
        import torch

        if self.file.is_file():
            return self.file
        say(f"Downloading the {self.name} weights ({self.megabytes} MB) from {self.url} to {self.file}.")
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(self.url, str(self.file), hash_prefix=self.sha256, progress=False)
        except (OSError, RuntimeError) as error:  # no network; a wrong checksum
            reason = " ".join(str(error).split())
            raise UsageError(f"the {self.name} weights can't be downloaded ({reason}): {remedy}") from None
        return self.file


def announce(text: str) -> None:
    """Nothing is downloaded without saying so, also where all else is quiet."""
    print(text, file=sys.stderr)


def read_tensors(file: Path) -> "dict[str, Tensor]":
    """The tensors of a .safetensors or .pth file; runs no pickle.

    Raises:
        Exception: whatever a damaged file makes the libraries say.
    """
    if file.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(file)
    import torch

    return dict(torch.load(file, map_location="cpu", weights_only=True))
