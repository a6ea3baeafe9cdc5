//! Cells whose servers are reached over TLS.

use std::path::Path;

use insula_catalog::{Catalog, Tls, fake};
use insula_core::{KeyRing, Kind};
use insula_data::lane::Param;
use insula_data::{Data, DataConfig, Error};
use insula_testkit::{Authority, durable_server};
use sqlx::PgConnection;

use crate::house::House;

/// How a backend's connection is made, as the server sees it. Not for tenants to see.
const IS_SECURE: &str = "SELECT ssl FROM pg_stat_ssl WHERE pid = $1";

struct Secure {
    house: House,
    authority: Authority,
}

/// A house whose server has TLS for `localhost`.
async fn secure() -> Secure {
    let server = Box::leak(Box::new(durable_server().await));
    let authority = Authority::new();
    server.turn_tls_on(&authority, "localhost").await;
    let house = House::on(server, DataConfig::default()).await;
    house.register_dedicated(9).await;
    Secure { house, authority }
}

impl Secure {
    /// The catalog says to reach the cell so.
    async fn reach(&self, host: &str, tls: Tls) -> &Catalog {
        let mut cell = fake::cell(self.house.server.cell().as_str(), host, self.house.server.port()).expect("a name");
        cell.tls = tls;
        self.house.source.change(|c| c.put_cell(cell));
        self.house.catalog.refresh().await.expect("a refresh");
        &self.house.catalog
    }

    /// A data plane that believes these authorities.
    fn data(&self, authorities: Option<&Path>) -> Data {
        let keys = KeyRing::new([(self.house.server.cell(), self.house.server.cell_key())]);
        let config = DataConfig { authorities: authorities.map(Path::to_owned), attempts: 1, ..DataConfig::default() };
        Data::open(config, self.house.catalog.clone(), keys)
    }

    async fn refusal(&self, authorities: Option<&Path>) -> String {
        let error = self.data(authorities).begin(&self.house.tenant(1)).await.map(drop).expect_err("refused");
        assert_eq!(error.kind(), Kind::Unavailable);
        error.to_string()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cell_is_reached_as_securely_as_it_says() {
    let secure = secure().await;
    let known = secure.authority.file();
    for (tls, authorities) in [(Tls::Require, None), (Tls::VerifyFull, Some(known))] {
        secure.reach("localhost", tls).await;
        let data = secure.data(authorities);
        // A shared login and one of a tenant's own.
        for no in [1, 9] {
            let mut tx = data.begin(&secure.house.tenant(no)).await.expect("a transaction");
            let pid: i32 = sqlx::query_scalar("SELECT pg_catalog.pg_backend_pid()").fetch_one(&mut tx).await.expect("a pid");
            let mut admin = secure.house.server.admin("postgres").await;
            let seen: bool = sqlx::query_scalar(IS_SECURE).bind(pid).fetch_one(&mut admin).await.expect("a row");
            assert!(seen, "tenant {no}, {tls:?}");
            tx.commit().await.expect("a commit");
        }
    }
    let foreign = Authority::new();
    secure.reach("localhost", Tls::VerifyFull).await;
    for authorities in [None, Some(foreign.file())] {
        let said = secure.refusal(authorities).await;
        assert!(said.contains("localhost") && said.contains("in INSULA_CELL_CA"), "{said}");
    }
    secure.reach("127.0.0.1", Tls::VerifyFull).await;
    let said = secure.refusal(Some(known)).await;
    assert!(said.contains("127.0.0.1") && said.contains("host name that is in the server's certificate"), "{said}");
    // What is only encrypted asks for no proof.
    secure.reach("127.0.0.1", Tls::Require).await;
    secure.data(None).begin(&secure.house.tenant(1)).await.expect("a transaction").rollback().await;
    // And who insists gets nothing less.
    let mut admin: PgConnection = secure.house.server.admin("postgres").await;
    for sql in ["ALTER SYSTEM SET ssl = off", "SELECT pg_reload_conf()"] {
        sqlx::raw_sql(sql).execute(&mut admin).await.expect("run");
    }
    crate::house::until("TLS is off", async || {
        let mut fresh = secure.house.server.admin("postgres").await;
        let now: String = sqlx::query_scalar("SHOW ssl").fetch_one(&mut fresh).await.expect("a setting");
        now == "off"
    })
    .await;
    let said = secure.refusal(None).await;
    assert!(said.contains("ssl = on"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_fast_lane_leaves_cells_with_tls_alone() {
    let secure = secure().await;
    let data = secure.data(Some(secure.authority.file()));
    for tls in [Tls::Require, Tls::VerifyFull] {
        secure.reach("localhost", tls).await;
        for no in [1, 9] {
            let tenant = secure.house.tenant(no);
            let refused = data.lane().query(&tenant, "SELECT $1::bigint", &[Param::Int8(1)]).await.expect_err("refused");
            assert!(matches!(refused, Error::LaneWithoutTls { .. }), "{refused}");
            assert!(refused.to_string().contains("use a transaction"), "{refused}");
            // It says nothing of the cell's health.
            data.begin(&tenant).await.expect("a transaction").rollback().await;
        }
    }
}
