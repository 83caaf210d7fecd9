"""Just enough OpenPGP (RFC 9580) to sign an InRelease file in a test, with a key that exists for tests alone."""

import base64
import functools
import hashlib

P = int(
    "c0ef7ec1049ef67b2a7d2d2cb8326b81c69ff510b94047e2f926b319e7af5d8f19c4e44792239d702b116c852f71f7a0"
    "fdaaedfeed2358948a9fe8d2d1c81f999ed5a9fdd732b0b5d9ad06c2098ac5e2582b9daccf0daefafe0df063504a816d"
    "fd7039dc28a8ca431b9a1d9fc8cdf3d0ec6e5f46dda70ae58ea210840cbafce3",
    16,
)
Q = int(
    "ce586664b92c7a21deefebaaa64c97dec0352559c0e5657b8e46453b6f9933a204cde4a54eb10c0a631b622528210dfe"
    "6bd08debdce55c891f32c15a49aeb7543f2972e40abf1358ac2e3be327c192145869b45bc8169f69288864496d112daa"
    "6cc2bbd6addd51680b47dc052b9e589ae9d3ed4d353e3d55f0ffd78a5520442d",
    16,
)
E_ = 65537
N = P * Q
D = pow(E_, -1, (P - 1) * (Q - 1))
MADE = 1_600_000_000  # seconds since 1970
UID = b"Bootwire Test Archive <test@example.org>"


@functools.cache
def keyring(other: bool = False) -> bytes:
    """The public key as a binary keyring. other: a key that signed nothing."""
    key = _key_body(other)
    uid_hash = b"\x99" + len(key).to_bytes(2, "big") + key + b"\xb4" + len(UID).to_bytes(4, "big") + UID
    own = _signature(0x13, uid_hash, other, b"\x02\x1b\x03")  # key flags: certify, sign
    return _packet(6, key) + _packet(13, UID) + _packet(2, own)


def armoured(other: bool = False) -> str:
    return _armour("PUBLIC KEY BLOCK", keyring(other))


def clearsigned(text: str, other: bool = False) -> bytes:
    """`text` in the cleartext signature framework, as apt archives publish InRelease."""
    lines = text.rstrip("\n").split("\n")
    data = "\r\n".join(line.rstrip(" \t") for line in lines).encode()
    escaped = "\n".join("- " + line if line.startswith("-") else line for line in lines)
    signed = _armour("SIGNATURE", _packet(2, _signature(0x01, data, other)))
    return f"-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\n{escaped}\n{signed}".encode()


def detached(data: bytes, other: bool = False) -> bytes:
    """A binary signature of a file, apart from it."""
    return _packet(2, _signature(0x00, data, other))


def _root(m: int) -> int:
    """m to the power of D, by way of the primes: four times as fast."""
    p, q = pow(m, D % (P - 1), P), pow(m, D % (Q - 1), Q)
    return q + (p - q) * pow(Q, -1, P) % P * Q


def _key_body(other: bool) -> bytes:
    return b"\x04" + MADE.to_bytes(4, "big") + b"\x01" + _mpi(N + 2 if other else N) + _mpi(E_)


def _fingerprint(other: bool) -> bytes:
    body = _key_body(other)
    return hashlib.sha1(b"\x99" + len(body).to_bytes(2, "big") + body).digest()


def _signature(kind: int, data: bytes, other: bool, more: bytes = b"") -> bytes:
    made = b"\x05\x02" + MADE.to_bytes(4, "big")
    issuer = b"\x16\x21\x04" + _fingerprint(other)
    hashed = made + issuer + more
    head = bytes([4, kind, 1, 8]) + len(hashed).to_bytes(2, "big") + hashed
    digest = hashlib.sha256(data + head + b"\x04\xff" + len(head).to_bytes(4, "big")).digest()
    info = bytes.fromhex("3031300d060960864801650304020105000420") + digest
    padded = b"\0\x01" + b"\xff" * (256 - 3 - len(info)) + b"\0" + info
    keyid = b"\x09\x10" + _fingerprint(other)[-8:]
    value = 1 if other else _root(int.from_bytes(padded, "big"))
    return head + len(keyid).to_bytes(2, "big") + keyid + digest[:2] + _mpi(value)


def _mpi(number: int) -> bytes:
    return number.bit_length().to_bytes(2, "big") + number.to_bytes((number.bit_length() + 7) // 8, "big")


def _packet(tag: int, body: bytes) -> bytes:
    return bytes([0xC0 | tag, 0xFF]) + len(body).to_bytes(4, "big") + body


def _armour(kind: str, data: bytes) -> str:
    crc = 0xB704CE
    for octet in data:
        crc ^= octet << 16
        for _ in range(8):
            crc = (crc << 1) ^ (0x1864CFB if crc & 0x800000 else 0)
        crc &= 0xFFFFFF
    text = base64.b64encode(data).decode()
    lines = "\n".join(text[i : i + 64] for i in range(0, len(text), 64))
    check = base64.b64encode(crc.to_bytes(3, "big")).decode()
    return f"-----BEGIN PGP {kind}-----\n\n{lines}\n={check}\n-----END PGP {kind}-----\n"
