"""Certificates that a client has to refuse, and one that it has to take where it was told of the authority."""

from __future__ import annotations

import ipaddress
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

CA_FILE = "ca.pem"
_LOOPBACK = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
_DAY = timedelta(days=1)


def server_contexts(folder: Path) -> dict[str, ssl.SSLContext]:
    """By what is the matter with the certificate. The authority that signed all but `self-signed` is in `folder` as CA_FILE."""
    folder.mkdir(parents=True, exist_ok=True)
    now = datetime.now(UTC)
    authority = ec.generate_private_key(ec.SECP256R1())
    issuer = _name("Test authority")
    root = _certificate(issuer, authority, issuer, authority, now - _DAY, now + _DAY, None)
    (folder / CA_FILE).write_bytes(root.public_bytes(serialization.Encoding.PEM))
    found = {}
    for what, host, begins, ends in (
        ("self-signed", _LOOPBACK, now - _DAY, now + _DAY),
        ("wrong-name", x509.DNSName("elsewhere.example"), now - _DAY, now + _DAY),
        ("expired", _LOOPBACK, now - 3 * _DAY, now - _DAY),
        ("good", _LOOPBACK, now - _DAY, now + _DAY),
    ):
        own, name = ec.generate_private_key(ec.SECP256R1()), _name(what)
        signer = (name, own) if what == "self-signed" else (issuer, authority)
        found[what] = _context(folder / f"{what}.pem", _certificate(name, own, *signer, begins, ends, host), own)
    return found


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _certificate(
    subject: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    issuer: x509.Name,
    issuer_key: ec.EllipticCurvePrivateKey,
    begins: datetime,
    ends: datetime,
    host: x509.GeneralName | None,
) -> x509.Certificate:
    """`host` None = an authority's own."""
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number()).not_valid_before(begins).not_valid_after(ends)
    builder = builder.add_extension(x509.BasicConstraints(ca=host is None, path_length=None), critical=True)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    builder = builder.add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
    if host is None:
        usage = x509.KeyUsage(
            digital_signature=True,
            key_cert_sign=True,
            crl_sign=True,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            encipher_only=False,
            decipher_only=False,
        )
        builder = builder.add_extension(usage, critical=True)
    else:
        builder = builder.add_extension(x509.SubjectAlternativeName([host]), critical=False)
    return builder.sign(issuer_key, hashes.SHA256())


def _context(path: Path, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> ssl.SSLContext:
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return context
