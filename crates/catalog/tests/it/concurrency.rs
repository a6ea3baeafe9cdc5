//! Readers while the catalog changes: each tenant is of one moment, and no fence is newer than its placement.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use insula_catalog::{Catalog, FakeSource, fake};

use crate::backend::{Backend, Step, floor, no_polling, put, ready, tenant};

const TENANTS: i64 = 40;
const CHANGES: i64 = 3_000;

/// Change `n` of a tenant gives it epoch `n`, name `n`, and its pool the fence `n`, in one transaction: as every change that
/// moves a fence does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_never_see_a_mix() {
    let mut source = FakeSource::new();
    source.commit(floor()).await;
    let mut rows: Vec<_> = (1..=TENANTS).map(|no| tenant(&format!("tenant-{no}"), no)).collect();
    for row in &mut rows {
        row.name = "1".into();
    }
    source.commit(rows.iter().map(put).collect()).await;
    let catalog = ready(source.clone(), no_polling()).await;

    let stop = Arc::new(AtomicBool::new(false));
    let reads = Arc::new(AtomicU64::new(0));
    let readers: Vec<_> = (0..4)
        .map(|seed| {
            let (catalog, stop, reads) = (catalog.clone(), Arc::clone(&stop), Arc::clone(&reads));
            thread::spawn(move || read(&catalog, seed, &stop, &reads))
        })
        .collect();

    for n in 2..=CHANGES {
        let row = &mut rows[(n * 7 % TENANTS) as usize];
        row.placement.epoch = n;
        row.name = n.to_string();
        source.commit(vec![put(row), Step::PutDatabase(fake::database("main", "insula_pool", n).unwrap())]).await;
        if n % 3 == 0 {
            catalog.refresh().await.unwrap();
        }
        if n % 500 == 0 {
            // A full load under way is no different.
            source.change(fake::Content::trim);
        }
    }
    catalog.refresh().await.unwrap();
    stop.store(true, Ordering::Relaxed);
    for reader in readers {
        reader.join().unwrap();
    }
    assert!(reads.load(Ordering::Relaxed) > 1_000, "the readers were at work");
    for row in &rows {
        let route = catalog.by_id(row.id).unwrap();
        assert_eq!((route.placement.epoch, catalog.fence_of(&route)), (row.placement.epoch, CHANGES));
    }
}

fn read(catalog: &Catalog, seed: i64, stop: &AtomicBool, reads: &AtomicU64) {
    let main = "main".parse().unwrap();
    let mut no = seed;
    while !stop.load(Ordering::Relaxed) {
        no = no % TENANTS + 1;
        let slug = format!("tenant-{no}");
        // A fence that is read first: every placement up to it is there.
        let fence = catalog.database_fence(&main, "insula_pool");
        let route = catalog.by_host(&format!("{slug}.localhost")).expect("every tenant is always there");
        assert_eq!(route.slug.as_str(), slug);
        assert_eq!(route.name.parse::<i64>().unwrap(), route.placement.epoch, "a mix of two moments");
        let by_id = catalog.by_id(route.id).expect("every tenant is always there");
        // Whatever changed this tenant up to `fence` is seen: the next change of the same tenant has a greater number.
        let newest_due = newest_change(no, fence);
        assert!(by_id.placement.epoch >= newest_due, "fence {fence} was seen before epoch {newest_due} of {slug}");
        // One look is at one revision, whichever way it goes.
        catalog.look(|view| {
            let (a, b) = (view.by_slug(&slug).unwrap(), view.by_id(route.id).unwrap());
            assert!(Arc::ptr_eq(a, b), "two ways, two routes");
        });
        // A route that is kept while the world moves on.
        let kept = route.arc();
        let fence = catalog.fence_of(&kept);
        assert!(
            fence < 0 || newest_change(no, fence) <= kept.placement.epoch,
            "fence {fence} went with the outdated epoch {} of {slug}",
            kept.placement.epoch
        );
        reads.fetch_add(1, Ordering::Relaxed);
    }
}

/// The last change up to `fence` that concerned the tenant of this number (see `rows[...]` above); epoch 1 before any.
fn newest_change(no: i64, fence: i64) -> i64 {
    (2..=fence).rev().take(TENANTS as usize).find(|n| n * 7 % TENANTS == no - 1).unwrap_or(1)
}
