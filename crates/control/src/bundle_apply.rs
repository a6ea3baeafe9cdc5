//! `bundle.apply`.

use serde_json::json;

use crate::error::Error;
use crate::handle::Control;
use crate::model::{Bundle, BundlePut};
use crate::operation::step::Saga;
use crate::operation::submit::{Request, submit};
use crate::store;

pub(crate) static SAGA: Saga = Saga { kind: "bundle.apply", steps: &[] };

pub(crate) async fn put(control: &Control, actor: &str, bundle: Bundle) -> Result<BundlePut, Error> {
    let mut tx = control.catalog_pool().begin().await?;
    let news = store::bundle::write(&mut tx, &bundle).await?;
    let schema_version = bundle.migrations.last().map_or(0, |m| m.version);
    if news {
        let detail = json!({"schema_version": schema_version, "migrations": bundle.migrations.len()});
        store::audit::append(&mut tx, actor, "bundle.put", None, "", &detail).await?;
    }
    tx.commit().await?;
    let operation = if news {
        let request = Request { saga: &SAGA, actor, tenant: None, key: None, input: json!({"schema_version": schema_version}) };
        Some(submit(control, request).await?.operation)
    } else {
        None
    };
    Ok(BundlePut { schema_version, operation })
}
