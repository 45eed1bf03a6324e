"""Training images/s and peak memory, ours against the plainest loop of the same networks.

    python tools/bench_train.py --size 256 --batch-size 1
    python tools/bench_train.py --method cyclegan --generator resnet

Each measurement is a process of its own, ours and plain in turn, so that neither inherits the other's allocator, threads
or heat; the medians and their ratio are printed as JSON. The memory is the largest resident set of the process on a CPU,
the largest allocation on a GPU.
"""

import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro
from torch import nn

from img2img.config import RunConfig, run_type
from img2img.core.device import choose_device, choose_precision, tune_allocator
from img2img.networks.layers import InstanceNorm, Norm, Upsampling, choose_memory_format

Side = Literal["ours", "plain"]


def main(
    method: Literal["pix2pix", "cyclegan"] = "pix2pix",
    size: int = 256,
    batch_size: int = 1,
    generator: Literal["unet", "resnet"] = "unet",
    norm: Norm | None = None,
    upsampling: Upsampling = "transpose",
    channels: int = 64,
    device: str = "auto",
    precision: Literal["auto", "no", "bf16", "fp16"] = "auto",
    stock_norm: bool = False,
    repeats: int = 3,
    seconds: float = 10.0,
    json_file: Annotated[Path | None, tyro.conf.arg(name="json")] = None,
    side: Side | None = None,
) -> None:
    """Measures, and prints JSON.

    Args:
        method: What to train.
        size: Height and width in pixels.
        batch_size: Images a step.
        generator: The network.
        norm: In generator and discriminator; by default the network's own.
        upsampling: In the generator.
        channels: Width of both networks.
        device: auto, cpu, cuda.
        precision: Of ours; plain is always fp32.
        stock_norm: Plain uses PyTorch's own instance norm, as the papers' code does, instead of ours.
        repeats: Processes a side.
        seconds: Of measurement in each, after a warm-up.
        json_file: Write the result there, too.
        side: Measure only this side, in this process.
    """
    if side is None:
        result = _both(sys.argv[1:], repeats)
        text = json.dumps({**_about(method, size, batch_size, generator, norm, channels, device), **result}, indent=1)
        print(text)
        if json_file:
            json_file.write_text(text + "\n")
        return
    settings: dict[str, Any] = {"kind": generator, "channels": channels, "upsampling": upsampling}
    settings |= {"norm": norm} if norm else {}
    config = run_type(method)(
        method={
            "name": method,
            "generator": settings,
            "discriminator": {"kind": "patch", "channels": channels} | ({"norm": norm} if norm else {}),
        },
        data={"size": size},
        batch_size=batch_size,
        device=device,
        mixed_precision=precision,
    )
    rate = _ours(config, seconds) if side == "ours" else _plain(config, seconds, stock_norm)
    print(json.dumps({"rate": rate, "gigabytes": _peak_memory(choose_device(device))}))


