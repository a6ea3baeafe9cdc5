//! The look for leaks, over many databases.

use crate::error::Error;
use crate::handle::Control;
use crate::model::{LintReport, LintTarget};

pub(crate) async fn lint(control: &Control, target: &LintTarget) -> Result<Vec<LintReport>, Error> {
    let _ = (control, target);
    Ok(Vec::new())
}
