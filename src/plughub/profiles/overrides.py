"""What a profile says of a server's tools: off, another name, another description. Pure functions.

A name is taken by what the profile says, never by what the server lists just now: so names and tools find each other without the
list, and a tool that appears later cannot draw calls to itself that were meant for a renamed one.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Protocol, TypeVar

import msgspec

from plughub.kit.errors import Invalid
from plughub.protocol.envelope import object_of
from plughub.upstream.target import RawJson

MAX_TOOLS = 1000
_members = msgspec.json.Decoder(dict[str, msgspec.Raw])


@dataclass(frozen=True, slots=True)
class ToolSetting:
    """One tool in a profile; None = as the server says."""

    enabled: bool = True
    name: str | None = None
    description: str | None = None

    def shown(self) -> dict[str, Any]:
        """What differs from the server's own."""
        told: dict[str, Any] = {} if self.enabled else {"enabled": False}
        return told | {key: value for key, value in (("name", self.name), ("description", self.description)) if value is not None}


@dataclass(frozen=True, slots=True)
class Overrides:
    """The settings by the server's own name of a tool. `owners`: which tool has a name that was given here."""

    tools: Mapping[str, ToolSetting] = field(default_factory=dict)
    owners: Mapping[str, str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        owners = {setting.name: tool for tool, setting in self.tools.items() if setting.enabled and setting.name is not None}
        object.__setattr__(self, "owners", owners)

    def __bool__(self) -> bool:
        return bool(self.tools)

    def shown_name(self, tool: str) -> str | None:
        """The name in the profile of the server's `tool`; None when it is off, or another tool was given its name."""
        setting = self.tools.get(tool)
        if setting is not None and not setting.enabled:
            return None
        if setting is not None and setting.name is not None:
            return setting.name
        return None if tool in self.owners else tool

    def own_name(self, shown: str) -> str | None:
        """The server's own name of the tool that the profile shows as `shown`; None when it shows none.

        A name that is not spoken of here is the server's to judge.
        """
        owner = self.owners.get(shown)
        if owner is not None:
            return owner
        setting = self.tools.get(shown)
        return shown if setting is None or (setting.enabled and setting.name is None) else None

    def shown(self) -> dict[str, dict[str, Any]]:
        """As it is kept, and as the API shows it."""
        return {tool: setting.shown() for tool, setting in self.tools.items()}


def overrides_of(tools: Mapping[str, Mapping[str, Any]], names: Collection[str] = ()) -> Overrides:
    """What `tools` says: `{tool: {enabled?, name?, description?}}`, without what says nothing new. Raises Invalid.

    Refused is a name that two tools would have. `names`: the server's own, as far as they are known.
    """
    settings = {tool: ToolSetting(**_telling(tool, told)) for tool, told in tools.items()}
    kept = {tool: setting for tool, setting in settings.items() if setting != ToolSetting()}
    if len(kept) > MAX_TOOLS:
        raise Invalid("tools", f"The 'tools' field names more than {MAX_TOOLS} tools")
    plain = ToolSetting()
    owners = {tool: tool for tool in (*names, *kept) if (setting := kept.get(tool, plain)).enabled and setting.name is None}
    for tool, setting in kept.items():
        if setting.enabled and setting.name is not None and owners.setdefault(setting.name, tool) != tool:
            place = f"tools.{tool}.name"
            raise Invalid(place, f"The '{place}' field is the name of the tool '{owners[setting.name]}' already", setting.name)
    return Overrides(kept)


class Named(Protocol):
    """An item of a list, a dataclass: its name, and the raw JSON object as its server sent it."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def name(self) -> str: ...

    @property
    def raw(self) -> bytes: ...


ItemT = TypeVar("ItemT", bound=Named)


def overridden(items: Iterable[ItemT], overrides: Overrides) -> list[ItemT]:
    """A server's tools as the profile shows them, in the server's order; whatever else the server sent stays as it is."""
    found = []
    for item in items:
        name = overrides.shown_name(item.name)
        if name is None:
            continue
        setting = overrides.tools.get(item.name)
        description = setting.description if setting is not None else None
        if name == item.name and description is None:
            found.append(item)
        else:
            found.append(replace(item, name=name, raw=_rewritten(item.raw, name, description)))
    return found


def _rewritten(raw: bytes, name: str, description: str | None) -> bytes:
    parts: dict[str, RawJson] = dict(_members.decode(raw))
    parts["name"] = msgspec.json.encode(name)
    if description is not None:
        parts["description"] = msgspec.json.encode(description)
    return object_of(parts)


def _telling(tool: str, told: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in told.items() if not (key == "name" and value == tool)}
