//! All that one configuration makes: how clients are served, how peers are, and how we connect to them.

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection, SupportedProtocolVersion};
use x509_cert::der::{Decode, Encode};

use crate::config::Config;
use crate::config::choice::TlsAuthClients;
use crate::server::net::tls::files::{FileError, certificates, certificates_of_folder, private_key};
use crate::server::net::tls::resume::Resumable;
use crate::server::net::tls::session::Session;
use crate::server::net::tls::suites;
use crate::server::net::tls::verify::Trust;

/// Why there is no TLS; in the words of the log of Redis, where it has them.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the text of the error tells")]
pub enum TlsError {
    #[error("No tls-cert-file configured!")]
    NoCertificate,
    #[error("No tls-key-file configured!")]
    NoKey,
    #[error("tls-client-cert-file and tls-client-key-file belong together: one of them is not configured")]
    HalfAClient,
    #[error(
        "Either tls-ca-cert-file or tls-ca-cert-dir must be specified when tls-cluster, tls-replication or tls-auth-clients are enabled!"
    )]
    NoAuthorities,
    #[error("Failed to load certificate: {0}: {1}")]
    Certificate(String, FileError),
    #[error("Failed to load private key: {0}: {1}")]
    Key(String, FileError),
    #[error("Failed to load private key: {0}: it is not the key of the certificate")]
    Mismatch(String),
    #[error(
        "Failed to load private key: {0}: keys are RSA of 2048 to 8192 bits, ECDSA of the curves P-256 and P-384, or Ed25519"
    )]
    UnknownKey(String),
    #[error("Failed to configure CA certificate(s) file/directory: {0}: {1}")]
    Authorities(String, FileError),
    #[error("Failed to configure CA certificate(s) file/directory: {0}")]
    BadAuthority(rustls::Error),
    #[error("{0}")]
    Offer(String),
    #[error(
        "tls-dh-params-file: keys are exchanged over elliptic curves only, which need no parameters; remove the directive"
    )]
    DhParameters,
    #[error("Failed to configure TLS: {0}")]
    Other(rustls::Error),
}

/// Whether anything speaks TLS.
pub fn is_used(config: &Config) -> bool {
    config.tls_port != 0 || config.tls_replication || config.tls_cluster
}

/// See the module.
#[derive(Debug)]
pub struct Context {
    clients: Arc<ServerConfig>,
    /// Nodes that come to the cluster bus: they must show a certificate, whatever clients must.
    peers: Arc<ServerConfig>,
    outgoing: Arc<ClientConfig>,
    /// Until when our certificate is valid, in seconds of Unix time.
    pub expires: u64,
}

impl Context {
    /// Reads the files.
    pub fn load(config: &Config) -> Result<Self, TlsError> {
        if config.tls_cert_file.is_empty() {
            return Err(TlsError::NoCertificate);
        }
        if config.tls_key_file.is_empty() {
            return Err(TlsError::NoKey);
        }
        if config.tls_client_cert_file.is_empty() != config.tls_client_key_file.is_empty() {
            return Err(TlsError::HalfAClient);
        }
        if !config.tls_dh_params_file.is_empty() {
            return Err(TlsError::DhParameters);
        }
        let authorities = authorities(config)?;
        let asks = config.tls_auth_clients != TlsAuthClients::No;
        if authorities.is_empty() && (asks || config.tls_cluster || config.tls_replication) {
            return Err(TlsError::NoAuthorities);
        }
        let versions = suites::versions(&config.tls_protocols).map_err(TlsError::Offer)?;
        let provider =
            suites::provider(&config.tls_ciphers, &config.tls_ciphersuites).map_err(TlsError::Offer)?;
        let provider = Arc::new(provider);
        let own =
            identity(&config.tls_cert_file, &config.tls_key_file, &config.tls_key_file_pass.0, &provider)?;
        let shown = if config.tls_client_cert_file.is_empty() {
            Arc::clone(&own)
        } else {
            let pass = &config.tls_client_key_file_pass.0;
            identity(&config.tls_client_cert_file, &config.tls_client_key_file, pass, &provider)?
        };
        let expires = x509_cert::Certificate::from_der(&own.cert[0])
            .map_or(0, |c| c.tbs_certificate().validity().not_after.to_unix_duration().as_secs());
        let trust = |required| {
            Trust::new(authorities.clone(), &provider, required).map(Arc::new).map_err(TlsError::BadAuthority)
        };
        let asked = if asks { Some(trust(config.tls_auth_clients == TlsAuthClients::Yes)?) } else { None };
        let make = Make { config, provider: &provider, versions: &versions };
        Ok(Self {
            clients: make.serving(&own, asked)?,
            peers: make.serving(&own, Some(trust(true)?))?,
            outgoing: make.connecting(shown, trust(true)?)?,
            expires,
        })
    }

    /// The session of a client that has connected.
    pub fn accept(&self) -> Result<Session, rustls::Error> {
        ServerConnection::new(Arc::clone(&self.clients)).map(Session::new)
    }

