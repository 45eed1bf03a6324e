"""What all settings have in common: they are strict, and their errors are sentences."""

import re
import reprlib
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ModelWrapValidatorHandler, ValidationError, model_validator

from img2img.core.errors import UsageError

BRIEF = reprlib.Repr()
"""Shows a value, also one that YAML's aliases have made endless."""
BRIEF.maxlevel, BRIEF.maxstring, BRIEF.maxother, BRIEF.maxlong = 3, 200, 200, 200
BRIEF.maxdict = BRIEF.maxlist = BRIEF.maxtuple = 10


class Strict(BaseModel):
    """A frozen settings model: unknown keys are refused, and errors are sentences that name the key.

    What a mapping leaves out of a part takes that part's default in this model, which may differ from its class' default.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False, ser_json_inf_nan="null"
    )

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise UsageError(explain(error)) from None

    @model_validator(mode="wrap")
    @classmethod
    def _fill_parts(cls, values: Any, validate: ModelWrapValidatorHandler[Self]) -> Self:
        if isinstance(values, dict) and not all(isinstance(name, str) for name in values):
            wrong = next(name for name in values if not isinstance(name, str))
            raise ValueError(f"{wrong!r} is no name of a setting")
        made = validate(values)
        if isinstance(values, dict):
            for name, field in cls.model_fields.items():
                part = made.__dict__[name]
                if isinstance(values.get(name), dict) and type(part) is type(field.default):
                    given = part.model_fields_set
                    filled = field.default.model_copy(update={key: getattr(part, key) for key in given})
                    filled.model_fields_set.intersection_update(given)
                    made.__dict__[name] = filled
        return made


def explain(error: ValidationError) -> str:
    """A pydantic error as one sentence a problem: the key, what is allowed, what was given."""
    sentences = []
    for problem in error.errors(include_url=False):
        key, message = ".".join(map(str, problem["loc"])), problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            sentences.append(f"{key}: there is no such setting")
        elif problem["type"] == "value_error":
            within = bool(re.match(r"[a-z_.]+: ", message))  # of a part of it
            sentences.append(f"{key}{'.' if within else ': '}{message}" if key else message)
        else:
            sentences.append(f"{key}: {message[0].lower()}{message[1:]}, not {BRIEF.repr(problem['input'])}")
    return "; ".join(sentences)
