"""Frames that say how long they are, by the rules of Swoole's ``open_length_check``.

::

    | bytes before | length field | bytes between | payload              |
    0              length_offset                  ^ header_size          ^ package_size
                                  ^ body_offset unless said

The length counts the bytes from ``body_offset`` on. The header is what stands before the payload:
up to the end of the length field, or up to ``body_offset`` if that is later.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

import attrs

from trioserver._errors import FrameTooLargeError, FramingError
from trioserver._net._framing_buffer import BufferedDecoder, check_whole_number

if TYPE_CHECKING:
    from trioserver._net._framing import Decoder

# The letters of PHP's pack(). "=" is machine order with fixed sizes: "@" would give 64 bit where
# PHP means 32.
LENGTH_TYPES: Final = {
    "c": struct.Struct("=b"),
    "C": struct.Struct("=B"),
    "s": struct.Struct("=h"),
    "S": struct.Struct("=H"),
    "n": struct.Struct(">H"),
    "N": struct.Struct(">I"),
    "l": struct.Struct("=i"),
    "L": struct.Struct("=I"),
    "v": struct.Struct("<H"),
    "V": struct.Struct("<I"),
}


@attrs.frozen
class LengthFraming:
    """Frames begin with a header in which their length stands.

    A length that is negative, or that counts a part of the header and is shorter than it, is a
    `FramingError`, as is a length above the limit, as soon as the length field has come.

    Args:
      length_type: What the length field is, as in PHP's ``pack``: ``c C`` (8 bit, signed and
        unsigned), ``s S`` (16 bit in machine order), ``n`` (16 bit, big-endian), ``v`` (16 bit,
        little-endian), ``l L`` (32 bit in machine order), ``N`` (32 bit, big-endian), ``V`` (32
        bit, little-endian).
      length_offset: Bytes before the length field.
      body_offset: From which byte of the package on the length counts; None is the end of the
        length field, 0 counts the whole package. If it is beyond the length field, the header
        reaches up to it.
      keep_header: Whether frames are whole packages, instead of what follows the header.
    """

    length_type: str = attrs.field(default="N")
    length_offset: int = attrs.field(default=0, kw_only=True)
    body_offset: int | None = attrs.field(default=None, kw_only=True)
    keep_header: bool = attrs.field(default=False, kw_only=True)

    @length_type.validator
    def _check_length_type(self, _attribute: object, value: object) -> None:
        if not isinstance(value, str):
            raise TypeError(f"length_type must be a str not {value!r}")
        if value not in LENGTH_TYPES:
            raise ValueError(f"length_type must be one of {' '.join(LENGTH_TYPES)}: {value!r}")

    @length_offset.validator
    def _check_length_offset(self, _attribute: object, value: object) -> None:
        check_whole_number("length_offset", value, 0)

    @body_offset.validator
    def _check_body_offset(self, _attribute: object, value: object) -> None:
        if value is not None:
            check_whole_number("body_offset", value, 0)

    @keep_header.validator
    def _check_keep_header(self, _attribute: object, value: object) -> None:
        if not isinstance(value, bool):
            raise TypeError(f"keep_header must be a bool not {value!r}")

    def __attrs_post_init__(self) -> None:
        try:
            self._field.pack(self._header_size - self._counted_from)
        except struct.error:
            raise ValueError(
                f"length_type {self.length_type!r} is too small"
                f" to count a header of {self._header_size} bytes"
            ) from None

    @property
    def _field(self) -> struct.Struct:
        return LENGTH_TYPES[self.length_type]

    @property
    def _field_end(self) -> int:
        return self.length_offset + self._field.size

    @property
    def _counted_from(self) -> int:
        return self._field_end if self.body_offset is None else self.body_offset

    @property
    def _header_size(self) -> int:
        return max(self._field_end, self._counted_from)

    def encode(self, payload: bytes) -> bytes:
        """Return a header and ``payload``.

        The bytes of the header beside the length field are zero. If your protocol has something to
        say there, use ``keep_header``: then ``payload`` is a whole package, as the decoder returns
        it, and is only checked.

        Raises:
          ValueError: if the payload is too long for the length type; with ``keep_header``, if the
            package is shorter than its header or its length field does not agree with its size.
        """
        if self.keep_header:
            self._check_package(payload)
            return payload
        header_size = self._header_size
        try:
            length_field = self._field.pack(header_size - self._counted_from + len(payload))
        except struct.error:
            raise ValueError(
                f"payload of {len(payload)} bytes is too long for length_type {self.length_type!r}"
            ) from None
        before, after = bytes(self.length_offset), bytes(header_size - self._field_end)
        return before + length_field + after + payload

    def decoder(self, max_length: int) -> Decoder:
        """Return a decoder; ``max_length`` counts the header only with ``keep_header``.

        Raises:
          ValueError: if the header alone is above ``max_length`` with ``keep_header``.
        """
        return _LengthDecoder(
            self._field,
            length_offset=self.length_offset,
            counted_from=self._counted_from,
            header_size=self._header_size,
            skipped=0 if self.keep_header else self._header_size,
            max_length=max_length,
        )

    def _check_package(self, package: bytes) -> None:
        size = len(package)
        if size < self._header_size:
            raise ValueError(
                f"package of {size} bytes is shorter than its header of {self._header_size} bytes"
            )
        (length,) = self._field.unpack_from(package, self.length_offset)
        if self._counted_from + length != size:
            raise ValueError(
                f"package of {size} bytes has a length field"
                f" that makes it {self._counted_from + length} bytes"
            )


class _LengthDecoder(BufferedDecoder):
    __slots__ = ("_counted_from", "_field", "_header_size", "_length_offset", "_skipped")

    def __init__(
        self,
        field: struct.Struct,
        *,
        length_offset: int,
        counted_from: int,
        header_size: int,
        skipped: int,
        max_length: int,
    ) -> None:
        super().__init__(max_length)
        if header_size - skipped > max_length:
            raise ValueError(f"header of {header_size} bytes exceeds max_length {max_length}")
        self._field = field
        self._length_offset = length_offset
        self._counted_from = counted_from
        self._header_size = header_size
        self._skipped = skipped  # bytes of a package that its frame goes without

    def next_frame(self) -> bytes | None:
        if self._failure is not None:
            raise self._failure()
        start = self._start
        package_size = self._package_size()
        if package_size is None or start + package_size > len(self._buffer):
            self._release()
            return None
        end = start + package_size
        frame = self._cut(start + self._skipped, end)
        self._start = end
        return frame

    def _package_size(self) -> int | None:
        """Bytes of the package that has begun, checked; None while its length field is not here."""
        place = self._start + self._length_offset
        if place + self._field.size > len(self._buffer):
            return None
        (length,) = self._field.unpack_from(self._buffer, place)
        package_size: int = self._counted_from + length
        if package_size < self._header_size:
            # A negative length always comes here: the header is never shorter than _counted_from.
            if length < 0:
                raise self._fail(FramingError, f"length {length} is negative")
            raise self._fail(
                FramingError,
                f"length {length} is shorter than the part of the header that it counts,"
                f" {self._header_size - self._counted_from} bytes",
            )
        frame_size = package_size - self._skipped
        if frame_size > self._max_length:
            raise self._fail(FrameTooLargeError, frame_size, self._max_length)
        return package_size

    def _expected(self) -> int:
        return self._package_size() or self._header_size
