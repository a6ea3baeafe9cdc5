//! The order in which everything comes up.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use insula_api::Client;
use insula_api::bundle::Bundle;
use insula_api::key::Scope;
use insula_api::operation::OperationState;
use insula_cluster::Binaries;
use insula_core::{CellName, Kind};
use tokio::task::JoinHandle;

use crate::control::ControlFile;
use crate::error::Error;
use crate::up::catalog::HostCatalog;
use crate::up::folder::{DataFolder, write_secret};
use crate::up::house::{House, MAIN, free_address};
use crate::up::module::ServerModule;
use crate::up::named::NamedCell;
use crate::up::roster::Ready;
use crate::up::screen::Screen;
use crate::up::{UpArgs, cells, contexts, demo, named, summary};

/// The private cells that every machine has: "another server" is real from the start.
const PRIVATE_CELLS: [&str; 2] = [MAIN, "second"];

/// What is needed before anything runs; faults in the arguments show here.
pub(crate) fn house(args: &UpArgs, folder: DataFolder) -> Result<House, Error> {
    let app = find_app(args.app.as_ref())?;
    // With servers that the user names, a Postgres on this machine is needed only for cells that are asked for later.
    let needed = args.catalog_url.is_none() || args.postgres_bin.is_some();
    let binaries = if needed { Some(Binaries::find(args.postgres_bin.as_deref())?) } else { None };
    let addresses = (settle_address(args.gateway, "gateway")?, settle_address(args.control, "control")?);
    let root_key = folder.root_key()?;
    let module = ServerModule::asked(args.server_module.as_deref());
    let mut house = House::new(folder, root_key, app, (binaries, module), addresses);
    house.without_workers = args.no_workers;
    house.cell_authorities = args.cell_ca.as_deref().map(authorities).transpose()?;
    // On a machine of one's own, receivers are on it too.
    house.telling.push(("INSULA_WEBHOOK_PRIVATE", "on".to_owned()));
    if let Some(file) = &args.webhook_ca {
        let file = std::path::absolute(file).unwrap_or_else(|_| file.clone());
        house.telling.push(("INSULA_WEBHOOK_CA", file.display().to_string()));
    }
    house.telling.extend(args.nats_url.clone().map(|url| ("INSULA_NATS_URL", url)));
    Ok(house)
}

/// The file of authorities, as processes in other folders find it.
fn authorities(file: &Path) -> Result<PathBuf, Error> {
    let wrong = |why: String| Error::new(Kind::Invalid, format!("--cell-ca: {why}"), "");
    insula_catalog::tls::check_authorities(file).map_err(wrong)?;
    file.canonicalize().map_err(|e| wrong(format!("{}: {e}", file.display())))
}

fn find_app(setting: Option<&PathBuf>) -> Result<PathBuf, Error> {
    let beside = || std::env::current_exe().ok().and_then(|p| Some(p.parent()?.join("acmedocs")));
    let app = setting.cloned().or_else(beside).unwrap_or_default();
    match app.canonicalize() {
        Ok(app) if app.is_file() => Ok(app),
        _ => {
            let message = format!("there is no application at {}", app.display());
            Err(Error::new(Kind::Invalid, message, "build it with `cargo build -p acmedocs`, or name one with --app"))
        }
    }
}

/// The address with a port that is free now. One that an earlier run still holds is waited for.
#[allow(clippy::disallowed_methods, reason = "nothing else runs yet, and a port offers nothing to wait for")]
fn settle_address(address: SocketAddr, what: &str) -> Result<SocketAddr, Error> {
    if address.port() == 0 && address.ip() == std::net::Ipv4Addr::LOCALHOST {
        return free_address();
    }
    let deadline = std::time::Instant::now() + Duration::from_secs(3);
    loop {
        match TcpListener::bind(address).and_then(|l| l.local_addr()) {
            Ok(address) => return Ok(address),
            Err(_) if std::time::Instant::now() < deadline => std::thread::sleep(Duration::from_millis(50)),
            Err(e) => {
                let help = format!("stop what listens there, or choose another address with --{what}");
                return Err(Error::new(Kind::Unavailable, format!("cannot listen on {address}: {e}"), help));
            }
        }
    }
}

