"""The networks of other projects, computed plainly from names and tensors; what a name lacks is drawn at random, so they make their files, too."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


class Plain:
    """Tensors by name, drawn when they are first asked for.

    Args:
        norm: batch, instance or none.
        bias: of convolutions before norms; by default as pytorch-CycleGAN-and-pix2pix has it.
        seed: of what is drawn.
    """

    def __init__(self, norm: str = "instance", bias: bool | None = None, seed: int = 0) -> None:
        self.state: dict[str, Tensor] = {}
        self.norm, self.bias = norm, norm == "instance" if bias is None else bias
        self.random = torch.Generator().manual_seed(seed)

    def in_fp64(self) -> "Plain":
        """The same network."""
        other = Plain(self.norm, self.bias)
        other.state = {
            name: tensor.double() if tensor.is_floating_point() else tensor for name, tensor in self.state.items()
        }
        return other

    def get(self, name: str, *shape: int, spread: float = 1.0, middle: float = 0.0) -> Tensor:
        if name not in self.state:
            self.state[name] = middle + spread * torch.randn(shape, generator=self.random)
        return self.state[name]

    def conv(
        self, x: Tensor, name: str, out: int, kernel: int, stride: int = 1, padding: int = 0, bias: bool | None = None
    ) -> Tensor:
        weight = self.get(
            f"{name}.weight", out, x.shape[1], kernel, kernel, spread=1 / math.sqrt(x.shape[1] * kernel**2)
        )
        shift = self.get(f"{name}.bias", out, spread=0.3) if (self.bias if bias is None else bias) else None
        return F.conv2d(x, weight, shift, stride, padding)

    def double(self, x: Tensor, name: str, out: int, kernel: int = 3, bias: bool | None = None) -> Tensor:
        weight = self.get(f"{name}.weight", x.shape[1], out, kernel, kernel, spread=1 / math.sqrt(x.shape[1] * kernel))
        shift = self.get(f"{name}.bias", out, spread=0.3) if (self.bias if bias is None else bias) else None
        return F.conv_transpose2d(x, weight, shift, 2, 1, output_padding=kernel % 2)

    def normed(self, x: Tensor, name: str) -> Tensor:
        if self.norm == "none":
            return x
        if self.norm == "instance":
            return F.instance_norm(x)
        channels = x.shape[1]
        scale, shift = (self.get(f"{name}.{each}", channels, spread=0.2, middle=middle) for each, middle in (("weight", 1.0), ("bias", 0.0)))  # fmt: skip
        return scale.view(-1, 1, 1) * self.statistics(x, name) + shift.view(-1, 1, 1)

    def statistics(self, x: Tensor, name: str) -> Tensor:
        mean = self.get(f"{name}.running_mean", x.shape[1], spread=0.2)
        variance = self.get(f"{name}.running_var", x.shape[1], spread=0.1, middle=1.0).abs_()
        self.state.setdefault(f"{name}.num_batches_tracked", torch.tensor(7))
        return (x - mean.view(-1, 1, 1)) / torch.sqrt(variance.view(-1, 1, 1) + 1e-5)

    def filter(self, name: str, channels: int, row: list[float], gain: float = 1.0) -> Tensor:
        both = torch.tensor(row)[:, None] * torch.tensor(row)
        return self.state.setdefault(f"{name}.filt", (both / both.sum() * gain).expand(channels, 1, -1, -1).clone())

    def blur(self, x: Tensor, name: str) -> Tensor:
        return F.conv2d(
            F.pad(x, (1,) * 4, "reflect"), self.filter(name, x.shape[1], [1, 2, 1]), stride=2, groups=x.shape[1]
        )

    def blurred_double(self, x: Tensor, name: str) -> Tensor:
        filters = self.filter(name, x.shape[1], [1, 3, 3, 1], 4)
        wide = F.conv_transpose2d(F.pad(x, (1,) * 4, "replicate"), filters, stride=2, groups=x.shape[1])
        return wide[:, :, 3:-3, 3:-3]


def around(x: Tensor, pixels: int, padding: str = "reflect") -> Tensor:
    return F.pad(x, (pixels,) * 4, {"zero": "constant"}.get(padding, padding))


def block(p: Plain, x: Tensor, name: str, dropout: bool = False, padding: str = "reflect") -> Tensor:
    steps = [0, 1, 3 + dropout, 4 + dropout] if padding == "zero" else [1, 2, 5 + dropout, 6 + dropout]
    names = [f"{name}.conv_block.{step}" for step in steps]
    inside = p.normed(p.conv(around(x, 1, padding), names[0], x.shape[1], 3), names[1]).relu()
    return x + p.normed(p.conv(around(inside, 1, padding), names[2], x.shape[1], 3), names[3])


def resnet(
    p: Plain, x: Tensor, *, width: int = 4, out: int = 3, blocks: int = 2, downs: int = 2, dropout: bool = False,
    blur: bool = False, blur_up: bool | None = None, padding: str = "reflect", head: bool = True,
) -> Tensor:  # fmt: skip
    """The ResNet of CycleGAN and CUT, and with other `downs` pix2pixHD's; in evaluation mode."""
    blur_up = blur if blur_up is None else blur_up
    x, at = p.normed(p.conv(around(x, 3), "model.1", width, 7), "model.2").relu(), 4
    for _ in range(downs):
        x = p.normed(p.conv(x, f"model.{at}", 2 * x.shape[1], 3, 1 if blur else 2, 1), f"model.{at + 1}").relu()
        x, at = (p.blur(x, f"model.{at + 3}"), at + 4) if blur else (x, at + 3)
    for _ in range(blocks):
        x, at = block(p, x, f"model.{at}", dropout, padding), at + 1
    for _ in range(downs):
        half = x.shape[1] // 2
        if blur_up:
            x, at = p.blurred_double(x, f"model.{at}"), at + 1
            x = p.conv(x, f"model.{at}", half, 3, 1, 1)
        else:
            x = p.double(x, f"model.{at}", half)
        x, at = p.normed(x, f"model.{at + 1}").relu(), at + 3
    return torch.tanh(p.conv(around(x, 3), f"model.{at + 1}", out, 7, bias=True)) if head else x


