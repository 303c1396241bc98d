//! TLS with a certificate that is made for the test.

use crate::sdk::provider;
use crate::support::{Client, options, soon, start};
use azure_messaging_eventhubs::ConsumerClient;
use fe2o3_amqp::{Connection, Session, sasl_profile::SaslProfile};
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use rustls::{ClientConfig, RootCertStore};
use std::path::Path;
use std::sync::Arc;
use tidemark_broker::{Broker, BrokerOptions, Error, TlsFiles};
use tokio::net::TcpStream;

fn files(directory: &Path) -> TlsFiles {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let files = TlsFiles { certificate: directory.join("certificate.pem"), key: directory.join("key.pem") };
    std::fs::write(&files.certificate, made.cert.pem()).unwrap();
    std::fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
    files
}

#[tokio::test]
async fn events_come_over_tls_and_plain_clients_do_not() {
    provider();
    let directory = tempfile::tempdir().unwrap();
    let files = files(directory.path());
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(&files.certificate).unwrap()).unwrap();
    let broker = start(BrokerOptions { tls: Some(files), require_tokens: false, ..options() }).await;
    assert!(!broker.connection_string().contains("UseDevelopmentEmulator"));
    broker.control().append(0, (0..3000).map(|event| format!("p0 e{event}"))).unwrap();
    let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let tcp = soon("connecting", TcpStream::connect(broker.local_addr())).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let stream = soon("the handshake", connector.connect(name, tcp)).await.unwrap();
    let builder = Connection::builder().container_id("test").sasl_profile(SaslProfile::Anonymous);
    let mut connection = soon("opening", builder.open_with_stream(stream)).await.unwrap();
    let session = soon("beginning", Session::begin(&mut connection)).await.unwrap();
    let mut client = Client { connection, session };
    let mut receiver = client.receiver(0, crate::support::FROM_START).await;
    assert_eq!(crate::support::sequences(&mut receiver, 0, 3000).await.last(), Some(&2999));
    assert!(Client::connect_as(&broker, SaslProfile::Anonymous).await.is_err());
    // The Rust client has no way to trust this certificate: it must refuse.
    let builder =
        ConsumerClient::builder().with_custom_endpoint(format!("amqps://localhost:{}", broker.local_addr().port()));
    let opened = soon("opening", builder.open_with_connection_string(&broker.connection_string(), None)).await;
    if let Ok(client) = opened {
        assert!(soon("properties", client.get_eventhub_properties()).await.is_err());
    }
}

#[tokio::test]
async fn files_that_do_not_fit_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let good = files(directory.path());
    let missing = TlsFiles { certificate: directory.path().join("none.pem"), ..good.clone() };
    let swapped = TlsFiles { certificate: good.key.clone(), key: good.certificate.clone() };
    for (files, culprit) in [(missing, "none.pem"), (swapped, "key.pem")] {
        let refused = Broker::start(BrokerOptions { tls: Some(files), ..options() }).await.unwrap_err();
        assert!(matches!(&refused, Error::Tls { .. }) && refused.to_string().contains(culprit), "{refused}");
    }
    let taken = start(options()).await;
    let refused = Broker::start(BrokerOptions { listen: taken.local_addr(), ..options() }).await.unwrap_err();
    assert!(matches!(refused, Error::Listen { .. }));
}
