//! Encryption of a connection, as the server's URL demands it.

use std::path::Path;
use std::sync::Arc;

use crossfade_config::{Endpoint, ServerUrl, TlsMode};
use mysql_async::TlsError;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio_rustls::TlsConnector;

use super::packets::{Wire, bad};

/// For servers whose address is no name that a certificate could have, where nobody asks for one.
const NO_NAME: &str = "server.invalid";

/// How far a server must prove who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Proof {
    Nothing,
    /// Its certificate leads to a known authority.
    Authority,
    /// And names its host.
    Name,
}

/// What a connection is encrypted with.
pub(super) struct Encryption {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl Encryption {
    /// `None` where the URL asks for none: `DISABLED`, and sockets.
    pub async fn of(url: &ServerUrl) -> mysql_async::Result<Option<Encryption>> {
        let Endpoint::Tcp { host, .. } = &url.endpoint else { return Ok(None) };
        let proof = match url.tls_mode {
            TlsMode::Disabled => return Ok(None),
            TlsMode::Preferred | TlsMode::Required => Proof::Nothing,
            TlsMode::VerifyCa => Proof::Authority,
            TlsMode::VerifyIdentity => Proof::Name,
        };
        let name = match (ServerName::try_from(host.clone()), proof) {
            (Ok(name), _) => name,
            (Err(error), Proof::Name) => return Err(TlsError::InvalidDnsName(error).into()),
            (Err(_), _) => ServerName::try_from(NO_NAME).map_err(TlsError::InvalidDnsName)?,
        };
        let authorities = match proof {
            Proof::Nothing => RootCertStore::empty(),
            Proof::Authority | Proof::Name => authorities(url.tls_ca.as_deref()).await?,
        };
        let config = config(proof, authorities).map_err(TlsError::Tls)?;
        Ok(Some(Encryption { config: Arc::new(config), name }))
    }

    pub async fn begin(self, wire: Box<dyn Wire>) -> std::io::Result<Box<dyn Wire>> {
        Ok(Box::new(TlsConnector::from(self.config).connect(self.name, wire).await?))
    }
}

/// Those of a file and no others, or those of the public web.
async fn authorities(file: Option<&Path>) -> mysql_async::Result<RootCertStore> {
    let mut authorities = RootCertStore::empty();
    let Some(file) = file else {
        authorities.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        return Ok(authorities);
    };
    let content = tokio::fs::read(file).await?;
    for certificate in CertificateDer::pem_slice_iter(&content) {
        authorities
            .add(certificate.map_err(|_| bad("a file of certificates that cannot be read"))?)
            .map_err(TlsError::Tls)?;
    }
    if authorities.is_empty() {
        // A file without PEM's frame is one certificate as it is.
        authorities.add(CertificateDer::from(content)).map_err(TlsError::Tls)?;
    }
    Ok(authorities)
}

fn config(proof: Proof, authorities: RootCertStore) -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let authorities = Arc::new(authorities);
    let verifier: Arc<dyn ServerCertVerifier> = match proof {
        Proof::Name => WebPkiServerVerifier::builder_with_provider(authorities, provider.clone())
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))?,
        Proof::Authority => Arc::new(AnyName { authorities: Some(authorities), provider: provider.clone() }),
        Proof::Nothing => Arc::new(AnyName { authorities: None, provider: provider.clone() }),
    };
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth())
}

/// Takes certificates whatever host they name: servers make their own without a name that fits, and these are what VERIFY_CA
/// is for. Without authorities it takes any. That the server holds the certificate's key is always proved.
#[derive(Debug)]
struct AnyName {
    authorities: Option<Arc<RootCertStore>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if let Some(authorities) = &self.authorities {
            let certificate = ParsedCertificate::try_from(certificate)?;
            let algorithms = self.provider.signature_verification_algorithms.all;
            verify_server_cert_signed_by_trust_anchor(&certificate, authorities, intermediates, now, algorithms)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
