"""Who may do what: roles, and people who hold them. Knows no HTTP and no database."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

EVERYWHERE = "*"
"""The name that stands for all projects, and for what belongs to none: datasets, models, sweeps, views."""


class Role(StrEnum):
    """What somebody may do; each may do what those before it may.

    viewer: look. contributor: change runs, tags, notes; stop runs. maintainer: delete, approve and promote.
    admin: users and tokens.
    """

    VIEWER = "viewer"
    CONTRIBUTOR = "contributor"
    MAINTAINER = "maintainer"
    ADMIN = "admin"

    @property
    def rank(self) -> int:
        """Its place: a higher one may do more."""
        return list(Role).index(self)


@dataclass(frozen=True, slots=True)
class Principal:
    """Somebody who has shown who they are.

    Attributes:
        name: Of the user.
        roles: By project; `*` for all of them.
        is_by_cookie: Whether a browser's cookie shows it, so that another site could have sent the request.
        session: Hash of the session, where there is one.
    """

    name: str
    roles: Mapping[str, Role] = field(default_factory=dict)
    is_by_cookie: bool = False
    session: str | None = None

    def may(self, role: Role, project: str | None = None) -> bool:
        """Return whether they have a role in a project; `None`: in the workspace as a whole."""
        held = [self.roles.get(EVERYWHERE), self.roles.get(project) if project is not None else None]
        return any(one is not None and one.rank >= role.rank for one in held)

    def may_somewhere(self, role: Role) -> bool:
        """Return whether they have a role in any project."""
        return any(one.rank >= role.rank for one in self.roles.values())

    def projects(self, role: Role = Role.VIEWER) -> frozenset[str] | None:
        """Return the projects in which they have a role; `None`: in all."""
        if self.may(role):
            return None
        return frozenset(name for name, one in self.roles.items() if one.rank >= role.rank)

    @property
    def highest(self) -> Role | None:
        """The most that they may do anywhere."""
        return max(self.roles.values(), key=lambda role: role.rank, default=None)
