"""``byz.<attack>`` for every attack: nodes that turn Byzantine at a given moment."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_type_hints

from tidings.api import Attack, attacks
from tidings.faults.base import Fault, Heal, Site, faults

_PREFIX = "byz."


@dataclass(frozen=True)
class ByzantineFault(Fault):
    """From then on the nodes attack, knowing each other; healed, they are honest again."""

    @property
    def conduct(self) -> Attack:
        """What the nodes do from then on."""
        config = self.config()
        return Attack.parse(config | {"kind": config["kind"].removeprefix(_PREFIX)})

    def begin(self, site: Site, targets: Sequence[int]) -> Heal:
        """Turn."""
        return site.attack(self.conduct.config(), targets)


def _turning(attack: type[Attack]) -> type[ByzantineFault]:
    """The fault that begins an attack, with the attack's own parameters."""
    hints = get_type_hints(attack, include_extras=True)
    fields = [(f.name, hints[f.name], f) for f in dataclasses.fields(attack) if f.init]  # type: ignore[arg-type]
    made = dataclasses.make_dataclass(
        f"Byzantine{attack.__name__}",
        [(name, kind, _default(field)) for name, kind, field in fields],
        bases=(ByzantineFault,),
        frozen=True,
        namespace={"__doc__": f"The nodes turn Byzantine. {attack.__doc__}"},
    )
    made.__post_init__ = lambda self: attack(**{n: getattr(self, n) for n, _, _ in fields}) and None  # type: ignore[attr-defined]
    return made


def _default(field: dataclasses.Field[object]) -> object:
    if field.default_factory is not dataclasses.MISSING:
        return dataclasses.field(default_factory=field.default_factory)
    if field.default is not dataclasses.MISSING:
        return dataclasses.field(default=field.default)
    return dataclasses.field()


for _name in attacks:
    faults.register(_PREFIX + _name)(_turning(attacks.get(_name)))
