//! The cache as an application sees it, with a clock that is moved by hand.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use insula_core::{Isolation, Limits, Plan, TenantContext, TenantId, TenantNo, Tier, scope};
use proptest::prelude::*;
use tokio::sync::{Barrier, Notify};

use crate::{Cache, CacheConfig, Resource, TenantCache, Ticks};

const TEXTS: Resource<u64, String> = Resource::new("texts").ttl(Duration::from_secs(30)).negative_ttl(Duration::from_secs(3));
const PAGES: Resource<str, Vec<u8>> = Resource::new("pages").weighed_by(Vec::len);

pub(crate) struct Who {
    no: TenantNo,
    id: TenantId,
    plan: Plan,
}

pub(crate) fn who(no: i64, tier: &str, weight: u32, quota: u64) -> Who {
    let plan = Plan {
        name: "bronze".parse().unwrap(),
        tier: Tier { name: tier.into(), weight, pool_guarantee: 0, pool_cap: 100 },
        isolation: Isolation::Row,
        limits: Limits { max_cache_bytes: quota, ..Limits::default() },
        features: Default::default(),
        temporary: Default::default(),
    };
    Who { no: TenantNo::new(no).unwrap(), id: TenantId::new(), plan }
}

pub(crate) fn of<'a>(cache: &'a Cache, who: &'a Who) -> TenantCache<'a> {
    TenantCache::new(&cache.inner, (who.no, who.id, 1), &who.plan)
}

fn small(capacity: u64) -> (Cache, Ticks) {
    let ticks = Ticks::by_hand();
    let tiers = [("brief".to_owned(), Duration::from_secs(10))].into();
    (Cache::with_ticks(CacheConfig { capacity, tiers, ..CacheConfig::default() }, ticks.clone()), ticks)
}

async fn load(cache: TenantCache<'_>, key: u64, text: &str) -> String {
    let loaded = cache.get_or_load(&TEXTS, &key, || async { Ok::<_, Infallible>(text.to_owned()) });
    loaded.await.unwrap().to_string()
}

#[tokio::test]
async fn a_value_lives_as_long_as_resource_and_tier_allow() {
    let (cache, ticks) = small(1 << 20);
    let (gold, brief) = (who(1, "gold", 4, 1 << 20), who(2, "brief", 1, 1 << 20));
    for tenant in [&gold, &brief] {
        assert_eq!(load(of(&cache, tenant), 7, "first").await, "first");
        assert_eq!(load(of(&cache, tenant), 7, "second").await, "first");
    }
    ticks.advance(Duration::from_secs(10));
    assert_eq!(load(of(&cache, &gold), 7, "second").await, "first");
    assert_eq!(load(of(&cache, &brief), 7, "second").await, "second", "its tier's bound");
    ticks.advance(Duration::from_secs(20));
    assert_eq!(load(of(&cache, &gold), 7, "second").await, "second");
    // What is dead is swept, and its memory given back.
    ticks.advance(Duration::from_secs(60));
    (0..cache.inner.store.places()).for_each(|place| cache.inner.store.sweep(place));
    let fill = cache.fill();
    assert_eq!((fill.bytes, fill.entries, fill.tenants), (0, 0, 0));
}

