"""Registries: names, parameters, errors with their place in the file, plug-ins of other people."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

import pytest
from pydantic import BaseModel, ValidationError

from tidings.errors import ConfigError, UnknownKind, UserError, shown
from tidings.registry import LocalPath, Plugin, Registry, base_directory, from_pydantic
from tidings.units import Duration, Ratio

pytestmark = pytest.mark.unit


class Fruit(Plugin):
    """A family of its own, so that these tests leave the real ones alone."""

    registry: ClassVar[Registry[Fruit]]


fruits: Registry[Fruit] = Registry("fruits")
Fruit.registry = fruits


@fruits.register("apple")
@dataclass(frozen=True)
class Apple(Fruit):
    """Scalars of every type."""

    seeds: int
    weight: float = 0.1
    ripe: bool = True
    sort: str = "boskoop"
    rotten: int | None = None
    colour: Literal["red", "green"] = "red"
    layers: tuple[int, ...] = (1,)

    def __post_init__(self) -> None:
        if self.seeds < 0:
            raise ValueError(f"seeds must not be negative, got {self.seeds}")


@fruits.register("basket")
@dataclass(frozen=True)
class Basket(Fruit):
    """Other members inside."""

    first: Fruit
    rest: tuple[Fruit, ...] = ()
    keeps: Duration = Duration(3600)
    share: Ratio = Ratio(0.5)
    spare: Fruit = field(default_factory=lambda: Apple(1))


def refusal(value: object) -> tuple[str, tuple[str | int, ...]]:
    with pytest.raises(ConfigError) as caught:
        Fruit.parse(value)
    return caught.value.message, caught.value.path


# -- building --------------------------------------------------------------------------------------


def test_a_member_is_built_from_its_parameters() -> None:
    built = Fruit.parse({"kind": "apple", "seeds": 5, "weight": 1, "layers": [2, 3]})
    assert built == Apple(5, weight=1.0, layers=(2, 3))
    assert isinstance(built, Apple)
    assert isinstance(built.weight, float)


def test_a_bare_name_is_a_member_with_defaults() -> None:
    assert Fruit.parse({"kind": "basket", "first": {"kind": "apple", "seeds": 2}}) == Basket(
        Apple(2)
    )
    assert refusal("apple") == ("'apple' needs 'seeds'", ())


def test_a_member_is_taken_as_it_is() -> None:
    apple = Apple(3)
    assert Fruit.parse(apple) is apple
    assert Apple.parse({"kind": "apple", "seeds": 3}) == apple


def test_config_builds_the_same_member_again() -> None:
    basket = Basket(Apple(1), (Apple(2), Basket(Apple(3))), Duration(0.5), Ratio(0.25))
    written = basket.config()
    assert Fruit.parse(written) == basket
    assert written["keeps"] == "500ms"
    assert written["rest"][0]["kind"] == "apple"


# -- refusals --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "message", "path"),
    [
        ("aple", "unknown fruit 'aple'; did you mean 'apple'? (valid: apple, basket)", ("kind",)),
        ({"kind": "pear"}, "unknown fruit 'pear'; (valid: apple, basket)", ("kind",)),
        ({"seeds": 1}, "a fruit needs a kind; (valid: apple, basket)", ()),
        ({"kind": 3}, "a fruit needs a kind; (valid: apple, basket)", ()),
        (7, "a fruit is written as {kind: NAME, ...}, got 7", ()),
        (None, "a fruit is written as {kind: NAME, ...}, got nothing", ()),
        ({"kind": "apple", "seeds": -1}, "'apple': seeds must not be negative, got -1", ()),
    ],
)
def test_what_is_said(value: object, message: str, path: tuple[str, ...]) -> None:
    assert refusal(value) == (message, path)


def test_an_unknown_parameter_is_named_with_the_nearest_valid_one() -> None:
    message, path = refusal({"kind": "apple", "seeds": 1, "wieght": 2.0})
    assert message.startswith("'apple' has no 'wieght'; did you mean 'weight'? (valid: ")
    assert path == ("wieght",)


def test_a_key_that_is_no_text() -> None:
    assert refusal({"kind": "apple", "seeds": 1, 3: 2})[1] == (3,)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seeds", "5"),
        ("seeds", 5.0),
        ("seeds", True),
        ("seeds", None),
        ("weight", "0.5"),
        ("weight", True),
        ("ripe", 1),
        ("ripe", "yes"),
        ("sort", 3),
        ("rotten", "3"),
        ("rotten", 3.0),
        ("rotten", False),
        ("colour", "blue"),
        ("layers", 3),
        ("layers", ["x"]),
    ],
)
def test_scalars_are_taken_as_written(key: str, value: object) -> None:
    message, path = refusal({"kind": "apple", "seeds": 1} | {key: value})
    assert path[0] == key
    assert shown(value if key != "layers" or value == 3 else "x") in message


def test_none_is_a_value_of_an_optional_parameter() -> None:
    assert Fruit.parse({"kind": "apple", "seeds": 1, "rotten": None}) == Apple(1)
    assert Fruit.parse({"kind": "apple", "seeds": 1, "rotten": 2}) == Apple(1, rotten=2)


@pytest.mark.parametrize(
    ("inside", "path"),
    [
        ({"first": "pear"}, ("first", "kind")),
        ({"first": {"kind": "apple"}}, ("first",)),
        ({"first": {"kind": "apple", "seeds": "x"}}, ("first", "seeds")),
        (
            {"first": {"kind": "basket", "first": {"kind": "apple", "seed": 1}}},
            ("first", "first", "seed"),
        ),
        (
            {"first": Apple(1), "rest": [Apple(1), {"kind": "apple", "seeds": []}]},
            ("rest", 1, "seeds"),
        ),
        ({"first": Apple(1), "keeps": 20}, ("keeps",)),
        ({"first": Apple(1), "share": "200%"}, ("share",)),
    ],
)
def test_an_error_inside_a_member_has_the_whole_path(
    inside: dict[str, object], path: tuple[str | int, ...]
) -> None:
    assert refusal({"kind": "basket", **inside})[1] == path


def test_a_member_of_another_family_is_refused() -> None:
    class Vegetable(Plugin):
        """Another family over the same registry, which can only be a mistake."""

        registry = fruits

    with pytest.raises(ConfigError, match="'apple' is not a fruit"):
        Vegetable.parse({"kind": "apple", "seeds": 1})


def test_two_members_of_one_name() -> None:
    with pytest.raises(ValueError, match="two fruits are called 'apple'"):
        fruits.register("apple")(Basket)
    assert fruits.register("apple")(Apple) is Apple  # the same one again, as on a reload


@pytest.mark.parametrize(
    ("family", "singular"),
    [("protocols", "protocol"), ("topologies", "topology"), ("attacks", "attack")],
)
def test_the_singular(family: str, singular: str) -> None:
    assert Registry[Fruit](family).singular == singular


# -- inside pydantic -------------------------------------------------------------------------------


class Stall(BaseModel):
    """A model with a plug-in field."""

    sells: Fruit
    also: list[Fruit] = []


def test_members_are_fields_of_pydantic_models() -> None:
    stall = Stall.model_validate({"sells": {"kind": "apple", "seeds": 1}})
    assert stall.sells == Apple(1)
    assert Stall.model_validate_json(stall.model_dump_json()) == stall


def test_errors_keep_their_path_through_pydantic() -> None:
    wrong = {"sells": Apple(1), "also": [{"kind": "basket", "first": {"kind": "aple"}}]}
    with pytest.raises(ValidationError) as caught:
        Stall.model_validate(wrong)
    error = from_pydantic(caught.value)
    assert error.path == ("also", 0, "first", "kind")
    assert "did you mean 'apple'?" in error.message


def test_schema() -> None:
    schema = Apple.schema()
    assert schema["required"] == ["kind", "seeds"]
    assert schema["properties"]["kind"] == {"const": "apple"}
    assert schema["properties"]["colour"]["enum"] == ["red", "green"]
    assert schema["properties"]["weight"]["default"] == 0.1
    assert schema["description"] == "Scalars of every type."
    family = Fruit.family_schema()["anyOf"]
    assert family[0] == {"enum": ["apple", "basket"]}


# -- other people's --------------------------------------------------------------------------------

SOURCE = '''
from dataclasses import dataclass
from typing import ClassVar
from tidings.registry import Plugin, Registry

class Tool(Plugin):
    """A family in a file of its own."""
    registry: ClassVar = Registry("tools")

@dataclass(frozen=True)
class Hammer(Tool):
    """A tool."""
    weight: float = 1.0

class Bare(Tool):
    """Somebody forgot the dataclass."""

NUMBER = 3
'''


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "tools.py").write_text(SOURCE)
    token = base_directory.set(tmp_path)
    yield tmp_path
    base_directory.reset(token)


def test_a_class_in_a_file_is_found_from_the_experiment_file(folder: Path) -> None:
    hammer = fruits.get("tools.py:Hammer")
    assert hammer is fruits.get(f"{folder}/tools.py:Hammer")
    tool = hammer.__mro__[1]
    built = tool.parse({"kind": "tools.py:Hammer", "weight": 2.0})  # type: ignore[attr-defined]
    assert built.config() == {"kind": f"{folder}/tools.py:Hammer", "weight": 2.0}
    assert tool.parse(built.config()) == built  # type: ignore[attr-defined]


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("tools.py:Hamer", "has no class 'Hamer'; did you mean 'Hammer'?"),
        ("tools.py:NUMBER", "has no class 'NUMBER'"),
        ("nowhere.py:Hammer", "there is no file"),
    ],
)
def test_what_a_file_does_not_have(name: str, why: str) -> None:
    with pytest.raises(UnknownKind, match=why):
        fruits.get(name)


def test_a_class_of_a_file_must_be_of_the_family(folder: Path) -> None:
    message, path = refusal("tools.py:Hammer")
    assert message.startswith("'tools.py:Hammer' is not a fruit")
    assert path == ("kind",)


def test_a_file_that_does_not_run_says_why(folder: Path) -> None:
    (folder / "broken.py").write_text("import no_such_module_anywhere\n")
    for _ in range(2):  # also the second time: nothing half imported is left
        with pytest.raises(UnknownKind, match=r"cannot be imported: No module named 'no_such"):
            fruits.get("broken.py:Anything")


def test_a_class_that_is_no_dataclass_says_so(folder: Path) -> None:
    tool = fruits.get("tools.py:Bare").__mro__[1]
    with pytest.raises(UserError, match=r"Bare.* dataclass"):
        tool.parse({"kind": "tools.py:Bare"})  # type: ignore[attr-defined]


def test_a_local_path_starts_at_the_experiment_file(folder: Path) -> None:
    @dataclass(frozen=True)
    class Crate(Fruit):
        """A parameter that names a file."""

        label: LocalPath

    assert Crate.from_parameters({"label": "tools.py"}).label == str(folder / "tools.py")
    with pytest.raises(ConfigError, match="there is no file") as caught:
        Crate.from_parameters({"label": "nowhere.txt"})
    assert caught.value.path == ("label",)


def test_members_of_installed_packages_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "hardware_store.py").write_text(SOURCE)
    info = tmp_path / "hardware_store-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: hardware-store\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[tidings.nails]\nhammer = hardware_store:Hammer\n")
    monkeypatch.syspath_prepend(tmp_path)
    nails: Registry[Fruit] = Registry("nails")
    assert list(nails) == ["hammer"]
    assert nails.get("hammer").kind == "hammer"
    sys.modules.pop("hardware_store")


def test_modules_of_a_family_are_imported_when_first_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "orchard"
    (package / "inner").mkdir(parents=True)
    for place in (package, package / "inner"):
        (place / "__init__.py").write_text("")
    register = "from tidings.registry import Plugin\nfrom orchard_registry import trees\n"
    (tmp_path / "orchard_registry.py").write_text(
        "from tidings.registry import Registry\ntrees = Registry('trees', 'orchard')\n"
    )
    member = "@trees.register('{0}')\nclass {0}(Plugin):\n    pass\n"
    (package / "a.py").write_text(register + member.format("elm"))
    (package / "inner" / "b.py").write_text(register + member.format("oak"))
    monkeypatch.syspath_prepend(tmp_path)
    from orchard_registry import trees

    assert "orchard.a" not in sys.modules
    assert list(trees) == ["elm", "oak"]
    assert {"orchard.a", "orchard.inner.b"} <= set(sys.modules)
