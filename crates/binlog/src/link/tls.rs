//! Encryption of a connection, as the server's URL demands it.

use std::io;
use std::path::Path;
use std::sync::Arc;

use crossfade_catalog::CatalogError;
use crossfade_config::{Endpoint, ServerUrl, TlsMode};
use mysql_async::TlsError;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio_rustls::TlsConnector;

use super::packets::Wire;

/// For servers whose address is no name that a certificate could have, where nobody asks for one.
const NO_NAME: &str = "server.invalid";

/// What a connection is encrypted with.
pub(super) struct Encryption {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl Encryption {
    /// `None` where the URL asks for none: `DISABLED`, and sockets.
    pub async fn of(url: &ServerUrl) -> Result<Option<Encryption>, CatalogError> {
        let Endpoint::Tcp { host, .. } = &url.endpoint else { return Ok(None) };
        let known = match (url.tls_mode, &url.tls_ca) {
            (TlsMode::Disabled, _) => return Ok(None),
            (TlsMode::VerifyCa | TlsMode::VerifyIdentity, Some(file)) => certificates_of(file).await?,
            _ => webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect(),
        };
        let failed = |error: TlsError| CatalogError::Connect { server: url.to_string(), source: error.into() };
        let name = match ServerName::try_from(host.clone()) {
            Err(_) if url.tls_mode != TlsMode::VerifyIdentity => ServerName::try_from(NO_NAME),
            name => name,
        };
        let name = name.map_err(|error| failed(TlsError::InvalidDnsName(error)))?;
        let config = config(url.tls_mode, Arc::new(known)).map_err(|error| failed(TlsError::Tls(error)))?;
        Ok(Some(Encryption { config: Arc::new(config), name }))
    }

    pub async fn begin(self, wire: Box<dyn Wire>) -> io::Result<Box<dyn Wire>> {
        Ok(Box::new(TlsConnector::from(self.config).connect(self.name, wire).await?))
    }
}

async fn certificates_of(file: &Path) -> Result<RootCertStore, CatalogError> {
    let failed = |source| CatalogError::Certificates { path: file.display().to_string(), source };
    let content = tokio::fs::read(file).await.map_err(failed)?;
    let mut found: Vec<_> = CertificateDer::pem_slice_iter(&content)
        .collect::<Result<_, _>>()
        .map_err(|error| failed(io::Error::new(io::ErrorKind::InvalidData, error)))?;
    if found.is_empty() {
        // A file without PEM's frame is one certificate as it is.
        found.push(CertificateDer::from(content.as_slice()));
    }
    let mut known = RootCertStore::empty();
    for certificate in found {
        known.add(certificate).map_err(|error| failed(io::Error::new(io::ErrorKind::InvalidData, error)))?;
    }
    Ok(known)
}

fn config(mode: TlsMode, known: Arc<RootCertStore>) -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(default_provider());
    let strict = WebPkiServerVerifier::builder_with_provider(known.clone(), provider.clone()).build();
    let strict = strict.map_err(|error| rustls::Error::General(error.to_string()))?;
    let verifier: Arc<dyn ServerCertVerifier> = match mode {
        TlsMode::VerifyIdentity => strict,
        TlsMode::VerifyCa => Arc::new(AnyName { authorities: Some(known), strict }),
        TlsMode::Preferred | TlsMode::Required | TlsMode::Disabled => Arc::new(AnyName { authorities: None, strict }),
    };
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth())
}

/// Takes certificates whatever host they name: servers make their own without a name that fits, and these are what VERIFY_CA
/// is for. Without authorities it takes any. That the server holds the certificate's key is always proved.
#[derive(Debug)]
struct AnyName {
    authorities: Option<Arc<RootCertStore>>,
    strict: Arc<WebPkiServerVerifier>,
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
            let algorithms = default_provider().signature_verification_algorithms.all;
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
        self.strict.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.strict.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.strict.supported_verify_schemes()
    }
}
