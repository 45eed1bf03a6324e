"""Trains and translates on a GPU that isn't there: fake tensors on "cuda", with PyTorch's real autocast and autograd.

Nothing is computed, but every operation is dispatched: what doesn't fit in type or device fails as it would on a GPU, and
operations, copies and waits are counted. It needs `fake_cuda.c`, compiled and preloaded; each argument is a case, and each line
of the output is JSON.
"""

import json
import os
import sys
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from types import MethodType
from typing import Any

import torch
from accelerate.utils import convert_outputs_to_fp32
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

import img2img
from helpers.translators import make
from img2img.config import run_type
from img2img.data.classes import Classes
from img2img.data.labelled import LabelledData
from img2img.networks import Pix2PixHDConfig, ResNetConfig, SPADEConfig, UNetConfig, build_generator
from img2img.networks.layers import choose_memory_format
from img2img.tiling import strips
from img2img.tiling.translate import translate
from img2img.training.logging import Meter
from img2img.training.trainer import Trainer

ROOT = Path(img2img.__file__).parent
CUDA = torch.device("cuda", 0)
TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "no": None}
LABELS = 5
WAITS = ("_local_scalar_dense", "nonzero", "_unique2", "unique_dim", "masked_select")
VIEWS = {
    "view", "_unsafe_view", "expand", "slice", "select", "t", "transpose", "permute", "alias", "detach", "unsqueeze", "squeeze",
    "as_strided", "split", "split_with_sizes", "unbind", "_reshape_alias", "lift_fresh", "unfold", "reshape", "empty", "empty_like",
    "empty_strided", "new_empty", "new_empty_strided", "movedim", "device",
}  # fmt: skip

SMALL: dict[str, Any] = {"channels": 8}
RESNET = {"kind": "resnet", "blocks": 2, **SMALL}
PATCH = {"kind": "patch", "layers": 1, **SMALL}
PROJECTED = {"kind": "projected", "channels": 8, "patch": True, "mixing": "cross-scale"}
ALL = ("colour", "translation", "cutout")
CASES: dict[str, tuple[str, dict[str, Any], int]] = {  # method, settings, batch
    "pix2pix": ("pix2pix", {"generator": {"kind": "unet", "depth": 4, **SMALL}, "discriminator": PATCH}, 1),
    "pix2pix, projected": (
        "pix2pix",
        {
            "generator": {"kind": "unet", "depth": 4, "upsampling": "resize", "norm": "group", **SMALL},
            "discriminator": PROJECTED,
            "adversarial": "hinge",
            "perceptual": {"weight": 1.0},
        },
        2,
    ),
    "pix2pix, penalties": (
        "pix2pix",
        {
            "generator": {**RESNET, "attention": True},
            "discriminator": {"kind": "multiscale", "norm": "instance", "spectral_norm": True, **SMALL},
            "feature_matching": 10.0,
            "r1": 10.0,
            "r2": 10.0,
            "r1_every": 1,
        },
        2,
    ),
    "cyclegan": ("cyclegan", {"generator": RESNET, "discriminator": PATCH}, 1),
    "cyclegan, wasserstein": (
        "cyclegan",
        {
            "generator": {**RESNET, "upsampling": "resize", "residual": True},
            "discriminator": PATCH,
            "adversarial": "wasserstein",
            "gradient_penalty": 10.0,
            "augment": ALL,
        },
        2,
    ),
    "cut": (
        "cut",
        {
            "generator": {"kind": "resnet", "downsampling": "blur", "upsampling": "blur", **SMALL},
            "discriminator": PATCH,
        },
        1,
    ),
    "fastcut": ("fastcut", {"generator": {"kind": "resnet", **SMALL}, "discriminator": PATCH}, 1),
    "unsb": ("unsb", {"generator": {"kind": "resnet", **SMALL}, "discriminator": PATCH, "energy": SMALL}, 2),
    "pix2pixhd": (
        "pix2pixhd",
        {"perceptual": {"weight": 1.0, "network": "lite"}, "generator": SMALL, "encoder": True},
        1,
    ),
    "spade": ("spade", {"perceptual": {"weight": 1.0, "network": "lite"}, "generator": SMALL, "encoder": True}, 2),
    "stargan": ("stargan", {}, 4),
    "gan": ("gan", {}, 4),
    "gan, biggan": (
        "gan",
        {"generator": {"kind": "biggan"}, "discriminator": {"kind": "resnet"}, "orthogonal": 1e-4},
        4,
    ),
    "gan, progressive": (
        "gan",
        {
            "generator": {"kind": "progressive", "grow_updates": 2},
            "discriminator": {"kind": "progressive"},
            "adversarial": "wasserstein",
            "gradient_penalty": 10.0,
            "drift": 1e-3,
        },
        4,
    ),
    "infogan": ("infogan", {}, 4),
    "lapgan": ("lapgan", {"generator": {"channels": 2, "latent": 8}}, 4),
    "stylegan2": (
        "stylegan2",
        {
            "generator": {"channels": 2, "most_channels": 8, "latent": 8},
            "discriminator": {"kind": "style", "channels": 2, "most_channels": 8},
            "path_every": 1,
            "r1_every": 1,
        },
        4,
    ),
}
TRANSLATORS: dict[str, Any] = {
    "resnet": ResNetConfig(blocks=1, **SMALL),
    "resnet, blur": ResNetConfig(blocks=1, downsampling="blur", upsampling="blur", **SMALL),
    "resnet, batch norm": ResNetConfig(blocks=1, upsampling="resize", norm="batch", **SMALL),
    "unet": UNetConfig(depth=3, **SMALL),
    "unet, group norm": UNetConfig(depth=3, upsampling="resize", norm="group", **SMALL),
    "pix2pixhd": Pix2PixHDConfig(enhancers=1, blocks=1, **SMALL),
    "spade": SPADEConfig(**SMALL),
}


