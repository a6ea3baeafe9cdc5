//! The tenant in scope and the tenant of the transaction are one.

use insula_core::{Kind, scope};
use insula_data::Error;
use sqlx::{Executor, SqlSafeStr};

use crate::house::House;

#[tokio::test(flavor = "multi_thread")]
async fn without_a_scope_there_is_no_current_transaction() {
    let house = House::new().await;
    assert!(matches!(house.data.begin_current().await, Err(Error::NoTenant(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_tenant_is_refused_in_a_scope_and_allowed_in_a_scope_of_its_own() {
    let house = House::new().await;
    let (one, two) = (house.tenant(1), house.tenant(2));
    scope::enter(one.clone(), async {
        let refused = house.data.begin(&two).await.expect_err("another tenant");
        assert!(matches!(refused, Error::Mismatch { .. }));
        assert_eq!(refused.kind(), Kind::Security);
        scope::enter(two.clone(), async { house.data.begin(&two).await.expect("its own scope") }).await;
        let back = house.data.begin_current().await.expect("the outer scope");
        assert_eq!(back.context(), &one);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_is_worth_nothing_in_another_tenant_s_scope() {
    let house = House::new().await;
    house.add(1, 1, "of one").await;
    let (one, two) = (house.tenant(1), house.tenant(2));
    let mut tx = scope::enter(one.clone(), house.data.begin(&one)).await.expect("a transaction");
    let insert = "INSERT INTO documents (id) VALUES (2)";
    sqlx::query(insert).execute(&mut tx).await.expect("carried out of its scope it is still its own");
    scope::enter(two.clone(), async {
        let select = "SELECT body FROM documents";
        let errors = [
            sqlx::query(select).fetch_all(&mut tx).await.map(|_| ()).expect_err("fetched"),
            sqlx::query(select).fetch_optional(&mut tx).await.map(|_| ()).expect_err("fetched"),
            (&mut tx).prepare(select.into_sql_str()).await.map(|_| ()).expect_err("prepared"),
            (&mut tx).describe(select.into_sql_str()).await.map(|_| ()).expect_err("described"),
        ];
        for error in errors {
            let error = Error::from(error);
            assert!(matches!(error, Error::Mismatch { .. }) && error.kind() == Kind::Security, "{error}");
        }
        assert!(matches!(tx.commit().await, Err(Error::Mismatch { .. })));
        assert!(house.data.lane().query(&one, select, &[]).await.is_err_and(|e| matches!(e, Error::Mismatch { .. })));
    })
    .await;
    assert_eq!(house.bodies(1).await, ["of one"], "a commit in another's scope is none");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_context_with_another_tenant_s_number_opens_nothing() {
    let house = House::new().await;
    let mut forged = house.tenant(1);
    forged.no = house.tenant(2).no;
    let refused = house.data.begin(&forged).await.expect_err("forged");
    assert_eq!(refused.kind(), Kind::Security);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tenant_follows_tasks_threads_and_awaits_and_a_panic_ends_its_scope() {
    let house = House::new().await;
    house.add(1, 1, "mine").await;
    let (data, one) = (house.data.clone(), house.tenant(1));
    let read = async move |data: insula_data::Data| {
        let mut tx = data.begin_current().await.expect("a transaction");
        tokio::task::yield_now().await;
        sqlx::query_scalar::<_, String>("SELECT body FROM documents").fetch_one(&mut tx).await.expect("a row")
    };
    scope::enter(one.clone(), async {
        assert_eq!(read(data.clone()).await, "mine");
        let spawned = data.clone();
        let task = scope::spawn(async move { spawned.begin_current().await.map(|tx| tx.context().no) }).expect("a scope");
        assert_eq!(task.await.expect("no panic").expect("a transaction"), one.no);
        let (blocking, runtime) = (data.clone(), tokio::runtime::Handle::current());
        let thread = scope::spawn_blocking(move || {
            let context = scope::current().expect("kept");
            runtime.block_on(scope::enter(context, async move { blocking.begin_current().await.map(|tx| tx.context().no) }))
        });
        assert_eq!(thread.expect("a scope").await.expect("no panic").expect("a transaction"), one.no);
        let plain = data.clone();
        let lost = tokio::spawn(async move { plain.begin_current().await.map(|_| ()) }).await.expect("no panic");
        assert!(matches!(lost, Err(Error::NoTenant(_))), "a plain spawn fails closed");
        let broken = scope::spawn(async { panic!("on purpose") }).expect("a scope");
        assert!(broken.await.is_err());
        assert_eq!(scope::current().expect("still here").no, one.no);
    })
    .await;
    assert!(scope::current().is_err());
}