/// Brings everything up; returns what goes on in the background.
pub(crate) async fn everything(args: &UpArgs, house: &Arc<House>, screen: Screen) -> Result<JoinHandle<()>, Error> {
    let named = named::read(args.catalog_url.as_deref(), &args.cells)?;
    let admin_key = house.folder.admin_key()?;
    let client = Client::new(&format!("http://{}", house.control), &admin_key).map_err(|e| api_error(&e))?;
    // The application tells what its tenants need while the servers come up.
    let (catalog, bundle) = tokio::try_join!(catalog(args, house, &named, &admin_key, screen), bundle(house))?;
    contexts::write(house, &catalog).await?;
    // The control plane is to find the cells when it comes up.
    place_cells(house, &catalog, &named).await?;
    let apps = async {
        for cell in cells_here(&named) {
            house.app_ready(cell.as_str()).await?;
        }
        screen.done("applications");
        Ok(())
    };
    let gateway = async {
        start_gateway(house).await?;
        screen.done("gateway");
        Ok(())
    };
    let control = async {
        start_control(args, house, &catalog, &named).await?;
        apply(&client, &bundle).await?;
        // Every cell is prepared when it says so.
        house.control_ready().await?;
        screen.done("control plane");
        house.begin_work(&cells_here(&named), &catalog).await?;
        Ok(())
    };
    // Beside them, the cells of single tenants that earlier runs had.
    tokio::try_join!(apps, gateway, control, cells::reconcile(house, &catalog))?;
    // Once more: only now they may have workers.
    cells::reconcile(house, &catalog).await?;
    // From here on the catalog is followed: the demo's own cell is started by that.
    let follower = tokio::spawn(cells::follow(Arc::clone(house), catalog.clone()));
    let outcome = finish(args, house, &catalog, &client, admin_key, &cells_here(&named), screen).await;
    if outcome.is_err() {
        follower.abort();
    }
    outcome.map(|()| follower)
}

async fn finish(
    args: &UpArgs,
    house: &House,
    catalog: &HostCatalog,
    client: &Client,
    admin_key: String,
    cells: &[CellName],
    screen: Screen,
) -> Result<(), Error> {
    let demo = if args.no_demo { Vec::new() } else { demo::make(house, client, screen).await? };
    house.workers_ready(cells).await?;
    screen.done("workers");
    let ready = Ready {
        control_url: format!("http://{}", house.control),
        gateway_url: format!("http://{}", house.gateway),
        admin_key,
        catalog_dsn: catalog.url().to_owned(),
        ..Ready::default()
    };
    let files = std::iter::once(house.folder.ready_file()).chain(args.ready_file.clone()).collect();
    house.roster.publish(ready, files)?;
    screen.print(&summary::text(house, &demo, screen.seconds()));
    Ok(())
}

fn cells_here(named: &[NamedCell]) -> Vec<CellName> {
    if named.is_empty() {
        PRIVATE_CELLS.iter().filter_map(|c| c.parse().ok()).collect()
    } else {
        named.iter().map(|c| c.place.name.clone()).collect()
    }
}

/// Private servers, and the catalog on the first of them or where the user says.
async fn catalog(
    args: &UpArgs,
    house: &House,
    named: &[NamedCell],
    admin_key: &str,
    screen: Screen,
) -> Result<HostCatalog, Error> {
    let url = match &args.catalog_url {
        Some(url) => url.clone(),
        None => {
            let main: CellName =
                MAIN.parse().map_err(|e: insula_core::slug::NameError| Error::new(Kind::Internal, e.to_string(), ""))?;
            let private = if named.is_empty() { cells_here(named) } else { vec![main] };
            let starts = private.iter().map(|cell| house.start_server(cell, &[]));
            // Both to the end, also when one fails: none is left half made.
            futures_util::future::join_all(starts).await.into_iter().collect::<Result<Vec<_>, _>>()?;
            screen.done("Postgres");
            house.server_url(MAIN, "postgres").await.unwrap_or_default()
        }
    };
    let catalog = HostCatalog::open(&url, &house.root_key, args.new_root_key).await?;
    catalog.put_key("insula up", Scope::Admin, admin_key).await?;
    catalog.put_key("gateway", Scope::Edge, &house.folder.edge_key()?).await?;
    screen.done("catalog");
    Ok(catalog)
}

