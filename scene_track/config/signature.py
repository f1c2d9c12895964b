"""What a ``_target_`` accepts, read from its source.

Nothing is imported: the module is found on disk, parsed, and the parameters' annotations are
evaluated by a small interpreter that knows the builtin types, ``typing``, ``pathlib`` and the
constrained types of pydantic. So the check of a configuration costs milliseconds and does not need
torch, and a new class is known to it without being registered anywhere. An annotation that is not
plain data (a module, a tensor) becomes ``UNKNOWN``, which accepts everything.
"""

from __future__ import annotations

import ast
import importlib.util
import typing
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, Union

import annotated_types
import pydantic


class _Marker:
    """A value that no configuration can hold."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        return self._name


UNKNOWN: Any = _Marker("UNKNOWN")
"""An annotation that cannot be checked against plain data."""

NOT_LITERAL: Any = _Marker("NOT_LITERAL")
"""A default (or constant) that the source does not state as a literal."""


class TargetNotFoundError(LookupError):
    """The dotted name of a ``_target_`` leads nowhere."""


@dataclass(frozen=True)
class Parameter:
    """One parameter of a target.

    Attributes:
        name: as in the source.
        annotation: a type that pydantic understands, or ``UNKNOWN``.
        required: it has no default.
        default: the default if the source states a literal, else ``NOT_LITERAL``.
    """

    name: str
    annotation: Any
    required: bool
    default: Any = NOT_LITERAL


@dataclass(frozen=True)
class Signature:
    """What a target accepts.

    Attributes:
        defined_at: dotted name of the definition that the target leads to.
        parameters: by name, in order.
        open: further keyword arguments are accepted too.
    """

    defined_at: str
    parameters: dict[str, Parameter] = field(default_factory=dict)
    open: bool = False


@dataclass(frozen=True)
class _Import:
    """``import module`` (attribute None) or ``from module import attribute``."""

    module: str
    attribute: str | None


@dataclass(frozen=True, eq=False)
class _Module:
    """A parsed module; an ``opaque`` one (compiled, or with ``__getattr__``) may define more."""

    name: str
    bindings: dict[str, ast.AST | _Import]
    stars: tuple[str, ...] = ()
    opaque: bool = False


@dataclass(frozen=True)
class _Found:
    """A definition and the module in whose names it must be read."""

    module: _Module
    name: str
    node: ast.AST

    @property
    def dotted(self) -> str:
        return f"{self.module.name}.{self.name}"


@dataclass(frozen=True)
class _Opaque:
    """A name that only running the code could find, and where it would be found."""

    dotted: str


_Definition = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


# --- modules -------------------------------------------------------------------------------------


def _locations(name: str) -> tuple[Path | None, tuple[str, ...]] | None:
    """Source file and sub-module folders of a module, without running any package on the way."""
    top, *rest = name.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    file = Path(spec.origin) if spec.origin and spec.has_location else None
    folders = tuple(spec.submodule_search_locations or ())
    for part in rest:
        for folder in folders:
            base = Path(folder) / part
            if (base / "__init__.py").is_file():
                file, folders = base / "__init__.py", (str(base),)
                break
            if (source := base.with_name(f"{part}.py")).is_file():
                file, folders = source, ()
                break
            if compiled := next(iter(sorted(Path(folder).glob(f"{part}.*so"))), None):
                file, folders = compiled, ()
                break
            if base.is_dir():
                file, folders = None, (str(base),)
                break
        else:
            return None
    return file, folders


@cache
def _find_module(name: str) -> _Module | None:
    """The parsed module of that dotted name, or None."""
    located = _locations(name)
    if located is None:
        return None
    file, folders = located
    if file is None:
        return _Module(name, {}, opaque=not folders)  # a namespace, or built into the interpreter
    if file.suffix != ".py":
        return _Module(name, {}, opaque=True)
    tree = ast.parse(file.read_text(encoding="utf-8"), filename=str(file))
    package = name if folders else name.rpartition(".")[0]
    bindings: dict[str, ast.AST | _Import] = {}
    stars: list[str] = []

    def absolute(statement: ast.ImportFrom) -> str:
        if not statement.level:
            return statement.module or ""
        parts = package.split(".")
        base = ".".join(parts[: len(parts) - statement.level + 1])
        return f"{base}.{statement.module}" if statement.module else base

    def bind(key: str, value: ast.AST | _Import, weak: bool) -> None:
        if weak:  # else and except branches are the second choice
            bindings.setdefault(key, value)
        else:
            bindings[key] = value

    def visit(statements: list[ast.stmt], weak: bool) -> None:
        for statement in statements:
            if isinstance(statement, _Definition):
                bind(statement.name, statement, weak)
            elif isinstance(statement, ast.Import):
                for alias in statement.names:
                    top = alias.name if alias.asname else alias.name.split(".")[0]
                    bind(alias.asname or top, _Import(top, None), weak)
            elif isinstance(statement, ast.ImportFrom):
                for alias in statement.names:
                    if alias.name == "*":
                        stars.append(absolute(statement))
                    else:
                        target = _Import(absolute(statement), alias.name)
                        bind(alias.asname or alias.name, target, weak)
            elif isinstance(statement, ast.Assign):
                for target in statement.targets:
                    if isinstance(target, ast.Name):
                        bind(target.id, statement.value, weak)
            elif isinstance(statement, ast.AnnAssign) and statement.value is not None:
                if isinstance(statement.target, ast.Name):
                    bind(statement.target.id, statement.value, weak)
            elif isinstance(statement, ast.If):
                visit(statement.body, weak)
                visit(statement.orelse, True)
            elif isinstance(statement, ast.Try):
                visit(statement.body, weak)
                visit(statement.orelse, weak)
                for handler in statement.handlers:
                    visit(handler.body, True)
            elif isinstance(statement, ast.With):
                visit(statement.body, weak)

    visit(tree.body, False)
    return _Module(name, bindings, tuple(stars), opaque="__getattr__" in bindings)


def _lookup(module: _Module, name: str, depth: int = 0) -> _Module | _Found | _Opaque | None:
    """What ``module.name`` is; imports and plain aliases are followed."""
    if depth > 20:
        return None
    binding = module.bindings.get(name)
    if isinstance(binding, _Import):
        if binding.module == module.name and binding.attribute == name:
            return _find_module(f"{module.name}.{name}")  # `from . import name`
        source = _find_module(binding.module)
        if source is None:
            return None
        if binding.attribute is None:
            return source
        return _lookup(source, binding.attribute, depth + 1)
    if isinstance(binding, ast.Name) and binding.id != name:
        return _lookup(module, binding.id, depth + 1)
    if isinstance(binding, ast.Attribute):
        return _lookup_expression(module, binding, depth + 1)
    if binding is not None:
        return _Found(module, name, binding)
    if (submodule := _find_module(f"{module.name}.{name}")) is not None:
        return submodule
    for star in module.stars:
        source = _find_module(star)
        if source is not None and (found := _lookup(source, name, depth + 1)) is not None:
            return found
    return _Opaque(f"{module.name}.{name}") if module.opaque else None


def _lookup_expression(
    module: _Module, node: ast.AST, depth: int = 0
) -> _Module | _Found | _Opaque | None:
    """What ``a`` or ``a.b.c`` is, in the names of ``module``."""
    if isinstance(node, ast.Name):
        return _lookup(module, node.id, depth)
    if isinstance(node, ast.Attribute):
        owner = _lookup_expression(module, node.value, depth)
        if isinstance(owner, _Module):
            return _lookup(owner, node.attr, depth)
        return owner if isinstance(owner, _Opaque) else None
    return None


def _resolve(target: str) -> tuple[_Found | _Opaque, ast.ClassDef | None]:
    """The definition a dotted name leads to, and the class around it if it is a method."""
    top, *rest = target.split(".")
    here: _Module | _Found | _Opaque | None = _find_module(top)
    if here is None:
        raise TargetNotFoundError(f"there is no package {top!r}")
    owner: ast.ClassDef | None = None
    for position, part in enumerate(rest):
        before = ".".join([top, *rest[:position]])
        if isinstance(here, _Module):
            found = _lookup(here, part)
            if found is None:
                names = sorted(
                    key
                    for key, value in here.bindings.items()
                    if isinstance(value, _Definition) and not key.startswith("_")
                )
                defines = f"; it defines {', '.join(names)}" if names else ""
                raise TargetNotFoundError(f"{before} has no {part!r}{defines}")
            here = found
        elif isinstance(here, _Found) and isinstance(here.node, ast.ClassDef):
            method = _method(here.node, part)
            if method is None:
                raise TargetNotFoundError(f"{before} has no method {part!r}")
            owner = here.node
            here = _Found(here.module, f"{here.name}.{part}", method)
        else:
            raise TargetNotFoundError(f"{before} has no {part!r}")
    if isinstance(here, _Module) or here is None:
        raise TargetNotFoundError(f"{target} is a module, not a class or a function")
    return here, owner


# --- annotations ---------------------------------------------------------------------------------

_BUILTINS: dict[str, Any] = {
    t.__name__: t for t in (int, float, str, bool, list, tuple, dict, set, frozenset, bytes)
} | {"object": Any, "None": NoneType}
_TYPING_MODULES = ("typing", "typing_extensions", "collections.abc")
_LIST_LIKE = {"list", "List", "Sequence", "MutableSequence", "Iterable", "Collection"}
_SET_LIKE = {"set", "Set", "frozenset", "FrozenSet", "AbstractSet"}
_DICT_LIKE = {"dict", "Dict", "Mapping", "MutableMapping"}
_PLAIN_FORMS = {"Any": Any, "Text": str}


def _known(module: str, name: str) -> Any:
    """The real object behind a name that the interpreter understands, else UNKNOWN."""
    if module in _TYPING_MODULES:
        return _PLAIN_FORMS.get(name, _Marker(name))
    if module == "pathlib" and name in ("Path", "PurePath"):
        return Path
    if module == "builtins":
        return _BUILTINS.get(name, UNKNOWN)
    if module in ("pydantic", "pydantic.types", "pydantic.fields"):
        return getattr(pydantic, name, UNKNOWN)
    if module == "annotated_types":
        return getattr(annotated_types, name, UNKNOWN)
    return UNKNOWN


def _symbol(node: ast.AST, module: _Module) -> Any:
    """The object that a name stands for: a type, a special form (as a marker) or UNKNOWN."""
    known_modules = (
        *_TYPING_MODULES,
        "pathlib",
        "builtins",
        "pydantic",
        "annotated_types",
    )
    if isinstance(node, ast.Attribute):
        if isinstance(node.value, ast.Name):
            binding = module.bindings.get(node.value.id)
            if isinstance(binding, _Import):
                path = ".".join(filter(None, (binding.module, binding.attribute)))
                if path in known_modules:
                    return _known(path, node.attr)
    elif isinstance(node, ast.Name):
        binding = module.bindings.get(node.id)
        if binding is None:
            if node.id in _BUILTINS:
                return _BUILTINS[node.id]
        elif isinstance(binding, _Import) and binding.attribute is not None:
            known = _known(binding.module, binding.attribute)
            if known is not UNKNOWN:
                return known
    found = _lookup_expression(module, node)
    if isinstance(found, _Found) and not isinstance(found.node, _Definition):
        return _evaluate(found.node, found.module)  # a type alias
    return UNKNOWN


def _union(members: list[Any]) -> Any:
    """Union for plain data: members that no YAML value can be are left out."""
    if any(member is Any for member in members):
        return Any
    known = [member for member in members if member is not UNKNOWN]
    if not known or (len(known) < len(members) and all(m is NoneType for m in known)):
        return UNKNOWN
    return Union[tuple(known)]  # noqa: UP007 - the members are not known before run time


def _literal(node: ast.AST, module: _Module) -> Any:
    """A literal, or a module-level name that holds one.

    Raises:
        ValueError: it is neither.
    """
    if isinstance(node, ast.Name):
        found = _lookup_expression(module, node)
        if isinstance(found, _Found) and not isinstance(found.node, _Definition):
            return _literal(found.node, found.module)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _literal(node.left, module) + _literal(node.right, module)
    return ast.literal_eval(node)  # type: ignore[arg-type]


def _metadata(node: ast.AST, module: _Module) -> Any:
    """``Field(gt=0)`` and the like as the real object; None if it is no constraint that we know."""
    if not isinstance(node, ast.Call):
        return None
    function = _symbol(node.func, module)
    if function is UNKNOWN or isinstance(function, _Marker) or not callable(function):
        return None
    try:
        arguments = [_literal(argument, module) for argument in node.args]
        keywords = {k.arg: _literal(k.value, module) for k in node.keywords if k.arg}
    except (ValueError, TypeError) as error:
        raise TypeError(
            f"{module.name}, line {node.lineno}: only literals can be read in {ast.unparse(node)}"
        ) from error
    return function(*arguments, **keywords)


def _evaluate(node: ast.AST, module: _Module) -> Any:
    """The type that an annotation stands for, or UNKNOWN."""
    if isinstance(node, ast.Constant):
        if node.value is None:
            return NoneType
        if isinstance(node.value, str):
            try:
                return _evaluate(ast.parse(node.value, mode="eval").body, module)
            except SyntaxError:
                return UNKNOWN
        return UNKNOWN
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return _union([_evaluate(node.left, module), _evaluate(node.right, module)])
    if isinstance(node, ast.Name | ast.Attribute):
        symbol = _symbol(node, module)
        if isinstance(symbol, _Marker) and symbol is not UNKNOWN:
            return _bare_form(repr(symbol))
        return symbol
    if isinstance(node, ast.Subscript):
        return _subscript(node, module)
    return UNKNOWN


def _bare_form(name: str) -> Any:
    """A special form without brackets."""
    if name in _LIST_LIKE:
        return list[Any]
    if name in _SET_LIKE:
        return set[Any]
    if name in _DICT_LIKE:
        return dict[Any, Any]
    if name in ("Tuple", "tuple"):
        return tuple[Any, ...]
    return UNKNOWN


def _subscript(node: ast.Subscript, module: _Module) -> Any:
    """An annotation with brackets."""
    base = _symbol(node.value, module)
    name = base.__name__ if isinstance(base, type) else repr(base)
    items = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]

    def inner(index: int) -> Any:
        value = _evaluate(items[index], module)
        return Any if value is UNKNOWN else value

    if name == "Annotated":
        annotation = _evaluate(items[0], module)
        notes = [m for m in (_metadata(item, module) for item in items[1:]) if m is not None]
        if annotation is UNKNOWN or not notes:
            return annotation
        return Annotated[(annotation, *notes)]  # type: ignore[return-value]
    if name == "Optional":
        return _union([_evaluate(items[0], module), NoneType])
    if name == "Union":
        return _union([_evaluate(item, module) for item in items])
    if name == "Literal":
        try:
            return Literal[tuple(_literal(item, module) for item in items)]  # type: ignore
        except (ValueError, TypeError):
            return UNKNOWN
    if name in ("Final", "Required", "NotRequired", "InitVar"):
        return _evaluate(items[0], module)
    if name in _LIST_LIKE:
        return list[inner(0)]
    if name in _SET_LIKE:
        return set[inner(0)]
    if name in _DICT_LIKE and len(items) == 2:
        return dict[inner(0), inner(1)]
    if name in ("tuple", "Tuple"):
        if len(items) == 2 and isinstance(items[1], ast.Constant) and items[1].value is ...:
            return tuple[inner(0), ...]
        return tuple[tuple(inner(i) for i in range(len(items)))]  # type: ignore[return-value]
    return UNKNOWN


# --- signatures ----------------------------------------------------------------------------------


def _method(node: ast.ClassDef, name: str) -> ast.FunctionDef | None:
    """The method's definition (the last one: earlier ones are overloads)."""
    found = None
    for statement in node.body:
        if isinstance(statement, ast.FunctionDef) and statement.name == name:
            found = statement
    return found


