//! The snapshot on this process's disk: what it starts with when the control plane is away.
//!
//! For: writing what is known ([`Frozen::write`]) and reading it back as pages of a load ([`read`]). Not for: deciding when
//! ([`crate::keeper`]). Always: a file is there whole or not at all, and only its owner reads it; it holds no secret, as the catalog holds
//! none; a file that is damaged, or of another format, is not used. The fences in it are those of its placements, never newer
//! ones (see [`crate::snapshot`]).

use std::collections::{BTreeMap, HashMap};
use std::fs::{File, OpenOptions};
use std::io::{BufReader, BufWriter, Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use insula_core::feature::Overrides;
use insula_core::placement::APP_SCHEMA;
use insula_core::{Isolation, MoveState, Placement, Plan, PlanName, TenantId, TenantNo, TenantSettings, TenantState};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::Error;
use crate::plans::Variants;
use crate::route::Route;
use crate::row::{DatabaseId, DatabaseRow, Page, TenantRow};
use crate::snapshot::Snapshot;

mod format;
use format::{END, HEAD, HOME, Input, META, PAGE, Recorded, Records, SETTINGS, TENANTS, VARIANT, bad, io, put_number, put_text};

/// Tenants in a block.
const BLOCK: usize = 4096;
/// A file that is still being written after so long is not.
const LEFT_BEHIND: Duration = Duration::from_secs(600);

/// What is known at one moment, to be written when there is time.
pub(crate) struct Frozen {
    pub(crate) snapshot: Snapshot,
    pub(crate) plans: Vec<Arc<Plan>>,
    /// Of the plans that live in `snapshot`; what is not here has no overrides.
    pub(crate) variants: Variants,
    pub(crate) databases: Vec<DatabaseRow>,
    pub(crate) meta: Meta,
}

/// What a file is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Meta {
    pub(crate) revision: i64,
    /// Which catalog.
    pub(crate) catalog: Option<Uuid>,
    /// When what is in it was known to be the present, Unix milliseconds.
    pub(crate) contact: i64,
}

/// A plan's name and a tenant's overrides.
#[derive(Serialize, Deserialize)]
struct Variant {
    plan: PlanName,
    features: Overrides,
    limits: serde_json::Map<String, serde_json::Value>,
}

/// Unix milliseconds.
pub(crate) fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// Notes in the file at `path` that what it holds is still the present: if it holds `meta`, and not what another process has put there.
pub(crate) fn note_contact(path: &Path, meta: Meta) -> std::io::Result<()> {
    let mut file = OpenOptions::new().read(true).write(true).open(path)?;
    file.read_exact(&mut [0; HEAD])?;
    let theirs = match Recorded::new(BufReader::new(&file)).next() {
        Ok(Some((META, payload))) => serde_json::from_slice::<Meta>(payload).ok(),
        _ => None,
    };
    if theirs.is_none_or(|theirs| (theirs.revision, theirs.catalog) != (meta.revision, meta.catalog)) {
        return Err(std::io::Error::other("another process has written it"));
    }
    file.write_all_at(&format::head(meta.contact), 0)
}

