"""Who signed an EFI program: the issuers named in its Authenticode signatures. Nothing is verified. Total, bounded.

Layout: WIN_CERTIFICATE (UEFI 2.10 section 32.2.4), PKCS #7 SignedData (RFC 2315 section 9.1), names (RFC 5280
section 4.1.2.4), DER (X.690). Only definite lengths are read, as DER demands.
"""

from __future__ import annotations

from collections.abc import Iterator

MAX_SIGNATURES = 8  # attribute certificates looked at; shim has one or two
_SEQUENCE, _SET, _OID, _CONTEXT_0 = 0x30, 0x31, 0x06, 0xA0
_COMMON_NAME = b"\x55\x04\x03"  # 2.5.4.3
_PKCS_SIGNED_DATA = 2  # WIN_CERT_TYPE_PKCS_SIGNED_DATA


def signers(data: bytes, at: int, size: int) -> tuple[str, ...]:
    """Common names of the signing certificates' issuers; at, size: where the attribute certificate table lies.

    ("Microsoft Corporation UEFI CA 2011", "Microsoft UEFI CA 2023"). A signature that cannot be read is "?".
    """
    names: list[str] = []
    end = min(at + size, len(data))
    for _ in range(MAX_SIGNATURES):
        if not 0 < at <= end - 8:
            break
        length = int.from_bytes(data[at : at + 4], "little")
        if length < 8 or at + length > end:
            break
        if int.from_bytes(data[at + 6 : at + 8], "little") == _PKCS_SIGNED_DATA:
            names += _issuers(data[at + 8 : at + length]) or ["?"]
        at += (length + 7) & ~7
    return tuple(dict.fromkeys(names))


def _issuers(data: bytes) -> list[str]:
    content = _first(data, _SEQUENCE)  # ContentInfo: an OID, then [0] with the SignedData
    signed = _first(_first(content, _CONTEXT_0), _SEQUENCE)
    # version, digestAlgorithms SET, contentInfo, [0] certificates, [1] crls, signerInfos SET: the last SET it is
    sets = [value for tag, value in _items(signed) if tag == _SET]
    names = []
    for tag, info in _items(sets[-1] if sets else b""):
        if tag == _SEQUENCE:  # SignerInfo: version, then issuerAndSerialNumber, whose first part is the issuer's name
            names.append(_common_name(_first(_first(info, _SEQUENCE), _SEQUENCE)))
    return [name for name in names if name]


def _common_name(name: bytes) -> str:
    for _, relative in _items(name):
        for _, attribute in _items(relative):
            parts = list(_items(attribute))
            if len(parts) == 2 and parts[0] == (_OID, _COMMON_NAME):
                text = parts[1][1].decode("utf-8", "replace")[:64]
                return "".join(c if c.isprintable() else "?" for c in text)
    return ""


def _first(data: bytes, tag: int) -> bytes:
    return next((value for kind, value in _items(data) if kind == tag), b"")


def _items(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(tag octet, contents) of each element in a row, until the end or the first that is not DER."""
    at = 0
    while at + 2 <= len(data):
        tag, length = data[at], data[at + 1]
        at += 2
        if length & 0x80:
            octets = length & 0x7F
            if not 1 <= octets <= 4:
                return
            length = int.from_bytes(data[at : at + octets], "big")
            at += octets
        if at + length > len(data):
            return
        yield tag, data[at : at + length]
        at += length
