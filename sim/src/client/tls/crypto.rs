//! The expensive parts of TLS as constants: a key exchange without a secret and a signature that
//! proves nothing. Their lengths are those of X25519 and Ed25519. The key schedule and the
//! encryption of records are rustls's and ring's.

use rustls::{
    DigitallySignedStruct, Error, NamedGroup, SignatureAlgorithm, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{ActiveKeyExchange, CryptoProvider, SharedSecret, SupportedKxGroup, ring},
    pki_types::{CertificateDer, ServerName, UnixTime},
    sign::{Signer, SigningKey},
};
use std::sync::Arc;

/// The public key of both ends, and the secret that they share.
const SHARED: [u8; 32] = [7; 32];

/// Length of a signature by Ed25519.
const SIGNATURE_BYTES: usize = 64;

pub(super) fn provider() -> Arc<CryptoProvider> {
    let mut provider = ring::default_provider();
    for group in &mut provider.kx_groups {
        if group.name() == NamedGroup::X25519 {
            *group = &Group;
        }
    }
    Arc::new(provider)
}

/// The key exchange.
#[derive(Debug)]
struct Group;

impl SupportedKxGroup for Group {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, Error> {
        Ok(Box::new(Self))
    }

    fn name(&self) -> NamedGroup {
        NamedGroup::X25519
    }
}

impl ActiveKeyExchange for Group {
    fn complete(self: Box<Self>, _: &[u8]) -> Result<SharedSecret, Error> {
        Ok(SharedSecret::from(&SHARED[..]))
    }

    fn pub_key(&self) -> &[u8] {
        &SHARED
    }

    fn group(&self) -> NamedGroup {
        NamedGroup::X25519
    }
}

/// The key of the host's certificate.
#[derive(Debug)]
pub(super) struct Key;

impl SigningKey for Key {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        offered.contains(&self.scheme()).then(|| Box::new(Self) as Box<dyn Signer>)
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ED25519
    }
}

impl Signer for Key {
    fn sign(&self, _: &[u8]) -> Result<Vec<u8>, Error> {
        Ok(vec![7; SIGNATURE_BYTES])
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ED25519
    }
}

/// Accepts one certificate, and any signature.
#[derive(Debug)]
pub(super) struct Verifier(pub(super) &'static [u8]);

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if **certificate == *self.0 {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(Error::General("another certificate than the host's".to_owned()))
        }
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ring::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
