//! The look for leaks, over many databases.

use insula_core::placement::{POOL_DATABASE, SCHEMAS_DATABASE, TEMPLATE_DATABASE};

use crate::cells::kit_in;
use crate::doors::Errand;
use crate::error::Error;
use crate::handle::Control;
use crate::model::{Cell, CellState, LintFinding, LintReport, LintTarget};
use crate::store;

pub(crate) async fn lint(control: &Control, target: &LintTarget) -> Result<Vec<LintReport>, Error> {
    let mut reports = Vec::new();
    for (cell, database) in places(control, target).await? {
        // On a task of its own: a caller who goes away in between does not leave a place before its connection does.
        let looked = tokio::spawn(lint_database(control.clone(), cell, database));
        reports.push(looked.await.unwrap_or_else(|_| Err(Error::Away("the control plane is ending".into())))?);
    }
    Ok(reports)
}

/// Which databases: those that hold tenants, and the template that the next ones come from.
async fn places(control: &Control, target: &LintTarget) -> Result<Vec<(Cell, String)>, Error> {
    let mut conn = control.catalog_pool().acquire().await?;
    if let LintTarget::Tenant(reference) = target {
        let tenant = store::tenants::find(&mut conn, reference).await?;
        let place = tenant.placement.ok_or_else(|| Error::Conflict(format!("tenant {} has no place yet", tenant.slug)))?;
        drop(conn);
        return Ok(vec![(control.cell(&place.cell).await?, place.database.to_string())]);
    }
    let cells: Vec<Cell> = match target {
        LintTarget::Cell(name) => {
            vec![store::cells::get(&mut conn, name).await?.ok_or_else(|| Error::not_found("cell", name))?]
        }
        _ => store::cells::all(&mut conn).await?,
    };
    let mut places = Vec::new();
    for cell in cells.into_iter().filter(|c| matches!(c.state, CellState::Ready | CellState::Draining)) {
        let tenants: Vec<String> = sqlx::query_scalar(
            "SELECT d.name FROM catalog.cell_database d
             WHERE d.cell = $1 AND d.purpose = 'tenant'
               AND EXISTS (SELECT FROM catalog.placement p JOIN catalog.tenant t ON t.id = p.tenant
                           WHERE p.cell = d.cell AND p.database = d.name AND t.state <> 'provisioning')
             ORDER BY d.name",
        )
        .bind(cell.name.as_str())
        .fetch_all(&mut *conn)
        .await?;
        let shared: &[&str] = if cell.dedicated { &[] } else { &[POOL_DATABASE, SCHEMAS_DATABASE, TEMPLATE_DATABASE] };
        places.extend(shared.iter().map(|name| (cell.clone(), (*name).to_owned())));
        places.extend(tenants.into_iter().map(|name| (cell.clone(), name)));
    }
    Ok(places)
}

async fn lint_database(control: Control, cell: Cell, database: String) -> Result<LintReport, Error> {
    // A clone waits for nobody to be connected to the template.
    let making = control.cells().making(&cell.name);
    let _alone = if database == TEMPLATE_DATABASE { Some(making.lock().await) } else { None };
    let _place = control.cells().doors().enter(&cell.name, Errand::Look).await?;
    let mut conn = control.cells().connect(&cell, &database).await?;
    let findings = insula_kit::lint(&mut conn).await.map_err(kit_in(&cell))?;
    sqlx::Connection::close(conn).await.map_err(crate::cells::in_cell(&cell))?;
    let findings = findings
        .into_iter()
        .map(|f| LintFinding {
            rule: f.rule,
            object: f.object,
            detail: f.detail,
            severity: format!("{:?}", f.severity).to_lowercase(),
        })
        .collect();
    Ok(LintReport { cell: cell.name, database, findings })
}
