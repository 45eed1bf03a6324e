"""Other projects' weights: `img2img import`, `fetch`, and `export`, also to ONNX."""

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from img2img.cli.usage import run_command
from img2img.errors import UsageError, UserError


def import_(arguments: list[str]) -> int:
    """`img2img import`."""
    from tyro.conf import Positional

    from img2img.interop import Known, as_translator, read_network, save_discriminator, tell
    from img2img.translator import Mode

    def command(
        file: Positional[Path],
        output: Path,
        encoder: Path | None = None,
        norm: Literal["batch", "sync-batch", "instance", "none"] | None = None,
        dropout: float | None = None,
        padding: Literal["reflect", "replicate"] | None = None,
        upsampling: Literal["normal", "more", "most"] | None = None,
        mode: Mode | None = None,
        value_range: tuple[int, int] | None = None,
        classes: int | None = None,
        edges: Literal["yes", "no"] | None = None,
        size: int | None = None,
        direction: Literal["AtoB", "BtoA"] | None = None,
        overwrite: bool = False,
    ) -> int:
        """Makes a translator of a file of weights of pytorch-CycleGAN-and-pix2pix, contrastive-unpaired-translation, pix2pixHD or SPADE.

        The architecture is told from the file's keys. What they can't tell is taken as published, and printed; the options below
        say it otherwise. A discriminator's file becomes a folder for img2img train --init-discriminator.

        Args:
            file: A state dict, .pth or .safetensors, such as latest_net_G.pth. No code in it is run.
            output: The translator's folder.
            encoder: The file of its encoder (latest_net_E.pth), if it was trained with one.
            norm: Of norms without weights.
            dropout: The probability, where there is dropout.
            padding: Of residual blocks.
            upsampling: Of SPADE: 5, 6 or 7 doublings.
            mode: eval (running statistics, no dropout) or paper (batch statistics and dropout).
            value_range: What black and white are for the network: -1 1, or 0 1.
            classes: How many labels its label maps have; 0 if it takes images.
            edges: Of label maps: whether it sees the edges of instances.
            size: Height and width of its training images in pixels.
            direction: Which side of a data set was the source.
            overwrite: Replace a translator that is in the output's folder.
        """
        if not overwrite and output.is_dir() and any(output.iterdir()):
            raise UsageError(f"--output {output} is not empty; add --overwrite, or choose another.")
        if value_range not in (None, (-1, 1), (0, 1)):
            raise UsageError(f"--value-range {' '.join(map(str, value_range))}: there are -1 1 and 0 1.")
        if dropout is not None and not 0 <= dropout < 1:
            raise UsageError(f"--dropout {dropout}: give a probability from 0, below 1.")
        for name, number in (("size", size), ("classes", classes)):
            if number is not None and number < (1 if name == "size" else 0):
                raise UsageError(f"--{name} {number}: give a positive number.")
        known = Known(norm, dropout, padding, upsampling, mode, value_range, classes, edges and edges == "yes", size, direction)  # type: ignore[arg-type]  # fmt: skip
        found = read_network(file, changes=known.of_network)
        if found.family.part == "discriminator":
            others = {"encoder": encoder, "mode": mode, "value-range": value_range, "classes": classes, "edges": edges, "size": size, "direction": direction}  # fmt: skip
            wrong = next((name for name, value in others.items() if value is not None), None)
            if wrong:
                raise UsageError(
                    f"--{wrong} is about translators, but {file} is {found.family.described}; leave it out."
                )
            save_discriminator(found, output)
            print("\n  ".join([f"{file}: {found.described}.", *found.guess.assumed]))
            print(f"It is in {output}, for img2img train --init-discriminator {output}.")
            return 0
        imported = as_translator(found, known, encoder)
        tell(imported, file)
        imported.translator.save(output)
        print(f"The translator is in {output}. Convert with it:\n  img2img convert SOURCE TARGET --model {output}")
        return 0

    return run_command(command, "import", arguments)


def export(arguments: list[str]) -> int:
    """`img2img export`."""
    from tyro.conf import Positional

    from img2img.translator import Mode

    def command(
        model: Positional[Path],
        file: Positional[Path],
        to: Literal["onnx", "reference"] | None = None,
        raw: bool = False,
        mode: Mode | None = None,
        direction: Literal["AtoB", "BtoA"] | None = None,
        overwrite: bool = False,
    ) -> int:
        """Writes a translator for use elsewhere.

        Args:
            model: A translator's or a run's folder.
            file: The file to write.
            to: onnx; or reference, the layout of the project that has such a network; by default as the file's name ends: .onnx, .pth.
            raw: Of ONNX: the network alone, floats (B, C, H, W) in [-1, 1]; by default 8-bit images (B, H, W, C) of any size go in and come out.
            mode: Of ONNX: eval or paper; by default the translator's.
            direction: Which translator of a run that learned both ways; by default AtoB.
            overwrite: Replace the file if it exists.
        """
        if file.exists() and not overwrite:
            raise UsageError(f"{file} exists; add --overwrite, or choose another name.")
        kind = to or {".onnx": "onnx", ".pth": "reference", ".pt": "reference"}.get(file.suffix)
        if kind == "reference" and file.suffix == ".onnx":
            raise UsageError(f"{file}: --to reference writes a state dict; call it .pth.")
        if kind is None:
            raise UsageError(f"{file}: call it .onnx or .pth, or say --to onnx or --to reference.")
        if kind == "reference":
            from img2img.interop import export_reference

            if raw or mode:
                raise UsageError("--raw and --mode are about ONNX files; leave them out.")
            notes = export_reference(model, file, direction, overwrite)
        else:
            from img2img.inference.export import export_onnx
            from img2img.interop import load_translator

            done = export_onnx(
                load_translator(model, direction=direction), file, raw=raw, mode=mode, overwrite=overwrite
            )
            unit = "of values in [-1, 1]" if raw else "of 255"
            notes = [
                f"{width}×{height}: largest difference from PyTorch {each:.2g} {unit}"
                for (height, width), each in done.differences.items()
            ]
            notes += done.notes
        print("\n  ".join([f"{file} is written.", *notes]))
        return 0

    return run_command(command, "export", arguments)


