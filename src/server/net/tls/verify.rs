//! Whose certificates are believed: those that the configured authorities have signed, whatever name stands in them.
//! Nodes know each other by address, as in Redis, so a name says nothing.
//!
//! webpki does the work. Two kinds of certificates that OpenSSL accepts and webpki does not are common in clusters,
//! because `openssl` makes them when nothing else is said: one that is its own authority and shown as such, and one of
//! version 1, which has no extensions. For these the same is checked here: the issuer, its signature, the time.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::crypto::{verify_tls12_signature, verify_tls13_signature, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme,
};
use x509_cert::certificate::Version;
use x509_cert::der::{Decode, Encode};

/// The authorities, and what is asked of a peer.
#[derive(Debug)]
pub struct Trust {
    roots: Arc<RootCertStore>,
    authorities: Vec<CertificateDer<'static>>,
    algorithms: WebPkiSupportedAlgorithms,
    hints: Vec<DistinguishedName>,
    /// Checks the chains of clients; `None` without authorities: then nobody's is believed.
    clients: Option<Arc<dyn ClientCertVerifier>>,
    /// Whether a client must show a certificate.
    required: bool,
}

impl Trust {
    pub fn new(
        authorities: Vec<CertificateDer<'static>>,
        provider: &Arc<CryptoProvider>,
        required: bool,
    ) -> Result<Self, Error> {
        let mut roots = RootCertStore::empty();
        for authority in &authorities {
            roots.add(authority.clone())?;
        }
        let roots = Arc::new(roots);
        let builder = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(provider));
        Ok(Self {
            hints: roots.subjects(),
            algorithms: provider.signature_verification_algorithms,
            clients: if authorities.is_empty() { None } else { builder.build().ok() },
            roots,
            authorities,
            required,
        })
    }

    /// What webpki says, unless it is a certificate of the two kinds that are checked here.
    fn or_simple(
        &self,
        checked: Result<(), Error>,
        shown: &CertificateDer<'_>,
        now: UnixTime,
    ) -> Result<(), Error> {
        match checked {
            Err(Error::InvalidCertificate(why)) => {
                self.check_simple(shown, now).unwrap_or(Err(Error::InvalidCertificate(why)))
            }
            other => other,
        }
    }

    /// `None`: it is not of these kinds, or nobody's.
    fn check_simple(&self, shown: &CertificateDer<'_>, now: UnixTime) -> Option<Result<(), Error>> {
        let certificate = x509_cert::Certificate::from_der(shown).ok()?;
        let content = certificate.tbs_certificate();
        let own = self.authorities.iter().any(|authority| authority == shown);
        if !own {
            if content.version() != Version::V1 {
                return None;
            }
            let message = content.to_der().ok()?;
            let kind = certificate.signature_algorithm().to_der().ok()?;
            let signature = certificate.signature().as_bytes()?;
            let issuers = self.authorities.iter().filter_map(|a| x509_cert::Certificate::from_der(a).ok());
            let signed = issuers
                .filter(|issuer| issuer.tbs_certificate().subject() == content.issuer())
                .any(|issuer| self.has_signed(&issuer, &kind, &message, signature));
            if !signed {
                return Some(Err(Error::InvalidCertificate(CertificateError::UnknownIssuer)));
            }
        }
        let (from, to) = (content.validity().not_before, content.validity().not_after);
        let why = match now.as_secs() {
            now if now < from.to_unix_duration().as_secs() => CertificateError::NotValidYet,
            now if now > to.to_unix_duration().as_secs() => CertificateError::Expired,
            _ => return Some(Ok(())),
        };
        Some(Err(Error::InvalidCertificate(why)))
    }

    /// `kind`: the algorithm of the signature, as DER.
    fn has_signed(
        &self,
        issuer: &x509_cert::Certificate,
        kind: &[u8],
        message: &[u8],
        signature: &[u8],
    ) -> bool {
        let key = issuer.tbs_certificate().subject_public_key_info();
        let (Ok(of_key), Some(bits)) = (key.algorithm.to_der(), key.subject_public_key.as_bytes()) else {
            return false;
        };
        self.algorithms.all.iter().any(|algorithm| {
            is_algorithm(kind, algorithm.signature_alg_id().as_ref())
                && is_algorithm(&of_key, algorithm.public_key_alg_id().as_ref())
                && algorithm.verify_signature(bits, message, signature).is_ok()
        })
    }

    fn check_tls12(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let Some(key) = key_of_version_1(shown) else {
            return verify_tls12_signature(message, shown, signed, &self.algorithms);
        };
        let bad = || Error::InvalidCertificate(CertificateError::BadSignature);
        let of_key = key.algorithm.to_der().map_err(|_| bad())?;
        let bits = key.subject_public_key.as_bytes().ok_or_else(bad)?;
        let mut mapped = self.algorithms.mapping.iter().filter(|(scheme, _)| *scheme == signed.scheme);
        let valid = mapped.any(|(_, algorithms)| {
            algorithms.iter().any(|algorithm| {
                is_algorithm(&of_key, algorithm.public_key_alg_id().as_ref())
                    && algorithm.verify_signature(bits, message, signed.signature()).is_ok()
            })
        });
        if valid { Ok(HandshakeSignatureValid::assertion()) } else { Err(bad()) }
    }

    fn check_tls13(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        match key_of_version_1(shown).and_then(|key| key.to_der().ok()) {
            None => verify_tls13_signature(message, shown, signed, &self.algorithms),
            Some(key) => {
                let key = SubjectPublicKeyInfoDer::from(key);
                verify_tls13_signature_with_raw_key(message, &key, signed, &self.algorithms)
            }
        }
    }
}

/// The DER of an algorithm has a head of two bytes, which `known` is without.
fn is_algorithm(der: &[u8], known: &[u8]) -> bool {
    der.get(2..) == Some(known)
}

fn key_of_version_1(shown: &CertificateDer<'_>) -> Option<x509_cert::spki::SubjectPublicKeyInfoOwned> {
    let certificate = x509_cert::Certificate::from_der(shown).ok()?;
    let content = certificate.tbs_certificate();
    (content.version() == Version::V1).then(|| content.subject_public_key_info().clone())
}

impl ServerCertVerifier for Trust {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let checked = ParsedCertificate::try_from(shown).and_then(|parsed| {
            verify_server_cert_signed_by_trust_anchor(&parsed, &self.roots, between, now, self.algorithms.all)
        });
        self.or_simple(checked, shown, now).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.check_tls12(message, shown, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.check_tls13(message, shown, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl ClientCertVerifier for Trust {
    fn client_auth_mandatory(&self) -> bool {
        self.required
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        shown: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let checked = match &self.clients {
            Some(clients) => clients.verify_client_cert(shown, between, now).map(|_| ()),
            None => Err(Error::InvalidCertificate(CertificateError::UnknownIssuer)),
        };
        self.or_simple(checked, shown, now).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.check_tls12(message, shown, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.check_tls13(message, shown, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
