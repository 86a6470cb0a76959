"""A store on a web server: read only, by the address as it was written."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

import obstore
from obstore.exceptions import BaseError, NotSupportedError

from ..errors import StoreError
from .address import Address
from .object_store import RemoteStore
from .providers import BUCKET_SCHEMES, url_choices

if TYPE_CHECKING:
    from obstore import ObjectMeta
    from obstore.store import ObjectStore

_PLAIN = "!$&'()*+,;=:@|^[]~"  # what obstore leaves as it is in a name; the rest it sends as %XX


class WebStore(RemoteStore):
    """Files below one address of a web server, which lists none. Names are percent-encoded, as they are sent.

    Every request carries the query and the credentials of the address. A server that refuses HEAD, as it must for a
    link that is signed for GET, is asked for the first byte instead.
    """

    web = True
    _heads = True  # until the server refuses one, and answers a GET

    def meta(self, name: str) -> ObjectMeta:
        """Return the size, and the time of the last change where the server gives it. Raises FileNotFoundError."""
        return self.ask(name, self._head)

    def sizes(self, folder: str = "") -> dict[str, int]:
        """Return nothing: a web server lists nothing."""
        return {}

    def folders(self, folder: str = "") -> list[str]:
        """Return nothing: a web server lists nothing."""
        return []

    def walk(self, folder: str) -> Iterator[tuple[str, int]]:
        """Yield nothing: a web server lists nothing."""
        return iter(())

    def _head(self, client: ObjectStore, key: str) -> ObjectMeta:
        if self._heads:
            try:
                return obstore.head(client, key)
            except (BaseError, OSError) as error:
                if not _refused(str(error)):
                    raise
        try:
            meta = obstore.get(client, key, options={"range": (0, 1)}).meta
        except NotSupportedError:  # it sends whole files only
            meta = obstore.get(client, key).meta
        except BaseError as error:
            if "status code: 416" not in str(error):
                raise
            meta = obstore.get(client, key).meta  # an empty file has no first byte
        self._heads = False
        return meta

    def _target(self, name: str) -> tuple[Address, str]:
        """Return the folder and the name in it where obstore sends the name as it was written; else the whole address.

        Files of one folder share a client and so its connections.
        """
        whole = self.address.at(name)
        folder, _, last = whole.path.rpartition("/")
        literal = unquote(last)
        same = quote(literal, safe=_PLAIN) == last and literal.isprintable() and literal not in ("", ".", "..")
        if not same or "/" in literal or "//" in f"/{whole.path}":
            return whole, ""
        return self.address.root.at(folder), literal

    def _read_only(self) -> None:
        raise StoreError(f"{self} can only be read: write to a folder or to {url_choices(BUCKET_SCHEMES)}")


def _refused(text: str) -> bool:
    """Return True where the method may be refused, rather than the file missing or the server away."""
    status = re.search(r"status code: (\d{3})", text)
    if status is None:
        return "header" in text.lower()  # the answer to HEAD has no size
    return status[1] == "501" or (status[1][0] == "4" and status[1] not in ("404", "410", "408", "429"))