def _peak_memory(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9  # Linux counts in kilobytes


def _about(*values: Any) -> dict[str, Any]:
    names = ("method", "size", "batch_size", "generator", "norm", "channels", "device")
    return {**dict(zip(names, values, strict=True)), "torch": torch.__version__, "threads": torch.get_num_threads()}


def _both(arguments: list[str], repeats: int) -> dict[str, Any]:
    found: dict[str, dict[str, list[float]]] = {"plain": {}, "ours": {}}
    for _ in range(repeats):
        for side, measured in found.items():
            command = [sys.executable, __file__, *arguments, "--side", side]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                sys.exit(done.stderr)
            for name, value in json.loads(done.stdout.strip().splitlines()[-1]).items():
                measured.setdefault(name, []).append(value)
    rates = {side: statistics.median(measured["rate"]) for side, measured in found.items()}
    memory = {side: statistics.median(measured["gigabytes"]) for side, measured in found.items()}
    return {
        "images_per_second": rates,
        "all": {side: measured["rate"] for side, measured in found.items()},
        "ratio": rates["ours"] / rates["plain"],
        "peak_gigabytes": memory,
        "memory_ratio": memory["ours"] / memory["plain"],
    }


def _timed(step: Any, images: int, seconds: float, device: torch.device) -> float:
    """Images per second, by the median step after three to warm up."""
    times: list[float] = []
    for number in range(10**6):
        started = time.perf_counter()
        step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        if number >= 3:
            times.append(time.perf_counter() - started)
        if sum(times) > seconds and len(times) >= 3:
            break
    return images / statistics.median(times)


def _batch(config: RunConfig) -> dict[str, torch.Tensor]:
    shape = (config.batch_size, 3, config.data.size, config.data.size)
    return {"source": torch.randn(shape).tanh(), "target": torch.randn(shape).tanh()}


def _ours(config: RunConfig, seconds: float) -> float:
    from img2img.core.processes import build_accelerator
    from img2img.training.logging import Meter
    from img2img.training.trainer import Trainer

    tune_allocator()
    device = choose_device(config.device)
    precision = choose_precision(config.mixed_precision, device)
    method = config.method.build(3, 3, config.data.size)
    layout = choose_memory_format(method.networks.values(), device, precision)
    trainer = Trainer(method, build_accelerator(device, precision, 1), memory_format=layout)
    batch, meter = _batch(config), Meter()

    def forever() -> Any:
        while True:
            yield batch

    batches = forever()
    return _timed(lambda: trainer._update(batches, 1.0, meter), config.batch_size, seconds, device)


def _plain(config: RunConfig, seconds: float, stock_norm: bool) -> float:
    """The loop that the papers' code runs: eager, fp32, NCHW, one loss after the other."""
    device = choose_device(config.device)
    method = config.method.build(3, 3, config.data.size)
    if stock_norm:
        for network in method.networks.values():
            _use_stock_norm(network)
    networks = {name: network.to(device) for name, network in method.networks.items()}
    batch = {name: value.to(device) for name, value in _batch(config).items()}
    step = _pix2pix(networks, batch) if config.method.name == "pix2pix" else _cyclegan(networks, batch)
    return _timed(step, config.batch_size, seconds, device)


def _use_stock_norm(module: nn.Module) -> None:
    for name, child in module.named_children():
        if isinstance(child, InstanceNorm):
            setattr(module, name, nn.InstanceNorm2d(0))
        else:
            _use_stock_norm(child)


def _adam(*networks: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adam([p for network in networks for p in network.parameters()], 2e-4, (0.5, 0.999))


def _pix2pix(networks: dict[str, nn.Module], batch: dict[str, torch.Tensor]) -> Callable[[], None]:
    generator, discriminator = networks["generator"], networks["discriminator"]
    optimizers = [_adam(generator), _adam(discriminator)]
    source, target = batch["source"], batch["target"]
    bce, l1 = nn.BCEWithLogitsLoss(), nn.L1Loss()

    def judged(image: torch.Tensor, truth: float) -> torch.Tensor:
        logits = discriminator(torch.cat([source, image], 1))
        return bce(logits, torch.full_like(logits, truth))

    def step() -> None:
        fake = generator(source)
        discriminator.requires_grad_(True)
        optimizers[1].zero_grad()
        ((judged(fake.detach(), 0.0) + judged(target, 1.0)) * 0.5).backward()
        optimizers[1].step()
        discriminator.requires_grad_(False)
        optimizers[0].zero_grad()
        (judged(fake, 1.0) + 100 * l1(fake, target)).backward()
        optimizers[0].step()

    return step


def _cyclegan(networks: dict[str, nn.Module], batch: dict[str, torch.Tensor]) -> Callable[[], None]:
    g, f = networks["generator_AtoB"], networks["generator_BtoA"]
    d_a, d_b = networks["discriminator_A"], networks["discriminator_B"]
    optimizers = [_adam(g, f), _adam(d_a, d_b)]
    a, b = batch["source"], batch["target"]
    mse, l1 = nn.MSELoss(), nn.L1Loss()
    pools: dict[str, list[torch.Tensor]] = {"a": [], "b": []}

    def judged(network: nn.Module, image: torch.Tensor, truth: float) -> torch.Tensor:
        logits = network(image)
        return mse(logits, torch.full_like(logits, truth))

    def pooled(name: str, image: torch.Tensor) -> torch.Tensor:
        pool = pools[name]
        pool.append(image.detach().clone())
        return pool.pop(0) if len(pool) > 50 else image.detach()

    def step() -> None:
        fake_b = g(a)
        back_a = f(fake_b)
        fake_a = f(b)
        back_b = g(fake_a)
        for network in (d_a, d_b):
            network.requires_grad_(False)
        optimizers[0].zero_grad()
        identity = 5 * l1(g(b), b) + 5 * l1(f(a), a)
        cycle = 10 * l1(back_a, a) + 10 * l1(back_b, b)
        (judged(d_b, fake_b, 1.0) + judged(d_a, fake_a, 1.0) + cycle + identity).backward()
        optimizers[0].step()
        for network in (d_a, d_b):
            network.requires_grad_(True)
        optimizers[1].zero_grad()
        for network, real, name, fake in ((d_a, a, "a", fake_a), (d_b, b, "b", fake_b)):
            (0.5 * (judged(network, real, 1.0) + judged(network, pooled(name, fake), 0.0))).backward()
        optimizers[1].step()

    return step


if __name__ == "__main__":
    tyro.cli(main)