    /// That of another node on the bus.
    pub fn accept_peer(&self) -> Result<Session, rustls::Error> {
        ServerConnection::new(Arc::clone(&self.peers)).map(Session::new)
    }

    /// That of a node that we have connected to. It is told its name, if `host` is one, and not asked for it.
    pub fn connect(&self, host: &str) -> Result<Session, rustls::Error> {
        let name = ServerName::try_from(host.to_owned());
        let name = name.or_else(|_| ServerName::try_from("localhost".to_owned()));
        let name = name.map_err(|_| rustls::Error::General("no name".into()))?;
        ClientConnection::new(Arc::clone(&self.outgoing), name).map(Session::new)
    }

    /// Whole days until our certificate expires; `None` when it has.
    pub fn days_left(&self, now: SystemTime) -> Option<u64> {
        let now = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_secs());
        Some(self.expires.checked_sub(now)? / 86_400)
    }
}

fn authorities(config: &Config) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let (file, folder) = (&config.tls_ca_cert_file, &config.tls_ca_cert_dir);
    let failed = |path: &String| {
        let path = path.clone();
        move |e| TlsError::Authorities(path, e)
    };
    let mut found = Vec::new();
    if !file.is_empty() {
        found.extend(certificates(Path::new(file)).map_err(failed(file))?);
    }
    if !folder.is_empty() {
        match certificates_of_folder(Path::new(folder)) {
            Ok(more) => found.extend(more),
            // OpenSSL looks into it only when a certificate needs it.
            Err(e) if !found.is_empty() => {
                tracing::warn!("tls-ca-cert-dir: {folder}: {e}. Only tls-ca-cert-file names authorities.");
            }
            Err(e) => return Err(failed(folder)(e)),
        }
    }
    Ok(found)
}

/// A certificate with its chain, and its key.
fn identity(
    certificate: &str,
    key: &str,
    pass_phrase: &[u8],
    provider: &CryptoProvider,
) -> Result<Arc<CertifiedKey>, TlsError> {
    let chain =
        certificates(Path::new(certificate)).map_err(|e| TlsError::Certificate(certificate.to_owned(), e))?;
    let secret = private_key(Path::new(key), pass_phrase).map_err(|e| TlsError::Key(key.to_owned(), e))?;
    let secret =
        provider.key_provider.load_private_key(secret).map_err(|_| TlsError::UnknownKey(key.to_owned()))?;
    // webpki would refuse a certificate of version 1 here.
    let of_certificate = x509_cert::Certificate::from_der(&chain[0])
        .and_then(|c| c.tbs_certificate().subject_public_key_info().to_der())
        .map_err(|e| TlsError::Certificate(certificate.to_owned(), FileError::Content(e)))?;
    if secret.public_key().is_some_and(|public| public.as_ref() != of_certificate) {
        return Err(TlsError::Mismatch(key.to_owned()));
    }
    Ok(Arc::new(CertifiedKey::new(chain, secret)))
}

/// What all sides have in common.
struct Make<'a> {
    config: &'a Config,
    provider: &'a Arc<CryptoProvider>,
    versions: &'a [&'static SupportedProtocolVersion],
}

impl Make<'_> {
    fn serving(
        &self,
        own: &Arc<CertifiedKey>,
        asked: Option<Arc<Trust>>,
    ) -> Result<Arc<ServerConfig>, TlsError> {
        let builder = ServerConfig::builder_with_provider(Arc::clone(self.provider))
            .with_protocol_versions(self.versions)
            .map_err(TlsError::Other)?;
        let builder = match asked {
            Some(trust) => builder.with_client_cert_verifier(trust),
            None => builder.with_client_cert_verifier(WebPkiClientVerifier::no_client_auth()),
        };
        let resolver = SingleCertAndKey::from(CertifiedKey::clone(own));
        let mut made = builder.with_cert_resolver(Arc::new(resolver));
        made.ignore_client_order = self.config.tls_prefer_server_ciphers;
        if self.config.tls_session_caching {
            let (size, timeout) = (self.config.tls_session_cache_size, self.config.tls_session_cache_timeout);
            made.session_storage = Arc::new(Resumable::new(size, timeout));
        } else {
            made.session_storage = Arc::new(NoServerSessionStorage {});
            made.send_tls13_tickets = 0;
        }
        Ok(Arc::new(made))
    }

    fn connecting(&self, shown: Arc<CertifiedKey>, trust: Arc<Trust>) -> Result<Arc<ClientConfig>, TlsError> {
        let mut made = ClientConfig::builder_with_provider(Arc::clone(self.provider))
            .with_protocol_versions(self.versions)
            .map_err(TlsError::Other)?
            .dangerous()
            .with_custom_certificate_verifier(trust)
            .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(CertifiedKey::clone(&shown))));
        // Links last. To resume a session would spare nothing that counts, and go by names that mean nothing here.
        made.resumption = Resumption::disabled();
        Ok(Arc::new(made))
    }
}
