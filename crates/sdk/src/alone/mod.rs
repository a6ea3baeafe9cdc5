//! One customer on its own server: the off switch (`INSULA_TENANCY=off`).
//!
//! For: preparing a database for exactly one tenant ([`install`]) and knowing that tenant without a catalog. Not for: anything that an
//! application could tell apart: its SQL, its layer and its handlers are those of the many.
//! Always: the boundary is installed here, too. The application logs in as a role that owns nothing and is bound to the one tenant, so
//! that the database can be moved in among others as it is.

mod install;
mod source;

use insula_core::placement::{APP_SCHEMA, role_of};
use insula_core::slug::NameError;
use insula_core::{CellName, Isolation, MoveState, Placement, TenantId, TenantNo};
use uuid::Uuid;

pub use install::{Admin, InstallError, Installed, install};
pub(crate) use install::{prepare, write};
pub(crate) use source::source;

/// What the only tenant is, everywhere. Rows hold its number; nothing outside knows its id.
pub(crate) struct Only {
    pub(crate) id: TenantId,
    pub(crate) no: TenantNo,
    pub(crate) placement: Placement,
}

/// The cell's name, which also names its key in the key file.
pub(crate) const CELL: &str = "alone";
/// The tenant's slug and the plan's name.
pub(crate) const SLUG: &str = "home";

impl Only {
    /// In this database.
    pub(crate) fn at(database: &str) -> Result<Self, NameError> {
        let no = TenantNo::new(1).ok_or(NameError::Length { what: "a tenant number", min: 1, max: 19, len: 0 })?;
        let cell: CellName = CELL.parse()?;
        let placement = Placement {
            cell,
            database: database.into(),
            schema: APP_SCHEMA.into(),
            isolation: Isolation::Database,
            epoch: 1,
            state: MoveState::Active,
        };
        Ok(Self { id: TenantId::from(Uuid::from_u128(0x7000_8000_0000_0000_0001)), no, placement })
    }

    /// The login that requests are served by.
    pub(crate) fn role(&self) -> String {
        role_of(&self.placement.database)
    }
}
