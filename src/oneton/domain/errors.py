"""Every error that oneton raises on purpose, branched by what the caller does next.

OnetonError
├── ProbeError              send another picture
│   ├── NoFaceError
│   ├── SeveralFacesError
│   ├── TooLargeError       more bytes or pixels than allowed
│   ├── UnsupportedTypeError
│   ├── BadImageError       not a picture, or a broken one
│   └── LowQualityError     below the gallery's floor for enrolling
├── NotFoundError           no such tenant, gallery, key or face record
├── ConflictError           already there, or made by another model pack
│   └── DimensionError
├── DeniedError             who asks is unknown, or may not
│   ├── UnauthenticatedError
│   ├── ForbiddenError
│   │   ├── ExpiredKeyError     the key's time is over
│   │   ├── ElsewhereError      the key may not be used from this address
│   │   └── SuspendedError      the tenant is suspended, or being deleted
│   ├── KeyDestroyedError   the tenant's keys were destroyed: it is closed for good
│   ├── QuotaError          the tenant has as many face records as it may
│   └── OutOfCreditError    the tenant's balance is used up
├── SettingError            a setting is wrong; nothing was started
├── LicenceError            a model pack's licence has to be accepted first
├── AddressError            webhooks do not go to this address
├── SealBrokenError         what is encrypted does not open: tampered with, or its key is gone
├── BadTextError            a text holds what cannot be kept, such as a zero character
└── UnavailableError        try again
    ├── RateLimitedError    the key called too often
    │   └── DayQuotaError   the tenant made as many calls as it may in a day
    ├── BusyError           more work queued than the CPU budget allows
    ├── IndexLoadingError   the gallery's index is being loaded
    ├── SnapshotError       a file of the index is damaged; it is loaded anew
    └── StoreDownError      Postgres or the object store does not answer
"""

from __future__ import annotations


class OnetonError(Exception):
    """The root; carries data, never a status code."""


class ProbeError(OnetonError):
    """The picture cannot be used; another one may."""


class NoFaceError(ProbeError):
    """No face was found."""

    def __init__(self) -> None:
        super().__init__("no face found")


class SeveralFacesError(ProbeError):
    """More faces than the caller allows."""

    def __init__(self, found: int) -> None:
        super().__init__(f"{found} faces found, one expected")
        self.found = found


class TooLargeError(ProbeError):
    """The picture has more bytes, or more pixels, than allowed, in all or on its longer side."""

    def __init__(
        self,
        *,
        limit_bytes: int | None = None,
        limit_pixels: int | None = None,
        limit_side: int | None = None,
    ) -> None:
        limit = f"{limit_bytes} bytes" if limit_pixels is None else f"{limit_pixels} pixels"
        if limit_side is not None:
            limit = f"{limit_side} pixels on a side"
        super().__init__(f"image is larger than {limit}")
        self.limit_bytes = limit_bytes
        self.limit_pixels = limit_pixels
        self.limit_side = limit_side


class UnsupportedTypeError(ProbeError):
    """The picture is of a type that the caller does not accept."""

    def __init__(self, found: str | None, accepted: tuple[str, ...]) -> None:
        super().__init__(f"image type {found or 'unknown'}, accepted: {', '.join(accepted)}")
        self.found = found
        self.accepted = accepted


class BadImageError(ProbeError):
    """The bytes are empty, or a picture that cannot be decoded."""


class LowQualityError(ProbeError):
    """The face is below the gallery's floor for enrolling."""

    def __init__(self, measure: str, value: float, floor: float) -> None:
        super().__init__(f"face {measure} {value:.3g} is below {floor:.3g}")
        self.measure = measure
        self.value = value
        self.floor = floor


class NotFoundError(OnetonError):
    """No such tenant, gallery, key or face record."""

    def __init__(self, kind: str, name: object) -> None:
        super().__init__(f"no such {kind}: {name}")
        self.kind = kind
        self.name = name


class ConflictError(OnetonError):
    """Already there, or made by another model pack."""


class DimensionError(ConflictError):
    """An embedding has another dimension than the index."""

    def __init__(self, found: int, expected: int) -> None:
        super().__init__(f"embedding has dimension {found}, the index {expected}")
        self.found = found
        self.expected = expected


class DeniedError(OnetonError):
    """Who asks is unknown, or may not."""


class UnauthenticatedError(DeniedError):
    """No valid credentials."""


class ForbiddenError(DeniedError):
    """Valid credentials without the permission that the call needs."""

    def __init__(self, permission: str) -> None:
        super().__init__(f"permission {permission} is needed")
        self.permission = permission


class ExpiredKeyError(ForbiddenError):
    """The key's time is over."""

    def __init__(self) -> None:
        OnetonError.__init__(self, "the key has expired")
        self.permission = ""


class ElsewhereError(ForbiddenError):
    """The key may not be used from the caller's address."""

    def __init__(self) -> None:
        OnetonError.__init__(self, "the key may not be used from this address")
        self.permission = ""


class SuspendedError(ForbiddenError):
    """The tenant is suspended, or being deleted."""

    def __init__(self) -> None:
        OnetonError.__init__(self, "the tenant is suspended")
        self.permission = ""


class QuotaError(DeniedError):
    """The tenant has as many face records as it may."""


class KeyDestroyedError(DeniedError):
    """The tenant's keys were destroyed: nothing of it opens any more, and it is closed for good."""

    def __init__(self) -> None:
        super().__init__("the tenant's encryption key was destroyed")


class OutOfCreditError(DeniedError):
    """The tenant's balance is used up."""

    def __init__(self) -> None:
        super().__init__("no credit is left")


class SettingError(OnetonError):
    """A setting is wrong; nothing was started."""


class LicenceError(OnetonError):
    """A model pack's licence has to be accepted before it is added."""

    def __init__(self, pack: str, licence: str) -> None:
        super().__init__(f"the licence of {pack} has to be accepted: --accept-license")
        self.pack = pack
        self.licence = licence


class BadTextError(OnetonError):
    """A text holds a character that cannot be kept."""

    def __init__(self) -> None:
        super().__init__("a text holds a character that cannot be kept")


class SealBrokenError(OnetonError):
    """What is encrypted does not open: it was tampered with, or its key is gone."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what} does not open: damaged, or its key is gone")


class AddressError(OnetonError):
    """Webhooks do not go to this address."""


class UnavailableError(OnetonError):
    """Try again after `retry_after_s` seconds."""

    def __init__(self, message: str, retry_after_s: int = 1) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class RateLimitedError(UnavailableError):
    """The key called too often."""

    def __init__(self, limit: int, retry_after_s: int) -> None:
        super().__init__(f"more than {limit} calls a minute", retry_after_s)
        self.limit = limit


class DayQuotaError(RateLimitedError):
    """The tenant made as many calls as it may in a day."""

    def __init__(self, limit: int, retry_after_s: int) -> None:
        UnavailableError.__init__(self, f"more than {limit} calls a day", retry_after_s)
        self.limit = limit


class BusyError(UnavailableError):
    """More work is queued than the CPU budget allows."""


class IndexLoadingError(UnavailableError):
    """The gallery's index is being loaded."""


class SnapshotError(UnavailableError):
    """A file of an index snapshot is missing, damaged, or of another format."""


class StoreDownError(UnavailableError):
    """Postgres or the object store does not answer."""
