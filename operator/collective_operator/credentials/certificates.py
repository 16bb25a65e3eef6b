"""X.509 as far as a task needs it: an authority of its own, and one certificate for each pod, for one name and one use.

Every task has an authority of its own, so that what one task's authority has signed opens nothing at another's. A
learner's certificate serves and cannot call, the coordinator's calls and cannot serve: a learner that is taken over is
no coordinator. Keys are on the curve P-256, which every TLS library takes.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

Usage = Literal["server", "client"]

BACKDATED = timedelta(hours=1)
"""How far a pod's clock may be behind the operator's: a certificate is valid from so long ago."""
_COMMON_NAME_LIMIT = 64
_UNREADABLE = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.ExtensionNotFound,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)
"""What reading a certificate or a key raises that somebody has damaged."""
_USAGES = {"server": ExtendedKeyUsageOID.SERVER_AUTH, "client": ExtendedKeyUsageOID.CLIENT_AUTH}
_NOTHING = dict.fromkeys(
    (
        "digital_signature",
        "content_commitment",
        "key_encipherment",
        "data_encipherment",
        "key_agreement",
        "key_cert_sign",
        "crl_sign",
        "encipher_only",
        "decipher_only",
    ),
    False,
)


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A certificate and its key, both in PEM."""

    certificate: bytes
    key: bytes


def new_authority(name: str, *, now: datetime, life: timedelta) -> KeyPair:
    """Make an authority, which signs itself.

    Parameters
    ----------
    name
        What its certificate calls it.
    now, life
        From when, and for how long.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _subject(name)
    builder = (
        _builder(subject=subject, issuer=subject, key=key, now=now, until=now + life)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.KeyUsage(**{**_NOTHING, "key_cert_sign": True, "crl_sign": True}), critical=True)
    )
    return _signed(builder, key=key, by=key)


@dataclass(frozen=True, slots=True)
class Signer:
    """An authority that has been read, to sign more than once."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def signer_of(authority: KeyPair) -> Signer:
    """Read an authority.

    Raises
    ------
    ValueError
        It cannot be read.
    """
    return Signer(*_read(authority))


def issue(signer: Signer, *, name: str, usage: Usage, now: datetime, life: timedelta) -> KeyPair:
    """Make a key, and have an authority sign its certificate.

    Parameters
    ----------
    signer
        The authority.
    name
        The DNS name or the address that the certificate is for.
    usage
        What it is good for: to serve, or to call.
    now, life
        From when, and for how long; never longer than the authority itself.
    """
    issuer = signer.certificate
    key = ec.generate_private_key(ec.SECP256R1())
    until = min(now + life, issuer.not_valid_after_utc)
    subject = _subject(name.partition(".")[0] if _address(name) is None else name)
    builder = (
        _builder(subject=subject, issuer=issuer.subject, key=key, now=now, until=until)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(**{**_NOTHING, "digital_signature": True}), critical=True)
        .add_extension(x509.ExtendedKeyUsage([_USAGES[usage]]), critical=False)
        .add_extension(x509.SubjectAlternativeName([_general(name)]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.key.public_key()), critical=False)
    )
    return _signed(builder, key=key, by=signer.key)


def flaw_of_authority(pair: KeyPair, *, now: datetime) -> str | None:
    """Tell why an authority cannot sign any more; None when it can."""
    try:
        certificate, _ = _read(pair)
        if not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
            return "it is no authority"
        certificate.verify_directly_issued_by(certificate)
    except InvalidSignature:
        return "it is not as it was signed"
    except _UNREADABLE as error:
        return f"it cannot be read: {error}"
    return _aged(certificate, now)


def flaw(pair: KeyPair, *, authority: bytes, name: str, usage: Usage, now: datetime) -> str | None:
    """Tell why a certificate must be made anew; None when it need not.

    Parameters
    ----------
    pair
        The certificate, and the key beside it.
    authority
        The certificate of the authority that must have signed it.
    name, usage
        What it must be for.
    now
        It is renewed in the last third of its life, so that an operator may be away for as long.
    """
    try:
        certificate, _ = _read(pair)
        certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(authority))
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        usages = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except InvalidSignature:
        return "another authority has signed it"
    except _UNREADABLE as error:
        return f"it cannot be used: {error}"
    if list(names) != [_general(name)] or list(usages) != [_USAGES[usage]]:
        return "it is for somebody else"
    return _aged(certificate, now)


def _aged(certificate: x509.Certificate, now: datetime) -> str | None:
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if now < begin:
        return f"it is valid only from {begin:%Y-%m-%dT%H:%M:%SZ}"
    life = end - (begin + BACKDATED)
    return f"it expires on {end:%Y-%m-%dT%H:%M:%SZ}" if now >= end - life / 3 else None


def _read(pair: KeyPair) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    certificate = x509.load_pem_x509_certificate(pair.certificate)
    key = load_pem_private_key(pair.key, password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError("its key is of another kind")
    if _public(key.public_key()) != _public(certificate.public_key()):
        raise ValueError("its key is another one's")
    return certificate, key


def _public(key: object) -> bytes:
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise ValueError("its key is of another kind")
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _builder(
    *,
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    now: datetime,
    until: datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(until)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _signed(
    builder: x509.CertificateBuilder, *, key: ec.EllipticCurvePrivateKey, by: ec.EllipticCurvePrivateKey
) -> KeyPair:
    certificate = builder.sign(by, hashes.SHA256()).public_bytes(Encoding.PEM)
    return KeyPair(certificate, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def _subject(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:_COMMON_NAME_LIMIT])])


def _general(name: str) -> x509.GeneralName:
    address = _address(name)
    return x509.DNSName(name) if address is None else x509.IPAddress(address)


def _address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None
