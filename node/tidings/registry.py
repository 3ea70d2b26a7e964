"""Names for everything that an experiment file can choose: ``{kind: NAME, ...parameters}``.

A *plugin family* (protocols, compressors, ...) is a base class with a :class:`Registry`. A member
is a frozen dataclass of its parameters, registered by name::

    @compressors.register("top_k")
    @dataclass(frozen=True)
    class TopK(Compressor):
        ratio: Ratio = Ratio(0.05)

Besides its own members a registry finds those of installed packages (entry-point group
``tidings.<family>``) and a researcher's own ``path/to/file.py:Class``.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import importlib.metadata
import importlib.util
import inspect
import math
import pkgutil
import re
import sys
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Annotated, Any, ClassVar, Generic, Self, TypeVar

from pydantic import (
    AfterValidator,
    GetCoreSchemaHandler,
    PydanticUserError,
    TypeAdapter,
    ValidationError,
)
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from tidings.errors import ConfigError, UnknownKind, nearest, shown

T = TypeVar("T", bound="Plugin")

#: in JSON Schemas, stands for "any member of this family"
FAMILY_MARK = "x-tidings-family"


#: relative paths in an experiment file start at the file
base_directory: ContextVar[Path] = ContextVar("base_directory", default=Path())


def resolve_path(path: str) -> str:
    """``path`` made absolute, seen from the experiment file; ValueError if nothing is there."""
    absolute = (base_directory.get() / path).expanduser().resolve()
    if not absolute.exists():
        raise ValueError(f"there is no file {absolute}")
    return str(absolute)


#: a parameter that names a file; relative to the experiment file, kept as an absolute path
LocalPath = Annotated[str, AfterValidator(resolve_path)]


class Registry(Generic[T]):
    """The members of one plugin family by name.

    ``modules`` are packages whose modules register members when imported; they are imported at the
    first look-up, so that a node which needs one compressor does not pay for every protocol.
    """

    def __init__(self, family: str, *modules: str) -> None:
        self.family = family
        self._modules = modules
        self._members: dict[str, type[T]] = {}
        self._complete = False

    def register(self, name: str) -> Callable[[type[T]], type[T]]:
        """Class decorator that enters a member under ``name``."""

        def enter(member: type[T]) -> type[T]:
            known = self._members.get(name)
            if known is not None and known.__qualname__ != member.__qualname__:
                raise ValueError(f"two {self.family} are called '{name}': {known} and {member}")
            member.kind = name
            self._members[name] = member
            return member

        return enter

    def get(self, name: str) -> type[T]:
        """The member called ``name``, or the class of ``file.py:Class``; UnknownKind otherwise."""
        if re.search(r"\.py:\w+$", name):
            return self._from_file(name)
        self._load()
        if name not in self._members:
            raise UnknownKind(f"unknown {self.singular} '{name}'; {nearest(name, self._members)}")
        return self._members[name]

    def __iter__(self) -> Iterator[str]:
        self._load()
        return iter(sorted(self._members))

    @property
    def singular(self) -> str:
        """'protocol' for 'protocols', 'topology' for 'topologies'."""
        if self.family.endswith("ies"):
            return self.family[:-3] + "y"
        return self.family.removesuffix("s")

    def _load(self) -> None:
        if self._complete:
            return
        for package_name in self._modules:
            package = importlib.import_module(package_name)
            for module in pkgutil.walk_packages(package.__path__, package_name + "."):
                importlib.import_module(module.name)
        for entry in importlib.metadata.entry_points(group=f"tidings.{self.family}"):
            self.register(entry.name)(entry.load())
        self._complete = True

    def _from_file(self, reference: str) -> type[T]:
        file, _, class_name = reference.rpartition(":")
        try:
            path = resolve_path(file)
        except ValueError as error:
            raise UnknownKind(str(error)) from error
        module = import_file(Path(path))
        member = getattr(module, class_name, None)
        if not inspect.isclass(member):
            classes = [name for name, value in vars(module).items() if inspect.isclass(value)]
            raise UnknownKind(f"{file} has no class '{class_name}'; {nearest(class_name, classes)}")
        found = typing.cast("type[T]", member)
        found.kind = f"{path}:{class_name}"
        return found


def import_file(path: Path) -> types.ModuleType:
    """The module in a file that belongs to no package; UnknownKind where it does not import."""
    name = "tidings_user_" + hashlib.sha256(str(path).encode()).hexdigest()[:16]
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UnknownKind(f"{path} cannot be imported as Python")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        reason = error if isinstance(error, ImportError | SyntaxError) else repr(error)
        raise UnknownKind(f"{path} cannot be imported: {reason}") from error
    return module


class Plugin:
    """Base of all plugin families. Members are frozen dataclasses whose fields are parameters."""

    registry: ClassVar[Registry[Any]]
    kind: ClassVar[str] = ""
    #: the key under which files write a member's name
    tag: ClassVar[str] = "kind"

    @classmethod
    def parse(cls, value: object) -> Self:
        """Build a member from ``{kind: NAME, ...}`` or, for all-default parameters, from ``NAME``.

        Raises ConfigError with the path of the offending key below ``value``.
        """
        if isinstance(value, cls):
            return value
        tag, singular = cls.tag, cls.registry.singular
        if isinstance(value, str):
            value = {tag: value}
        if not isinstance(value, Mapping):
            raise ConfigError(
                f"a {singular} is written as {{{tag}: NAME, ...}}, got {shown(value)}"
            )
        parameters = dict(value)
        kind = parameters.pop(tag, None)
        if not isinstance(kind, str):
            needs = f"a {singular} needs a {tag}" if tag != singular else f"name a {singular}"
            raise ConfigError(f"{needs}; {nearest('', cls.registry)}", ())
        try:
            member = cls.registry.get(kind)
        except UnknownKind as error:
            raise ConfigError(str(error), (tag,)) from error
        if not (issubclass(member, cls) and hasattr(member, "__dataclass_fields__")):
            raise ConfigError(
                f"'{kind}' is not a {singular}: a subclass of {cls.__name__} that is a dataclass",
                (tag,),
            )
        left = [n for n in dir(member) if _is_abstract(getattr(member, n))]
        if left:
            raise ConfigError(f"'{kind}' does not define {', '.join(left)}", (tag,))
        return member.from_parameters(parameters)

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, object]) -> Self:
        """Validate ``parameters`` against this member's fields and build it."""
        fields = {key_of(field): field for field in _fields(cls)}
        for key in parameters:
            if key not in fields:
                raise ConfigError(
                    f"'{cls.kind}' has no '{key}'; {nearest(str(key), fields)}", (key,)
                )
        values = {}
        for key, field in fields.items():
            if key in parameters:
                annotation = _annotations(cls)[field.name]
                values[field.name] = _validate(annotation, parameters[key], key)
            elif field.default is dataclasses.MISSING and (
                field.default_factory is dataclasses.MISSING
            ):
                raise ConfigError(f"'{cls.kind}' needs '{key}'", ())
        try:
            return cls(**values)
        except (ValueError, TypeError) as error:
            raise ConfigError(f"'{cls.kind}': {error}", ()) from error

    def config(self) -> dict[str, Any]:
        """The ``{kind: NAME, ...}`` that builds this member again, every default written out."""
        return {self.tag: self.kind} | {
            key_of(field): _plain(getattr(self, field.name)) for field in _fields(type(self))
        }

    @classmethod
    def schema(cls) -> dict[str, Any]:
        """JSON Schema of this member's ``{kind: NAME, ...}``, for editors."""
        properties: dict[str, Any] = {cls.tag: {"const": cls.kind}}
        required = [cls.tag]
        for field in _fields(cls):
            schema = _annotation_schema(_annotations(cls)[field.name])
            if field.default is not dataclasses.MISSING:
                schema["default"] = _plain(field.default)
            elif field.default_factory is dataclasses.MISSING:
                required.append(key_of(field))
            properties[key_of(field)] = schema
        return {
            "type": "object",
            "description": inspect.cleandoc(cls.__doc__ or "").split("\n\n")[0],
            "properties": properties,
            "required": required,
            "additionalProperties": False,
        }

    @classmethod
    def family_schema(cls) -> dict[str, Any]:
        """JSON Schema of any member of the family, or its bare name."""
        names = list(cls.registry)
        members = [cls.registry.get(name).schema() for name in names]
        file = {"type": "string", "pattern": r"\.py:\w+$"}
        own = {"type": "object", "properties": {cls.tag: file}, "required": [cls.tag]}
        return {"anyOf": [{"enum": names}, *members, file, own]}

    @classmethod
    def __get_pydantic_core_schema__(
        cls, source: type[Any], handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        def build(value: object) -> Plugin:
            try:
                return cls.parse(value)
            except ConfigError as error:
                raise as_pydantic(error) from error

        return core_schema.no_info_plain_validator_function(
            build,
            serialization=core_schema.plain_serializer_function_ser_schema(lambda p: p.config()),
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: Any) -> dict[str, Any]:
        # a mark, not the schema: families contain each other and themselves
        return {FAMILY_MARK: cls.registry.family}


def as_pydantic(error: ConfigError) -> PydanticCustomError:
    """Carry a ConfigError, with its path, through pydantic."""
    return PydanticCustomError("tidings", "{text}", {"text": error.message, "path": error.path})


def from_pydantic(error: ValidationError) -> ConfigError:
    """The first thing that pydantic found wrong, with the path down to the key."""
    first = error.errors()[0]
    context = first.get("ctx", {})
    path = tuple(part for part in first["loc"] if not str(part).startswith("function-"))
    if first["type"] == "tidings":
        return ConfigError(context["text"], (*path, *context["path"]))
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] != "value_error":
        message = f"{message[0].lower()}{message[1:]}, got {shown(first['input'])}"
    return ConfigError(message, path)


