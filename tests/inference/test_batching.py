"""Every image goes through once, in batches of its like, whatever happens to the others."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from helpers.translators import CONFIGS, make

from img2img.images import Array, ImageError, Picture
from img2img.inference import batching as room
from img2img.inference.batching import Pipeline
from img2img.inference.engine import Engine
from img2img.models import Translator

SIZES = [(16, 24), (16, 24), (20, 20), (16, 24), (8, 8), (20, 20), (16, 24), (16, 24)]


class Folder:
    """Images by number, in memory."""

    def __init__(self, sizes: list[tuple[int, int]], deep: tuple[int, ...] = ()) -> None:
        random = np.random.default_rng(0)
        self.images: list[Any] = [
            random.integers(0, 65536 if n in deep else 256, (*size, 3)).astype(np.uint16 if n in deep else np.uint8)
            for n, size in enumerate(sizes)
        ]
        self.written: dict[int, Array] = {}
        self.threads: set[str] = set()
        self.asked: list[int] = []

    def read(self, key: int) -> Picture:
        self.threads.add(threading.current_thread().name)
        if self.images[key] is None:
            raise ValueError("broken")
        return Picture([self.images[key]])

    def write(self, key: int, picture: Picture) -> None:
        assert key not in self.written
        (self.written[key],) = picture.frames

    def pixels(self, key: int) -> int:
        self.threads.add(threading.current_thread().name)
        self.asked.append(key)
        return 0 if self.images[key] is None else self.images[key].shape[0] * self.images[key].shape[1]


def through(folder: Folder, engine: Engine, **settings: Any) -> tuple[dict[int, Any], Pipeline[int]]:
    line = Pipeline(engine, folder.read, folder.write, folder.pixels, **settings)
    items = list(line.run([range(len(folder.images))]))
    assert len(items) == len(folder.images)
    return {item.key: item for item in items}, line


@pytest.fixture
def engine() -> Engine:
    return Engine(make(CONFIGS[0]), "eval", "fp32")


def watch(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The shapes of the batches that translators get."""
    shapes: list[tuple[int, ...]] = []
    call = Translator.__call__

    def spy(self: Translator, image: Any, **options: Any) -> Any:
        shapes.append(tuple(image.shape))
        return call(self, image, **options)

    monkeypatch.setattr(Translator, "__call__", spy)
    return shapes


