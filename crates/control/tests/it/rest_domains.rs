//! Host names of tenants: claimed, proven by a record that a real name server has, and led to the first that proved them.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use hickory_resolver::proto::op::{Message, MessageType, ResponseCode};
use hickory_resolver::proto::rr::rdata::TXT;
use hickory_resolver::proto::rr::{RData, Record, RecordType};
use insula_catalog::{Catalog, Options, PgSource};
use insula_control::model::{CreateTenant, UpdateTenant};
use insula_core::placement::READER_ROLE;
use insula_core::{FeatureValue, Isolation, Kind};
use tokio::net::UdpSocket;

use crate::house::{HASH, House, LONG};

/// A name server with TXT records and nothing else.
#[derive(Clone)]
struct Zone {
    address: SocketAddr,
    records: Arc<Mutex<HashMap<String, Vec<String>>>>,
}

impl Zone {
    async fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let zone = Self { address: socket.local_addr().unwrap(), records: Arc::default() };
        let serving = zone.clone();
        tokio::spawn(async move {
            let mut buffer = [0; 1024];
            while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
                let answer = serving.answer(&Message::from_vec(&buffer[..length]).unwrap());
                socket.send_to(&answer.to_vec().unwrap(), from).await.unwrap();
            }
        });
        zone
    }

    fn answer(&self, question: &Message) -> Message {
        let query = question.queries.first().unwrap().clone();
        let mut answer = question.clone();
        answer.metadata.message_type = MessageType::Response;
        answer.metadata.recursion_available = true;
        let records = self.records.lock().unwrap();
        match records.get(&query.name().to_ascii().to_lowercase()) {
            None => answer.metadata.response_code = ResponseCode::NXDomain,
            Some(texts) if query.query_type() == RecordType::TXT => {
                for text in texts {
                    let data = RData::TXT(TXT::new(vec![text.clone()]));
                    answer.answers.push(Record::from_rdata(query.name().clone(), 60, data));
                }
            }
            Some(_) => {}
        }
        answer
    }

    fn publish(&self, name: &str, texts: &[&str]) {
        let texts = texts.iter().map(|text| (*text).to_owned()).collect();
        self.records.lock().unwrap().insert(format!("{name}."), texts);
    }
}

async fn town() -> (House, Zone) {
    let zone = Zone::start().await;
    let address = zone.address;
    let server = Arc::new(insula_testkit::durable_server().await);
    let house = House::on(server, |config| {
        config.dns = Some(address);
        config.base_domain = "insula.example".into();
        config.warm_databases = 0;
    })
    .await;
    house.put_bundle().await;
    for (slug, plan) in [("acme", "silver"), ("globex", "silver"), ("cheap", "bronze")] {
        let create = CreateTenant {
            admin_password_hash: Some(HASH.into()),
            isolation: Some(Isolation::Row),
            ..CreateTenant::new(slug.parse().unwrap(), plan.parse().unwrap())
        };
        let made = house.control.create_tenant("test", create, None).await.unwrap();
        house.done(made.operation.id).await;
    }
    (house, zone)
}

async fn catalog(house: &House) -> Catalog {
    let password = house.server.root_key().catalog_password(READER_ROLE);
    let (host, port) = (house.server.host(), house.server.port());
    let url = format!("postgres://{READER_ROLE}:{password}@{host}:{port}/insula_catalog?sslmode=disable");
    let catalog = Catalog::start(PgSource::connect(&url).unwrap(), Options::default());
    tokio::time::timeout(LONG, catalog.ready()).await.unwrap();
    catalog
}

