//! Whatever happens to the wire, a follower over HTTP ends with what the catalog holds.

use std::collections::BTreeMap;
use std::time::Duration;

use insula_catalog::{Catalog, HttpSource, Options, PgSource};
use insula_testkit::{CutProxy, Wire};

use crate::edge_house::{EdgeHouse, ready, until};

/// A small generator of numbers that look random (SplitMix64), so that a failure can be run again.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % below
    }
}

const TENANTS: u64 = 12;

/// What a catalog says of everything that a test touches.
fn picture(catalog: &Catalog) -> BTreeMap<String, String> {
    catalog.look(|view| {
        let tenants = (0..TENANTS).map(|n| {
            let slug = format!("tenant-{n}");
            let route = view.by_slug(&slug).map(|route| {
                let host = view.by_host(&format!("host-{n}.example")).map(|route| route.slug.clone());
                let fence = view.fence_of(route);
                format!(
                    "{:?} {:?} {:?} {:?} {:?} {fence} {host:?}",
                    route.id,
                    route.state(),
                    route.plan,
                    route.placement,
                    route.schema_version
                )
            });
            (slug, format!("{route:?}"))
        });
        let cell = view.cell(&"main".parse().unwrap()).map(|cell| format!("{cell:?}"));
        let document = view.document("look").map(|document| format!("{document:?}"));
        tenants.chain([("cell".to_owned(), format!("{cell:?}")), ("document".to_owned(), format!("{document:?}"))]).collect()
    })
}

async fn change(house: &mut EdgeHouse, dice: &mut Dice, n: u64) {
    let who = format!("WHERE slug = 'tenant-{}'", dice.roll(TENANTS));
    let sql = match dice.roll(9) {
        0 => format!("UPDATE catalog.tenant SET state = 'suspended' {who}"),
        1 => format!("UPDATE catalog.tenant SET state = 'active' {who}"),
        2 => format!("UPDATE catalog.tenant SET schema_version = {n}, limits = '{{\"max_users\": {n}}}' {who}"),
        // A placement and the fence that follows it, as a move writes them.
        3 => format!(
            "BEGIN; UPDATE catalog.placement SET epoch = epoch + 1 WHERE tenant = (SELECT id FROM catalog.tenant {who});
             UPDATE catalog.cell_database SET fence = fence + 1; COMMIT"
        ),
        4 => format!("UPDATE catalog.plan SET limits = limits || '{{\"max_users\": {n}}}' WHERE name = 'bronze'"),
        5 => format!("UPDATE catalog.cell SET app_versions = '[{{\"url\": \"http://a:{n}\"}}]'"),
        6 => format!(
            "INSERT INTO catalog.document_version (name, version, body, created_by) VALUES ('look', {n}, '{n}', 'x') ON CONFLICT DO NOTHING;
             INSERT INTO catalog.document (name, stable) VALUES ('look', {n}) ON CONFLICT (name) DO UPDATE SET stable = {n}"
        ),
        7 => format!(
            "INSERT INTO catalog.domain (host, tenant, verified_at) SELECT 'host-' || {} || '.example', id, now() FROM catalog.tenant {who}
             ON CONFLICT (host) WHERE verified_at IS NOT NULL DO UPDATE SET tenant = excluded.tenant",
            dice.roll(TENANTS)
        ),
        _ => {
            let (a, b) = (dice.roll(TENANTS), dice.roll(TENANTS));
            format!(
                "UPDATE catalog.tenant SET slug = 'tmp' WHERE slug = 'tenant-{a}'; UPDATE catalog.tenant SET slug = 'tenant-{a}' WHERE slug = 'tenant-{b}';
                 UPDATE catalog.tenant SET slug = 'tenant-{b}' WHERE slug = 'tmp'"
            )
        }
    };
    house.sql(sql).await;
    if dice.roll(40) == 0 {
        house.sql("SELECT catalog.trim_feed(0)").await;
    }
}

async fn chaos(seed: u64, rounds: u64) {
    let mut dice = Dice(seed);
    let mut house = EdgeHouse::start().await;
    for n in 0..TENANTS {
        house.tenant(&format!("tenant-{n}")).await;
    }
    let proxy = CutProxy::start(house.address).await;
    let source = HttpSource::new(&format!("http://{}", proxy.address()), &house.key).unwrap();
    let options = Options { poll: Duration::from_millis(50), ..Options::default() };
    let follower = Catalog::start(source, options.clone());
    ready(&follower).await;
    for n in 1..=rounds {
        // Polls, loads and streams alike break off wherever that is.
        proxy.set(match dice.roll(4) {
            0 => Wire::Whole,
            1 => Wire::Cut,
            _ => Wire::CutAfter(dice.roll(6000) as usize),
        });
        for _ in 0..dice.roll(6) {
            let number = n * 10 + dice.roll(10);
            change(&mut house, &mut dice, number).await;
        }
        if dice.roll(25) == 0 {
            house.kill();
            house.resume().await;
        }
        tokio::task::yield_now().await;
    }
    proxy.set(Wire::Whole);
    let url = house.admin_url().to_owned();
    let truth = Catalog::start(PgSource::connect(&url).unwrap(), options);
    ready(&truth).await;
    truth.refresh().await.unwrap();
    until("the follower has caught up", async || follower.revision() == truth.revision()).await;
    assert_eq!(picture(&follower), picture(&truth), "seed {seed}");
}

#[tokio::test]
async fn a_follower_ends_with_what_the_catalog_holds() {
    for seed in 1..=6 {
        chaos(seed, 60).await;
    }
}
