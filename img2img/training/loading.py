"""The batches that a run is trained on."""

import os
from typing import Any

import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader

from img2img.config import RunConfig
from img2img.data.dataset import collate
from img2img.data.sampler import BatchOrder
from img2img.data.transforms import JointTransform
from img2img.training.material import Material


def make_loader(
    config: RunConfig[Any],
    material: Material,
    channels: tuple[int, int],
    samples: int,
    batches: int,
    accelerator: Accelerator,
) -> DataLoader[Any]:
    """This process' batches.

    Args:
        config: of the run.
        material: the data, divided.
        channels: of sources and of targets.
        samples: how many were seen before, by all processes.
        batches: how many are wanted.
        accelerator: which processes there are, on which devices.
    """
    data = config.data
    transform = JointTransform(
        data.size,
        width=data.width,
        resize=data.resize,
        jitter=data.jitter,
        flip=data.flip,
        vertical_flip=data.vertical_flip,
        rotate=data.rotate,
        quarter_turns=data.quarter_turns,
        colour_jitter=data.colour_jitter,
    )
    order = BatchOrder(
        material.length,
        config.batch_size,
        samples,
        batches,
        config.seed,
        accelerator.process_index,
        accelerator.num_processes,
    )
    on_gpu = accelerator.device.type != "cpu"
    workers = config.workers if config.workers is not None else min(8, os.cpu_count() or 1) if on_gpu else 0
    return DataLoader(
        material.train_set(transform, *channels, config.seed),
        batch_sampler=order,
        num_workers=workers,
        pin_memory=accelerator.device.type == "cuda",
        worker_init_fn=_leave_group,
        collate_fn=collate,
        generator=torch.Generator(),  # else each loader draws from the global random state, and a resume would differ
    )


def _leave_group(_worker: int) -> None:
    """Ctrl-C reaches the whole process group; the workers must live on until the main process has saved."""
    os.setsid()
