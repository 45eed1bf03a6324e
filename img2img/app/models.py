"""Which models are served, and which runs are shown."""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

from img2img.core.device import choose_device
from img2img.core.errors import UsageError, list_some
from img2img.data.base import Direction
from img2img.interop import is_onnx, is_weights, load, load_translator, resolve_model
from img2img.models import (
    NoiseGenerator,
    NoiseGeneratorModelConfig,
    Translator,
    TranslatorConfig,
    find_translator,
    has_both_directions,
    read_kind,
)
from img2img.models.storage import CONFIG_FILE, read_config, read_settings
from img2img.training.run_folder import CONFIG as RUN_CONFIG

LOADED = 3  # models that stay in memory


@dataclass(frozen=True)
class Entry:
    """A model that can be chosen."""

    name: str
    path: Path
    """Its folder, a run's, or a file of weights."""
    config: TranslatorConfig | NoiseGeneratorModelConfig
    """What it is; of two directions, AtoB."""
    directions: tuple[Direction, ...] = ()
    """If there are two."""

    @property
    def translator(self) -> TranslatorConfig | None:
        """What it is, if it translates."""
        return self.config if isinstance(self.config, TranslatorConfig) else None

    @property
    def noise_generator(self) -> NoiseGeneratorModelConfig | None:
        """What it is, if it makes images from noise."""
        return self.config if isinstance(self.config, NoiseGeneratorModelConfig) else None


class Models:
    """Finds models and runs, and keeps those loaded that were used last.

    Args:
        places: each a model, a run, or a folder of such.
        device: where models run.

    Raises:
        UsageError: if a place holds neither.
    """

    def __init__(self, places: Sequence[Path], device: str) -> None:
        self.device = choose_device(device)
        self.entries: dict[str, Entry] = {}
        self.runs: dict[str, Path] = {}
        self.damaged: dict[str, str] = {}
        """What is wrong with models that can't be served, by folder."""
        self._files: dict[Path, Translator] = {}
        self._loaded: OrderedDict[Any, Translator | NoiseGenerator] = OrderedDict()
        self._lock = Lock()
        self.places = {resolve_model(place): place for place in places}
        """Where models and runs lie, each with what it was called by: a model of the Hub lies in a cache."""
        for place in self.places:
            if is_weights(place) or is_onnx(place):
                self._files[place] = load_translator(place, self.device)
            elif not place.is_dir():
                raise UsageError(f"{place}: there is no such folder; give models, runs, or a folder of runs.")
            elif not any(map(_is_model_or_run, _list_folders(place))):
                raise UsageError(f"{place} is no model and no run, and holds none.")
        self.scan()
        if not self.entries and not self.runs:
            raise UsageError(f"no model can be read: {list_some(list(self.damaged.values()), 2)}")

    def scan(self) -> None:
        """Looks again what is there: runs begin and end while they are watched."""
        entries: dict[str, Entry] = {}
        runs: dict[str, Path] = {}
        self.damaged = {}
        for place in self.places:
            if place in self._files:
                name = _name(place, entries)
                entries[name] = Entry(name, place, self._files[place].config)
                continue
            for folder in _list_folders(place):
                if (folder / RUN_CONFIG).is_file():
                    runs[_name(folder, runs)] = folder
                try:
                    called = self.places.get(folder, folder)
                    name = str(called) if called != folder else _name(folder, entries)
                    entries[name] = _read_entry(name, folder)
                except UsageError as error:
                    if _is_model(folder):
                        self.damaged[str(folder)] = str(error)
        self.entries, self.runs = entries, runs

    def entry(self, name: str | None) -> Entry:
        """A model by its name.

        Raises:
            UsageError: if there is none.
        """
        if name not in self.entries:
            self.scan()  # it may be new
        if name not in self.entries:
            raise UsageError(f"there is no model {name!r}; there are {list_some(list(self.entries), 20)}.")
        return self.entries[name]

    def translator(self, name: str | None, direction: str | None = None) -> Translator:
        """A translator by its name, loaded.

        Raises:
            UsageError: if there is none, or it makes images from noise.
        """
        loaded = self._load(name, direction)
        if not isinstance(loaded, Translator):
            raise UsageError(f"{name} makes images from noise, and translates none.")
        return loaded

    def noise_generator(self, name: str | None) -> NoiseGenerator:
        """A noise generator by its name, loaded.

        Raises:
            UsageError: if there is none, or it translates.
        """
        loaded = self._load(name, None)
        if not isinstance(loaded, NoiseGenerator):
            raise UsageError(f"{name} is a translator, and makes no images from noise.")
        return loaded

    def _load(self, name: str | None, direction: str | None) -> Translator | NoiseGenerator:
        entry = self.entry(name)
        if entry.path in self._files:
            return self._files[entry.path]
        if direction not in (None, "", "AtoB", "BtoA"):
            raise UsageError(f"direction {direction!r}: there are AtoB and BtoA.")
        way: Any = (direction or None) if entry.directions else None
        with self._lock:
            key = entry.path, way, _find_version(entry.path, way)
            if key not in self._loaded:
                self._loaded[key] = load(entry.path, self.device, direction=way)
            self._loaded.move_to_end(key)
            while len(self._loaded) > LOADED:
                self._loaded.popitem(last=False)
            return self._loaded[key]


def _find_version(path: Path, way: Any) -> int:
    """What changes when a run replaces its model, which may be happening just now."""
    while True:
        with suppress(FileNotFoundError):
            return (find_translator(path, way) / CONFIG_FILE).stat().st_mtime_ns


def _read_entry(name: str, folder: Path) -> Entry:
    place = find_translator(folder)
    if read_kind(place) == "sampler":
        about = read_settings(place, NoiseGeneratorModelConfig)
        if about.range:
            raise UsageError(f"{folder} makes measurements, which this page can't show; use img2img sample.")
        return Entry(name, folder, about)
    both: tuple[Direction, ...] = ("AtoB", "BtoA") if has_both_directions(folder) else ()
    config = read_config(place)
    if config.in_range or config.out_range:
        raise UsageError(f"{folder} translates measurements, which this page can't show; use img2img convert.")
    return Entry(name, folder, config, both)


def _list_folders(place: Path) -> list[Path]:
    """A model or a run, or those in a folder."""
    if _is_model_or_run(place):
        return [place]
    with suppress(OSError):
        return sorted(child for child in place.iterdir() if child.is_dir() and _is_model_or_run(child))
    return []


def _is_model_or_run(folder: Path) -> bool:
    return (folder / RUN_CONFIG).is_file() or _is_model(folder)


def _is_model(folder: Path) -> bool:
    try:
        find_translator(folder)
    except UsageError:
        return False
    return True


def _name(path: Path, taken: dict[str, Any]) -> str:
    """A folder's name; if it is taken, that of the folder above before it, or a number behind it."""

    def names() -> Iterator[str]:
        whole = path.resolve() if path.name in ("", "..") else path.absolute()  # links keep their names
        yield whole.name
        yield f"{whole.parent.name}/{whole.name}"
        yield from (f"{whole.name} ({number})" for number in range(2, 10**6))

    return next(name for name in names() if name not in taken)
