"""JSON Schema of the experiment file, for editors.

``python -m tidings_coordinator.experiment.schema > docs/experiment.schema.json``
"""

from __future__ import annotations

import json
import re
from typing import Any

from pydantic.json_schema import GenerateJsonSchema

from tidings.registry import FAMILY_MARK, Plugin
from tidings.units import Duration, Quantity, Rate, Ratio, Size
from tidings_coordinator.experiment.families import FAMILIES
from tidings_coordinator.experiment.model import Experiment

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_NUMBER = r"([0-9]+(\.[0-9]*)?([eE][+-]?[0-9]+)?|\.[0-9]+)"
_QUANTITIES: tuple[type[Quantity], ...] = (Duration, Rate, Ratio, Size)
#: units that are read beside those that a quantity lists, and words
_MORE_UNITS = {"size": ["kB", "MB", "GB"], "ratio": [""]}
_WORDS = {"rate": "|^unlimited$"}


class _Generator(GenerateJsonSchema):
    """Pydantic's schemas but for titles, which repeat the keys, and for defaults."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        """No."""
        return False

    def encode_default(self, dft: Any) -> Any:
        """Plug-ins with their kind, which pydantic would leave out."""
        return dft.config() if isinstance(dft, Plugin) else super().encode_default(dft)


def schema() -> dict[str, Any]:
    """The schema (draft 2020-12) of the whole file with all plug-ins that are installed."""
    file = Experiment.model_json_schema(schema_generator=_Generator)
    # the loader takes it from the file's name
    file["required"].remove("name")
    families = {name: base.family_schema() for name, base in FAMILIES.items()}
    definitions = _linked(file.pop("$defs") | families) | _quantities()
    return {"$schema": _DIALECT, **_linked(file), "$defs": dict(sorted(definitions.items()))}


def _linked(schema: Any) -> Any:
    """``schema`` with references in place of family marks and of quantities."""
    if isinstance(schema, list | tuple):
        return [_linked(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    linked = {key: value if key == "default" else _linked(value) for key, value in schema.items()}
    if FAMILY_MARK in linked:
        linked["$ref"] = f"#/$defs/{linked.pop(FAMILY_MARK)}"
    for quantity in _QUANTITIES:
        if linked.get("type") == "string" and linked.get("examples") == [quantity.example]:
            del linked["type"], linked["examples"]
            if linked.get("description") == f"a {quantity.name}":
                del linked["description"]
            linked["$ref"] = f"#/$defs/{quantity.name}"
    return linked


def _quantities() -> dict[str, Any]:
    return {quantity.name: _quantity(quantity) for quantity in _QUANTITIES}


def _quantity(quantity: type[Quantity]) -> dict[str, Any]:
    units = [*quantity.units, *quantity.aliases, *_MORE_UNITS.get(quantity.name, [])]
    pattern = rf"^\s*{_NUMBER}\s*({'|'.join(map(re.escape, units))})\s*$"
    text = {
        "type": "string",
        "pattern": pattern + _WORDS.get(quantity.name, ""),
        "examples": [quantity.example],
    }
    about = {"description": f"a {quantity.name} with its unit, for example {quantity.example}"}
    if quantity is Ratio:
        return about | {"anyOf": [text, {"type": "number", "minimum": 0, "maximum": 1}]}
    return about | text


def main() -> None:
    """Print the schema."""
    print(json.dumps(schema(), indent=2, ensure_ascii=False))


if __name__ == "__main__":
    main()
