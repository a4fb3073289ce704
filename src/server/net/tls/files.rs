//! Certificates and keys as they lie on the disk: PEM.

use std::fs;
use std::io;
use std::path::Path;

use pkcs8::EncryptedPrivateKeyInfoRef;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::server::process::os_error::words;

/// Why a file is of no use, without its name.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("{}", words(.0))]
    Io(#[from] io::Error),
    #[error("{0}")]
    Pem(pem::Error),
    #[error("{0}")]
    Content(x509_cert::der::Error),
    #[error("there is no certificate in it")]
    NoCertificate,
    #[error("there is no private key in it")]
    NoKey,
    #[error("the key is encrypted, and no pass phrase is configured")]
    NoPassPhrase,
    #[error("the key cannot be decrypted: {0}")]
    Encrypted(pkcs8::Error),
    #[error(
        "the key is encrypted in a way that is not read; `openssl pkcs8 -topk8 -v2 aes256` writes one that is"
    )]
    OldEncryption,
}

/// The certificates of a file, in their order.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, FileError> {
    let text = fs::read(path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let found = found.map_err(FileError::Pem)?;
    if found.is_empty() { Err(FileError::NoCertificate) } else { Ok(found) }
}

/// The certificates of every file of a folder. Files without any are passed over: such folders hold other
/// things, too.
pub fn certificates_of_folder(path: &Path) -> Result<Vec<CertificateDer<'static>>, FileError> {
    let mut found: Vec<CertificateDer<'static>> = Vec::new();
    for entry in fs::read_dir(path)? {
        let path = entry?.path();
        if path.is_file() {
            // A certificate and the link by which OpenSSL finds it are one.
            found.extend(certificates(&path).unwrap_or_default());
        }
    }
    found.sort_by(|a, b| a.as_ref().cmp(b.as_ref()));
    found.dedup();
    if found.is_empty() { Err(FileError::NoCertificate) } else { Ok(found) }
}

/// The private key of a file. A pass phrase for a key that is not encrypted does no harm.
pub fn private_key(path: &Path, pass_phrase: &[u8]) -> Result<PrivateKeyDer<'static>, FileError> {
    const ENCRYPTED: &str = "-----BEGIN ENCRYPTED PRIVATE KEY-----";
    let text = fs::read(path)?;
    let text = String::from_utf8_lossy(&text);
    if text.contains("Proc-Type: 4,ENCRYPTED") {
        return Err(FileError::OldEncryption);
    }
    if let Some(at) = text.find(ENCRYPTED) {
        if pass_phrase.is_empty() {
            return Err(FileError::NoPassPhrase);
        }
        return decrypt(&text[at..], pass_phrase);
    }
    PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(|e| match e {
        pem::Error::NoItemsFound => FileError::NoKey,
        e => FileError::Pem(e),
    })
}

fn decrypt(text: &str, pass_phrase: &[u8]) -> Result<PrivateKeyDer<'static>, FileError> {
    const END: &str = "-----END ENCRYPTED PRIVATE KEY-----";
    let end = text.find(END).map_or(text.len(), |at| at + END.len());
    let (_, document) = pkcs8::SecretDocument::from_pem(&text[..end])
        .map_err(|e| FileError::Encrypted(pkcs8::Error::from(e)))?;
    // Old ciphers, of which only AES is read, and schemes without a name there.
    let info =
        EncryptedPrivateKeyInfoRef::try_from(document.as_bytes()).map_err(|_| FileError::OldEncryption)?;
    let key = info.decrypt(pass_phrase).map_err(FileError::Encrypted)?;
    Ok(PrivatePkcs8KeyDer::from(key.as_bytes().to_vec()).into())
}
