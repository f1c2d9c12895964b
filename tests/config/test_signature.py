"""The signature reader on a package written for the purpose, and on the libraries we name."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import TypeAdapter, ValidationError

from scene_track.config import signature
from scene_track.config.signature import (
    NOT_LITERAL,
    UNKNOWN,
    TargetNotFoundError,
    class_constant,
    read_signature,
)

_FILES = {
    "__init__.py": "from .models import Net as Net\nfrom .models import make\nimport os\n",
    "explosive.py": "raise RuntimeError('a module was imported')\n",
    "names.py": """
        import typing as t
        from typing import Literal
        Mode = Literal["min", "max"]
        LIMIT = 7
        Number = t.Union[int, float]
    """,
    "models.py": """
        from __future__ import annotations
        import dataclasses
        import typing as t
        from dataclasses import dataclass, field
        from collections.abc import Sequence
        from typing import Annotated, ClassVar, Generic, Optional, TypeVar
        from pathlib import Path
        from pydantic import DirectoryPath, Field, PositiveInt
        import torch
        from torch import nn
        from . import explosive
        from .names import LIMIT, Mode
        from .names import Number as Count
        T = TypeVar("T")

        class Base(explosive.Something):
            LOGS: ClassVar[tuple[str, ...]] = ("val/a", "val/b")
            def __init__(self, *, width: Annotated[int, Field(ge=1, le=LIMIT)], **kwargs): ...

        class Net(Base):
            pass

        class Own(Base):
            LOGS = ("val/c",)
            def __init__(self, first: float, /, second: "int | None" = None, *,
                         mode: Mode = "min", count: Count = 1, root: DirectoryPath | None = None,
                         layers: PositiveInt = 2, sizes: tuple[int, int] = (1, 2),
                         many: Sequence[str] = (), table: dict[str, float] | None = None,
                         module: nn.Module | None = None, tensor: float | torch.Tensor = 0.0,
                         loose=3, late: int = None, path: t.Optional[Path] = None): ...
            @classmethod
            def build(cls, *, size: int): ...
            @staticmethod
            def fixed(size: int): ...

        class Plain: pass
        class Free(Generic[T]): pass
        class Stranger(nn.Module): pass

        @dataclass
        class Parent:
            a: int
            b: float = 1.0

        @dataclass
        class Child(Parent):
            kind: ClassVar[str] = "x"
            c: list[int] = field(default_factory=list)
            hidden: int = field(init=False, default=0)

        def make(name: str, *args, depth: int = 1, **kwargs): ...

        class Broken:
            def __init__(self, *, x: Annotated[int, Field(ge=len("abc"))]): ...

        class Overloaded:
            @t.overload
            def __init__(self, *, a: int) -> None: ...
            @t.overload
            def __init__(self, *, b: str) -> None: ...
            def __init__(self, *, a: int = 0, b: str = "") -> None: ...

        if t.TYPE_CHECKING:
            from .names import Mode as Chosen
        else:
            Chosen = object
        try:
            from .models import Own as Alias
        except ImportError:
            Alias = None
    """,
}


@pytest.fixture(autouse=True)
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    folder = tmp_path / "paper_models"
    folder.mkdir()
    for name, text in _FILES.items():
        (folder / name).write_text(textwrap.dedent(text))
    monkeypatch.syspath_prepend(str(tmp_path))
    signature._find_module.cache_clear()
    read_signature.cache_clear()
    yield
    signature._find_module.cache_clear()
    read_signature.cache_clear()


def _types(target: str) -> dict[str, Any]:
    return {name: p.annotation for name, p in read_signature(target).parameters.items()}


def test_nothing_is_imported() -> None:
    read_signature("paper_models.models.Own")
    assert not any(name.startswith("paper_models") for name in sys.modules)


def test_every_kind_of_annotation() -> None:
    types = _types("paper_models.models.Own")
    assert types["first"] is float
    assert types["second"] == int | None
    assert types["mode"] == Literal["min", "max"]
    assert types["count"] == int | float
    assert typing.get_args(types["root"])[1] is type(None)
    assert types["sizes"] == tuple[int, int]
    assert types["many"] == list[str]
    assert types["table"] == dict[str, float] | None
    assert types["path"] == Path | None
    assert types["late"] == int | None  # null is its default
    assert types["module"] is UNKNOWN
    assert types["tensor"] is float  # no YAML value is a tensor
    assert types["loose"] is UNKNOWN
    with pytest.raises(ValidationError):
        TypeAdapter(types["layers"]).validate_python(0)


def test_defaults_and_required() -> None:
    parameters = read_signature("paper_models.models.Own").parameters
    assert parameters["first"].required
    assert not parameters["mode"].required and parameters["mode"].default == "min"
    assert parameters["sizes"].default == (1, 2)
    assert parameters["second"].default is None


def test_constructor_of_the_base_and_constants_of_other_modules() -> None:
    found = read_signature("paper_models.Net")  # re-exported by the package
    assert found.defined_at == "paper_models.models.Net"
    assert found.open
    adapter = TypeAdapter(found.parameters["width"].annotation)
    assert adapter.validate_python(7) == 7
    with pytest.raises(ValidationError):
        adapter.validate_python(8)


def test_functions_methods_and_overloads() -> None:
    function = read_signature("paper_models.make")
    assert list(function.parameters) == ["name", "depth"] and function.open
    assert list(read_signature("paper_models.models.Own.build").parameters) == ["size"]
    assert list(read_signature("paper_models.models.Own.fixed").parameters) == ["size"]
    assert list(read_signature("paper_models.models.Overloaded").parameters) == ["a", "b"]


def test_dataclass_fields_with_those_of_the_base() -> None:
    found = read_signature("paper_models.models.Child")
    assert list(found.parameters) == ["a", "b", "c"]
    assert found.parameters["a"].required and not found.parameters["c"].required
    assert not found.open


def test_a_class_without_constructor_takes_nothing() -> None:
    for name in ("Plain", "Free"):
        found = read_signature(f"paper_models.models.{name}")
        assert not found.parameters and not found.open
    assert read_signature("paper_models.models.Stranger").open  # nn.Module takes anything


def test_conditional_names() -> None:
    assert list(_types("paper_models.models.Alias")) == list(_types("paper_models.models.Own"))


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("paper_models.models.Nett", "it defines Base, Broken, Child"),
        ("paper_models.models", "is a module"),
        ("paper_models.modelss.Net", "paper_models has no 'modelss'"),
        ("paper_models.models.Own.buid", "has no method 'buid'"),
        ("no_such_package.Thing", "no package 'no_such_package'"),
    ],
)
def test_names_that_lead_nowhere(target: str, words: str) -> None:
    with pytest.raises(TargetNotFoundError, match=words):
        read_signature(target)


def test_a_constraint_that_cannot_be_read_is_not_passed_over() -> None:
    with pytest.raises(TypeError, match="only literals can be read in Field"):
        read_signature("paper_models.models.Broken")


def test_class_constants() -> None:
    assert class_constant("paper_models.models.Own", "LOGS") == ("val/c",)
    assert class_constant("paper_models.Net", "LOGS") == ("val/a", "val/b")
    assert class_constant("paper_models.models.Plain", "LOGS") is NOT_LITERAL


def test_a_name_reached_through_an_import_is_told_by_where_it_is_defined() -> None:
    assert read_signature("paper_models.os.system").defined_at in ("os.system", "posix.system")
    assert read_signature("paper_models.os.getenv").defined_at == "os.getenv"


def test_libraries() -> None:
    trainer = _types("pytorch_lightning.Trainer")
    assert trainer["max_epochs"] == int | None
    TypeAdapter(trainer["precision"]).validate_python("bf16-mixed")
    with pytest.raises(ValidationError):
        TypeAdapter(trainer["precision"]).validate_python("bf17")
    assert _types("torch.optim.AdamW")["lr"] is float
    assert "in_features" in _types("torch.nn.Linear")
    assert read_signature("timm.create_model").open
    assert (
        _types("torch.optim.lr_scheduler.OneCycleLR")["anneal_strategy"]
        == (Literal["cos", "linear"])
    )


def test_reading_a_library_does_not_import_it() -> None:
    code = (
        "import sys; from scene_track.config.signature import read_signature;"
        "read_signature('torch.optim.AdamW'); read_signature('pytorch_lightning.Trainer');"
        "sys.exit('torch' in sys.modules or 'pytorch_lightning' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_annotated_keeps_its_bounds() -> None:
    annotation = _types("paper_models.Net")["width"]
    assert typing.get_origin(annotation) is Annotated


def test_named_keywords_of_a_typed_dict() -> None:
    """``**options: Unpack[...]`` (PEP 692) is as good as parameters, inherited keys included."""
    found = read_signature("scene_track.models.backbones.hybrid.HybridBackbone")
    assert not found.open
    assert {"depth", "freeze", "unfreeze_after", "cache_limit_gb"} <= found.parameters.keys()
    assert not found.parameters["freeze"].required
    limit = TypeAdapter(found.parameters["cache_limit_gb"].annotation)
    assert limit.validate_python(2.5) == 2.5
    for wrong in (0, -1.0, "much"):
        with pytest.raises(ValidationError):
            limit.validate_python(wrong)