#[tokio::test]
async fn that_there_is_none_is_remembered_for_a_shorter_time() {
    let (cache, ticks) = small(1 << 20);
    let tenant = who(1, "gold", 1, 1 << 20);
    let loads = AtomicUsize::new(0);
    let find = async || {
        let find = of(&cache, &tenant).find_or_load(&TEXTS, &1, || async {
            loads.fetch_add(1, Ordering::SeqCst);
            Ok::<_, Infallible>(None)
        });
        assert_eq!(find.await, Ok(None));
    };
    find().await;
    find().await;
    assert_eq!((loads.load(Ordering::SeqCst), of(&cache, &tenant).get(&TEXTS, &1)), (1, Some(None)));
    // To one who needs a value, that is no answer.
    assert_eq!(load(of(&cache, &tenant), 1, "there").await, "there");
    of(&cache, &tenant).forget(&TEXTS, &1);
    find().await;
    ticks.advance(Duration::from_secs(3));
    find().await;
    assert_eq!(loads.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn forgetting_is_for_a_key_a_resource_or_a_tenant_and_for_nobody_else() {
    const OTHERS: Resource<u64, String> = Resource::new("others");
    let (cache, _) = small(1 << 20);
    let (one, two) = (who(1, "gold", 1, 1 << 20), who(2, "gold", 1, 1 << 20));
    let fill = async || {
        for tenant in [&one, &two] {
            for key in 0..3 {
                load(of(&cache, tenant), key, "text").await;
                let other = of(&cache, tenant).get_or_load(&OTHERS, &key, || async { Ok::<_, Infallible>("x".to_owned()) });
                other.await.unwrap();
            }
        }
    };
    let there = |tenant: &Who| {
        let texts = (0..3).filter(|key| of(&cache, tenant).get(&TEXTS, key).is_some()).count();
        (texts, (0..3).filter(|key| of(&cache, tenant).get(&OTHERS, key).is_some()).count())
    };
    fill().await;
    assert_eq!((there(&one), there(&two)), ((3, 3), (3, 3)));
    of(&cache, &one).forget(&TEXTS, &1);
    assert_eq!((there(&one), there(&two)), ((2, 3), (3, 3)));
    of(&cache, &one).forget_all(&TEXTS);
    assert_eq!((there(&one), there(&two)), ((0, 3), (3, 3)));
    fill().await;
    of(&cache, &one).forget_everything();
    assert_eq!((there(&one), there(&two)), ((0, 0), (3, 3)));
    fill().await;
    cache.forget_everything();
    assert_eq!((there(&one), there(&two)), ((0, 0), (0, 0)));
}

#[tokio::test]
async fn a_hundred_at_once_load_once() {
    let (cache, _) = small(1 << 20);
    let tenant = Arc::new(who(1, "gold", 1, 1 << 20));
    let (loads, go) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
    let tasks: Vec<_> = (0..100)
        .map(|_| {
            let (cache, tenant, loads, go) = (cache.clone(), tenant.clone(), loads.clone(), go.clone());
            tokio::spawn(async move {
                let value = of(&cache, &tenant).get_or_load(&TEXTS, &1, || async {
                    loads.fetch_add(1, Ordering::SeqCst);
                    go.notified().await;
                    Ok::<_, Infallible>("one".to_owned())
                });
                value.await.unwrap().to_string()
            })
        })
        .collect();
    tokio::task::yield_now().await;
    go.notify_one();
    for task in tasks {
        assert_eq!(task.await.unwrap(), "one");
    }
    assert_eq!((loads.load(Ordering::SeqCst), cache.inner.flights.len()), (1, 0));
}

#[tokio::test]
async fn a_failure_is_everybodys_and_is_not_remembered() {
    let (cache, _) = small(1 << 20);
    let tenant = who(1, "gold", 1, 1 << 20);
    let failing = || {
        of(&cache, &tenant).get_or_load(&TEXTS, &1, || async {
            tokio::task::yield_now().await;
            Err("away")
        })
    };
    let (a, b) = tokio::join!(failing(), failing());
    let (a, b) = (a.unwrap_err(), b.unwrap_err());
    assert!(Arc::ptr_eq(&a, &b) && *a == "away");
    assert_eq!(load(of(&cache, &tenant), 1, "back").await, "back");
}

/// Loads that panic, are cancelled, fail, and are forgotten in mid-flight, from many threads: everybody is answered, nobody by a load that began
/// before something was forgotten that it had seen forgotten, and nothing is left behind.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_load_leaves_anybody_waiting() {
    const TASKS: u64 = 64;
    const ROUNDS: u64 = 60;
    let (cache, _) = small(1 << 20);
    let tenant = Arc::new(who(1, "gold", 1, 1 << 20));
    let (truth, barrier) = (Arc::new(AtomicU64::new(0)), Arc::new(Barrier::new(TASKS as usize)));
    let tasks: Vec<_> = (0..TASKS)
        .map(|task| {
            let (cache, tenant, truth, barrier) = (cache.clone(), tenant.clone(), truth.clone(), barrier.clone());
            tokio::spawn(async move {
                for round in 0..ROUNDS {
                    barrier.wait().await;
                    let fate = (task * 7 + round) % 8;
                    let began = truth.load(Ordering::SeqCst);
                    let (in_cache, in_tenant, in_truth) = (cache.clone(), tenant.clone(), truth.clone());
                    let work = tokio::spawn(async move {
                        let value = of(&in_cache, &in_tenant).get_or_load(&TEXTS, &round, || async {
                            let seen = in_truth.load(Ordering::SeqCst);
                            tokio::task::yield_now().await;
                            match fate {
                                0 => panic!("a loader that panics"),
                                1 => Err("away"),
                                2 => std::future::pending().await,
                                _ => Ok(seen.to_string()),
                            }
                        });
                        value.await.map(|value| value.parse::<u64>().unwrap())
                    });
                    match fate {
                        // Cancelled wherever it stands.
                        2 => {
                            tokio::task::yield_now().await;
                            work.abort();
                            drop(work.await);
                        }
                        3 => {
                            truth.fetch_add(1, Ordering::SeqCst);
                            match task % 3 {
                                0 => of(&cache, &tenant).forget(&TEXTS, &round),
                                1 => of(&cache, &tenant).forget_all(&TEXTS),
                                _ => of(&cache, &tenant).forget_everything(),
                            }
                            let forgotten = truth.load(Ordering::SeqCst);
                            drop(work.await);
                            let later =
                                of(&cache, &tenant).get_or_load(&TEXTS, &round, || async { Ok::<_, &str>(u64::MAX.to_string()) });
                            // At least as new as what this task forgot: `forgotten` may count others' changes, of which they have yet to tell.
                            let later = later.await.map(|value| value.parse::<u64>().unwrap());
                            assert!(later.is_err() || later.unwrap() >= began.min(forgotten));
                        }
                        _ => {
                            let answer = tokio::time::timeout(Duration::from_secs(60), work).await.expect("an answer");
                            if let Ok(Ok(value)) = answer {
                                assert!(value <= truth.load(Ordering::SeqCst) || value == u64::MAX);
                            }
                        }
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(cache.inner.flights.len(), 0);
}

/// One key, one writer that changes the truth and then forgets, many readers: nobody reads what was forgotten before they asked.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nobody_reads_what_was_forgotten_before_they_asked() {
    let (cache, _) = small(1 << 20);
    let tenant = Arc::new(who(1, "gold", 1, 1 << 20));
    let (truth, told, done) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let readers: Vec<_> = (0..6)
        .map(|_| {
            let (cache, tenant, truth, told, done) = (cache.clone(), tenant.clone(), truth.clone(), told.clone(), done.clone());
            tokio::spawn(async move {
                while done.load(Ordering::SeqCst) == 0 {
                    let at_least = told.load(Ordering::SeqCst);
                    let value = of(&cache, &tenant).get_or_load(&TEXTS, &1, || async {
                        let seen = truth.load(Ordering::SeqCst);
                        tokio::task::yield_now().await;
                        Ok::<_, Infallible>(seen.to_string())
                    });
                    let value: u64 = value.await.unwrap().parse().unwrap();
                    assert!(value >= at_least, "read {value} after {at_least} was forgotten");
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    for change in 1..=3_000 {
        truth.store(change, Ordering::SeqCst);
        match change % 3 {
            0 => of(&cache, &tenant).forget(&TEXTS, &1),
            1 => of(&cache, &tenant).forget_all(&TEXTS),
            _ => of(&cache, &tenant).forget_everything(),
        }
        told.store(change, Ordering::SeqCst);
        tokio::task::yield_now().await;
    }
    done.store(1, Ordering::SeqCst);
    for reader in readers {
        reader.await.unwrap();
    }
}

#[tokio::test]
async fn in_anothers_scope_nothing_is_shown_or_kept() {
    let (cache, _) = small(1 << 20);
    let (one, two) = (who(1, "gold", 1, 1 << 20), who(2, "gold", 1, 1 << 20));
    load(of(&cache, &one), 1, "secret").await;
    let context = TenantContext {
        tenant: two.id,
        no: two.no,
        slug: "two".parse().unwrap(),
        plan: "bronze".parse().unwrap(),
        principal: None,
        request_id: "r".into(),
        proof: None,
        trace: None,
    };
    scope::enter(context, async {
        assert_eq!(of(&cache, &one).get(&TEXTS, &1), None);
        assert_eq!(load(of(&cache, &one), 1, "loaded").await, "loaded");
        assert_eq!(load(of(&cache, &two), 1, "two's").await, "two's");
    })
    .await;
    assert_eq!(load(of(&cache, &one), 1, "again").await, "secret");
}

#[tokio::test]
async fn a_noisy_tenant_takes_what_is_free_and_nothing_else() {
    let (cache, _) = small(200 * 1_000);
    let quiet: Vec<_> = (1..=9).map(|no| who(no, "gold", 1, 1 << 20)).collect();
    let noisy = who(10, "gold", 1, 1 << 20);
    for tenant in &quiet {
        for key in 0..10 {
            let value = of(&cache, tenant)
                .get_or_load(&PAGES, format!("{key:02}").as_str(), || async { Ok::<_, Infallible>(vec![0; 700]) });
            value.await.unwrap();
        }
    }
    for key in 0..3_000 {
        let value =
            of(&cache, &noisy).get_or_load(&PAGES, format!("{key}").as_str(), || async { Ok::<_, Infallible>(vec![0; 700]) });
        value.await.unwrap();
    }
    for tenant in &quiet {
        assert!((0..10).all(|key| of(&cache, tenant).get(&PAGES, format!("{key:02}").as_str()).is_some()));
    }
    let fill = cache.fill();
    assert!(fill.bytes <= fill.capacity && of(&cache, &noisy).bytes() > 90_000, "{fill:?}");
    // One that does not fit at all is handed over and not kept.
    let large = of(&cache, &noisy).get_or_load(&PAGES, "large", || async { Ok::<_, Infallible>(vec![0; 2 << 20]) });
    assert_eq!((large.await.unwrap().len(), of(&cache, &noisy).get(&PAGES, "large")), (2 << 20, None));
}

#[tokio::test]
async fn in_a_share_the_least_used_gives_way() {
    let (cache, _) = small(1 << 30);
    let tenant = who(1, "gold", 1, 100 * 1_000);
    let ask = async |key: String| {
        let mut loaded = false;
        let value = of(&cache, &tenant).get_or_load(&PAGES, key.as_str(), || {
            loaded = true;
            async { Ok::<_, Infallible>(vec![0; 700]) }
        });
        value.await.unwrap();
        loaded
    };
    let (mut hot_loads, mut asked) = (0, 0);
    for round in 0..400 {
        for hot in 0..20 {
            hot_loads += usize::from(ask(format!("hot {hot}")).await);
            asked += 1;
        }
        // A scan of what nobody asks for twice, twice the share in all of its length every ten rounds.
        for cold in 0..20 {
            ask(format!("cold {round} {cold}")).await;
        }
    }
    assert!(hot_loads <= asked / 50, "the scan pushed out what is used: {hot_loads} of {asked} loads");
    assert!(of(&cache, &tenant).bytes() <= 100_000);
}

#[derive(Clone, Debug)]
enum Step {
    Load { tenant: i64, key: u8, size: usize },
    Get { tenant: i64, key: u8 },
    Forget { tenant: i64, key: Option<u8> },
    Wait(u64),
    Sweep,
}

fn step() -> impl Strategy<Value = Step> {
    let (tenant, key) = (1i64..6, any::<u8>());
    prop_oneof![
        6 => (tenant.clone(), key, 0usize..3_000).prop_map(|(tenant, key, size)| Step::Load { tenant, key, size }),
        3 => (tenant.clone(), key).prop_map(|(tenant, key)| Step::Get { tenant, key }),
        1 => (tenant, proptest::option::of(key)).prop_map(|(tenant, key)| Step::Forget { tenant, key }),
        1 => (0u64..40).prop_map(Step::Wait),
        1 => Just(Step::Sweep),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Against a map that forgets nothing by itself: whatever is shown is the tenant's own newest; the memory is never above its bound nor a
    /// tenant above its quota; and the ledger agrees with what is there.
    #[test]
    fn shown_is_ones_own_and_memory_is_bounded(steps in proptest::collection::vec(step(), 1..300)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (cache, ticks) = small(40_000);
        let quota = 15_000;
        let tenants: HashMap<i64, Who> = (1..6).map(|no| (no, who(no, "gold", 1 << (no % 3), quota))).collect();
        let mut model: HashMap<(i64, u8), (usize, u64)> = HashMap::new();
        let (mut now, mut serial) = (0, 0usize);
        for step in steps {
            match step {
                Step::Load { tenant, key, size } => {
                    serial += 1;
                    let mut loaded = false;
                    let mine = of(&cache, &tenants[&tenant]);
                    let value = runtime.block_on(mine.get_or_load(&PAGES, &format!("{key}"), || {
                        loaded = true;
                        let mut value = vec![u8::try_from(tenant).unwrap(); size + 9];
                        value[1..9].copy_from_slice(&(serial as u64).to_be_bytes());
                        async { Ok::<_, Infallible>(value) }
                    })).unwrap();
                    prop_assert_eq!(i64::from(value[0]), tenant);
                    if loaded {
                        model.insert((tenant, key), (serial, now + 60));
                    }
                }
                Step::Get { tenant, key } => {
                    if let Some(Some(value)) = of(&cache, &tenants[&tenant]).get(&PAGES, &format!("{key}")) {
                        prop_assert_eq!(i64::from(value[0]), tenant, "another tenant's value");
                        let known = model.get(&(tenant, key));
                        let serial = usize::try_from(u64::from_be_bytes(value[1..9].try_into().unwrap())).unwrap();
                        prop_assert!(known.is_some_and(|(newest, until)| *newest == serial && now < *until), "{known:?} {serial}");
                    }
                }
                Step::Forget { tenant, key: Some(key) } => {
                    of(&cache, &tenants[&tenant]).forget(&PAGES, &format!("{key}"));
                    model.remove(&(tenant, key));
                }
                Step::Forget { tenant, key: None } => {
                    of(&cache, &tenants[&tenant]).forget_all(&PAGES);
                    model.retain(|(of, _), _| *of != tenant);
                }
                Step::Wait(seconds) => {
                    now += seconds;
                    ticks.advance(Duration::from_secs(seconds));
                }
                Step::Sweep => (0..cache.inner.store.places()).for_each(|place| cache.inner.store.sweep(place)),
            }
            let fill = cache.fill();
            prop_assert!(fill.bytes <= 40_000);
            for who in tenants.values() {
                prop_assert!(of(&cache, who).bytes() <= quota);
            }
            prop_assert_eq!(cache.inner.store.weight(), fill.bytes);
        }
    }
}

/// Threads that write far more than there is room for, for tenants that share it.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_bound_holds_under_load() {
    let (cache, _) = small(100_000);
    let tasks: Vec<_> = (0..8i64)
        .map(|task| {
            let cache = cache.clone();
            tokio::spawn(async move {
                let tenants: Vec<_> = (1..9).map(|no| who(no, "gold", 1, 60_000)).collect();
                for n in 0..2_000usize {
                    let tenant = &tenants[(n * 5 + usize::try_from(task).unwrap()) % 8];
                    let value = of(&cache, tenant)
                        .get_or_load(&PAGES, &format!("{}", n % 300), || async { Ok::<_, Infallible>(vec![7; n % 900]) });
                    value.await.unwrap();
                    if n % 50 == 0 {
                        of(&cache, tenant).forget_all(&PAGES);
                        cache.inner.store.sweep(n);
                    }
                    assert!(cache.fill().bytes <= 100_000);
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(cache.inner.store.weight(), cache.fill().bytes);
}

#[test]
fn a_hit_allocates_nothing() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let (cache, _) = small(1 << 20);
    let tenant = who(1, "gold", 1, 1 << 20);
    runtime.block_on(load(of(&cache, &tenant), 1, "text"));
    let seen = allocation_counter::measure(|| assert!(of(&cache, &tenant).get(&TEXTS, &1).flatten().is_some()));
    assert_eq!(seen.count_total, 0);
}

/// Tiers of this test's own, because metrics are the process's.
#[tokio::test]
async fn what_does_not_find_room_and_what_gives_way_is_counted_by_tier_and_reason() {
    let meters = insula_telemetry::meters::install().unwrap();
    let counted = |name: &str, tier: &str, label: &str| -> u64 {
        let text = meters.render("test");
        let of = |line: &&str| {
            line.starts_with(&format!("{name}{{")) && line.contains(&format!("tier=\"{tier}\"")) && line.contains(label)
        };
        text.lines().find(of).map_or(0, |line| line.rsplit(' ').next().unwrap().parse().unwrap())
    };
    let evicted = |tier: &str, reason: &str| counted("insula_cache_evictions_total", tier, &format!("reason=\"{reason}\""));
    let (cache, _) = small(60_000);
    let (frugal, heavy) = (who(1, "metered-frugal", 1, 20_000), who(2, "metered-heavy", 8, 1 << 20));
    let page = async |who: &Who, name: usize, bytes: usize| {
        let page = of(&cache, who).get_or_load(&PAGES, &*name.to_string(), || async move { Ok::<_, Infallible>(vec![0; bytes]) });
        assert_eq!(page.await.unwrap().len(), bytes);
    };
    for name in 0..10 {
        page(&frugal, name, 1_000).await;
    }
    assert_eq!((evicted("metered-frugal", "quota"), cache.fill().entries), (0, 10));
    // More than its quota: its own give way, as many as come.
    for name in 10..60 {
        page(&frugal, name, 1_000).await;
    }
    assert_eq!(evicted("metered-frugal", "quota"), 60 - cache.fill().entries as u64);
    assert_eq!(evicted("metered-frugal", "share"), 0);
    // One that is larger than the quota is given, and not remembered.
    for _ in 0..2 {
        page(&frugal, 100, 30_000).await;
    }
    assert_eq!(counted("insula_cache_loads_total", "metered-frugal", "outcome=\"no_room\""), 2);
    assert_eq!(counted("insula_cache_loads_total", "metered-heavy", "outcome=\"no_room\""), 0);
    assert!(of(&cache, &frugal).get(&PAGES, "100").is_none());
    // Another within its guarantee takes what was lent; then its own give way, because all memory is taken.
    let before = evicted("metered-frugal", "quota");
    for name in 0..100 {
        page(&heavy, name, 1_000).await;
    }
    assert!(evicted("metered-frugal", "share") > 0 && evicted("metered-heavy", "share") > 0);
    assert_eq!((evicted("metered-frugal", "quota"), evicted("metered-heavy", "quota")), (before, 0));
}
