"""What the numbers of a label map mean: how many classes there are, their names and their colours."""

import colorsys
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import yaml
from pydantic import BeforeValidator, Field, ValidationError, model_validator

from img2img.core.errors import UsageError
from img2img.core.files import write_whole
from img2img.core.settings import Strict, explain
from img2img.images import Array

CLASSES_FILE = "classes.yaml"
MOST = 65536  # classes: what 16 bits can tell apart


def _colour(value: Any) -> Any:
    """``"#rrggbb"`` as three numbers."""
    if isinstance(value, str) and re.fullmatch(r"#?[0-9a-fA-F]{6}", value):
        return tuple(bytes.fromhex(value.removeprefix("#")))
    if isinstance(value, str):
        raise ValueError(f'{value!r} is no colour: give "#rrggbb", such as "#4682b4", or [r, g, b]')
    return value


Byte = Annotated[int, Field(ge=0, le=255)]
Colour = Annotated[tuple[Byte, Byte, Byte], BeforeValidator(_colour)]


class Class(Strict):
    """A line of `classes.yaml`."""

    name: str = ""
    """For people, and for `--style`."""
    colour: Colour | None = None
    """In pictures of label maps: ``"#rrggbb"``, or [r, g, b]; by default one that differs from its neighbours'."""

    @model_validator(mode="before")
    @classmethod
    def _both_spellings(cls, values: Any) -> Any:
        if isinstance(values, dict) and "color" in values and "colour" not in values:
            values = {**values, "colour": values["color"]}
            del values["color"]
        return values


class Classes(Strict):
    """The labels of a data set: 0 to count - 1, and perhaps one that says nothing."""

    count: int = Field(ge=1, le=MOST)
    """How many there are."""
    ignore: int | None = None
    """The label of pixels that have no class: they are 0 in all planes."""
    table: dict[int, Class] = Field(default_factory=dict)
    """Names and colours of some or all."""

    @model_validator(mode="after")
    def _check_table(self) -> "Classes":
        wrong = [label for label in self.table if not 0 <= label < self.count]
        if wrong:
            raise ValueError(f"label {wrong[0]} is beyond the {self.count} classes 0–{self.count - 1}")
        names = [each.name for each in self.table.values() if each.name]
        twice = [name for name, times in Counter(names).items() if times > 1]
        if twice:
            raise ValueError(f"several classes are called {twice[0]!r}; give each a name of its own")
        for label, each in self.table.items():
            if each.name.isdecimal() and int(each.name) != label:
                raise ValueError(f"the name {each.name!r} of label {label} is the number of another")
        return self

    @property
    def allowed(self) -> str:
        """The labels that may occur, for a person."""
        return f"0–{self.count - 1}" + (f" and {self.ignore} (ignored)" if self.ignore is not None else "")

    def beyond(self, labels: Array) -> Array:
        """Where labels are that may not occur, as a mask of the same shape."""
        mask = (labels < 0) | (labels >= self.count)
        return mask & (labels != self.ignore) if self.ignore is not None else mask

    def known(self, labels: Array) -> Array:
        """The labels, but -1 where they are ignored or out of range: an array of the same shape."""
        known = (labels >= 0) & (labels < self.count) & (labels != (-1 if self.ignore is None else self.ignore))
        return np.where(known, labels, -1)

    def name(self, label: int) -> str:
        """Of a label; its number if it has none."""
        return (self.table[label].name if label in self.table else "") or str(label)

    def number(self, name: str) -> int:
        """The label of a name or a number.

        Raises:
            UsageError: if there is none.
        """
        found = [label for label, each in self.table.items() if each.name == name]
        if not found and name.isdecimal() and int(name) < self.count:
            found = [int(name)]
        if not found:
            names = ", ".join(each.name for each in self.table.values() if each.name) or f"0–{self.count - 1}"
            raise UsageError(f"there is no class {name!r}; there are {names}.")
        return found[0]

    def colours(self) -> Array:
        """(count, 3) uint8."""
        return np.array(
            [
                self.table[k].colour if k in self.table and self.table[k].colour else _draw_colour(k)
                for k in range(self.count)
            ],
            np.uint8,
        )

    def paint(self, labels: Array) -> Array:
        """Labels (H, W) in their colours, (H, W, 3) uint8; black where there is no class."""
        table = np.concatenate([self.colours(), np.zeros((1, 3), np.uint8)])
        return table[self.known(labels)]  # -1 is the last