def enhancer(p: Plain, x: Tensor, *, width: int = 4, count: int = 1, blocks: int = 1, **inside: Any) -> Tensor:
    pyramid = [x]
    for _ in range(count):
        pyramid.append(F.avg_pool2d(pyramid[-1], 3, 2, 1, count_include_pad=False))
    found = resnet(p, pyramid.pop(), width=width * 2**count, head=False, **inside)
    for number in range(1, count + 1):
        x, name, own = pyramid.pop(), f"model{number}_1", width * 2 ** (count - number)
        x = p.normed(p.conv(around(x, 3), f"{name}.1", own, 7), f"{name}.2").relu()
        x = p.normed(p.conv(x, f"{name}.4", 2 * own, 3, 2, 1), f"{name}.5").relu() + found
        name = f"model{number}_2"
        for each in range(blocks):
            x = block(p, x, f"{name}.{each}")
        found = p.normed(p.double(x, f"{name}.{blocks}", own), f"{name}.{blocks + 1}").relu()
    return torch.tanh(p.conv(around(found, 3), f"model{count}_2.{blocks + 4}", 3, 7, bias=True))


def unet(p: Plain, x: Tensor, *, width: int = 2, out: int = 3, depth: int = 6) -> Tensor:
    def level(x: Tensor, name: str, number: int) -> Tensor:
        own, outer = (width * min(2**n, 8) for n in (number, number - 1))
        inside = p.conv(F.leaky_relu(x, 0.2), f"{name}.1", own, 4, 2, 1)
        if number == depth - 1:
            inside = p.normed(p.double(inside.relu(), f"{name}.3", outer, 4), f"{name}.4")
        else:
            inside = level(p.normed(inside, f"{name}.2"), f"{name}.3.model", number + 1)
            inside = p.normed(p.double(inside.relu(), f"{name}.5", outer, 4), f"{name}.6")
        return torch.cat([x, inside], 1)

    inside = level(p.conv(x, "model.model.0", width, 4, 2, 1), "model.model.1.model", 1)
    return torch.tanh(p.double(inside.relu(), "model.model.3", out, 4, bias=True))


def patch(
    p: Plain, x: Tensor, *, width: int = 4, layers: int = 3, blur: bool = False, padding: int = 1, most: int | None = None,
    name: str = "model.{}", steps: list[tuple[str, str]] | None = None,
) -> Tensor:  # fmt: skip
    """A PatchGAN, its layers numbered, or named by `steps`: each convolution and its norm."""
    at = 0

    def next_name() -> tuple[str, str]:
        return steps.pop(0) if steps else (name.format(at), name.format(at + 1))

    x, at = F.leaky_relu(p.conv(x, next_name()[0], width, 4, 1 if blur else 2, padding, bias=True), 0.2), 2
    x, at = (p.blur(x, name.format(at)), at + 1) if blur else (x, at)
    for layer in range(1, layers + 1):
        halves, (convolution, norm) = layer < layers, next_name()
        x = p.conv(
            x, convolution, min(width * 2**layer, most or 8 * width), 4, 2 if halves and not blur else 1, padding
        )
        x, at = F.leaky_relu(p.normed(x, norm), 0.2), at + 3
        x, at = (p.blur(x, name.format(at)), at + 1) if halves and blur else (x, at)
    return p.conv(x, next_name()[0], 1, 4, 1, padding, bias=True)


def pixel(p: Plain, x: Tensor, *, width: int = 4) -> Tensor:
    x = F.leaky_relu(p.conv(x, "net.0", width, 1, bias=True), 0.2)
    return p.conv(F.leaky_relu(p.normed(p.conv(x, "net.2", 2 * width, 1), "net.3"), 0.2), "net.5", 1, 1)