def _decorators(node: _Definition) -> Iterator[str]:
    """Last names of the decorators."""
    for decorator in node.decorator_list:
        called = decorator.func if isinstance(decorator, ast.Call) else decorator
        yield (called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", ""))


def _default(node: ast.AST, module: _Module) -> Any:
    try:
        return _literal(node, module)
    except (ValueError, TypeError):
        return NOT_LITERAL


def _parameter(
    name: str, annotation: ast.AST | None, default: ast.AST | None, module: _Module
) -> Parameter:
    evaluated = UNKNOWN if annotation is None else _evaluate(annotation, module)
    value = NOT_LITERAL if default is None else _default(default, module)
    if value is None and evaluated is not UNKNOWN:
        evaluated = _union([evaluated, NoneType])  # `x: int = None` means that null is fine
    return Parameter(name, evaluated, required=default is None, default=value)


def _of_function(found: _Found, node: ast.FunctionDef, skip_first: bool) -> Signature:
    arguments = node.args
    positional = [*arguments.posonlyargs, *arguments.args]
    missing = len(positional) - len(arguments.defaults)
    defaults: list[ast.AST | None] = [*[None] * missing, *arguments.defaults]
    pairs = list(zip(positional, defaults, strict=True))[1 if skip_first else 0 :]
    pairs += list(zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True))
    parameters = {
        a.arg: _parameter(a.arg, a.annotation, default, found.module) for a, default in pairs
    }
    if arguments.kwarg is None:
        return Signature(found.dotted, parameters)
    named = _unpacked(arguments.kwarg.annotation, found.module)
    return Signature(found.dotted, parameters | (named or {}), open=named is None)


