//! A control plane behind something that ends TLS: its stream and its calls are the same, for whoever believes its certificate.

use std::sync::Arc;

use insula_api::Client;
use insula_catalog::{Catalog, HttpSource};
use insula_core::{Kind, TenantState};
use insula_testkit::Authority;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};

use crate::edge_house::{EdgeHouse, no_polling, ready, until};

/// Ends TLS for `localhost` before the control plane; its address.
async fn behind_tls(house: &EdgeHouse, authority: &Authority) -> String {
    let (chain, key) = authority.vouch("localhost");
    let chain = CertificateDer::pem_slice_iter(chain.as_bytes()).collect::<Result<_, _>>().unwrap();
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let server = builder.with_no_client_auth().with_single_cert(chain, key).unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(server));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (port, to) = (listener.local_addr().unwrap().port(), house.address);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut inside) = acceptor.accept(stream).await else { return };
                let mut outside = TcpStream::connect(to).await.unwrap();
                tokio::io::copy_bidirectional(&mut inside, &mut outside).await.ok();
            });
        }
    });
    format!("https://localhost:{port}")
}

#[tokio::test]
async fn the_catalog_is_followed_over_tls_with_an_authority_of_ones_own() {
    let mut house = EdgeHouse::start().await;
    let acme = house.tenant("acme").await;
    let (own, foreign) = (Authority::new(), Authority::new());
    let url = behind_tls(&house, &own).await;
    let [own, foreign] = [&own, &foreign].map(|authority| std::fs::read(authority.file()).unwrap());
    let catalog = Catalog::start(HttpSource::with_authorities(&url, &house.key, Some(&own)).unwrap(), no_polling());
    ready(&catalog).await;
    // The stream brings it: nobody polls.
    house.set_state(acme, "suspended").await;
    until("suspended", async || catalog.by_id(acme).unwrap().state() == TenantState::Suspended).await;
    let ask = async |authorities: Option<&[u8]>| {
        let client = Client::with_authorities(&url, &house.key, authorities).unwrap();
        client.sealed_certificates(None).await.map(drop).map_err(|error| error.kind())
    };
    assert_eq!(ask(Some(&own)).await, Ok(()));
    for stranger in [None, Some(foreign.as_slice())] {
        assert_eq!(ask(stranger).await, Err(Kind::Unavailable));
    }
    // A file without a certificate is refused at once.
    assert_eq!(Client::with_authorities(&url, &house.key, Some(b"none")).err().map(|error| error.kind()), Some(Kind::Invalid));
    assert!(HttpSource::with_authorities(&url, &house.key, Some(b"none")).is_err());
}