def scales(
    p: Plain, x: Tensor, *, count: int = 2, features: bool = True, width: int = 4, layers: int = 3
) -> list[Tensor]:
    found = []
    for number in reversed(range(count)):
        named = [(f"scale{number}_layer{n}.0", f"scale{number}_layer{n}.1") for n in range(layers + 2)]
        how: dict[str, Any] = {"steps": named} if features else {"name": f"layer{number}.{{}}"}
        found.append(patch(p, x, width=width, layers=layers, padding=2, most=512, **how))
        x = F.avg_pool2d(x, 3, 2, 1, count_include_pad=False)
    return found


def spade(
    p: Plain, labels: Tensor, style: Tensor | None = None, *, width: int = 2, upsampling: str = "normal", spectral: bool = True,
    hidden: int = 8,
) -> Tensor:  # fmt: skip
    """SPADE's generator; `p.norm` is what is modulated."""
    doublings = {"normal": 5, "more": 6, "most": 7}[upsampling]
    side = labels.shape[2] // 2**doublings

    def divided(x: Tensor, name: str, out: int, kernel: int, bias: bool) -> Tensor:
        if not spectral:
            return p.conv(x, name, out, kernel, 1, kernel // 2, bias=bias)
        weight = p.get(f"{name}.weight_orig", out, x.shape[1], kernel, kernel)
        u, v = p.get(f"{name}.weight_u", out), p.get(f"{name}.weight_v", weight[0].numel())
        u /= u.norm()
        v /= v.norm()
        if f"{name}.found" not in used:
            for _ in range(20):
                v.copy_(F.normalize(weight.flatten(1).t() @ u, dim=0))
                u.copy_(F.normalize(weight.flatten(1) @ v, dim=0))
            used.add(f"{name}.found")
        shift = p.get(f"{name}.bias", out, spread=0.3) if bias else None
        return F.conv2d(x, weight / (u @ weight.flatten(1) @ v), shift, 1, kernel // 2)

    used: set[str] = {f"{name.removesuffix('.weight_v')}.found" for name in p.state}

    def modulated(x: Tensor, name: str) -> Tensor:
        known = F.interpolate(labels, x.shape[2:])
        between = p.conv(known, f"{name}.mlp_shared.0", hidden, 3, 1, 1, bias=True).relu()
        scale, shift = (
            p.conv(between, f"{name}.mlp_{each}", x.shape[1], 3, 1, 1, bias=True) for each in ("gamma", "beta")
        )
        even = F.instance_norm(x) if p.norm == "instance" else p.statistics(x, f"{name}.param_free_norm")
        return even * (1 + scale) + shift

    def block(x: Tensor, name: str, out: int) -> Tensor:
        middle, straight = min(x.shape[1], out), x
        inside = divided(F.leaky_relu(modulated(x, f"{name}.norm_0"), 0.2), f"{name}.conv_0", middle, 3, True)
        inside = divided(F.leaky_relu(modulated(inside, f"{name}.norm_1"), 0.2), f"{name}.conv_1", out, 3, True)
        if x.shape[1] != out:
            straight = divided(modulated(x, f"{name}.norm_s"), f"{name}.conv_s", out, 1, False)
        return straight + inside

    if style is None:
        x = p.conv(F.interpolate(labels, (side, side)), "fc", 16 * width, 3, 1, 1, bias=True)
    else:
        weight = p.get("fc.weight", 16 * width * side**2, style.shape[1], spread=0.3)
        x = F.linear(style, weight, p.get("fc.bias", len(weight))).view(len(style), -1, side, side)
    x = block(x, "head_0", 16 * width)
    x = block(F.interpolate(x, scale_factor=2), "G_middle_0", 16 * width)
    x = block(x if upsampling == "normal" else F.interpolate(x, scale_factor=2), "G_middle_1", 16 * width)
    for number in range(4 + (upsampling == "most")):
        x = block(F.interpolate(x, scale_factor=2), f"up_{number}", max(1, 8 * width // 2**number))
    return torch.tanh(p.conv(F.leaky_relu(x, 0.2), "conv_img", 3, 3, 1, 1, bias=True))


def spade_encoder(p: Plain, x: Tensor, *, width: int = 2, latent: int = 5) -> tuple[Tensor, Tensor]:
    for number in range(6):
        x = p.conv(x, f"layer{number + 1}.0", width * min(2**number, 8), 3, 2, 1, bias=False)
        x = F.leaky_relu(F.instance_norm(x), 0.2)
    flat = x.flatten(1)
    mean, logvar = (F.linear(flat, p.get(f"{name}.weight", latent, flat.shape[1], spread=0.05), p.get(f"{name}.bias", latent)) for name in ("fc_mu", "fc_var"))  # fmt: skip
    return mean, logvar
