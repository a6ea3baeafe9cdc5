//! `insula cell`.

use insula_api::cell::{AppVersion, Cell, CellState, PutApps, RegisterCell, Replica, Tls};
use insula_api::page::PageQuery;
use insula_core::CellName;

use crate::error::Error;
use crate::screen::{Screen, Tone, or_hyphen, time};
use crate::target::Target;

/// Look at and change database servers and their application stacks
#[derive(clap::Args, Debug)]
pub(crate) struct CellArgs {
    #[command(flatten)]
    target: Target,
    #[command(subcommand)]
    command: CellCommand,
}

#[derive(clap::Subcommand, Debug)]
enum CellCommand {
    /// List cells
    List,
    /// Show one cell
    Show {
        /// Its name
        cell: CellName,
    },
    /// Register a Postgres server as a cell; put its admin login into the control plane's secrets file first
    Register(Register),
    /// Let a cell take no new tenants; those it has are served
    Drain {
        /// Its name
        cell: CellName,
    },
    /// Let a draining cell take tenants again
    Undrain {
        /// Its name
        cell: CellName,
    },
    /// Say which applications a cell has: a tenant is sent to one that serves the schema version of its tables
    Apps {
        /// Its name
        cell: CellName,
        /// An application: URL[,min=SCHEMA][,max=SCHEMA][,weight=N] (repeatable); none: the cell's one application serves all
        #[arg(long = "app", value_name = "APP", value_parser = app)]
        apps: Vec<AppVersion>,
    },
    /// Standbys of a cell's server, where tenants whose plan has `read_replica` may be read
    #[command(subcommand)]
    Replica(ReplicaCommand),
}

#[derive(clap::Subcommand, Debug)]
enum ReplicaCommand {
    /// List a cell's replicas
    List {
        /// The cell
        cell: CellName,
    },
    /// Add a streaming standby of the cell's server; reads go there while it follows closely
    Add {
        /// The cell
        cell: CellName,
        /// Where it listens
        #[arg(value_name = "HOST[:PORT]")]
        replica: Replica,
    },
    /// Take a replica away; nothing is read there from now on
    Remove {
        /// The cell
        cell: CellName,
        /// Where it listens
        #[arg(value_name = "HOST[:PORT]")]
        replica: Replica,
    },
}

/// Reads `URL,min=3,max=6,weight=2`.
fn app(text: &str) -> Result<AppVersion, String> {
    let mut parts = text.split(',');
    let url = parts.next().unwrap_or_default().to_owned();
    let mut app = AppVersion { url, min_schema: 0, max_schema: None, weight: 1 };
    for part in parts {
        let number = |text: &str| text.parse::<u32>().map_err(|_| format!("{text:?} is no number"));
        match part.split_once('=') {
            Some(("min", text)) => app.min_schema = number(text)?.into(),
            Some(("max", text)) => app.max_schema = Some(number(text)?.into()),
            Some(("weight", text)) => app.weight = number(text)?,
            _ => return Err(format!("{part:?}: give min=, max= or weight=")),
        }
    }
    Ok(app)
}

fn app_text(app: &AppVersion) -> String {
    let newest = app.max_schema.map_or_else(|| "on".to_owned(), |max| format!("to {max}"));
    format!("{} (schema {} {newest}, weight {})", app.url, app.min_schema, app.weight)
}

#[derive(clap::Args, Debug)]
struct Register {
    /// Its name
    cell: CellName,
    /// Where its server listens
    #[arg(long)]
    host: String,
    /// The server's port
    #[arg(long, default_value_t = 5432)]
    port: u16,
    /// How connections to it are secured
    #[arg(long, default_value = "prefer", value_parser = ["disable", "prefer", "require", "verify-full"])]
    tls: String,
    /// Where in the world
    #[arg(long, default_value = "local")]
    region: String,
    /// What placement may ask for (repeatable)
    #[arg(long = "label", value_name = "LABEL")]
    labels: Vec<String>,
    /// Base URL of its application stack
    #[arg(long, value_name = "URL")]
    app_url: Option<String>,
    /// Most tenants
    #[arg(long, default_value_t = 10_000)]
    capacity: u32,
    /// Keep it for one tenant of isolation `cell`
    #[arg(long)]
    dedicated: bool,
}

pub(crate) async fn run(args: CellArgs) -> Result<(), Error> {
    let (client, screen) = (args.target.client()?, Screen::new(args.target.json));
    let cell = match args.command {
        CellCommand::List => {
            let cells = client.cells(&PageQuery { limit: Some(500), cursor: None }).await?;
            return screen.show(&cells, |screen| table(screen, &cells.items));
        }
        CellCommand::Show { cell } => client.cell(&cell).await?.value,
        CellCommand::Register(args) => client.register_cell(&registration(args)).await?,
        CellCommand::Drain { cell } => client.drain_cell(&cell).await?,
        CellCommand::Undrain { cell } => client.undrain_cell(&cell).await?,
        CellCommand::Apps { cell, apps } => client.put_apps(&cell, &PutApps { apps }).await?,
        CellCommand::Replica(ReplicaCommand::List { cell }) => {
            let cell = client.cell(&cell).await?.value;
            return screen.show(&cell.replicas, |screen| replicas(screen, &cell.replicas));
        }
        CellCommand::Replica(ReplicaCommand::Add { cell, replica }) => client.add_replica(&cell, &replica).await?,
        CellCommand::Replica(ReplicaCommand::Remove { cell, replica }) => client.remove_replica(&cell, &replica).await?,
    };
    screen.show(&cell, |screen| facts(screen, &cell))
}

