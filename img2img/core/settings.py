"""What all settings have in common: they are strict, and their errors are sentences."""

from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from img2img.core.errors import UsageError


class Strict(BaseModel):
    """A frozen settings model: unknown keys are refused, and errors are sentences that name the key."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False, ser_json_inf_nan="null"
    )

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise UsageError(explain(error)) from None


def explain(error: ValidationError) -> str:
    """A pydantic error as one sentence a problem: the key, what is allowed, what was given."""
    sentences = []
    for problem in error.errors(include_url=False):
        key, message = ".".join(map(str, problem["loc"])), problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            sentences.append(f"{key}: there is no such setting")
        elif problem["type"] == "value_error":
            sentences.append(f"{key}.{message}" if key else message)
        else:
            sentences.append(f"{key}: {message[0].lower()}{message[1:]}, not {problem['input']!r}")
    return "; ".join(sentences)
