//! Makes certificates for a test.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The files of a TLS listener, in PEM format.
#[derive(Debug, Clone)]
pub struct Tls {
    /// The authority that signed the certificate.
    pub ca: PathBuf,
    /// The server's certificate.
    pub certificate: PathBuf,
    /// The server's key.
    pub key: PathBuf,
}

fn openssl(directory: &Path, arguments: &str) -> bool {
    let mut command = Command::new("openssl");
    command
        .args(arguments.split_whitespace())
        .current_dir(directory);
    command.output().is_ok_and(|output| output.status.success())
}

/// Makes two authorities in this directory, `ca.pem` and `other.pem`, and `server.pem`, a
/// certificate for 127.0.0.1 by the first.
///
/// `None` where no program `openssl` can make them.
pub fn make(directory: &Path) -> Option<Tls> {
    let names = "subjectAltName=IP:127.0.0.1\n";
    std::fs::write(directory.join("names"), names).expect("the directory is writable");
    let made = ["ca", "other"].iter().all(|authority| {
        openssl(
            directory,
            &format!(
                "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN={authority} \
                 -addext basicConstraints=critical,CA:TRUE \
                 -keyout {authority}.key -out {authority}.pem"
            ),
        )
    }) && openssl(
        directory,
        "req -newkey rsa:2048 -nodes -subj /CN=server -keyout server.key -out server.csr",
    ) && openssl(
        directory,
        "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 \
         -extfile names -out server.pem",
    );
    made.then(|| Tls {
        ca: directory.join("ca.pem"),
        certificate: directory.join("server.pem"),
        key: directory.join("server.key"),
    })
}

/// Makes one file of the certificate and its key, as Java takes them, under this password. `None`
/// if `openssl` cannot do that.
pub fn key_store(tls: &Tls, password: &str) -> Option<PathBuf> {
    let directory = tls.certificate.parent().expect("a file in a directory");
    let made = openssl(
        directory,
        &format!(
            "pkcs12 -export -in server.pem -inkey server.key -passout pass:{password} \
             -out server.p12"
        ),
    );
    made.then(|| directory.join("server.p12"))
}
