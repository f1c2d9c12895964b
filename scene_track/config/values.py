"""Values of a configuration against annotations: what is accepted, and both in words.

Values are validated as JSON in pydantic's strict mode: text is no number, a number is no bool, but
a list is a tuple and text is a path. The words come from the JSON schema of the annotation.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pydantic
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue

from scene_track.config.signature import Parameter
from scene_track.config.tree import shown

_ANYTHING = "a value"
_NAMES = {
    "integer": "an integer",
    "number": "a number",
    "string": "text",
    "boolean": "true or false",
    "null": "null",
    "array": "a list",
    "object": "a mapping",
    "path": "a path",
    "file-path": "a file that exists",
    "directory-path": "a folder that exists",
}
_LIMITS = {
    "exclusiveMinimum": "> {}",
    "minimum": ">= {}",
    "exclusiveMaximum": "< {}",
    "maximum": "<= {}",
    "multipleOf": "a multiple of {}",
    "minLength": "with at least {} characters",
    "maxLength": "with at most {} characters",
    "minItems": "with at least {} entries",
    "maxItems": "with at most {} entries",
    "pattern": "matching {}",
}


class _Schema(GenerateJsonSchema):
    """A JSON schema in which a type that is no plain data is ``{}``."""

    def handle_invalid_for_json_schema(self, schema: Any, error_info: str) -> JsonSchemaValue:
        return {}

    def dict_schema(self, schema: Any) -> JsonSchemaValue:
        keys = schema.get("keys_schema", {"type": "any"})
        return super().dict_schema(schema) | {"propertyNames": self.generate_inner(keys)}


def fault(parameter: Parameter, value: Any) -> str | None:
    """What is wrong with a value, to follow its key; None if nothing is."""
    try:
        parameter.adapter.validate_json(json.dumps(value, default=str), strict=True)
    except pydantic.ValidationError as error:
        words, schema = described(parameter), _schema(parameter)
        if inside := _key_of_an_entry(error, schema):
            return inside
        # Field(description=...) says what to do; a model has a title, and its docstring there.
        advice = "" if "title" in schema else schema.get("description", "")
        return f"={shown(value)}: must be {words}{_place(value, words)}" + (
            f"; {advice}" if advice else ""
        )
    return None


def _key_of_an_entry(error: pydantic.ValidationError, schema: Mapping[str, Any]) -> str | None:
    """What is wrong with a key of an entry of a list, to follow the list's key; None if nothing."""
    entry = str(schema.get("items", {}).get("$ref", "")).rpartition("/")[2]
    known = ", ".join(schema.get("$defs", {}).get(entry, {}).get("properties", ()))
    wrong = {"extra_forbidden": f"unknown key; allowed: {known}", "missing": "is required"}
    for found in error.errors():
        index, *keys = found["loc"] or (None,)
        if known and keys and isinstance(index, int) and found["type"] in wrong:
            return f"[{index}].{'.'.join(map(str, keys))}: {wrong[found['type']]}"
    return None


def described(parameter: Parameter) -> str:
    """What a parameter accepts, in words such as "an integer >= 1"."""
    return _words(_schema(parameter))


def placeholder(key: str, parameter: Parameter | None = None) -> str:
    """What stands for the value in "type key=…"."""
    words = _ANYTHING if parameter is None else described(parameter)
    names = ("root", "path", "folder", "file")
    is_path = "path" in words or "that exists" in words or key.rpartition(".")[2] in names
    return "PATH" if is_path else "VALUE"


def _schema(parameter: Parameter) -> Mapping[str, Any]:
    return parameter.adapter.json_schema(schema_generator=_Schema)


def _words(schema: Any) -> str:
    """A JSON schema in words."""
    if not isinstance(schema, Mapping) or "$ref" in schema:
        return _ANYTHING
    if "anyOf" in schema:
        options = list(dict.fromkeys(map(_words, schema["anyOf"])))
        known = [words for words in options if words != _ANYTHING]
        return " or ".join(known if {*known} - {"null"} else options)
    if choices := schema.get("enum"):
        return f"one of {', '.join(map(shown, choices))}"
    if "const" in schema:
        return shown(schema["const"])
    kind = schema.get("type")
    if parts := schema.get("prefixItems"):
        words = [_words(part) for part in parts]
        if len({*words}) == 1:
            return f"a list of {len(words)} {_plural(words[0])}"
        return f"a list [{', '.join(words)}]"
    noun = _NAMES.get(schema.get("format", kind), _ANYTHING)
    inner = [_words(schema.get(key)) for key in ("propertyNames", "additionalProperties", "items")]
    if kind == "object" and _ANYTHING not in inner[:2]:
        noun = f"a mapping of {_plural(inner[0])} to {_plural(inner[1])}"
    elif kind == "array" and inner[2] != _ANYTHING:
        noun = f"a list of {_plural(inner[2])}"
    limits = [text.format(schema[key]) for key, text in _LIMITS.items() if key in schema]
    return f"{noun} {' and '.join(limits)}" if limits else noun


def _plural(words: str) -> str:
    article, _, rest = words.partition(" ")
    if article not in ("a", "an"):
        return words
    noun, space, limits = rest.partition(" ")
    return f"{noun}s{space}{limits}"


def _place(value: Any, words: str) -> str:
    """Where a path was looked for."""
    if not isinstance(value, str) or "that exists" not in words:
        return ""
    return "" if Path(value).is_absolute() else f" (looked in {Path.cwd()})"