def _draw_colour(label: int) -> tuple[int, ...]:
    """A colour for a class that has none: hues apart by the golden ratio, in turn light, middle and dark."""
    rgb = colorsys.hsv_to_rgb(label * 0.618034 % 1, (0.55, 0.85, 0.7)[label % 3], (0.95, 0.8, 0.55)[label // 3 % 3])
    return tuple(round(255 * value) for value in rgb)


def resolve_classes(classes: int | Path | None, folder: Path | None, ignore: int | None) -> Classes | None:
    """The classes as the user declares them: by their number, by a table, or by `classes.yaml` in the data set's folder; else None.

    Raises:
        UsageError: if the table can't be read.
    """
    if isinstance(classes, int):
        if not 1 <= classes <= MOST:
            raise UsageError(f"--data.classes {classes}: give 1 to {MOST}.")
        return Classes(count=classes, ignore=ignore)
    file = classes or (folder / CLASSES_FILE if folder else None)
    if file is None or (classes is None and not file.is_file()):
        return None
    return read_classes(file, ignore)


def write_classes(path: Path, classes: Classes) -> None:
    """Writes the table that `read_classes` reads.

    Raises:
        UserError: if it can't be written.
    """
    entries = {label: classes.table.get(label, Class()) for label in range(classes.count)}
    values = {label: entry.model_dump(mode="json", exclude_defaults=True) for label, entry in entries.items()}
    write_whole(path, yaml.safe_dump(values, sort_keys=False, allow_unicode=True).encode())


class _Unique(yaml.SafeLoader):
    """Refuses a key that stands twice, of which YAML's own would silently take the last."""

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        """As the base class does it."""
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = [key for place, key in enumerate(keys) if key in keys[:place]]
        if twice:
            raise yaml.YAMLError(f"{twice[0]} stands twice, {str(node.start_mark).strip()}")
        return super().construct_mapping(node, deep)


def read_classes(path: Path, ignore: int | None = None) -> Classes:
    """Reads a table of classes: ``{0: {name: sky, colour: "#4682b4"}, 1: …}``, or a list of such entries, or of names.

    Args:
        ignore: the label of pixels that have no class.

    Raises:
        UsageError: if it can't be read, or has a key or value that isn't allowed.
    """
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), _Unique)  # a SafeLoader
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} can't be read: {getattr(error, 'strerror', None) or error}.") from None
    except (yaml.YAMLError, RecursionError) as error:
        text = " ".join(str(error).split())
        raise UsageError(f'{path} is not YAML: {text}. (A colour needs quotes: "#4682b4".)') from None
    if isinstance(values, list):
        values = dict(enumerate(values))
    negative = [key for key in values if type(key) is int and key < 0] if isinstance(values, Mapping) else []
    if negative:
        raise UsageError(
            f"{path}: label {negative[0]} can't be a class, which count from 0; leave it out, and give --data.ignore-label "
            f"{negative[0]} if pixels have it."
        )
    if not isinstance(values, Mapping) or not values or not all(type(key) is int and key >= 0 for key in values):
        raise UsageError(
            f'{path} must list the classes by their labels: {{0: {{name: sky, colour: "#4682b4"}}, 1: …}}.'
        )
    for label, entry in values.items():
        for key in ("colour", "color"):
            if isinstance(entry, Mapping) and key in entry and entry[key] is None:
                raise UsageError(
                    f'{path}: the {key} of label {label} is empty; # begins a comment, so it needs quotes: "#4682b4".'
                )
    table = {label: {"name": entry} if isinstance(entry, str) else entry or {} for label, entry in values.items()}
    try:
        return Classes.model_validate({"count": max(table) + 1, "ignore": ignore, "table": table})
    except ValidationError as error:
        raise UsageError(f"{path}: {explain(error)}.") from None
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None
