"""What a small classifier of the real digits reads in samples of trained runs.

python tools/judge_digits.py --data ../shared/data/digits --runs run-a run-b
"""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import tyro
from rich.console import Console
from rich.table import Table
from safetensors.torch import load_file
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from img2img.config import read_config
from img2img.data.class_folders import ClassFolder, ClassImages, find_class_folders
from img2img.data.transforms import JointTransform
from img2img.images import Array
from img2img.inference.evaluate_samples import evaluate_samples
from img2img.methods.infogan import InfoGAN, InfoGANConfig
from img2img.models import NoiseGenerator
from img2img.training.checkpoint import find_checkpoints

SIZE, EPOCHS, BATCH = 32, 12, 64
COVERED = 0.02  # share of samples from which on a digit counts as covered


class Classifier(nn.Module):
    """A small convolutional network: gives features (B, 64) and logits (B, 10) of uint8 images (B, 3 or 1, 32, 32)."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(1024, 64), nn.ReLU(), nn.LayerNorm(64, elementwise_affine=False),
        )  # fmt: skip
        self.head = nn.Linear(64, 10)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        found = self.features(images[:, :1].float() / 127.5 - 1)
        return found, self.head(found)


def tensors(folder: ClassFolder) -> tuple[Tensor, Tensor]:
    """All images of a split, uint8 (N, 1, 32, 32), and their digits."""
    images = ClassImages(folder, JointTransform(SIZE, jitter=1, flip=0), 1, seed=0)
    values = torch.stack([images[0, index]["target"] for index in range(len(images))])
    digits = torch.tensor([int(folder.classes[label]) for label in folder.labels])
    return ((values + 1) * 127.5).round().to(torch.uint8), digits


def train(images: Tensor, digits: Tensor) -> Classifier:
    """Trains the classifier."""
    torch.manual_seed(0)
    network = Classifier()
    adam = torch.optim.Adam(network.parameters(), 1e-3)
    for _ in range(EPOCHS):
        for part in torch.randperm(len(images)).split(BATCH):
            shift = tuple(torch.randint(-2, 3, (2,)).tolist())
            loss = F.cross_entropy(network(images[part].roll(shift, (2, 3)))[1], digits[part])
            adam.zero_grad()
            loss.backward()
            adam.step()
    return network.eval()


@torch.no_grad()
def read(network: Classifier, images: Array) -> Tensor:
    """The digits (N,) in images (N, 32, 32, 1)."""
    return torch.cat([network(part)[1].argmax(1) for part in torch.from_numpy(images).permute(0, 3, 1, 2).split(256)])


@torch.no_grad()
def clustering(run: Path, images: Tensor, digits: Tensor) -> float:
    """The accuracy of an InfoGAN's first categorical code as a clustering of real images, by the best one-to-one mapping."""
    config = read_config(run / "config.yaml")
    method = config.method.build(0, 1, config.data.size)
    assert isinstance(method, InfoGAN)
    judge = method.networks["discriminator"]
    judge.load_state_dict(load_file(find_checkpoints(run / "checkpoints")[-1] / "discriminator.safetensors"))
    judge.eval()
    assert isinstance(config.method, InfoGANConfig)
    values = config.method.codes.categorical[0]
    found = torch.cat(
        [judge(part.float() / 127.5 - 1, None, outputs=True)[1][:, :values].argmax(1) for part in images.split(256)]
    )
    counts = np.zeros((values, 10), int)
    np.add.at(counts, (found.numpy(), digits.numpy()), 1)
    return float(counts[linear_sum_assignment(-counts)].sum() / len(digits))


def main(runs: tuple[Path, ...], data: Path = Path("../shared/data/digits"), count: int = 1000) -> None:
    """Prints a table: KID, FID, precision and recall in the classifier's features, digits covered, labels kept, clustering.

    Args:
        runs: Folders of runs of gan or infogan at 32 pixels.
        data: The digits: train/DIGIT and val/DIGIT.
        count: How many samples of each.
    """
    splits = find_class_folders(data)
    network = train(*tensors(splits["train"]))
    images, digits = tensors(splits["val"])
    accuracy = (read(network, images.permute(0, 2, 3, 1).numpy()) == digits).float().mean().item()
    print(f"The classifier reads {accuracy:.1%} of the {len(digits)} real val digits right.")
    table = Table(title=f"{count} samples against {len(digits)} real digits, in the classifier's features")
    for heading in (
        "run",
        "KID",
        "FID",
        "precision",
        "recall",
        "digits covered",
        "read as asked",
        "code as clustering",
    ):
        table.add_column(heading, justify="left" if heading == "run" else "right")
    for run in runs:
        model = NoiseGenerator.load(run / "latest")
        scores = evaluate_samples(model, data, count=count, features=network).metrics
        found = read(network, model.sample(count))
        shares = torch.bincount(found, minlength=10) / count
        asked = ""
        if model.config.classes:
            labels = model.numbers(None, range(count))
            assert labels is not None
            wanted = torch.tensor([int(model.config.classes[label]) for label in labels])
            asked = f"{(found == wanted).float().mean().item():.1%}"
        cluster = f"{clustering(run, images, digits):.1%}" if model.config.codes else ""
        numbers = [f"{scores[name]:.4f}" for name in ("kid", "fid", "precision", "recall")]
        table.add_row(run.name, *numbers, str(int((shares >= COVERED).sum())), asked, cluster)
    Console(width=140).print(table)


if __name__ == "__main__":
    tyro.cli(main)
