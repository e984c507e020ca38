//! The certificate that all servers of TLS use, and a client that trusts it.

use crate::{Result, client};
use lameduck_peers::HELLO;
use rcgen::{CertificateParams, KeyPair};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, pki_types::ServerName};
use std::{
    env, fs,
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    sync::{Arc, OnceLock},
};

/// A certificate for `localhost`, with an ECDSA key of P-256.
pub struct Identity {
    /// The certificate and its key, as PEM.
    pub files: [PathBuf; 2],
    client: Arc<ClientConfig>,
}

static IDENTITY: OnceLock<Identity> = OnceLock::new();

/// Returns the certificate, which is made at the first call.
pub fn get() -> Result<&'static Identity> {
    if let Some(identity) = IDENTITY.get() {
        return Ok(identity);
    }
    let made = make()?;
    Ok(IDENTITY.get_or_init(|| made))
}

fn directory() -> PathBuf {
    env::temp_dir().join(format!("lameduck-bench-tls-{}", std::process::id()))
}

fn make() -> Result<Identity> {
    let key = KeyPair::generate()?;
    let certificate = CertificateParams::new(vec!["localhost".to_owned()])?.self_signed(&key)?;
    fs::create_dir_all(directory())?;
    let files = ["certificate.pem", "key.pem"].map(|name| directory().join(name));
    fs::write(&files[0], certificate.pem())?;
    fs::write(&files[1], key.serialize_pem())?;
    let mut roots = RootCertStore::empty();
    roots.add(certificate.der().clone())?;
    let client = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    Ok(Identity { files, client: Arc::new(client) })
}

/// Removes the files.
pub fn clean_up() {
    // There are none if no server of TLS was measured.
    let _ = fs::remove_dir_all(directory());
}

/// Connects, and gets one response through TLS 1.3. Each connection has its own handshake. Only
/// the socket is returned: the client's session ends here, and the server does not notice.
pub fn served_once(address: SocketAddr) -> Result<TcpStream> {
    let tls = ClientConnection::new(get()?.client.clone(), ServerName::try_from("localhost")?)?;
    let mut stream = StreamOwned::new(tls, client::connect(address)?);
    stream.write_all(client::REQUEST)?;
    let (mut response, mut buffer) = (Vec::new(), [0; 1024]);
    while !response.ends_with(HELLO.as_bytes()) {
        let read = stream.read(&mut buffer)?;
        if read == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        response.extend_from_slice(&buffer[..read]);
    }
    Ok(stream.sock)
}
