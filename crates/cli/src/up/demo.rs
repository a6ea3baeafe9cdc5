//! Four tenants to try, one in each isolation mode, with real documents from this machine.
//!
//! Always: made once; a password that the control plane told once is in `demo.json` (mode 0600) before anything else is
//! done, and a start that was cut short goes on where it stopped.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Mutex;

use insula_api::Client;
use insula_api::tenant::{CreateTenant, Settings};
use insula_core::{Isolation, Kind};
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::up::documents;
use crate::up::folder::{read_if_there, write_secret};
use crate::up::house::House;
use crate::up::screen::Screen;

/// A tenant of the demo.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct DemoTenant {
    pub(crate) slug: String,
    pub(crate) name: String,
    pub(crate) plan: String,
    pub(crate) isolation: Isolation,
    pub(crate) email: String,
    /// Unknown when the first start was killed between the tenant's making and the noting of its password.
    pub(crate) password: Option<String>,
    pub(crate) imported: bool,
}

struct Wish {
    slug: &'static str,
    name: &'static str,
    plan: &'static str,
    isolation: Isolation,
    color: &'static str,
    locale: &'static str,
    time_zone: &'static str,
}

const WISHES: [Wish; 4] = [
    Wish {
        slug: "acme",
        name: "Acme Tools",
        plan: "bronze",
        isolation: Isolation::Row,
        color: "#b03a2e",
        locale: "en-GB",
        time_zone: "Europe/London",
    },
    Wish {
        slug: "globex",
        name: "Globex",
        plan: "silver",
        isolation: Isolation::Schema,
        color: "#1f618d",
        locale: "de-CH",
        time_zone: "Europe/Zurich",
    },
    Wish {
        slug: "initech",
        name: "Initech",
        plan: "gold",
        isolation: Isolation::Database,
        color: "#2f6f4f",
        locale: "en-US",
        time_zone: "America/Chicago",
    },
    Wish {
        slug: "umbrella",
        name: "Umbrella",
        plan: "platinum",
        isolation: Isolation::Cell,
        color: "#7d3c98",
        locale: "fr-FR",
        time_zone: "Europe/Paris",
    },
];

/// Documents per tenant.
const DOCUMENTS: usize = 60;

/// The tenants as noted, all four or as far as an earlier start came.
struct Notes {
    path: PathBuf,
    tenants: Mutex<BTreeMap<String, DemoTenant>>,
}

impl Notes {
    fn read(path: PathBuf) -> Result<Self, Error> {
        let text = read_if_there(&path)?;
        let tenants = text.map_or_else(BTreeMap::new, |t| serde_json::from_str(&t).unwrap_or_default());
        Ok(Self { path, tenants: Mutex::new(tenants) })
    }

    fn get(&self, slug: &str) -> Option<DemoTenant> {
        self.tenants.lock().ok()?.get(slug).cloned()
    }

    fn put(&self, tenant: DemoTenant) -> Result<(), Error> {
        let Ok(mut tenants) = self.tenants.lock() else { return Ok(()) };
        tenants.insert(tenant.slug.clone(), tenant);
        let text = serde_json::to_string_pretty(&*tenants).unwrap_or_default();
        write_secret(&self.path, &format!("{text}\n"))
    }
}

/// Makes what is missing of the demo, and returns its tenants, from the most shared to the most separate.
pub(crate) async fn make(house: &House, client: &Client, screen: Screen) -> Result<Vec<DemoTenant>, Error> {
    let notes = Notes::read(house.folder.demo_file())?;
    let complete = WISHES.iter().all(|w| notes.get(w.slug).is_some_and(|t| t.imported));
    if !complete {
        let (notes, count) = (&notes, WISHES.len());
        let documents = tokio::task::spawn_blocking(move || documents::find(DOCUMENTS * count)).await.unwrap_or_default();
        let work = WISHES.iter().enumerate().map(|(index, wish)| {
            let share = documents.iter().skip(index).step_by(count).take(DOCUMENTS).cloned().collect::<Vec<_>>();
            async move {
                let made = one(house, client, notes, wish, share).await;
                made.map_err(|e| Error::new(e.kind(), format!("demo tenant {}: {e}", wish.slug), e.help()))?;
                screen.done(&format!("tenant {} ({})", wish.slug, wish.isolation));
                Ok::<(), Error>(())
            }
        });
        futures_util::future::join_all(work).await.into_iter().collect::<Result<(), Error>>()?;
    }
    Ok(WISHES.iter().filter_map(|w| notes.get(w.slug)).collect())
}