def _unpacked(annotation: ast.AST | None, module: _Module) -> dict[str, Parameter] | None:
    """What ``**options: Unpack[SomeTypedDict]`` accepts (PEP 692); None if it is no such thing."""
    if not isinstance(annotation, ast.Subscript):
        return None
    if repr(_symbol(annotation.value, module)) != "Unpack":
        return None
    found = _lookup_expression(module, annotation.slice)
    if not isinstance(found, _Found) or not isinstance(found.node, ast.ClassDef):
        return None
    parameters: dict[str, Parameter] = {}
    for base in _bases(found, found.node):
        if base is not None:
            parameters |= _unpacked_class(base)
    return parameters | _unpacked_class(found)


def _unpacked_class(found: _Found) -> dict[str, Parameter]:
    """The keys of a TypedDict; all may be left out, for the function has the defaults."""
    node = typing.cast(ast.ClassDef, found.node)
    return {
        s.target.id: Parameter(s.target.id, _evaluate(s.annotation, found.module), required=False)
        for s in node.body
        if isinstance(s, ast.AnnAssign) and isinstance(s.target, ast.Name)
    }


def _bases(found: _Found, node: ast.ClassDef) -> Iterator[_Found | None]:
    """The base classes; None for one that cannot be found."""
    for base in node.bases:
        expression = base.value if isinstance(base, ast.Subscript) else base
        if isinstance(expression, ast.Name) and expression.id in (
            "object",
            "Generic",
            "Protocol",
        ):
            continue
        if isinstance(expression, ast.Name | ast.Attribute):
            form = _symbol(expression, found.module)
            if isinstance(form, _Marker) and repr(form) in ("Generic", "Protocol"):
                continue
        resolved = _lookup_expression(found.module, expression)
        if isinstance(resolved, _Found) and isinstance(resolved.node, ast.ClassDef):
            yield resolved
        else:
            yield None