def test_images_of_one_size_share_a_batch(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, shapes = Folder(SIZES, deep=(3,)), watch(monkeypatch)
    items, line = through(folder, engine, batch_size=2)
    assert [shape[0] for shape in shapes] == [2, 2, 2, 1, 1]
    assert not any(item.error for item in items.values()) and folder.written.keys() == set(range(8))
    for key, image in enumerate(folder.images):
        truth = engine.translator(image)
        assert folder.written[key].dtype == image.dtype
        assert abs(folder.written[key].astype(int) - truth.astype(int)).max() <= (8 if key == 3 else 1)
        assert (items[key].height, items[key].width) == image.shape[:2]
    assert line.times.network > 0 and line.times.total > 0
    assert {name.split("_")[0] for name in folder.threads} == {"decode", "headers"}


def test_frames_of_a_file_come_back_together_and_share_batches_with_others(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, shapes = Folder([(16, 24)] * 3), watch(monkeypatch)
    pages = [folder.images[0], np.zeros((8, 8, 3), np.uint8), folder.images[1]]
    written: dict[int, list[Array]] = {}
    monkeypatch.setattr(folder, "read", lambda key: Picture(list(pages) if key == 0 else [folder.images[2]], [5, 6, 7]))
    monkeypatch.setattr(folder, "write", lambda key, picture: written.update({key: picture.frames}))
    items, _ = through(folder, engine, batch_size=3)
    assert [shape[0] for shape in shapes] == [3, 1, 1], "frames of one file, and other files'"
    assert (items[0].frames, items[1].frames, items[0].left) == (3, 1, 0)
    for done, page in zip(written[0], pages, strict=True):
        assert abs(done.astype(int) - engine.translator(page).astype(int)).max() <= 1


def test_a_frame_that_fails_takes_its_file_along(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, call = Folder([(16, 24), (20, 20), (16, 24)]), Translator.__call__
    monkeypatch.setattr(folder, "read", lambda key: Picture([folder.images[key], folder.images[0]]))

    def small(self: Translator, image: Any, **options: Any) -> Any:
        if image.shape[2] == 20:
            raise ImageError("not enough memory")
        return call(self, image, **options)

    monkeypatch.setattr(Translator, "__call__", small)
    written: set[int] = set()
    monkeypatch.setattr(folder, "write", lambda key, picture: written.add(key))
    items, _ = through(folder, engine)
    assert isinstance(items[1].error, ImageError) and written == {0, 2}


@pytest.mark.parametrize("mode", ["eval", "paper"])
def test_bytes_go_to_another_device_and_come_back(monkeypatch: pytest.MonkeyPatch, mode: Any) -> None:
    engine = Engine(make(CONFIGS[0]), mode, "fp32")
    floats, folder = Folder(SIZES, deep=(3,)), Folder(SIZES, deep=(3,))
    through(floats, engine, batch_size=2)
    assert room.takes_bytes(torch.device("cuda")) and not room.takes_bytes(torch.device("cpu"))
    monkeypatch.setattr(room, "takes_bytes", lambda device: True)
    call, kinds = Translator.__call__, list[torch.dtype]()

    def spy(self: Translator, image: Any, **options: Any) -> Any:
        made = call(self, image, **options)
        kinds.append(image.dtype)
        assert made.dtype == image.dtype
        return made

    monkeypatch.setattr(Translator, "__call__", spy)
    through(folder, engine, batch_size=2)
    assert kinds.count(torch.uint8) == len(kinds) - 1 and kinds.count(torch.float32) == 1  # the one of 16 bits
    for key in range(8):
        assert folder.written[key].dtype == floats.written[key].dtype
        assert np.array_equal(folder.written[key], floats.written[key])


@pytest.mark.parametrize("waiting", [1, 2**25])
def test_the_result_does_not_depend_on_the_batch(engine: Engine, monkeypatch: pytest.MonkeyPatch, waiting: int) -> None:
    monkeypatch.setattr(room, "WAITING_PIXELS", waiting)
    together, alone = Folder(SIZES), Folder(SIZES)
    through(together, engine)
    through(alone, engine, batch_size=1)
    assert all(np.array_equal(together.written[key], alone.written[key]) for key in range(8))


def test_what_fails_does_not_stop_the_others(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Folder(SIZES)
    folder.images[1] = None
    write = folder.write

    def full(key: int, picture: Picture) -> None:
        if key == 4:
            raise OSError("the disk is full")
        write(key, picture)

    monkeypatch.setattr(folder, "write", full)
    items, _ = through(folder, engine)
    assert {key for key, item in items.items() if item.error} == {1, 4}
    assert str(items[1].error) == "broken" and "full" in str(items[4].error)
    assert folder.written.keys() == {0, 2, 3, 5, 6, 7}


def test_too_large_a_batch_is_done_one_by_one(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, call = Folder(SIZES), Translator.__call__

    def small(self: Translator, image: Any, **options: Any) -> Any:
        if len(image) > 1 or image.shape[2] == 20:
            raise ImageError("not enough memory")
        return call(self, image, **options)

    monkeypatch.setattr(Translator, "__call__", small)
    items, _ = through(folder, engine)
    assert {key for key, item in items.items() if item.error} == {2, 5}
    assert folder.written.keys() == {0, 1, 3, 4, 6, 7}


def test_few_pixels_wait_at_once(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "WAITING_PIXELS", 2 * 16 * 24)
    folder = Folder([(16, 24)] * 12)
    started: set[int] = set()
    most: list[int] = []
    read, write = folder.read, folder.write
    lock = threading.Lock()

    def reading(key: int) -> Picture:
        with lock:
            started.add(key)
            most.append(len(started) - len(folder.written))
        return read(key)

    monkeypatch.setattr(folder, "read", reading)
    monkeypatch.setattr(folder, "write", write)
    through(folder, engine)
    assert len(folder.written) == 12 and max(most) <= 2 + 2 * room.THREADS + 2 + 1


def test_the_first_batch_does_not_wait_for_what_comes_after_it(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Headers of later images must not stand behind the decoding of earlier ones."""
    monkeypatch.setattr(room, "BATCH", 4)
    folder = Folder([(16, 24)] * 30)
    read, translated = folder.read, threading.Event()

    def reading(key: int) -> Picture:
        assert key < 2 or translated.wait(30), "nothing was computed meanwhile"
        return read(key)

    call = Translator.__call__

    def spy(self: Translator, image: Any, **options: Any) -> Any:
        translated.set()
        return call(self, image, **options)

    monkeypatch.setattr(Translator, "__call__", spy)
    monkeypatch.setattr(folder, "read", reading)
    items, _ = through(folder, engine, batch_size=2)
    assert not any(item.error for item in items.values())


def test_pinned_batches_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    empty = torch.empty

    def spy(*shape: Any, pin_memory: bool = False, **options: Any) -> torch.Tensor:
        asked.append(pin_memory)
        return empty(*shape, **options)  # there may be no GPU

    monkeypatch.setattr(torch, "empty", spy)
    images = [torch.full((3, 4, 5), value, dtype=torch.uint8) for value in (7, 8)]
    for some in (images, images[:1]):
        asked.clear()
        batch = room.stack_images(some, pinned=True)
        assert asked == [True] and torch.equal(batch, room.stack_images(some)) and batch.dtype == torch.uint8


def test_headers_are_read_ahead_and_told_in_order(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "BATCH", 3)
    folder = Folder(SIZES)
    line = Pipeline(engine, folder.read, folder.write, folder.pixels, is_skipped=lambda key: key < 2)
    with ThreadPoolExecutor(1, "headers") as headers:
        coming = line._read_headers([[0, 1], range(2, 7), [7]], headers)
        found = [next(coming)]
        headers.submit(int).result()  # after what is ahead
        assert len(folder.asked) == 4
        found += coming
    assert found == [(key == 7, SIZES[key][0] * SIZES[key][1], key) for key in range(2, 8)]


def test_lists_share_no_batch_and_what_is_skipped_only_fills_its_place(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, shapes = Folder([(16, 16)] * 9), watch(monkeypatch)
    read: list[int] = []

    def note(key: int) -> Picture:
        read.append(key)
        return folder.read(key)

    line = Pipeline(engine, note, folder.write, folder.pixels, {0, 6, 7, 8}.__contains__, batch_size=4)
    done = [item.key for item in line.run([range(3), range(3, 6), range(6, 9)])]
    assert sorted(done) == sorted(folder.written) == [1, 2, 3, 4, 5]
    assert sorted(read) == [0, 1, 2, 3, 4, 5], "of a list of which nothing is wanted, nothing is read"
    assert [shape[0] for shape in shapes] == [3, 3]


def test_paper_mode_draws_with_the_seed() -> None:
    engine, folder = Engine(make(CONFIGS[3]), "paper", "fp32"), Folder([(16, 16)])
    through(folder, engine, seed=5)
    wanted = [engine.translator(folder.images[0], mode="paper", seed=seed) for seed in (5, 0)]
    assert np.array_equal(folder.written[0], wanted[0]) and not np.array_equal(*wanted)


def test_paper_mode_and_strips_take_one_image_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = watch(monkeypatch)
    through(Folder([(16, 24)] * 4), Engine(make(CONFIGS[0]), "paper", "fp32"))
    through(Folder([(40, 24)] * 4), Engine(make(CONFIGS[0]), "eval", "fp32"), tile=16)
    assert [shape[0] for shape in shapes] == [1] * 8


def test_an_interruption_ends_the_threads(engine: Engine) -> None:
    folder = Folder([(16, 24)] * 40)
    run = Pipeline(engine, folder.read, folder.write, folder.pixels, batch_size=1).run([range(40)])
    next(run)
    run.close()  # type: ignore[attr-defined]
    assert not any(thread.name.startswith(("decode", "encode")) for thread in threading.enumerate())
    assert len(folder.written) < 40 and torch.is_grad_enabled()