async fn one(house: &House, client: &Client, notes: &Notes, wish: &Wish, documents: Vec<PathBuf>) -> Result<(), Error> {
    let mut tenant = match notes.get(wish.slug) {
        Some(tenant) => tenant,
        None => {
            let tenant = create(client, wish).await?;
            notes.put(tenant.clone())?;
            tenant
        }
    };
    if tenant.imported {
        return Ok(());
    }
    if let Some(password) = &tenant.password {
        import(house, &tenant, password, &documents).await?;
    }
    tenant.imported = true;
    notes.put(tenant)
}

async fn create(client: &Client, wish: &Wish) -> Result<DemoTenant, Error> {
    let slug = wish.slug.parse().map_err(|e: insula_core::slug::NameError| Error::new(Kind::Internal, e.to_string(), ""))?;
    let plan = wish.plan.parse().map_err(|e: insula_core::slug::NameError| Error::new(Kind::Internal, e.to_string(), ""))?;
    let ask = CreateTenant {
        slug,
        plan,
        name: Some(wish.name.into()),
        isolation: Some(wish.isolation),
        cell: None,
        region: None,
        labels: Vec::new(),
        admin_email: Some(format!("admin@{}.example", wish.slug)),
        settings: Settings {
            brand_name: Some(wish.name.into()),
            color: Some(wish.color.into()),
            locale: wish.locale.into(),
            time_zone: wish.time_zone.into(),
        },
        features: BTreeMap::new(),
        limits: BTreeMap::new(),
    };
    let noted = |email: String, password| DemoTenant {
        slug: wish.slug.into(),
        name: wish.name.into(),
        plan: wish.plan.into(),
        isolation: wish.isolation,
        email,
        password,
        imported: false,
    };
    match client.create_tenant(&ask, true).await {
        Ok(created) => Ok(noted(created.admin.email, created.admin.password)),
        // An earlier start was killed between this call and the note: the tenant is there, its password is not to be had.
        Err(e) if e.kind() == Kind::Conflict => Ok(noted(format!("admin@{}.example", wish.slug), None)),
        Err(e) => Err(Error::new(e.kind(), e.to_string(), "")),
    }
}

/// Loads the documents through the application's public API, as its own command does it.
async fn import(house: &House, tenant: &DemoTenant, password: &str, documents: &[PathBuf]) -> Result<(), Error> {
    if documents.is_empty() {
        return Ok(());
    }
    let folder = house.folder.run(&format!("demo-{}", tenant.slug));
    let (source, target) = (documents.to_vec(), folder.clone());
    let copied = tokio::task::spawn_blocking(move || documents::copy(&source, &target)).await;
    let failed = |what: String| Error::new(Kind::Unavailable, what, "");
    copied.map_err(|e| failed(e.to_string()))?.map_err(|e| failed(format!("cannot copy documents: {e}")))?;
    let outcome = run_import(house, tenant, password, &folder).await;
    let _ = std::fs::remove_dir_all(&folder);
    outcome
}

async fn run_import(house: &House, tenant: &DemoTenant, password: &str, folder: &Path) -> Result<(), Error> {
    let mut command = tokio::process::Command::new(&house.app_program);
    command.arg("import").args(["--tenant", &tenant.slug]).arg("--url").arg(format!("http://{}", house.gateway));
    command.args(["--base-domain", "localhost"]);
    // Arguments can be read by every user of the machine, an environment cannot.
    command.args(["--email", &tenant.email]).arg(folder).env("ACMEDOCS_PASSWORD", password);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
    let output = command.output().await.map_err(|e| Error::new(Kind::Unavailable, format!("cannot import: {e}"), ""))?;
    if output.status.success() {
        return Ok(());
    }
    let why = String::from_utf8_lossy(&output.stderr);
    let why = why.trim().lines().last().unwrap_or("no reason given").to_owned();
    Err(Error::new(Kind::Unavailable, format!("cannot import documents: {why}"), ""))
}
