"""The kinds of each class: what an encoder finds in instances, clustered."""

from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from img2img.data.classes import Classes
from img2img.data.labelled import find_labelled, read_labelled_validation_pair
from img2img.images import write_image
from img2img.models.find_styles import find_styles
from img2img.networks import InstanceEncoderConfig
from img2img.networks.labels import instance_means
from img2img.networks.layers import ImageNetwork


class Brightness(ImageNetwork):
    """Stands for an encoder: an instance's mean value, in [-1, 1]."""

    size_multiple, min_size = 4, 8

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, images: Tensor, instances: Tensor) -> Tensor:
        assert images.shape[2] % 4 == images.shape[3] % 4 == 0
        return instance_means(images[:, :1] * self.weight, instances)


def test_each_class_has_its_kinds_the_most_frequent_first(tmp_path: Path) -> None:
    """Class 1 is four times dark and twice light, class 2 always gray; what is ignored, and class 3, never come."""
    for number in range(2):
        labels, instances, image = np.zeros((3, 18, 18), np.uint8)
        labels[:] = 255
        for place, value in enumerate((50, 60, 240)):
            labels[place * 6 : place * 6 + 6, :8] = 1
            instances[place * 6 : place * 6 + 6, :8] = place + 1
            image[place * 6 : place * 6 + 6, :8] = value
        labels[:, 10:], instances[:, 10:], image[:, 10:] = 2, 9, 128
        for kind, array in (("label", labels), ("inst", instances)):
            (tmp_path / f"train_{kind}").mkdir(exist_ok=True)
            Image.fromarray(array).save(tmp_path / f"train_{kind}" / f"{number}.png")
        write_image(tmp_path / "train_img" / f"{number}.png", np.repeat(image[..., None], 3, 2))
    pairs = find_labelled(tmp_path)["train"].pairs
    read = partial(read_labelled_validation_pair, size=None, resize="short", in_channels=0, out_channels=3)
    config = InstanceEncoderConfig(in_channels=3, features=1)
    state = torch.get_rng_state()
    styles = find_styles(Brightness(), config, pairs, read, Classes(count=4, ignore=255), 3)
    assert torch.equal(state, torch.get_rng_state()), "no random numbers of the training are used up"
    assert styles.shape == (4, 3, 1) and styles.dtype == torch.float32
    values = ((styles[..., 0] + 1) * 127.5).round().tolist()
    assert sorted(values[1]) == [50, 60, 240], "three kinds, of two instances each"
    two = (
        (find_styles(Brightness(), config, pairs, read, Classes(count=4, ignore=255), 2)[..., 0] + 1) * 127.5
    ).round()
    assert two[1].tolist() == [55, 240], "dark is more frequent"
    assert values[2] == [128, 128, 128], "one kind only, repeated"
    assert values[0] == values[3] == [round((2 * (50 + 60 + 240) + 2 * 128) / 8)] * 3, "never seen: the mean of all"