class Counted(TorchDispatchMode):
    """Counts operations, copies between devices, and waits for the GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.operations, self.half = 0, 0
        self.copies: Counter[str] = Counter()
        self.moved: Counter[str] = Counter()
        self.waits: Counter[str] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, kwargs = function.overloadpacket.__name__, kwargs or {}
        if name in WAITS:
            if args[0].device.type == "cuda":
                self.waits[_where()] += 1
            if name == "_local_scalar_dense":  # a number that isn't known
                return 0.5 if args[0].is_floating_point() else args[0].dtype != torch.bool and 1
        to = kwargs.get("device")
        if name == "_to_copy" and to is not None and torch.device(to).type != args[0].device.type:
            self.copies[_where()] += 1
            self.moved[f"{args[0].dtype} to {torch.device(to).type}"] += args[0].numel()
        if name not in VIEWS:
            self.operations += 1
        if name in ("convolution", "addmm", "mm", "bmm") and args[1].dtype in (torch.bfloat16, torch.float16):
            self.half += 1
        return function(*args, **kwargs)


def _where() -> str:
    """The line of ours that led there."""
    ours = [frame for frame in traceback.extract_stack() if frame.filename.startswith(str(ROOT))]
    return f"{Path(ours[-1].filename).relative_to(ROOT)}: {ours[-1].line}" if ours else "elsewhere"


class FakeAccelerator:
    """What Accelerate does to networks on a GPU."""

    is_main_process = sync_gradients = True
    num_processes = gradient_accumulation_steps = 1
    process_index, scaler, device = 0, None, CUDA

    def __init__(self, precision: str) -> None:
        self.mixed_precision, self.type = precision, TYPES[precision]

    def prepare(self, thing: Any) -> Any:
        if isinstance(thing, nn.Module) and self.type is not None:
            cast = torch.autocast("cuda", dtype=self.type)(type(thing).forward)
            thing.forward = MethodType(convert_outputs_to_fp32(MethodType(cast, thing).__func__), thing)  # type: ignore[method-assign]
        return thing

    def accumulate(self, *networks: nn.Module) -> Any:
        return nullcontext()

    def no_sync(self, network: nn.Module) -> Any:
        return nullcontext()

    def backward(self, loss: Tensor) -> None:
        loss.backward()


MODE = FakeTensorMode(allow_non_fake_inputs=True)


def move(module: nn.Module, dtype: torch.dtype | None = None) -> nn.Module:
    """Puts fake tensors on the GPU in the place of real ones."""
    for layer in module.modules():
        for tensors in (layer._parameters, layer._buffers):
            for name, tensor in tensors.items():
                if tensor is None or tensor.device == CUDA:
                    continue
                kind = dtype if dtype and tensor.is_floating_point() else tensor.dtype
                with MODE:
                    made = torch.empty(tensor.shape, dtype=kind, device=CUDA)
                tensors[name] = nn.Parameter(made, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else made
    return module


def train(name: str, precision: str, size: int = 64) -> dict[str, Any]:
    """Two updates, and counts of the second."""
    kind, settings, batch_size = CASES[name]
    labelled = kind in ("spade", "pix2pixhd")
    data: dict[str, Any] = {"size": 128 if labelled else size}
    config = run_type(kind)(method={"name": kind, **settings}, data=data, batch_size=batch_size, ema=0.999)
    size = config.data.size
    from_noise = config.method.model == "noise_generator"
    torch.manual_seed(0)
    classes = 3 if kind in ("stargan", "gan") else 0
    method = config.method.build(LABELS + 1 if labelled else 3, 3, size, classes)
    for each in {id(part): part for part in (*method.networks.values(), *vars(method).values())}.values():
        if isinstance(each, nn.Module):
            move(each)
    with MODE:
        images = partial(torch.zeros, batch_size, 3, size, size)
        batch = {"target": images()} if from_noise else {"source": images(), "target": images()}
        if classes:
            batch = {"target": images(), "label": torch.zeros(batch_size, dtype=torch.int64)}
        encode: Any = lambda batch: batch  # noqa: E731
        if labelled:
            batch["source"] = torch.zeros(batch_size, 2, size, size, dtype=torch.int32)
            encoder = object.__new__(LabelledData)
            encoder.classes, encoder.edges, encoder.colours = (
                Classes(count=LABELS),
                True,
                torch.zeros(LABELS, 3, dtype=torch.uint8),
            )
            encode = partial(encoder.encode, dtype=TYPES[precision] or torch.float32)
        form = choose_memory_format(method.networks.values(), CUDA, precision)
        accelerator: Any = FakeAccelerator(precision)
        trainer = Trainer(method, accelerator, config.ema, form, encode=encode)
        meter = Meter()

        def forever() -> Iterator[Any]:
            while True:
                yield batch

        batches = forever()
        updates = 3 if "progressive" in name else 1  # until the next resolution is faded in
        with Counted():
            for _ in range(updates):
                trainer._update(batches, 1.0, meter)
        with Counted() as counted:
            trainer._update(batches, 1.0, meter)
    found = {"operations": counted.operations, "copies": dict(counted.copies), "waits": dict(counted.waits)}
    return {**found, "half": counted.half}


def convert(name: str, precision: str) -> dict[str, Any]:
    """Whole and in strips."""
    kind, dtype = TRANSLATORS[name], TYPES[precision] or torch.float32
    config = kind.resolve(LABELS if name == "spade" else 3, 3, 64)
    strips._statistics = lambda rows: torch.var_mean(rows.float(), dim=(0, 2, 3), correction=0)[::-1]  # type: ignore[attr-defined]
    found: dict[str, Any] = {}
    network = move(build_generator(config).eval(), dtype)
    with MODE, torch.no_grad():
        for tile in (0, 64):
            source = torch.zeros(1, config.in_channels, 150, 140)
            made = translate(network, source, tile, torch.channels_last, config)
            assert made.shape == (1, 3, 150, 140), made.shape
            found[f"tile {tile}"] = str(made.device)
    return found


def call(name: str, precision: str) -> dict[str, Any]:
    """A translator gets a batch of bytes: what moves between the devices, and what it waits for."""
    translator = make(TRANSLATORS[name])
    move(translator.generator, TYPES[precision])
    with MODE, Counted() as counted:
        made = translator(torch.zeros(2, 3, 64, 48, dtype=torch.uint8))
    assert made.shape == (2, 3, 64, 48), made.shape
    return {"moved": dict(counted.moved), "waits": dict(counted.waits)}


def main() -> None:
    torch.cuda.is_bf16_supported = lambda *args, **kwargs: True  # type: ignore[assignment]
    nn.Module.to = lambda self, *args, **kwargs: move(self)  # type: ignore[method-assign]
    for argument in sys.argv[1:]:
        what, name, precision = argument.split("/")
        try:
            found = {"train": train, "convert": convert, "call": call}[what](name, precision)
        except Exception as error:
            frames = [frame for frame in traceback.extract_tb(error.__traceback__) if str(ROOT) in frame.filename]
            where = f"{Path(frames[-1].filename).relative_to(ROOT)}:{frames[-1].lineno}" if frames else ""
            found = {"error": f"{type(error).__name__}: {str(error)[:300]} ({where})"}
        print(json.dumps({"case": argument, **found}), flush=True)
    # while Python ends, collecting what is left of graphs on a device that isn't there now and then crashes
    os._exit(0)


if __name__ == "__main__":
    main()
