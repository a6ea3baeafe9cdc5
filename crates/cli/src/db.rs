//! `insula db`: the host side's own way into a tenant's database.

use insula_api::tenant::CreateGrant;

use crate::error::Error;
use crate::screen::Screen;
use crate::target::Target;

/// Open a tenant's database by hand (host side; audited)
#[derive(clap::Args, Debug)]
pub(crate) struct DbArgs {
    #[command(flatten)]
    target: Target,
    #[command(subcommand)]
    command: DbCommand,
}

#[derive(clap::Subcommand, Debug)]
enum DbCommand {
    /// Print a grant for one backend; `SELECT insula.enter('GRANT')` opens one transaction with it
    Grant {
        /// Slug or id
        tenant: String,
        /// The backend: what `SELECT pg_backend_pid()` says there
        #[arg(long, value_parser = clap::value_parser!(i32).range(1..))]
        pid: i32,
    },
}

pub(crate) async fn run(args: DbArgs) -> Result<(), Error> {
    let (client, screen) = (args.target.client()?, Screen::new(args.target.json));
    let DbCommand::Grant { tenant, pid } = args.command;
    let grant = client.grant(&tenant, &CreateGrant { pid }).await?;
    screen.show(&grant, |_| grant.grant.clone().unwrap_or_default())
}
