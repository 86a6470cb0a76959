"""What a kind of object storage has to say of itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from ...errors import StoreError

if TYPE_CHECKING:
    from obstore.store import ClientConfig, ObjectStore, RetryConfig

_TRUE, _FALSE = ("1", "true", "on", "yes", "y"), ("0", "false", "off", "no", "n")


class AddressVariable(NamedTuple):
    """The variables that name one server of a provider.

    Attributes:
        names: The variables, the one that counts first.
        key: The configuration key of obstore.
        default: The address where none is set, with {region} or {account} in it; empty for none.
    """

    names: tuple[str, ...]
    key: str
    default: str


@dataclass(frozen=True)
class ClientRequest:
    """What a client of obstore is made from.

    Attributes:
        host: The bucket, or the server with its port.
        path: The prefix of all keys, without a slash before or after it.
        url: The whole address with its query, which may be secret.
        settings: What the environment says, by the configuration keys of obstore.
        environ: The environment.
        client: Time limits and headers.
        retry: How to go on after a failed request.
    """

    host: str
    path: str
    url: str
    settings: dict[str, str]
    environ: Mapping[str, str]
    client: ClientConfig
    retry: RetryConfig


class Provider(ABC):
    """One kind of object storage: its addresses, its variables, its credentials, its client.

    A provider is added by a file in this folder and a line in PROVIDERS. It imports obstore in `connect` alone, so
    that local work never loads it.

    Attributes:
        schemes: What its URLs begin with, in lower case.
        web: True for a web server, which lists nothing and takes nothing; False for buckets.
        prefix: What the names of its variables begin with; empty for none.
        addresses: Variables that name a server.
        flags: Variables that are true or false, passed to obstore.
        allow_http: The variable that allows a server without encryption.
        skip_signature: The variable that asks without credentials, for a public bucket.
        secrets: Variables whose values go into headers and are never printed.
        credentials: The variables that credentials are in.
        bucket_hint: The end of the sentence about HOST:PORT in the place of a bucket.
        region_hint: What to do where the bucket is in another region; empty for a provider without regions.
        no_credentials: Parts of obstore's errors where it found no credentials.
    """

    schemes: ClassVar[tuple[str, ...]]
    web: ClassVar[bool] = False
    prefix: ClassVar[str] = ""
    addresses: ClassVar[tuple[AddressVariable, ...]] = ()
    flags: ClassVar[tuple[str, ...]] = ()
    allow_http: ClassVar[str] = ""
    skip_signature: ClassVar[str] = ""
    secrets: ClassVar[tuple[str, ...]] = ()
    credentials: ClassVar[str] = ""
    bucket_hint: ClassVar[str] = ""
    region_hint: ClassVar[str] = ""
    no_credentials: ClassVar[tuple[str, ...]] = ()

    @property
    def missing_credentials(self) -> str:
        """What to do where there are no credentials."""
        return f"set {self.credentials}, or {self.public}"

    @property
    def public(self) -> str:
        """What to set for a public bucket."""
        return f"{self.skip_signature}=true for a public bucket"

    def known(self, environ: Mapping[str, str]) -> dict[str, str]:
        """Return the values of {names} in the defaults of `addresses`. Raises StoreError for a bad one."""
        return {}

    def more_settings(self, environ: Mapping[str, str]) -> dict[str, str]:
        """Return what to pass to obstore beside flags and addresses, by its configuration keys."""
        return {}

    def access_denied(self, server: str, authorization: bool, query: bool) -> str:
        """Return the end of the sentence about a request that was refused.

        Args:
            server: Scheme and host of the address.
            authorization: Whether the address has a user name and a password.
            query: Whether the address has a query.
        """
        return f"check {self.credentials}; {self.public}"

    @abstractmethod
    def connect(self, request: ClientRequest) -> ObjectStore:
        """Return a client of obstore. Raises StoreError, and obstore's own errors."""


def flag(name: str, environ: Mapping[str, str]) -> bool:
    """Return the value of a variable that is true or false. Raises StoreError for another."""
    value = environ.get(name, "")
    if value and value.lower() not in _TRUE + _FALSE:
        raise StoreError(f"{name}={value!r} is neither true nor false: set it to one of them, or unset it")
    return value.lower() in _TRUE
