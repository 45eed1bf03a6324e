"""A picture of what styles do: a row for each label map, with its colours, translations in several styles, and the truth.

python tools/draw_styles.py --model my-run --data my-labels
"""

from pathlib import Path

import torch
import tyro

from img2img.data.labelled import find_labelled, read_labelled_validation_pair
from img2img.images import Array, write_image
from img2img.images.tensors import build_grid, to_tensor
from img2img.models import Translator
from img2img.networks import ImageEncoderConfig


def reference(translator: Translator, maps: Array, image: Array) -> object:
    """An image's style, as `Translator.with_style` takes it."""
    if isinstance(translator.config.encoder, ImageEncoderConfig):
        return image
    return image, maps[..., 0], maps[..., -1]


def main(
    model: Path, data: Path, output: Path = Path("styles.png"), styles: int = 4, rows: int = 6, references: int = 2
) -> None:
    """Writes a picture.

    Args:
        model: A translator's or a run's folder, trained on label maps with --encoder.
        data: A data set of label maps with a split val.
        output: The picture.
        styles: How many columns show numbered styles.
        rows: How many label maps.
        references: How many columns show the styles of the first rows' images.
    """
    translator = Translator.load(model)
    config = translator.config
    pairs = find_labelled(data, with_instances=config.edges)["val"].pairs
    pairs = pairs[:: max(1, len(pairs) // rows)][:rows]
    channels = translator.out_channels
    read = [read_labelled_validation_pair(pair, config.size, "stretch", 0, channels, config.width) for pair in pairs]
    source = torch.stack([torch.from_numpy(maps.transpose(2, 0, 1).copy()) for maps, _ in read])
    columns = [translator.shown(source), *(translator(source, style=style) for style in range(styles))]
    columns += [translator(source, style=reference(translator, *shown)) for shown in read[:references]]
    columns.append(torch.stack([to_tensor(image) for _, image in read]))
    write_image(output, build_grid(columns))


if __name__ == "__main__":
    tyro.cli(main)
