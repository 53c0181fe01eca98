//! Certificates, made with openssl.

use std::{path::Path, process::Command};

use super::left_out;

/// Days that a certificate is good for; less than nothing: it expired when it was made.
pub const GOOD_DAYS: i32 = 2;
pub const EXPIRED_DAYS: i32 = -1;

/// Makes a self-signed certificate for `name`: `cert.pem` and `key.pem` in `dir`. Says so if that is not possible here.
pub fn self_signed(dir: &Path, name: &str) -> bool {
    let days = GOOD_DAYS.to_string();
    let subject = format!("/CN={name}");
    let host = format!("subjectAltName=DNS:{name}");
    openssl(
        dir,
        &[
            &["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", &days, "-subj", &subject],
            &["-addext", &host, "-addext", "basicConstraints=critical,CA:FALSE"],
            &["-keyout", "key.pem", "-out", "cert.pem"],
        ],
    )
}

/// Makes an authority (`ca.pem`) and a certificate of its for localhost, for so many days: `cert.pem` and `key.pem` in `dir`.
pub fn by_an_authority(dir: &Path, days: i32) -> bool {
    let extensions = "subjectAltName=DNS:localhost\nbasicConstraints=critical,CA:FALSE\n";
    std::fs::write(dir.join("extensions"), extensions).expect("a file");
    let (good, days) = (GOOD_DAYS.to_string(), days.to_string());
    openssl(
        dir,
        &[
            &["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", &good, "-subj", "/CN=authority"],
            &["-keyout", "ca.key", "-out", "ca.pem"],
        ],
    ) && openssl(
        dir,
        &[
            &["req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost"],
            &["-keyout", "key.pem", "-out", "request.pem"],
        ],
    ) && openssl(
        dir,
        &[
            &["x509", "-req", "-in", "request.pem", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"],
            &["-days", &days, "-extfile", "extensions", "-out", "cert.pem"],
        ],
    )
}

fn openssl(dir: &Path, arguments: &[&[&str]]) -> bool {
    let made = Command::new("openssl").args(arguments.concat()).current_dir(dir).output();
    let is_made = made.is_ok_and(|made| made.status.success());
    if !is_made {
        left_out::say("no openssl that makes such certificates");
    }
    is_made
}