def fetch(arguments: list[str]) -> int:
    """`img2img fetch`."""
    from tyro.conf import Positional

    from img2img.downloads import announce, cache_folder
    from img2img.interop import fetch as room
    from img2img.interop import tell

    def command(name: Positional[str], dataset: bool = False, output: Path | None = None, checksum: str = "") -> int:
        """Downloads a published CycleGAN, pix2pix or CUT model, or a data set of these projects, by its name.

        Where a name was given twice, the project goes before it: pix2pix/sat2map. Breaks are gone on with; what is there already is not downloaded again.

        Args:
            name: Such as horse2zebra, style_monet, facades_label2photo, horse2zebra_fastcut; a wrong one lists all.
            dataset: It is a data set, such as facades or horse2zebra.
            output: The translator's folder, by default one in the cache; of a data set by default datasets/NAME.
            checksum: sha256:… that the file must have, instead of the one that is known.
        """
        if checksum and not re.fullmatch(r"sha256:[0-9a-f]{64}|md5:[0-9a-f]{32}", checksum):
            raise UsageError(f"--checksum {checksum}: give sha256: and 64 hexadecimal digits.")
        published = room.find(name, "dataset" if dataset else "model")
        with _bytes() as advance:
            if dataset:
                target = output or Path("datasets", published.name)
                room.fetch_dataset(published, target, announce, advance, checksum)
                print(f"It is in {target}. Its terms: {published.licence}.\n  img2img check {target}")
                return 0
            file, imported = room.fetch_model(published, announce, advance, checksum)
        target = output or cache_folder() / "translators" / published.project / published.name
        tell(imported, file)
        imported.translator.save(target)
        print(f"The translator is in {target}. Its terms: {published.licence}. Convert with it:\n"
              f"  img2img convert SOURCE TARGET --model {target}")  # fmt: skip
        return 0

    return run_command(command, "fetch", arguments)


@contextmanager
def _bytes() -> Iterator[Callable[[int, int | None], None]]:
    """A bar for a download."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

    columns = BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn()
    with Progress(*columns, transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("", total=None, start=False)

        def advance(done: int, total: int | None) -> None:
            bar.start_task(task)
            bar.update(task, completed=done, total=total)

        yield advance


def push(arguments: list[str]) -> int:
    """`img2img push`."""
    from tyro.conf import Positional

    from img2img.interop import load, makes_noise_into_images
    from img2img.translator.hub import is_hub_name

    def command(
        model: Positional[Path],
        to: Positional[str],
        licence: str | None = None,
        private: bool = False,
        direction: Literal["AtoB", "BtoA"] | None = None,
    ) -> int:
        """Shares a model on the Hugging Face Hub, or in a folder, with a card that says what it is. Log in before: hf auth login.

        Args:
            model: A translator's, a sampler's or a run's folder; of a run the newest sample picture goes along.
            to: USER/NAME on the Hub; or a folder, if it begins with . or /.
            licence: Of the weights, as the Hub names licences, such as mit or cc-by-4.0; else the card says that it is not stated.
            private: On the Hub: only you can see it.
            direction: Which translator of a run that learned both ways; by default AtoB.
        """
        shared = load(model, direction=None if makes_noise_into_images(model) else direction)
        if to.startswith((".", "/")):
            if Path(to).exists() and (not Path(to).is_dir() or any(Path(to).iterdir())):
                raise UsageError(f"{to} is there already; give a new folder.")
            shared.save_pretrained(to, model_card_kwargs={"licence": licence})
            print(f"It is in {to}, with its card, README.md.")
            return 0
        if not is_hub_name(to):
            raise UsageError(f"{to} is neither USER/NAME nor a folder to be: begin that with ./ or /.")
        try:
            url = shared.push_to_hub(to, private=private, model_card_kwargs={"licence": licence})
        except UserError:
            raise
        except Exception as error:  # the Hub's own, and those of whatever it speaks HTTP with
            reason = str(error).strip().splitlines()[0][:200]
            raise UserError(f"{to} can't be pushed: {reason} (hf auth login logs in).") from None
        print(f"It is on the Hub: {url}\n  img2img convert SOURCE TARGET --model {to}")
        return 0

    return run_command(command, "push", arguments)
