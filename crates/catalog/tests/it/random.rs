//! Following changes and loading anew lead to the same snapshot, whatever happened.

use std::collections::BTreeMap;

use insula_catalog::row::TenantRow;
use insula_catalog::{Catalog, FakeSource, fake};
use insula_core::{FeatureValue, TenantState};
use proptest::prelude::*;

use crate::backend::{Backend, Step, floor, no_polling, put, ready, tenant};

const TENANTS: usize = 8;
const SLUGS: usize = 6;

/// What happens to one of a few tenants that contend for fewer names.
#[derive(Clone, Debug)]
enum Event {
    Put { who: usize, slug: usize, host: Option<usize>, plan: usize, users: Option<u8>, suspended: bool, fence: Option<u8> },
    Remove { who: usize },
    Plan { which: usize, users: u8 },
    Cell { which: usize, port: Option<u8> },
    Trim,
}

fn event() -> impl Strategy<Value = Event> {
    let put = (
        0..TENANTS,
        0..SLUGS,
        prop::option::of(0..4usize),
        0..3usize,
        prop::option::of(0..3u8),
        any::<bool>(),
        prop::option::of(any::<u8>()),
    )
        .prop_map(|(who, slug, host, plan, users, suspended, fence)| Event::Put {
            who,
            slug,
            host,
            plan,
            users,
            suspended,
            fence,
        });
    prop_oneof![
        6 => put,
        2 => (0..TENANTS).prop_map(|who| Event::Remove { who }),
        1 => (0..3usize, any::<u8>()).prop_map(|(which, users)| Event::Plan { which, users }),
        1 => (0..3usize, prop::option::of(any::<u8>())).prop_map(|(which, port)| Event::Cell { which, port }),
        1 => Just(Event::Trim),
    ]
}

/// The steps of an event, with those that keep slugs and hosts unique.
fn steps(event: Event, rows: &mut BTreeMap<usize, TenantRow>, ids: &[TenantRow]) -> Vec<Step> {
    let mut steps = Vec::new();
    match event {
        Event::Put { who, slug, host, plan, users, suspended, fence } => {
            let mut row = rows.get(&who).unwrap_or(&ids[who]).clone();
            row.slug = format!("slug-{slug}").parse().unwrap();
            row.domains = host.map(|h| format!("host-{h}.example")).into_iter().collect();
            row.plan = format!("plan-{plan}").parse().unwrap();
            row.limits = users.map(|u| ("max_users".to_owned(), u.into())).into_iter().collect();
            row.features = users.map(|u| ("x".to_owned(), FeatureValue::Number(u.into()).into())).into_iter().collect();
            row.state = if suspended { TenantState::Suspended } else { TenantState::Active };
            row.placement.epoch += 1;
            // Who loses its slug takes the one left behind, or a free one.
            let free = (0..TENANTS)
                .map(|n| format!("other-{n}").parse().unwrap())
                .find(|free| rows.values().all(|row| row.slug != *free));
            let left = rows.get(&who).map(|old| old.slug.clone()).or(free).unwrap();
            for (_, taken) in rows.iter_mut().filter(|(other, _)| **other != who) {
                let mut touched = false;
                if taken.slug == row.slug {
                    taken.slug = left.clone();
                    touched = true;
                }
                if taken.domains == row.domains && !row.domains.is_empty() {
                    taken.domains.clear();
                    touched = true;
                }
                if touched {
                    steps.push(put(taken));
                }
            }
            steps.push(put(&row));
            if let Some(fence) = fence {
                steps.push(Step::PutDatabase(fake::database("main", "insula_pool", fence.into()).unwrap()));
            }
            rows.insert(who, row);
        }
        Event::Remove { who } => steps.extend(rows.remove(&who).map(|row| Step::RemoveTenant(row.id))),
        Event::Plan { which, users } => {
            let mut plan = fake::plan(&format!("plan-{which}")).unwrap();
            plan.limits.max_users = users.into();
            steps.push(Step::PutPlan(plan));
        }
        Event::Cell { which, port } => {
            let name = format!("cell-{which}");
            steps.push(match port {
                Some(port) => Step::PutCell(fake::cell(&name, "127.0.0.1", port.into()).unwrap()),
                None => Step::RemoveCell(name.parse().unwrap()),
            });
        }
        Event::Trim => {}
    }
    steps
}

/// All that a reader can ask.
fn everything(catalog: &Catalog, ids: &[TenantRow]) -> String {
    let mut seen = String::new();
    let slugs = (0..SLUGS).map(|n| format!("slug-{n}")).chain((0..TENANTS).map(|n| format!("other-{n}")));
    let hosts = slugs.map(|slug| format!("{slug}.localhost")).chain((0..4).map(|n| format!("host-{n}.example")));
    let routes = hosts.map(|host| catalog.by_host(&host)).chain(ids.iter().map(|row| catalog.by_id(row.id)));
    for route in routes {
        let fence = route.as_ref().map(|route| catalog.fence_of(route));
        // Addresses apart, `Debug` shows everything.
        seen.push_str(&format!("{route:?} {fence:?}\n"));
    }
    seen.push_str(&format!("{:?}", catalog.cells()));
    seen
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn following_is_loading(commits in prop::collection::vec(prop::collection::vec(event(), 1..4), 1..25)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let result: Result<(), TestCaseError> = runtime.block_on(async {
            let mut source = FakeSource::new();
            source.commit(floor()).await;
            for which in 0..3 {
                source.commit(vec![Step::PutPlan(fake::plan(&format!("plan-{which}")).unwrap())]).await;
            }
            let following = ready(source.clone(), no_polling()).await;
            let ids: Vec<_> = (1..=TENANTS).map(|no| tenant("nobody", no as i64)).collect();
            let mut rows = BTreeMap::new();
            let last = commits.len() - 1;
            for (n, commit) in commits.into_iter().enumerate() {
                for event in commit {
                    let trim = matches!(event, Event::Trim);
                    source.commit(steps(event, &mut rows, &ids)).await;
                    if trim {
                        source.trim().await;
                    }
                }
                following.refresh().await.unwrap();
                if n % 8 != 0 && n != last {
                    continue;
                }
                let loaded = ready(source.clone(), no_polling()).await;
                prop_assert_eq!(everything(&following, &ids), everything(&loaded, &ids));
                for row in rows.values() {
                    let route = following.by_slug(row.slug.as_str());
                    prop_assert_eq!(route.map(|route| route.id), Some(row.id));
                }
            }
            Ok(())
        });
        result?;
    }
}