/// Takes away what processes that were killed have left half written beside the file.
pub(crate) fn clean_up(path: &Path) {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else { return };
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let file = entry.file_name();
        let theirs = file.to_str().and_then(|file| file.strip_prefix(name)?.strip_prefix('.')?.strip_suffix(".new"));
        // One that is being written is younger.
        let old = || entry.metadata().and_then(|m| m.modified()).ok().and_then(|at| at.elapsed().ok()) > Some(LEFT_BEHIND);
        if theirs.is_some_and(|pid| pid.bytes().all(|b| b.is_ascii_digit())) && old() {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

impl Frozen {
    /// Writes the file in place of the one that is there. Takes as long as the disk takes: not for a thread that serves.
    pub(crate) fn write(&self, path: &Path) -> std::io::Result<()> {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}.new", std::process::id()));
        let fresh = path.with_file_name(name);
        // An earlier process of this number may have left it.
        let _ = std::fs::remove_file(&fresh);
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
        let written = self.write_to(BufWriter::with_capacity(1 << 20, file)).and_then(|mut to| {
            to.flush()?;
            to.get_ref().sync_all()?;
            std::fs::rename(&fresh, path)?;
            let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
            File::open(folder)?.sync_all()
        });
        if written.is_err() {
            let _ = std::fs::remove_file(&fresh);
        }
        written
    }

    fn write_to<W: Write>(&self, mut to: W) -> std::io::Result<W> {
        to.write_all(&format::head(self.meta.contact))?;
        let mut records = Records::new(to);
        records.json(META, &self.meta)?;
        let snapshot = &self.snapshot;
        records.json(PAGE, &Page::Plans(self.plans.iter().map(|plan| Plan::clone(plan)).collect()))?;
        records.json(PAGE, &Page::Cells(snapshot.cells.values().map(|cell| cell.as_ref().clone()).collect()))?;
        records.json(PAGE, &Page::Documents(snapshot.documents.values().map(|d| d.as_ref().clone()).collect()))?;
        for rows in self.databases.chunks(BLOCK) {
            records.json(PAGE, &Page::Databases(rows.to_vec()))?;
        }
        let providers: Vec<_> = snapshot.providers.iter().map(|row| row.as_ref().clone()).collect();
        for rows in providers.chunks(BLOCK) {
            records.json(PAGE, &Page::Providers(rows.to_vec()))?;
        }
        let keys: Vec<_> = snapshot.key_ids.iter().collect();
        for rows in keys.chunks(BLOCK) {
            records.json(PAGE, &Page::Keys(rows.iter().map(|row| row.as_ref().clone()).collect()))?;
        }
        self.write_tenants(&mut records)?;
        records.finish()
    }

    /// What a tenant's plan is made of. A plan that was taken away, and that its tenants have kept, is only a name.
    fn variant(&self, route: &Route) -> Variant {
        let known = self.variants.get(&(Arc::as_ptr(&route.plan) as usize));
        let (features, limits) = known.and_then(|(_, overrides)| serde_json::from_str(overrides).ok()).unwrap_or_default();
        Variant { plan: route.plan.name.clone(), features, limits }
    }

    fn write_tenants<W: Write>(&self, records: &mut Records<W>) -> std::io::Result<()> {
        let mut hosts: BTreeMap<TenantId, Vec<&str>> = BTreeMap::new();
        for domain in self.snapshot.hosts.iter() {
            hosts.entry(domain.tenant).or_default().push(&domain.host);
        }
        let mut words = Words::default();
        let mut block = Vec::new();
        let mut tenants = self.snapshot.ids.iter().peekable();
        while tenants.peek().is_some() {
            block.clear();
            for route in tenants.by_ref().take(BLOCK) {
                let variant = words.number(VARIANT, Arc::as_ptr(&route.plan) as usize, records, |records| {
                    records.json(VARIANT, &self.variant(route))
                })?;
                let settings = words.number(SETTINGS, Arc::as_ptr(&route.settings) as usize, records, |records| {
                    records.json(SETTINGS, &route.settings)
                })?;
                let home = words
                    .number(HOME, Arc::as_ptr(&route.home) as usize, records, |records| records.json(HOME, &route.home.id))?;
                let hosts = hosts.get(&route.id).map_or(&[][..], Vec::as_slice);
                put_tenant(&mut block, route, [variant, settings, home], hosts);
            }
            records.put(TENANTS, &block)?;
        }
        Ok(())
    }
}

/// The numbers of what tenants share, by kind and address.
#[derive(Default)]
struct Words(HashMap<(u8, usize), u64>, HashMap<u8, u64>);

impl Words {
    /// The number of a word; `write` writes one that is new.
    fn number<W>(
        &mut self,
        kind: u8,
        address: usize,
        records: &mut Records<W>,
        write: impl FnOnce(&mut Records<W>) -> std::io::Result<()>,
    ) -> std::io::Result<u64> {
        if let Some(known) = self.0.get(&(kind, address)) {
            return Ok(*known);
        }
        write(records)?;
        let next = self.1.entry(kind).or_default();
        let number = *next;
        *next += 1;
        self.0.insert((kind, address), number);
        Ok(number)
    }
}

fn put_tenant(to: &mut Vec<u8>, route: &Route, words: [u64; 3], hosts: &[&str]) {
    let place = &route.placement;
    to.extend_from_slice(route.id.uuid().as_bytes());
    // None of these is ever negative.
    for number in [route.no.get(), place.epoch, route.schema_version] {
        put_number(to, number.unsigned_abs());
    }
    words.into_iter().for_each(|word| put_number(to, word));
    put_text(to, route.slug.as_str());
    // Many are called by their slug.
    put_text(to, if *route.name == *route.slug.as_str() { "" } else { &route.name });
    put_text(to, if *place.schema == *APP_SCHEMA { "" } else { &place.schema });
    put_text(to, route.state().as_str());
    put_text(to, place.isolation.as_str());
    put_text(to, place.state.as_str());
    put_number(to, hosts.len() as u64);
    hosts.iter().for_each(|host| put_text(to, host));
}

/// What the words of a file say.
#[derive(Default)]
struct Said {
    variants: Vec<Variant>,
    settings: Vec<TenantSettings>,
    homes: Vec<DatabaseId>,
    app_schema: Option<Arc<str>>,
}

/// Sends the pages of the file at `path`. They count for nothing until this answers what they are of.
pub(crate) fn read(path: &Path, pages: &mpsc::Sender<Page>) -> Result<Meta, Error> {
    let mut file = File::open(path).map_err(|e| io(&e))?;
    let mut head = [0; HEAD];
    file.read_exact(&mut head).map_err(|e| io(&e))?;
    let contact = format::read_head(&head)?;
    let mut records = Recorded::new(BufReader::with_capacity(1 << 20, file));
    let mut meta: Option<Meta> = None;
    let mut said = Said::default();
    while let Some((kind, payload)) = records.next()? {
        match kind {
            META => meta = Some(json(payload)?),
            PAGE => send(pages, json(payload)?)?,
            VARIANT => said.variants.push(json(payload)?),
            SETTINGS => said.settings.push(json(payload)?),
            HOME => said.homes.push(json(payload)?),
            TENANTS => send(pages, Page::Tenants(said.tenants(payload)?))?,
            END => break,
            kind => return Err(bad(format!("it has a record of the unknown kind {kind}"))),
        }
    }
    let meta = meta.ok_or_else(|| bad("it does not say what it is of"))?;
    // Written over since, if that was not cut short.
    Ok(Meta { contact: contact.unwrap_or(meta.contact).max(meta.contact), ..meta })
}

fn json<T: serde::de::DeserializeOwned>(payload: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(payload).map_err(|e| bad(e.to_string()))
}

fn send(pages: &mpsc::Sender<Page>, page: Page) -> Result<(), Error> {
    pages.blocking_send(page).map_err(|_| Error::Stopped)
}

impl Said {
    fn tenants(&mut self, block: &[u8]) -> Result<Vec<TenantRow>, Error> {
        let mut input = Input(block);
        let mut rows = Vec::with_capacity(BLOCK);
        while !input.0.is_empty() {
            rows.push(self.tenant(&mut input)?);
        }
        Ok(rows)
    }

    fn tenant(&mut self, input: &mut Input<'_>) -> Result<TenantRow, Error> {
        fn word<T>(words: &[T], number: u64) -> Result<&T, Error> {
            usize::try_from(number).ok().and_then(|at| words.get(at)).ok_or_else(|| bad("a tenant refers to what is not there"))
        }
        fn known<T>(value: Option<T>) -> Result<T, Error> {
            value.ok_or_else(|| bad("a tenant is in a state that is not known"))
        }
        let id = TenantId::from(Uuid::from_bytes(input.array()?));
        let no = known(TenantNo::new(input.signed()?))?;
        let (epoch, schema_version) = (input.signed()?, input.signed()?);
        let variant = word(&self.variants, input.number()?)?;
        let settings = word(&self.settings, input.number()?)?.clone();
        let home = word(&self.homes, input.number()?)?;
        let slug: insula_core::Slug = input.text()?.parse().map_err(|_| bad("a slug is none"))?;
        let name = match input.text()? {
            "" => slug.as_str().to_owned(),
            name => name.to_owned(),
        };
        let schema = match input.text()? {
            "" => Arc::clone(self.app_schema.get_or_insert_with(|| APP_SCHEMA.into())),
            schema => schema.into(),
        };
        let state = known(TenantState::from_name(input.text()?))?;
        let isolation = known(Isolation::from_name(input.text()?))?;
        let move_state = known(MoveState::from_name(input.text()?))?;
        let domains = (0..input.number()?).map(|_| input.text().map(str::to_owned)).collect::<Result<_, _>>()?;
        let (cell, database) = (home.cell.clone(), Arc::clone(&home.name));
        Ok(TenantRow {
            id,
            no,
            slug,
            name,
            state,
            plan: variant.plan.clone(),
            features: variant.features.clone(),
            limits: variant.limits.clone(),
            settings,
            placement: Placement { cell, database, schema, isolation, epoch, state: move_state },
            schema_version,
            domains,
        })
    }
}