#[tokio::test]
async fn the_first_to_prove_a_name_has_it() {
    let (mut house, zone) = town().await;
    let (control, catalog) = (&house.control, catalog(&house).await);
    let host = "docs.acme.example";
    let leads_to = async || {
        catalog.refresh().await.unwrap();
        catalog.by_host(host).map(|route| route.slug.to_string())
    };
    let fails = async |tenant: &str| control.verify_domain("test", tenant, host).await.unwrap_err();

    // Claimed, twice even; proven by nobody, so it leads nowhere.
    let claim = control.add_domain("test", "acme", "Docs.Acme.Example.").await.unwrap();
    let other = control.add_domain("test", "globex", host).await.unwrap();
    assert_eq!((claim.host.as_str(), claim.verified_at), (host, None));
    assert_ne!(claim.challenge, other.challenge);
    assert_eq!(leads_to().await, None);
    assert!(fails("acme").await.to_string().contains("_insula-challenge.docs.acme.example has to say insula-verification="));

    // Another's record, and a stale one beside the right one.
    zone.publish(&claim.record_name(), &["v=spf1 -all"]);
    let wrong = fails("acme").await;
    assert!(wrong.kind() == Kind::Conflict && wrong.to_string().contains("it says \"v=spf1 -all\""), "{wrong}");
    zone.publish(&claim.record_name(), &["v=spf1 -all", &claim.record_value()]);
    assert!(fails("globex").await.to_string().contains("is not proven"));
    assert!(control.verify_domain("test", "acme", "DOCS.acme.example").await.unwrap().verified_at.is_some());
    assert_eq!(leads_to().await.as_deref(), Some("acme"));

    // First come, first served, also for who could prove it later; and once more changes nothing.
    zone.publish(&claim.record_name(), &[&other.record_value()]);
    let late = fails("globex").await;
    assert!(late.kind() == Kind::Conflict && late.to_string().contains("belongs to another tenant"), "{late}");
    assert_eq!(control.add_domain("test", "cheap", host).await.unwrap_err().kind(), Kind::Conflict);
    assert_eq!(leads_to().await.as_deref(), Some("acme"));

    // Given up, it is the other's.
    control.remove_domain("test", "acme", host).await.unwrap();
    assert_eq!(leads_to().await, None);
    control.verify_domain("test", "globex", host).await.unwrap();
    assert_eq!(leads_to().await.as_deref(), Some("globex"));
    house.stop().await;
}

#[tokio::test]
async fn plans_and_names_are_checked() {
    let (mut house, zone) = town().await;
    let control = &house.control;
    let add = async |tenant: &str, host: &str| control.add_domain("test", tenant, host).await;
    let refused = add("cheap", "docs.cheap.example").await.unwrap_err();
    assert!(refused.kind() == Kind::Conflict && refused.to_string().contains("does not have custom_domain"), "{refused}");
    for bad in [
        "insula.example",
        "x.insula.example",
        "a.b.Insula.example.",
        "localhost",
        "10.0.0.1",
        "1.2.3",
        "docs",
        "a..b",
        "a b.example",
        "https://a.example",
        "a.example:80",
        "*.example.com",
        "under_score.example",
        "xn--a.example",
        &format!("{}.example", "a".repeat(64)),
    ] {
        assert_eq!(add("acme", bad).await.unwrap_err().kind(), Kind::Invalid, "{bad}");
    }
    assert_eq!(add("acme", "notinsula.example").await.unwrap().host, "notinsula.example");
    assert_eq!(add("acme", "Bücher.example").await.unwrap().host, "xn--bcher-kva.example");
    assert_eq!(add("acme", "xn--bcher-kva.example").await.unwrap_err().kind(), Kind::Conflict);

    // A plan that lost the feature proves nothing more; an override gives it back.
    let claim = add("globex", "wiki.globex.example").await.unwrap();
    zone.publish(&claim.record_name(), &[&claim.record_value()]);
    let features = |on| UpdateTenant {
        features: Some([("custom_domain".to_owned(), FeatureValue::Switch(on).into())].into()),
        ..UpdateTenant::default()
    };
    control.update_tenant("test", "globex", features(false), None).await.unwrap();
    let verify = async || control.verify_domain("test", "globex", "wiki.globex.example").await;
    assert!(verify().await.unwrap_err().to_string().contains("does not have custom_domain"));
    control.update_tenant("test", "globex", features(true), None).await.unwrap();
    assert!(verify().await.unwrap().verified_at.is_some());
    assert_eq!(control.verify_domain("test", "globex", "other.example").await.unwrap_err().kind(), Kind::NotFound);
    house.stop().await;
}

#[tokio::test]
async fn a_name_server_that_is_away_is_no_answer() {
    let gone = UdpSocket::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let server = Arc::new(insula_testkit::durable_server().await);
    let mut house = House::on(server, |config| {
        config.dns = Some(gone);
        config.warm_databases = 0;
    })
    .await;
    house.put_bundle().await;
    let create = CreateTenant {
        admin_password_hash: Some(HASH.into()),
        isolation: Some(Isolation::Row),
        ..CreateTenant::new("acme".parse().unwrap(), "silver".parse().unwrap())
    };
    let made = house.control.create_tenant("test", create, None).await.unwrap();
    house.done(made.operation.id).await;
    house.control.add_domain("test", "acme", "docs.acme.example").await.unwrap();
    let away = house.control.verify_domain("test", "acme", "docs.acme.example").await.unwrap_err();
    assert_eq!(away.kind(), Kind::Unavailable, "{away}");
    house.stop().await;
}