def key_of(field: dataclasses.Field[Any]) -> str:
    """A parameter's name in files; metadata "key" where that is no name in Python."""
    return str(field.metadata.get("key", field.name))


def _is_abstract(attribute: object) -> bool:
    return getattr(attribute, "__isabstractmethod__", False) is True


def _fields(member: type) -> tuple[dataclasses.Field[Any], ...]:
    return tuple(field for field in dataclasses.fields(typing.cast("Any", member)) if field.init)


def _annotations(member: Any) -> dict[str, Any]:
    try:
        return typing.get_type_hints(member, include_extras=True)
    except NameError as error:
        raise ConfigError(f"'{member.kind}': the type of a parameter: {error}", ()) from error


def _adapter(annotation: Any) -> TypeAdapter[Any]:
    return TypeAdapter(annotation)


def _validate(annotation: Any, value: object, name: str) -> Any:
    try:
        adapter = _adapter(annotation)
    except PydanticUserError as error:
        reason = str(error).partition(". ")[0]
        raise ConfigError(f"'{name}' is of a type that no file can give: {reason}", ()) from error
    try:
        found = adapter.validate_python(value, strict=_is_plain_scalar(annotation))
    except ValidationError as error:
        raise from_pydantic(error).under(name) from error
    if type(found) is float and not math.isfinite(found):
        raise ConfigError(f"expected a finite number, got {found}", (name,))
    return found


def _is_plain_scalar(annotation: Any) -> bool:
    """bool, int, float and str are taken as written: no "3" for 3, no true for 1."""
    members = typing.get_args(annotation) or (annotation,)
    return all(member in (bool, int, float, str, type(None)) for member in members)


def _annotation_schema(annotation: Any) -> dict[str, Any]:
    return dict(_adapter(annotation).json_schema())


def _plain(value: Any) -> Any:
    """Parameters as YAML-able data; quantities keep their units."""
    if isinstance(value, Plugin):
        return value.config()
    if isinstance(value, float) and type(value) is not float:
        return str(value)
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return value
