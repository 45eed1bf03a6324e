"""Which small translator learns from a large one, and what it saves."""

import math
import time
from dataclasses import dataclass

import torch
from torch import Tensor

from img2img.core.errors import UsageError
from img2img.inference.batching import BATCH
from img2img.inference.engine import BATCH_PIXELS, Engine
from img2img.interop.onnx import OnnxGenerator
from img2img.models import Translator
from img2img.networks import GeneratorConfig
from img2img.networks.operations import count_multiply_adds, list_narrower

RUNS = 3  # of which the fastest counts


@dataclass(frozen=True)
class Cost:
    """What a translator takes."""

    multiply_adds: int
    """For an image of the training size."""
    parameters: int
    images_per_second: float
    """On this machine, of the network alone, in batches as `img2img convert` takes them on a CPU."""


def refuse_teacher(teacher: Translator, given: str) -> None:
    """Refuses what can't be compressed.

    Raises:
        UsageError: saying what can.
    """
    config = teacher.config
    what = ""
    if isinstance(teacher.generator, OnnxGenerator):
        what = "an ONNX file holds no architecture that could be made smaller; give the translator's folder that it was exported from"
    elif config.encoder is not None:
        what = "it takes its style from an image, which a small translator can't; train one that has no styles"
    if what:
        raise UsageError(f"{given}: {what}.")
    teacher.chosen_domain()


def choose_student(teacher: GeneratorConfig, share: float, in_channels: int, size: int) -> GeneratorConfig:
    """The teacher's architecture with as many channels as that share of its multiply-adds allows.

    Args:
        share: of the multiply-adds for an image of `size` × `size` pixels.
        in_channels: of the images; a teacher that is told what to make has more.

    Raises:
        UsageError: if even the smallest computes more, or the size doesn't fit.
    """
    teacher.resolve(teacher.in_channels or in_channels, teacher.out_channels or 3, size)
    whole, smallest = count_multiply_adds(teacher, size, size), 1.0
    for student in list_narrower(teacher):
        student = student.model_copy(update={"in_channels": in_channels})
        try:
            student.resolve(in_channels, student.out_channels or 3, size)
        except UsageError:  # so narrow that it can't be built
            continue
        smallest = count_multiply_adds(student, size, size) / whole
        if smallest <= share:
            return student
    raise UsageError(
        f"--macs {share:g}: the smallest {teacher.kind} of this depth computes {math.ceil(smallest * 1e4) / 1e4:g} of what the teacher does; give at least that."
    )


def measure_cost(translator: Translator, size: int) -> Cost:
    """What a translator takes for images, or label maps, of `size` × `size` pixels, measured on noise."""
    count, config = min(BATCH, max(1, BATCH_PIXELS // size**2)), translator.config
    if config.classes is None:
        images = torch.rand(count, translator.in_channels, size, size) * 2 - 1
    else:
        images = torch.randint(config.classes.count, (count, 1 + config.edges, size, size))
    engine = Engine(translator, translator.config.mode)
    fast = engine.choose(8, size, size).translator
    seconds = min(_time(fast, images) for _ in range(RUNS + 1))  # the first one sets up
    return Cost(
        count_multiply_adds(translator.config.generator, size, size),
        sum(parameter.numel() for parameter in translator.generator.parameters()),
        len(images) / seconds,
    )


@torch.inference_mode()
def _time(translator: Translator, images: Tensor) -> float:
    before = time.perf_counter()
    translator(images).flatten()[0].item()  # waits for a GPU
    return time.perf_counter() - before
