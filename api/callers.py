"""Who asks: what the rest of the API knows of a caller, however it proved who it is.

Stands apart from `auth.py` because snapshots, plans and live queries depend on the caller and not
on tokens.
"""

from dataclasses import dataclass
from typing import Final, Literal

from views.ddl import CUSTOMER

Role = Literal["operator", "customer"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """An operator, who reads everything, or one customer, who reads the own rows."""

    role: Role
    customer_id: str = ""

    @property
    def database_role(self) -> str:
        """The role that the database reads with; `none` is the login itself."""
        return CUSTOMER if self.role == "customer" else "none"


OPERATOR: Final = Caller(role="operator")