/// Starts the applications of the cells that every start has, and notes in the catalog where these cells are.
async fn place_cells(house: &House, catalog: &HostCatalog, named: &[NamedCell]) -> Result<(), Error> {
    // The application of `main` starts with every key, rather than learning of them.
    let known = catalog.cells().await?;
    for cell in known.iter().filter_map(|c| c.name.parse().ok()).chain(cells_here(named)) {
        house.add_key(&cell).await?;
    }
    if named.is_empty() {
        for cell in cells_here(named) {
            cells::start(house, catalog, &cell, None, &[]).await?;
        }
    }
    for cell in named {
        let app_url = house.start_app(&cell.place.name, catalog).await?;
        let mut place = cell.place.clone();
        place.app_url = Some(app_url);
        catalog.put_cell(&place).await?;
        house.show_cell(&place, None, &cell.password);
    }
    Ok(())
}

async fn start_control(args: &UpArgs, house: &House, catalog: &HostCatalog, named: &[NamedCell]) -> Result<(), Error> {
    let admin = free_address()?;
    let file = ControlFile {
        catalog_url: catalog.url().to_owned(),
        root_key: house.folder.root_key_file(),
        listen: house.control,
        admin_listen: admin,
        cell_logins: Some(named::write_logins(house, named)?),
        cell_authorities: house.cell_authorities.clone(),
        embedded_cells: true,
        keep_revisions: None,
        base_domain: None,
        dns: args.dns,
        webhook_authorities: args.webhook_ca.clone(),
        // On a machine of one's own, receivers are on it too.
        webhook_private: true,
    };
    let path = house.folder.run("control.json");
    write_secret(&path, &serde_json::to_string_pretty(&file).unwrap_or_default())?;
    house.start_control(&path, admin).await
}

/// Writes the gateway's settings and starts it.
async fn start_gateway(house: &House) -> Result<(), Error> {
    let admin = free_address()?;
    let mut config = insula_gateway::Config::default();
    config.listen.http = vec![house.gateway];
    config.listen.admin = admin;
    config.catalog.control_url = Some(format!("http://{}", house.control));
    config.catalog.key_file = Some(house.folder.edge_key_file());
    config.telemetry.usage_dir = Some(house.folder.run("usage-gateway"));
    config.telemetry.control_url = Some(format!("http://{}", house.control));
    config.telemetry.control_key_file = Some(house.folder.edge_key_file());
    config.catalog.snapshot_file = Some(house.folder.run("gateway.snapshot"));
    config.identity.signing_keys = Some(contexts::signing_file(house));
    // Cells that an operator registers have a server and no application.
    config.upstream.default_url = house.app_url(MAIN).await;
    let text = toml::to_string(&config).map_err(|e| Error::new(Kind::Internal, e.to_string(), ""))?;
    let path = house.folder.run("gateway.toml");
    write_secret(&path, &text)?;
    house.start_gateway(&path, admin).await
}

/// Hands the bundle in, and waits until pools, templates and tenants have it. Databases are pre-made for later tenants after
/// that: nobody waits for them.
async fn apply(client: &Client, bundle: &Bundle) -> Result<(), Error> {
    let mut under_way = client.put_bundle(bundle, false).await.map_err(|e| api_error(&e))?.operation;
    while let Some(operation) = under_way {
        match (operation.state, operation.step.as_str()) {
            (OperationState::Failed, _) => {
                let why = operation.error.map(|e| e.detail).unwrap_or_default();
                return Err(Error::new(Kind::Invalid, format!("the application's bundle cannot be applied: {why}"), ""));
            }
            (OperationState::Done, _) | (_, "warm") => return Ok(()),
            _ => tokio::time::sleep(Duration::from_millis(20)).await,
        }
        under_way = Some(client.operation(operation.id).await.map_err(|e| api_error(&e))?);
    }
    Ok(())
}

/// What the application says that its tenants need.
async fn bundle(house: &House) -> Result<Bundle, Error> {
    let failed = |why: String| {
        let message = format!("`{} bundle` failed: {why}", house.app_program.display());
        Error::new(Kind::Invalid, message, "name an application that speaks Insula's bundle with --app")
    };
    let output = tokio::process::Command::new(&house.app_program).arg("bundle").output().await;
    let output = output.map_err(|e| failed(e.to_string()))?;
    if !output.status.success() {
        return Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    serde_json::from_slice(&output.stdout).map_err(|e| failed(e.to_string()))
}

fn api_error(error: &insula_api::Error) -> Error {
    Error::new(error.kind(), format!("the control plane says: {error}"), "")
}