def _of_dataclass(found: _Found, node: ast.ClassDef, depth: int) -> Signature:
    parameters: dict[str, Parameter] = {}
    for base in _bases(found, node):
        if base is not None and "dataclass" in _decorators(typing.cast(ast.ClassDef, base.node)):
            parameters |= _of_class(base, depth + 1).parameters
    for statement in node.body:
        if not isinstance(statement, ast.AnnAssign) or not isinstance(statement.target, ast.Name):
            continue
        name, annotation, value = (
            statement.target.id,
            statement.annotation,
            statement.value,
        )
        if "ClassVar" in ast.unparse(annotation) or "KW_ONLY" in ast.unparse(annotation):
            continue
        if isinstance(value, ast.Call) and getattr(value.func, "id", "") == "field":
            options = {k.arg: k.value for k in value.keywords}
            init = options.get("init")
            if isinstance(init, ast.Constant) and init.value is False:
                continue
            value = options.get("default", options.get("default_factory"))
        parameters[name] = _parameter(name, annotation, value, found.module)
    return Signature(found.dotted, parameters)


def _of_class(found: _Found, depth: int = 0) -> Signature:
    node = typing.cast(ast.ClassDef, found.node)
    anything = Signature(found.dotted, open=True)
    if depth > 20:
        return anything
    for name in ("__init__", "__new__"):
        if (method := _method(node, name)) is not None:
            return _of_function(found, method, skip_first=True)
    if "dataclass" in _decorators(node):
        return _of_dataclass(found, node, depth)
    if node.keywords:  # a metaclass may do anything
        return anything
    for base in _bases(found, node):
        if base is None:
            return anything
        inherited = _of_class(base, depth + 1)
        if inherited.parameters or inherited.open:
            return Signature(found.dotted, inherited.parameters, inherited.open)
    return Signature(found.dotted)


