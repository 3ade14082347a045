"""Pages of OpenAI's lists, and the tenant that a request is scoped to."""

from collections.abc import Sequence
from typing import Annotated, Any, Generic, Literal, TypeVar

from fastapi import Depends, Query, Request
from pydantic import BaseModel, ConfigDict

from sage_gateway.http.keys_api import TENANT
from sage_gateway.storage.exclusive_database import ListPage

After = Annotated[str | None, Query(max_length=64, description="the last id of the page before")]
Limit = Annotated[int, Query(ge=1, le=100)]
Order = Literal["asc", "desc"]

T = TypeVar("T")


async def _list_page(after: After = None, limit: Limit = 20, order: Order = "desc") -> ListPage:
    return ListPage(after, limit, newest_first=order == "desc")


#: The page that the parameters ``after``, ``limit`` and ``order`` of a request ask for.
Page = Annotated[ListPage, Depends(_list_page)]


class ObjectList(BaseModel, Generic[T]):
    """A page of objects with ids; the next one begins after ``last_id``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    object: Literal["list"] = "list"
    data: list[T]
    first_id: str | None
    last_id: str | None
    has_more: bool


def client_tenant(request: Request) -> str:
    """The client's tenant."""
    tenant: str = request.scope[TENANT]
    return tenant


def page_of(found: Sequence[Any], limit: int) -> dict[str, Any]:
    """The fields of an :class:`ObjectList`; one more than ``limit`` means that it continues."""
    items = found[:limit]
    first, last = (items[0].id, items[-1].id) if items else (None, None)
    return {"data": items, "first_id": first, "last_id": last, "has_more": len(found) > limit}
