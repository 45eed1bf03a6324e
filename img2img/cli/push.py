"""`img2img push`: a model goes to the Hugging Face Hub, or into a folder to share."""

from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from img2img.cli.usage import run_command
from img2img.core.errors import UsageError, UserError


def command(
    model: Positional[Path],
    to: Positional[str],
    licence: str | None = None,
    private: bool = False,
    direction: Literal["AtoB", "BtoA"] | None = None,
) -> int:
    """Shares a model on the Hugging Face Hub, or in a folder, with a card that says what it is. Log in before: hf auth login.

    Args:
        model: The folder of a run or of a model; of a run, the latest sample picture goes along.
        to: USER/NAME on the Hub; or a folder, if it begins with . or /.
        licence: Of the weights, as the Hub names licences, such as mit or cc-by-4.0; else the card says that it is not stated.
        private: On the Hub: only you can see it.
        direction: Which translator of a run that learned both ways; by default AtoB.
    """
    from img2img.interop import load, makes_images_from_noise
    from img2img.models.hub import is_hub_name

    shared = load(model, direction=None if makes_images_from_noise(model) else direction)
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


def push(arguments: list[str]) -> int:
    """`img2img push`."""
    return run_command(command, "push", arguments)