fn registration(args: Register) -> RegisterCell {
    let tls = match args.tls.as_str() {
        "disable" => Tls::Disable,
        "require" => Tls::Require,
        "verify-full" => Tls::VerifyFull,
        _ => Tls::Prefer,
    };
    RegisterCell {
        name: args.cell,
        host: args.host,
        port: args.port,
        tls,
        region: args.region,
        labels: args.labels,
        app_url: args.app_url,
        capacity: args.capacity,
        dedicated: args.dedicated,
    }
}

fn state(cell: &Cell) -> (String, Tone) {
    match cell.state {
        CellState::Requested => ("requested".to_owned(), Tone::Wait),
        CellState::Ready => ("ready".to_owned(), Tone::Good),
        CellState::Draining => ("draining".to_owned(), Tone::Wait),
        CellState::Free => ("free".to_owned(), Tone::Good),
        CellState::Down => ("down".to_owned(), Tone::Bad),
        CellState::Removing => ("removing".to_owned(), Tone::Wait),
    }
}

fn address(cell: &Cell) -> Option<String> {
    Some(format!("{}:{}", cell.host.as_ref()?, cell.port?))
}

pub(crate) fn table(screen: Screen, cells: &[Cell]) -> String {
    let rows = cells.iter().map(|c| {
        vec![
            (c.name.to_string(), Tone::Plain),
            (c.region.clone(), Tone::Plain),
            state(c),
            (format!("{}/{}", c.tenants, c.capacity), Tone::Plain),
            ((if c.dedicated { "one tenant" } else { "shared" }).to_owned(), Tone::Plain),
            (or_hyphen(address(c)), Tone::Plain),
        ]
    });
    let heads = ["CELL", "REGION", "STATE", "TENANTS", "FOR", "ADDRESS"];
    screen.table(&heads, rows.collect(), "No cells. `insula cell register NAME --host HOST` adds one.")
}

fn replicas(screen: Screen, replicas: &[Replica]) -> String {
    let rows = replicas.iter().map(|replica| vec![(replica.to_string(), Tone::Plain)]);
    screen.table(&["REPLICA"], rows.collect(), "No replicas. `insula cell replica add CELL HOST:PORT` adds one.")
}

fn facts(screen: Screen, cell: &Cell) -> String {
    let (state, tone) = state(cell);
    let plain = |name, value| (name, value, Tone::Plain);
    let mut facts = vec![
        plain("cell", cell.name.to_string()),
        ("state", state, tone),
        plain("region", cell.region.clone()),
        plain("labels", cell.labels.join(", ")),
        plain("address", or_hyphen(address(cell))),
        plain("application", or_hyphen(cell.app_url.clone())),
        plain("tenants", format!("{} of {}", cell.tenants, cell.capacity)),
        plain("for", (if cell.dedicated { "one tenant" } else { "shared" }).to_owned()),
        plain("created", time(cell.created_at)),
    ];
    if !cell.app_versions.is_empty() {
        let apps: Vec<_> = cell.app_versions.iter().map(app_text).collect();
        facts.insert(6, plain("applications", apps.join("\n")));
    }
    if !cell.replicas.is_empty() {
        let replicas: Vec<_> = cell.replicas.iter().map(Replica::to_string).collect();
        facts.insert(5, plain("replicas", replicas.join("\n")));
    }
    screen.facts(facts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn applications_are_read() {
        let full = app("http://127.0.0.1:9001,min=3,max=6,weight=2").expect("an application");
        assert_eq!(app_text(&full), "http://127.0.0.1:9001 (schema 3 to 6, weight 2)");
        assert_eq!(app_text(&app("http://a:1").expect("an application")), "http://a:1 (schema 0 on, weight 1)");
        assert!(app("http://a:1,min").is_err() && app("http://a:1,max=-1").is_err());
    }

    #[test]
    fn tables_for_people() {
        let cell = |name: &str, state: &str, port: Option<u16>| -> Cell {
            serde_json::from_value(serde_json::json!({
                "name": name, "region": "local", "labels": ["ssd"], "provider": "embedded", "state": state, "dedicated": false,
                "host": port.map(|_| "127.0.0.1"), "port": port, "tls": "prefer", "app_url": null, "capacity": 10000, "tenants": 3,
                "kit_way": 1, "version": 1, "created_at": "2026-01-02T03:04:05Z"
            }))
            .expect("a cell")
        };
        let cells = [cell("main", "ready", Some(5433)), cell("spare", "requested", None)];
        insta::assert_snapshot!("cell_table", table(Screen::PIPE, &cells));
        insta::assert_snapshot!("cell_facts", facts(Screen::PIPE, &cells[0]));
        let replicated = Cell { replicas: vec!["db2:5433".parse().expect("an address")], ..cells[0].clone() };
        assert!(facts(Screen::PIPE, &replicated).contains("replicas     db2:5433"));
        assert!(self::replicas(Screen::PIPE, &[]).contains("insula cell replica add"));
    }
}
