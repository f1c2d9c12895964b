"""The signature reader on a package written for the purpose, and on the libraries we name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scene_track.config.signature import TargetNotFoundError, read_signature

_FILES = {
    "paper_models/__init__.py": "from .models import Net as Net, make\nimport os\n",
    "paper_models/broken.py": "import no_such_library\n",
    "paper_models/names.py": """
        from typing import Literal
        Mode = Literal["min", "max"]
        LIMIT = 7
    """,
    "paper_models/models.py": """
        from __future__ import annotations
        import functools
        from collections.abc import Sequence
        from dataclasses import dataclass, field
        from pathlib import Path
        from typing import TYPE_CHECKING, Annotated, ClassVar, TypedDict, Unpack
        from pydantic import DirectoryPath, Field, PositiveInt
        import torch
        from torch import nn
        from .names import LIMIT, Mode
        if TYPE_CHECKING:
            from .names import Unseen

        class Base:
            def __init__(self, *, width: Annotated[int, Field(ge=1, le=LIMIT)], **kwargs): ...

        class Net(Base):
            pass

        class Options(TypedDict, total=False):
            freeze: bool
            limit: Annotated[float, Field(gt=0)]

        class Own(Base):
            def __init__(self, first: float, /, second: "int | None" = None, *,
                         mode: Mode = "min", root: DirectoryPath | None = None,
                         layers: PositiveInt = 2, sizes: tuple[int, int] = (1, 2),
                         many: Sequence[str] = (), table: dict[int, float] | None = None,
                         module: nn.Module | None = None, tensor: float | torch.Tensor = 0.0,
                         loose=3, late: int = None, path: Path = Path(), unseen: Unseen = None,
                         **options: Unpack[Options]): ...
            @classmethod
            def build(cls, *, size: int): ...
            @staticmethod
            def fixed(size: int): ...

        class Longer(Own):
            def __init__(self, *, more: int, **rest): super().__init__(0, **rest)

        class Plain: pass
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
        half = functools.partial(make, "half")
        number = 3
    """,
}
_OWN = "paper_models.models.Own"


@pytest.fixture(autouse=True, scope="module")
def package(importable: Callable[..., Path]) -> None:
    importable(_FILES)


def _fault(name: str, value: Any) -> str | None:
    return read_signature(_OWN).parameters[name].fault(name, value)


@pytest.mark.parametrize(
    ("name", "words", "right", "wrong"),
    [
        ("first", "must be a valid number", 1, "1"),
        ("second", "must be a valid integer", None, 1.0),
        ("mode", "must be 'min' or 'max'", "max", "mean"),
        ("root", "path does not point to a directory", "/", "/no/such"),
        ("layers", "must be greater than 0", 1, 0),
        ("sizes", "sizes[1]: is required", [3, 4], [3]),
        ("many", "must be a valid array", ["a"], "a"),
        ("table", "must be a valid integer", {1: 2}, {"x": 2}),
        ("tensor", "must be a valid number", 2.5, "x"),  # no value of YAML is a tensor
        ("late", "must be a valid integer", None, True),  # null is its default
        ("path", "path", "x", 3),
        ("freeze", "must be a valid boolean", False, 0),
        ("limit", "must be greater than 0", 2, -1.0),
    ],
)
def test_annotations_accept_and_refuse(name: str, words: str, right: Any, wrong: Any) -> None:
    assert _fault(name, right) is None
    found = _fault(name, wrong)
    assert found is not None and words in found


def test_defaults_and_what_has_no_annotation_at_run_time() -> None:
    own = read_signature(_OWN)
    assert [name for name, parameter in own.parameters.items() if parameter.required] == ["first"]
    assert own.parameters["sizes"].default == (1, 2)
    for name in ("loose", "unseen"):
        assert all(_fault(name, value) is None for value in (3, "x", None, [1], {"a": 1}))


@pytest.mark.parametrize(
    ("target", "names", "accepts_unknown"),
    [
        ("paper_models.Net", ["width"], True),  # the constructor of its base
        ("paper_models.make", ["name", "depth"], True),
        ("paper_models.models.half", ["depth"], True),
        ("paper_models.models.Own.build", ["size"], False),
        ("paper_models.models.Own.fixed", ["size"], False),
        ("paper_models.models.Child", ["a", "b", "c"], False),
        # **rest goes to the base, which is closed: so is the class.
        ("paper_models.models.Longer", None, False),
        ("paper_models.models.Plain", [], False),
        ("paper_models.models.Stranger", [], True),  # nn.Module takes anything
        ("timm.create_model", None, True),
        ("torch.nn.Linear", None, False),
        ("pytorch_lightning.callbacks.EarlyStopping", None, False),
        ("torch.optim.AdamW", None, False),
    ],
)
def test_kinds_of_targets(target: str, names: list[str] | None, accepts_unknown: bool) -> None:
    found = read_signature(target)
    assert found.open is accepts_unknown
    assert names is None or list(found.parameters) == names


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("paper_models.models.Nett", "No module named 'paper_models.models.Nett'"),
        ("paper_models.models", "is a module"),
        ("paper_models.models.number", "is int, not a class or a function"),
        ("paper_models.models.Own.buid", "'Own' has no attribute 'buid'"),
        ("paper_models.broken.Net", "cannot be imported: No module named 'no_such_library'"),
        ("no_such_package.Thing", "No module named 'no_such_package'"),
    ],
)
def test_names_that_lead_nowhere(target: str, words: str) -> None:
    with pytest.raises(TargetNotFoundError, match=words):
        read_signature(target)


def test_where_a_name_is_defined() -> None:
    assert read_signature("paper_models.Net").defined_at == "paper_models.models.Net"
    assert read_signature("paper_models.os.system").defined_at == "posix.system"
    assert read_signature("paper_models.os.getenv").defined_at == "os.getenv"
    assert read_signature("paper_models.models.half").defined_at == "paper_models.models.make"