@cache
def read_signature(target: str) -> Signature:
    """What the class, function or method of that dotted name accepts.

    Args:
        target: dotted name, as in ``_target_``.

    Returns:
        Its parameters. A class without a constructor of its own takes its base's. A name that
        only running the code could find (a compiled module, ``__getattr__``) accepts anything.

    Raises:
        TargetNotFoundError: the name leads nowhere.
        TypeError: a constraint in an annotation is no literal.
    """
    found, owner = _resolve(target)
    if isinstance(found, _Opaque):
        return Signature(found.dotted, open=True)
    if isinstance(found.node, ast.ClassDef):
        return _of_class(found)
    if isinstance(found.node, ast.FunctionDef):
        method = owner is not None and "staticmethod" not in _decorators(found.node)
        return _of_function(found, found.node, skip_first=method)
    return Signature(found.dotted, open=True)


def class_constant(target: str, name: str) -> Any:
    """A literal class attribute, looked up in the class and then in its bases.

    Args:
        target: dotted name of the class.
        name: of the attribute.

    Returns:
        Its value, or ``NOT_LITERAL`` if no class on the way states one.

    Raises:
        TargetNotFoundError: the target leads nowhere.
    """
    found, _ = _resolve(target)
    if isinstance(found, _Opaque) or not isinstance(found.node, ast.ClassDef):
        return NOT_LITERAL
    return _constant(found, name, 0)


def _constant(found: _Found, name: str, depth: int) -> Any:
    node = typing.cast(ast.ClassDef, found.node)
    for statement in node.body:
        targets: list[ast.expr] = []
        if isinstance(statement, ast.Assign):
            targets = statement.targets
        elif isinstance(statement, ast.AnnAssign):
            targets = [statement.target]
        else:
            continue
        if statement.value is not None and any(getattr(t, "id", None) == name for t in targets):
            return _default(statement.value, found.module)
    for base in _bases(found, node):
        if base is not None and depth < 20:
            value = _constant(base, name, depth + 1)
            if value is not NOT_LITERAL:
                return value
    return NOT_LITERAL
