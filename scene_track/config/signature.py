"""What a ``_target_`` accepts: the signature of the class or function itself.

The target is imported, so a caller first refuses names that are not trusted. An annotation that
cannot be resolved, such as a name that only type checkers import, accepts every value.
"""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import json
import sys
import typing
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property, partial, reduce
from operator import getitem
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, Optional

from hydra._internal.utils import _locate
from pydantic import BaseModel, ConfigDict, PydanticUserError, TypeAdapter, ValidationError

from scene_track.config.tree import join, shown, unknown_key


class TargetNotFoundError(LookupError):
    """The dotted name of a ``_target_`` leads nowhere."""


@dataclass(frozen=True)
class Parameter:
    """One parameter of a target.

    Attributes:
        annotation: a type; ``Any`` if there is none.
        required: it cannot be left out.
        default: ``inspect.Parameter.empty`` if the signature states none.
    """

    annotation: Any
    required: bool
    default: Any = inspect.Parameter.empty

    @cached_property
    def adapter(self) -> TypeAdapter[Any]:
        """Validates values of the annotation; any value if pydantic has no schema for it."""
        kind: Any = self.annotation
        model = isinstance(kind, type) and issubclass(kind, BaseModel)
        own = dataclasses.is_dataclass(kind) or typing.is_typeddict(kind) or model
        config = None if own else ConfigDict(arbitrary_types_allowed=True)
        try:
            return TypeAdapter(self.annotation, config=config)
        except (PydanticUserError, NameError):
            return TypeAdapter(Any)

    def fault(self, key: str, value: Any) -> str | None:
        """What is wrong with the value of a key, which begins the line; None if nothing is.

        A value is validated as JSON in pydantic's strict mode: text is no number, a number is no
        bool, but a list is a tuple and text is a path. What pydantic says of the innermost value
        is what is told; of a union it says something for each member.
        """
        try:
            self.adapter.validate_json(json.dumps(value, default=str), strict=True)
        except ValidationError as error:
            found = [(_inside(value, one["loc"], one["type"]), one) for one in error.errors()]
            path, first = max(found, key=lambda pair: len(pair[0]))
            if (kind := first["type"]) == "extra_forbidden":
                schema = self.adapter.json_schema()
                models = (schema, *schema.get("$defs", {}).values())
                allowed = {name for model in models for name in model.get("properties", ())}
                node = reduce(join, path[:-1], key)
                return join(node, path[-1]) + unknown_key(node, path[-1], allowed)
            key = reduce(join, path, key)
            if kind == "missing":
                return f"{key}: is required"
            inner = reduce(getitem, path, value)
            said = [one["msg"].replace("Input should", "must") for at, one in found if at == path]
            words = " or ".join(dict.fromkeys(text[0].lower() + text[1:] for text in said))
            if kind.startswith("path_not") and not Path(inner).is_absolute():
                words += f" (looked in {Path.cwd()})"
            # Field(description=...) says what to do.
            told = [getattr(m, "description", None) for m in typing.get_args(self.annotation)[1:]]
            return "; ".join([f"{key}={shown(inner)}: {words}", *filter(None, told)])
        return None


def _inside(value: Any, loc: tuple[int | str, ...], kind: str) -> tuple[int | str, ...]:
    """The keys of an error within a value; pydantic names members of unions among them."""
    path: list[int | str] = []
    for part in loc:
        with contextlib.suppress(KeyError, IndexError, TypeError):
            value = value[part]
            path.append(part)
    return (*path, loc[-1]) if kind == "missing" else tuple(path)


@dataclass(frozen=True)
class Signature:
    """What a target accepts.

    Attributes:
        defined_at: dotted name of the definition that the target leads to.
        parameters: by name, in order.
        open: further keyword arguments are accepted too.
    """

    defined_at: str
    parameters: dict[str, Parameter]
    open: bool


@cache
def find_target(target: str) -> Any:
    """Imports the class, function or method of a dotted name, which must be trusted.

    Raises:
        TargetNotFoundError: there is no such name, or it is a module.
    """
    try:
        found = _locate(target)
    except Exception as error:  # whatever a module raises while it is imported
        cause = error.__cause__ or error
        raise TargetNotFoundError(f"cannot be imported: {' '.join(str(cause).split())}") from error
    if isinstance(found, ModuleType) or not callable(found):
        kind = "a module" if isinstance(found, ModuleType) else type(found).__name__
        raise TargetNotFoundError(f"{target} is {kind}, not a class or a function")
    return found


@cache
def read_signature(target: str) -> Signature:
    """What the class, function or method of a dotted name accepts; it is imported."""
    return signature_of(find_target(target))


@cache
def signature_of(target: Callable[..., Any]) -> Signature:
    """What a class or function accepts; any keyword if it has no signature (compiled code)."""
    function: Any = target
    while isinstance(function, partial):
        function = function.func
    module = getattr(function, "__module__", None) or type(function).__module__
    name = getattr(function, "__qualname__", type(function).__qualname__)
    try:
        signature = inspect.signature(target)
    except (ValueError, TypeError):
        return Signature(f"{module}.{name}", {}, open=True)
    parameters: dict[str, Parameter] = {}
    accepts_unknown = False
    hints = _hints(function)
    for key, parameter in signature.parameters.items():
        plain = parameter.annotation
        unresolved = plain is parameter.empty or isinstance(plain, str)
        annotation = hints.get(key, Any if unresolved else plain)
        if parameter.kind is parameter.VAR_KEYWORD:
            named = typing.get_args(annotation)
            if named and typing.is_typeddict(named[0]):  # **options: Unpack[...], PEP 692
                keys = typing.get_type_hints(named[0], include_extras=True)
                needed = named[0].__required_keys__
                parameters |= {k: Parameter(hint, k in needed) for k, hint in keys.items()}
            elif (base := _base_of(function)) is not None:  # **rest for super().__init__
                inherited = signature_of(base)
                parameters = inherited.parameters | parameters
                accepts_unknown = inherited.open
            else:
                accepts_unknown = True
        elif parameter.kind is not parameter.VAR_POSITIONAL:
            if parameter.default is None:
                annotation = Optional[annotation]  # noqa: UP045 - known at run time only
            required = parameter.default is parameter.empty
            parameters[key] = Parameter(annotation, required, parameter.default)
    return Signature(f"{module}.{name}", parameters, accepts_unknown)


def _base_of(target: Any) -> type | None:
    """The base of the same package whose constructor a class extends, if there is one."""
    if not isinstance(target, type):
        return None
    own, *bases = (c for c in target.__mro__ if "__init__" in vars(c))
    package = own.__module__.partition(".")[0]
    same = (base for base in bases if base.__module__.partition(".")[0] == package)
    return next(same, None)


def _hints(target: Any) -> dict[str, Any]:
    """Annotations as types, without those that cannot be resolved."""
    source = target
    if isinstance(target, type) and not dataclasses.is_dataclass(target):
        source = target.__init__ if target.__init__ is not object.__init__ else target.__new__
    try:
        return typing.get_type_hints(source, include_extras=True)
    except (NameError, AttributeError, TypeError):
        source = inspect.unwrap(source)
    names = getattr(source, "__globals__", None) or vars(sys.modules[target.__module__])
    found: dict[str, Any] = {}
    for key, annotation in getattr(source, "__annotations__", {}).items():
        single = SimpleNamespace(__annotations__={key: annotation})
        with contextlib.suppress(NameError, AttributeError, TypeError):
            found |= typing.get_type_hints(single, names, include_extras=True)
    return found
