//! What may be spoken: the directives name protocols and ciphers as OpenSSL does.

use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::default_provider;
use rustls::version::{TLS12, TLS13};
use rustls::{CipherSuite, SupportedProtocolVersion};

/// Suites of TLS 1.2 by OpenSSL's names, in the order of `DEFAULT`.
const TLS12_SUITES: &[(&str, CipherSuite)] = &[
    ("ECDHE-ECDSA-AES256-GCM-SHA384", CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384),
    ("ECDHE-RSA-AES256-GCM-SHA384", CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384),
    ("ECDHE-ECDSA-CHACHA20-POLY1305", CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256),
    ("ECDHE-RSA-CHACHA20-POLY1305", CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256),
    ("ECDHE-ECDSA-AES128-GCM-SHA256", CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256),
    ("ECDHE-RSA-AES128-GCM-SHA256", CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256),
];

/// Those of TLS 1.3.
const TLS13_SUITES: &[(&str, CipherSuite)] = &[
    ("TLS_AES_256_GCM_SHA384", CipherSuite::TLS13_AES_256_GCM_SHA384),
    ("TLS_CHACHA20_POLY1305_SHA256", CipherSuite::TLS13_CHACHA20_POLY1305_SHA256),
    ("TLS_AES_128_GCM_SHA256", CipherSuite::TLS13_AES_128_GCM_SHA256),
];

/// Words of OpenSSL's cipher lists that mean all that there is here.
const ALL: &[&str] = &["DEFAULT", "ALL", "HIGH", "COMPLEMENTOFDEFAULT", "ECDHE", "EECDH", "kECDHE", "kEECDH"];
/// Words for what there is none of here: excluding them changes nothing.
const ABSENT: &[&str] = &[
    "aNULL", "eNULL", "NULL", "ADH", "AECDH", "LOW", "MEDIUM", "EXP", "EXPORT", "DES", "3DES", "RC2", "RC4",
    "IDEA", "SEED", "CAMELLIA", "ARIA", "MD5", "SHA", "SHA1", "PSK", "SRP", "kRSA", "RSA-PSK", "DH", "DHE",
    "EDH", "kDHE", "kEDH", "DSS", "aDSS", "GOST", "AESCCM", "AESCCM8", "SSLv2", "SSLv3", "TLSv1",
];

/// The versions of `tls-protocols`; none named: all that there are.
pub fn versions(text: &str) -> Result<Vec<&'static SupportedProtocolVersion>, String> {
    let mut chosen = Vec::new();
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        let is = |name: &str| word.eq_ignore_ascii_case(name);
        match () {
            () if is("TLSv1.3") => chosen.push(&TLS13),
            () if is("TLSv1.2") => chosen.push(&TLS12),
            () if is("TLSv1") || is("TLSv1.1") => {
                return Err(format!(
                    "tls-protocols: {word} is not offered here, because it is broken. Use 'TLSv1.2' and 'TLSv1.3'."
                ));
            }
            () => {
                return Err(
                    "Invalid tls-protocols specified. Use a combination of 'TLSv1.2' and 'TLSv1.3'.".into()
                );
            }
        }
    }
    if chosen.is_empty() {
        chosen = vec![&TLS13, &TLS12];
    }
    chosen.dedup();
    Ok(chosen)
}

/// The provider with the suites of `tls-ciphers` and `tls-ciphersuites`, in their order.
pub fn provider(ciphers: &str, ciphersuites: &str) -> Result<CryptoProvider, String> {
    let older = choose(ciphers, TLS12_SUITES).map_err(|word| refusal("tls-ciphers", word, TLS12_SUITES))?;
    let newer =
        choose(ciphersuites, TLS13_SUITES).map_err(|word| refusal("tls-ciphersuites", word, TLS13_SUITES))?;
    let mut provider = default_provider();
    let all = std::mem::take(&mut provider.cipher_suites);
    let find = |suite: &CipherSuite| all.iter().find(|s| s.suite() == *suite).copied();
    provider.cipher_suites = newer.iter().chain(&older).filter_map(find).collect();
    Ok(provider)
}

/// The suites of a list; the error is the word that names nothing which there is.
fn choose<'a>(list: &'a str, offered: &[(&str, CipherSuite)]) -> Result<Vec<CipherSuite>, &'a str> {
    let mut chosen: Vec<CipherSuite> = Vec::new();
    for word in list.split([':', ',', ' ']).filter(|word| !word.is_empty()) {
        let (excluded, name) = match word.strip_prefix(['!', '-']) {
            Some(name) => (true, name),
            // To move what is there to the end; the order decides little here.
            None => (false, word.strip_prefix('+').unwrap_or(word)),
        };
        let named =
            offered.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, suite)| *suite);
        match named {
            Some(suite) => {
                chosen.retain(|known| *known != suite);
                if !excluded {
                    chosen.push(suite);
                }
            }
            None if excluded && ABSENT.contains(&name) => {}
            None if !excluded && ALL.contains(&name) => {
                let missing = offered.iter().map(|(_, suite)| *suite).filter(|s| !chosen.contains(s));
                chosen = chosen.iter().copied().chain(missing).collect();
            }
            None if name.starts_with("@STRENGTH") || name.starts_with("@SECLEVEL") => {}
            None => return Err(word),
        }
    }
    if list.is_empty() {
        chosen = offered.iter().map(|(_, suite)| *suite).collect();
    }
    if chosen.is_empty() { Err(list) } else { Ok(chosen) }
}

fn refusal(directive: &str, word: &str, offered: &[(&str, CipherSuite)]) -> String {
    let names: Vec<&str> = offered.iter().map(|(name, _)| *name).collect();
    format!(
        "Failed to configure {directive}: '{word}' is not offered here. Offered are {}.",
        names.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_name_what_there_is_and_exclude_what_there_is_not() {
        let names = |list: &str| -> Result<Vec<&str>, String> {
            let chosen = choose(list, TLS12_SUITES).map_err(str::to_owned)?;
            let name =
                |suite: &CipherSuite| TLS12_SUITES.iter().find(|(_, s)| s == suite).map_or("", |(n, _)| *n);
            Ok(chosen.iter().map(name).collect())
        };
        assert_eq!(names("").unwrap().len(), 6);
        assert_eq!(names("DEFAULT:!MEDIUM").unwrap(), names("").unwrap());
        assert_eq!(
            names("ECDHE-RSA-AES128-GCM-SHA256:ECDHE-RSA-AES256-GCM-SHA384").unwrap(),
            ["ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-RSA-AES256-GCM-SHA384"]
        );
        assert_eq!(names("HIGH:!ECDHE-RSA-AES128-GCM-SHA256:!aNULL").unwrap().len(), 5);
        assert_eq!(names("AES128-SHA").unwrap_err(), "AES128-SHA");
        assert_eq!(names("DEFAULT:!nonsense").unwrap_err(), "!nonsense");
        assert_eq!(names("!aNULL").unwrap_err(), "!aNULL");
    }

    #[test]
    fn versions_are_named_as_in_redis() {
        assert_eq!(versions("").unwrap().len(), 2);
        assert_eq!(versions("tlsv1.3").unwrap(), [&TLS13]);
        assert!(versions("TLSv1.1 TLSv1.2").unwrap_err().contains("TLSv1.1 is not offered"));
        assert!(versions("SSLv9").unwrap_err().starts_with("Invalid tls-protocols"));
    }
}
