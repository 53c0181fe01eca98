//! Certificates that are not accepted: the server is there, and trying again does not help.

use std::{error::Error, io};

use rustls::{CertificateError, Error as TlsError};

/// What is wrong with the other side's certificate, and what to do about it; `None` if the error is about something else.
pub(crate) fn refused(error: &(dyn Error + 'static)) -> Option<&'static str> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(TlsError::InvalidCertificate(reason)) = error.downcast_ref::<TlsError>() {
            return Some(words(reason));
        }
        // It names what is within its own error as its cause, but not that one.
        let within = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        if let Some(words) = within.and_then(|within| refused(within)) {
            return Some(words);
        }
        next = error.source();
    }
    None
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the enum is open")]
fn words(reason: &CertificateError) -> &'static str {
    match reason {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "it has expired: renew it, or correct this machine's clock"
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "it is not valid yet: correct this machine's clock, or that of the machine that made it"
        }
        CertificateError::UnknownIssuer => {
            "no authority that is trusted here made it: name the file of the one that did (nats.tls_ca_file; sslrootcert in \
             database.url)"
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "it is for another name: write the one that it is for into the URL"
        }
        CertificateError::Revoked => "it was revoked: renew it",
        _ => "it cannot be used: renew it",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("no connection")]
    struct Outer(#[source] io::Error);

    #[test]
    fn it_is_found_wherever_it_stands_and_nothing_else_is_taken_for_it() {
        let expired = || TlsError::InvalidCertificate(CertificateError::Expired);
        let within = || io::Error::other(io::Error::new(io::ErrorKind::InvalidData, expired()));
        let errors: [&(dyn Error + 'static); 3] = [&expired(), &within(), &Outer(within())];
        for error in errors {
            assert!(refused(error).is_some_and(|words| words.contains("has expired")), "{error:?}");
        }
        let others: [&(dyn Error + 'static); 3] = [
            &TlsError::HandshakeNotComplete,
            &Outer(io::Error::from(io::ErrorKind::ConnectionRefused)),
            &io::Error::other("invalid peer certificate: Expired"),
        ];
        for error in others {
            assert_eq!(refused(error), None, "{error:?}");
        }
    }
}
