//! Identity providers and API keys: the same from every source, and what readers see of them.

use insula_catalog::{ApiKey, FakeSource, Provider};
use insula_core::{KeyId, ProviderId, TenantId};
use sqlx::PgConnection;

use crate::backend::{Backend, Postgres, Step, eventually, floor, no_polling, put, ready, tenant};

/// Carries out the steps that are about identity.
pub(crate) async fn carry_out(tx: &mut PgConnection, step: Step) -> Result<(), sqlx::Error> {
    match step {
        Step::PutProvider(row) => {
            sqlx::query(
                "INSERT INTO catalog.identity_provider \
                 (id, tenant, issuer, audience, jwks_url, subject_claim, scopes_claim, tenant_claim, tenant_value) \
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT (id) DO UPDATE SET issuer = excluded.issuer, audience = excluded.audience",
            )
            .bind(row.id.uuid())
            .bind(row.tenant.map(TenantId::uuid))
            .bind(&*row.issuer)
            .bind(&*row.audience)
            .bind(row.jwks_url.as_deref())
            .bind(&*row.subject_claim)
            .bind(&*row.scopes_claim)
            .bind(row.tenant_claim.as_deref())
            .bind(row.tenant_value.as_deref())
            .execute(tx)
            .await?;
        }
        Step::RemoveProvider(id) => {
            sqlx::query("DELETE FROM catalog.identity_provider WHERE id = $1").bind(id.uuid()).execute(tx).await?;
        }
        Step::PutKey(row) => {
            let scopes: Vec<String> = row.scopes.iter().map(|scope| scope.to_string()).collect();
            sqlx::query(
                "INSERT INTO catalog.tenant_key (id, tenant, name, hash, scopes, expires_at) VALUES ($1, $2, 'test', $3, $4, to_timestamp($5))",
            )
            .bind(row.id.uuid())
            .bind(row.tenant.uuid())
            .bind(&row.hash[..])
            .bind(scopes)
            .bind(row.expires.map(|at| at as f64))
            .execute(tx)
            .await?;
        }
        Step::RevokeKey(id) => {
            sqlx::query("UPDATE catalog.tenant_key SET revoked_at = now() WHERE id = $1").bind(id.uuid()).execute(tx).await?;
        }
        other => panic!("not about identity: {other:?}"),
    }
    Ok(())
}

fn provider(tenant: Option<TenantId>, issuer: &str, audience: &str) -> Provider {
    Provider {
        id: ProviderId::new(),
        tenant,
        issuer: issuer.into(),
        audience: audience.into(),
        jwks_url: None,
        subject_claim: "sub".into(),
        scopes_claim: "scope".into(),
        tenant_claim: tenant.is_none().then(|| "tenants".into()),
        tenant_value: None,
    }
}

fn key(tenant: TenantId, n: u8) -> ApiKey {
    ApiKey {
        id: KeyId::new(),
        tenant,
        hash: [n; 32],
        scopes: ["read".into(), "write".into()].into(),
        expires: Some(2_000_000_000),
    }
}

async fn come_and_go(mut backend: impl Backend) {
    let (acme, globex) = (tenant("acme", 1), tenant("globex", 2));
    let ours = provider(Some(acme.id), "https://id.example", "docs");
    let theirs = provider(Some(globex.id), "https://id.example", "docs");
    let host = provider(None, "https://host.example", "all");
    let (first, second) = (key(acme.id, 1), key(acme.id, 2));
    let mut steps = floor();
    steps.extend([put(&acme), put(&globex), Step::PutProvider(ours.clone()), Step::PutKey(first.clone())]);
    backend.commit(steps).await;

    let catalog = ready(backend.source(), no_polling()).await;
    catalog.look(|view| {
        let found = view.providers("https://id.example", "docs");
        assert!(found.len() == 1 && *found[0] == ours);
        assert_eq!(view.api_key(&[1; 32]).map(|key| (**key).clone()), Some(first.clone()));
        assert!(view.knows_issuer("https://id.example") && !view.knows_issuer("https://host.example"));
        assert!(view.providers("https://id.example", "other").is_empty() && view.api_key(&[2; 32]).is_none());
    });
    let kept = catalog.look(|view| view.provider(ours.id).cloned()).unwrap();

    // Followed, all at one revision.
    let more = vec![Step::PutProvider(theirs.clone()), Step::PutProvider(host.clone()), Step::PutKey(second.clone())];
    backend.commit(more).await;
    eventually(&catalog, "what was added", |c| c.look(|view| view.api_key(&[2; 32]).is_some())).await;
    catalog.look(|view| {
        assert_eq!(view.providers("https://id.example", "docs").len(), 2);
        assert!(view.knows_issuer("https://host.example"));
        assert!(std::sync::Arc::ptr_eq(&kept, view.provider(ours.id).unwrap()), "what did not change stays the very same");
    });

    backend.commit(vec![Step::RevokeKey(first.id), Step::RemoveProvider(ours.id)]).await;
    eventually(&catalog, "a revoked key is gone", |c| c.look(|view| view.api_key(&[1; 32]).is_none())).await;
    catalog.look(|view| {
        assert!(view.provider(ours.id).is_none() && view.providers("https://id.example", "docs").len() == 1);
        assert!(view.api_key(&[2; 32]).is_some());
    });

    // A load that no longer holds them takes them out, too.
    backend.commit(vec![Step::RevokeKey(second.id), Step::RemoveProvider(theirs.id)]).await;
    backend.trim().await;
    catalog.refresh().await.unwrap();
    catalog.look(|view| {
        assert!(view.api_key(&[2; 32]).is_none() && !view.knows_issuer("https://id.example"));
        assert!(view.knows_issuer("https://host.example"));
    });
}

#[tokio::test]
async fn come_and_go_in_a_fake() {
    come_and_go(FakeSource::new()).await;
}

#[tokio::test]
async fn come_and_go_in_postgres() {
    come_and_go(Postgres::new().await).await;
}
