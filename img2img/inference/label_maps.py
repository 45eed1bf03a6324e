"""Reading label maps, each with its instance map."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from img2img.core.errors import UsageError
from img2img.core.stored import StoredPath
from img2img.data.label_maps import ENDINGS, instance_folder, list_labels
from img2img.data.listing import ImageFiles
from img2img.data.packed import pack_texts, pack_together
from img2img.data.shards import split_name
from img2img.images import ARRAY_SUFFIX, ImageError, Picture
from img2img.images.decoder import Decoders
from img2img.images.labels import join_maps
from img2img.models import TranslatorConfig


@dataclass(frozen=True)
class LabelMapReader:
    """How a run reads its label maps."""

    root: Path
    """The folder below which label maps lie."""
    folder: Path | None
    """Where their instance maps lie; None if there is no need of them."""
    instances: ImageFiles | None
    """By the names that they share with the label maps."""

    @classmethod
    def of(cls, config: TranslatorConfig, source: Path, instances: Path | None, in_shards: bool = False) -> Self | None:
        """What a translator needs to read a folder of label maps, or one of them; None for a translator of images.

        `instances` is the folder of instance maps, or the one; by default the folder beside the label maps'. In shards, they are beside the label maps.

        Raises:
            UsageError: if instance maps are needed and not to be found, or were given and are not needed.
        """
        if instances is not None and not config.edges:
            raise UsageError("--instances: this translator was trained without instance maps; leave it out.")
        if config.classes is None:
            return None
        root = source if source.is_dir() else source.parent
        if in_shards:
            if instances is not None:
                raise UsageError(
                    "--instances: in shards, each label map has its instance map beside it (key.inst.png)."
                )
            return cls(root, root if config.edges else None, None)
        if not config.edges:
            return cls(root, None, None)
        folder = instances or instance_folder(root)
        if folder is None:
            raise UsageError(
                f"this translator takes label maps, with instance maps, and there are none beside {root}: give their folder with --instances DIR. "
                "(The label maps' own folder will do, if each label is to be one instance.)"
            )
        if folder.is_file() and source.is_file():
            return cls(root, folder, ImageFiles(pack_texts([_name(source, root)]), pack_together([folder])))
        if not folder.is_dir():
            raise UsageError(f"--instances {folder}: there is no such folder.")
        return cls(root, folder, list_labels(folder))

    def read(self, decoders: Decoders, source: Path) -> Picture:
        """A label map with its instance map, (H, W, 1 or 2), int32.

        Raises:
            ImageError: naming the file that can't be read, is missing, or is of another size.
        """
        labels = decoders.indices(source)
        if self.folder is None:
            return Picture([join_maps(labels, None)])
        found = _find_beside(source) or (self.instances.find(_name(source, self.root)) if self.instances else [])
        if len(found) != 1:
            what = "are several instance maps" if found else "is no instance map"
            raise ImageError(f"{source}: there {what} of this name in {self.folder}.")
        try:
            return Picture([join_maps(labels, labels if found[0] == source else decoders.indices(found[0]))])
        except ImageError as error:
            raise error if str(error).startswith(str(found[0])) else ImageError(f"{found[0]} {error}") from None


def _find_beside(source: Path) -> list[Path]:
    """The instance map of a label map in a shard."""
    if not isinstance(source, StoredPath) or not source.member:
        return []
    key, container = split_name(source.member)[0], source.container
    files = [StoredPath(f"{container}/{key}.inst{suffix}") for suffix in (".png", source.suffix, ARRAY_SUFFIX)]
    return [file for file in dict.fromkeys(files) if file.is_file()]


def _name(file: Path, root: Path) -> str:
    return ENDINGS.sub("", file.relative_to(root).with_suffix("").as_posix())
