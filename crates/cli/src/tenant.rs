//! `insula tenant`.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use insula_api::Client;
use insula_api::operation::Operation;
use insula_api::page::Page;
use insula_api::tenant::{
    CreateTenant, OverrideChange, Settings, SettingsPatch, Tenant, TenantCreated, TenantQuery, UpdateTenant,
};
use insula_core::feature::Temporary;
use insula_core::{CellName, Isolation, Kind, Override, PlanName, Slug, TenantState};

use crate::error::Error;
use crate::follow::follow;
use crate::screen::{Screen, Tone, or_hyphen, time};
use crate::target::Target;
use crate::value::{feature, isolation, limit, state};

/// Make, look at and change tenants
#[derive(clap::Args, Debug)]
pub(crate) struct TenantArgs {
    #[command(flatten)]
    target: Target,
    #[command(subcommand)]
    command: TenantCommand,
}

#[derive(clap::Subcommand, Debug)]
enum TenantCommand {
    /// Make a tenant; its admin's password is printed this once
    Create(Create),
    /// List tenants
    List(List),
    /// Show one tenant
    Show {
        /// Slug or id
        tenant: String,
    },
    /// Change a tenant's name, plan, settings, features or limits
    Update(Box<Update>),
    /// Serve a tenant no more until it is resumed; nothing is lost
    Suspend(Change),
    /// Serve a suspended tenant again
    Resume(Change),
    /// Disable a tenant for good
    Delete {
        #[command(flatten)]
        change: Change,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

#[derive(clap::Args, Debug)]
struct Create {
    /// DNS label: 2 to 63 of a-z, 0-9 and single hyphens between them
    slug: Slug,
    /// What it buys
    #[arg(long)]
    plan: PlanName,
    /// How its rows are kept apart, if not as the plan says
    #[arg(long, value_parser = isolation())]
    isolation: Option<Isolation>,
    /// What people call it, if not by its slug
    #[arg(long)]
    name: Option<String>,
    /// Login of its first user, if not admin@SLUG.localhost
    #[arg(long, value_name = "EMAIL")]
    admin_email: Option<String>,
    /// Only in this cell
    #[arg(long)]
    cell: Option<CellName>,
    /// Only in a cell of this region
    #[arg(long)]
    region: Option<String>,
    /// Only in a cell with this label (repeatable)
    #[arg(long = "label", value_name = "LABEL")]
    labels: Vec<String>,
    /// Wait until it can be used
    #[arg(long)]
    wait: bool,
}

#[derive(clap::Args, Debug)]
struct List {
    /// In this state (deleted ones are left out unless asked for)
    #[arg(long, value_parser = state())]
    state: Option<TenantState>,
    /// Of this plan
    #[arg(long)]
    plan: Option<PlanName>,
    /// In this cell
    #[arg(long)]
    cell: Option<CellName>,
    /// Whose slug or name holds this
    #[arg(long = "search", value_name = "TEXT")]
    q: Option<String>,
    /// At most so many (all unless given)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
}

#[derive(clap::Args, Debug)]
struct Change {
    /// Slug or id
    tenant: String,
    /// Return at once; `insula operation watch` follows the work
    #[arg(long)]
    no_wait: bool,
}

#[derive(clap::Args, Debug)]
struct Update {
    /// Slug or id
    tenant: String,
    /// What people call it
    #[arg(long)]
    name: Option<String>,
    /// What it buys; it stays where it is
    #[arg(long)]
    plan: Option<PlanName>,
    /// What its pages are headed with ("" for its name)
    #[arg(long, value_name = "TEXT")]
    brand_name: Option<String>,
    /// #rrggbb ("" for none)
    #[arg(long)]
    color: Option<String>,
    /// BCP 47 tag, as en-GB
    #[arg(long)]
    locale: Option<String>,
    /// IANA name, as Europe/Zurich
    #[arg(long)]
    time_zone: Option<String>,
    /// Override a feature: true, false, a number or a word (repeatable)
    #[arg(long = "feature", value_name = "NAME=VALUE", value_parser = feature)]
    features: Vec<(String, insula_core::FeatureValue)>,
    /// When these features end, and the plan's hold again, as 2026-12-31T00:00:00Z (never unless given)
    #[arg(long, value_name = "TIME", requires = "features")]
    until: Option<DateTime<Utc>>,
    /// Take a feature's override away (repeatable)
    #[arg(long = "reset-feature", value_name = "NAME")]
    reset_features: Vec<String>,
    /// Override a limit (repeatable)
    #[arg(long = "limit", value_name = "NAME=NUMBER", value_parser = limit)]
    limits: Vec<(String, u64)>,
    /// Take a limit's override away (repeatable)
    #[arg(long = "reset-limit", value_name = "NAME")]
    reset_limits: Vec<String>,
}

pub(crate) async fn run(args: TenantArgs) -> Result<(), Error> {
    let (client, screen) = (args.target.client()?, Screen::new(args.target.json));
    match args.command {
        TenantCommand::Create(args) => create(&client, screen, args).await,
        TenantCommand::List(args) => list(&client, screen, args).await,
        TenantCommand::Show { tenant } => {
            let tenant = client.tenant(&tenant).await?.value;
            screen.show(&tenant, |screen| facts(screen, &tenant, vec![]))
        }
        TenantCommand::Update(args) => update(&client, screen, *args).await,
        TenantCommand::Suspend(change) => {
            let operation = client.suspend_tenant(&change.tenant, false).await?;
            changed(&client, screen, operation, &change, "suspending").await
        }
        TenantCommand::Resume(change) => {
            let operation = client.resume_tenant(&change.tenant, false).await?;
            changed(&client, screen, operation, &change, "resuming").await
        }
        TenantCommand::Delete { change, yes } => {
            if !yes {
                confirm(&change.tenant)?;
            }
            let operation = client.delete_tenant(&change.tenant, false).await?;
            changed(&client, screen, operation, &change, "deleting").await
        }
    }
}

async fn create(client: &Client, screen: Screen, args: Create) -> Result<(), Error> {
    let slug = args.slug.clone();
    let request = CreateTenant {
        slug: args.slug,
        plan: args.plan,
        name: args.name,
        isolation: args.isolation,
        cell: args.cell,
        region: args.region,
        labels: args.labels,
        admin_email: args.admin_email,
        settings: Settings::default(),
        features: BTreeMap::new(),
        limits: BTreeMap::new(),
    };
    let mut created = client.create_tenant(&request, false).await?;
    if args.wait {
        follow(client, screen, created.operation, &format!("creating {slug}")).await?;
        created.tenant = client.tenant(&created.tenant.id.to_string()).await?.value;
    }
    screen.show(&created, |screen| created_facts(screen, &created))
}

async fn list(client: &Client, screen: Screen, args: List) -> Result<(), Error> {
    let mut query = TenantQuery {
        state: args.state,
        plan: args.plan,
        cell: args.cell,
        q: args.q,
        limit: Some(args.limit.unwrap_or(500).min(500)),
        cursor: None,
    };
    let mut all = Page { items: Vec::new(), next: None };
    loop {
        let page = client.tenants(&query).await?;
        all.items.extend(page.items);
        let enough = args.limit.is_some_and(|limit| all.items.len() >= usize::try_from(limit).unwrap_or(usize::MAX));
        all.next.clone_from(&page.next);
        query.cursor = page.next;
        if enough || query.cursor.is_none() {
            break;
        }
    }
    if let Some(limit) = args.limit {
        all.items.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    }
    screen.show(&all, |screen| table(screen, &all.items))
}

async fn update(client: &Client, screen: Screen, args: Update) -> Result<(), Error> {
    let some = |text: Option<String>| text.map(|t| Some(t).filter(|t| !t.is_empty()));
    let settings = SettingsPatch {
        brand_name: some(args.brand_name),
        color: some(args.color),
        locale: some(args.locale),
        time_zone: some(args.time_zone),
    };
    let by = |value| match args.until {
        Some(until) => Override::Temporary(Temporary { value, until }),
        None => Override::Value(value),
    };
    let set = args.features.into_iter().map(|(name, value)| (name, OverrideChange::Set(by(value))));
    let mut features: BTreeMap<_, _> = set.collect();
    features.extend(args.reset_features.into_iter().map(|name| (name, OverrideChange::Reset)));
    let mut limits: BTreeMap<_, _> = args.limits.into_iter().map(|(name, value)| (name, Some(value))).collect();
    limits.extend(args.reset_limits.into_iter().map(|name| (name, None)));
    let change = UpdateTenant {
        name: args.name,
        plan: args.plan,
        settings: Some(settings).filter(|s| *s != SettingsPatch::default()),
        features,
        limits,
    };
    if change == UpdateTenant::default() {
        return Err(Error::new(Kind::Invalid, "nothing to change", "`insula tenant update --help` lists what can be"));
    }
    let etag = client.tenant(&args.tenant).await?.etag;
    let tenant = client.update_tenant(&args.tenant, &etag, &change).await?.value;
    screen.show(&tenant, |screen| facts(screen, &tenant, vec![]))
}

async fn changed(client: &Client, screen: Screen, operation: Operation, change: &Change, what: &str) -> Result<(), Error> {
    let operation = if change.no_wait {
        operation
    } else {
        follow(client, screen, operation.id, &format!("{what} {}", change.tenant)).await?
    };
    screen.show(&operation, |_| {
        let ended = if operation.state.ended() { "done" } else { "begun" };
        format!("{what} {}: {ended} (operation {})", change.tenant, operation.id)
    })
}

/// Asks; only the tenant's own name is a yes.
fn confirm(tenant: &str) -> Result<(), Error> {
    use std::io::IsTerminal as _;
    let refuse = |message: &str| Error::new(Kind::Invalid, message, "pass --yes to delete without being asked");
    if !std::io::stdin().is_terminal() {
        return Err(refuse("deleting needs a yes, and there is no terminal to ask at"));
    }
    eprint!("Deleting {tenant} disables it for good. Type its name to go on: ");
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    if answer.trim() == tenant { Ok(()) } else { Err(refuse("not deleted")) }
}

pub(crate) const fn tone(state: TenantState) -> Tone {
    match state {
        TenantState::Active => Tone::Good,
        TenantState::Provisioning => Tone::Wait,
        TenantState::Suspended | TenantState::Deleted => Tone::Bad,
    }
}

fn table(screen: Screen, tenants: &[Tenant]) -> String {
    let rows = tenants.iter().map(|t| {
        let place = t.placement.as_ref();
        vec![
            (t.slug.to_string(), Tone::Plain),
            (t.name.clone(), Tone::Plain),
            (t.plan.to_string(), Tone::Plain),
            (t.state.as_str().to_owned(), tone(t.state)),
            (or_hyphen(t.isolation.map(|i| i.to_string())), Tone::Plain),
            (or_hyphen(place.map(|p| p.cell.to_string())), Tone::Plain),
            (time(t.created_at), Tone::Plain),
        ]
    });
    let heads = ["SLUG", "NAME", "PLAN", "STATE", "ISOLATION", "CELL", "CREATED"];
    screen.table(&heads, rows.collect(), "No tenants. `insula tenant create SLUG --plan PLAN --wait` makes one.")
}

fn facts(screen: Screen, tenant: &Tenant, more: Vec<(&str, String, Tone)>) -> String {
    let place = tenant.placement.as_ref();
    let plain = |text: String| (text, Tone::Plain);
    let mut facts = vec![("slug", plain(tenant.slug.to_string())), ("name", plain(tenant.name.clone()))];
    facts.push(("id", plain(tenant.id.to_string())));
    facts.push(("plan", plain(tenant.plan.to_string())));
    facts.push(("state", (tenant.state.as_str().to_owned(), tone(tenant.state))));
    facts.push(("isolation", plain(or_hyphen(tenant.isolation.map(|i| i.to_string())))));
    facts.push(("cell", plain(or_hyphen(place.map(|p| p.cell.to_string())))));
    facts.push(("database", plain(or_hyphen(place.map(|p| p.database.clone())))));
    facts.push(("schema", plain(or_hyphen(place.map(|p| p.schema.clone())))));
    facts.push(("epoch", plain(or_hyphen(place.map(|p| p.epoch.to_string())))));
    let overrides = |items: Vec<String>| plain(items.join(", "));
    facts.push(("features", overrides(tenant.features.iter().map(|(n, by)| overriding(n, by)).collect())));
    facts.push(("limits", overrides(tenant.limits.iter().map(|(n, v)| format!("{n}={v}")).collect())));
    facts.push(("created", plain(time(tenant.created_at))));
    let facts = facts.into_iter().map(|(name, (value, tone))| (name, value, tone));
    screen.facts(facts.chain(more).collect())
}

/// `search=true until 2026-12-31 00:00:00`
fn overriding(name: &str, by: &Override) -> String {
    let until = by.until().map(|until| format!(" until {}", time(until))).unwrap_or_default();
    format!("{name}={}{until}", crate::value::word(by.value()))
}

fn created_facts(screen: Screen, created: &TenantCreated) -> String {
    let password = created.admin.password.clone().unwrap_or_else(|| "(told once already; it cannot be told again)".to_owned());
    let mut more = vec![("admin", created.admin.email.clone(), Tone::Plain), ("password", password, Tone::Plain)];
    if created.tenant.state == TenantState::Provisioning {
        more.push(("operation", format!("{} (`insula operation watch` follows it)", created.operation), Tone::Wait));
    }
    facts(screen, &created.tenant, more)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant() -> Tenant {
        serde_json::from_value(serde_json::json!({
            "id": "0190f8c0-0000-7000-8000-000000000001", "slug": "acme", "name": "Acme Ltd", "plan": "gold", "state": "active",
            "isolation": "database",
            "placement": {"cell": "main", "database": "d0123456789abcdef", "schema": "app", "epoch": 1, "state": "active"},
            "settings": {}, "features": {"search": false, "seats": 3}, "limits": {"max_users": 9}, "schema_version": 1,
            "version": 1, "created_at": "2026-01-02T03:04:05Z", "updated_at": "2026-01-02T03:04:05Z"
        }))
        .expect("a tenant")
    }

    #[test]
    fn tables_for_people() {
        let mut fresh = tenant();
        fresh.slug = "globex-international".parse().expect("slug");
        (fresh.state, fresh.isolation, fresh.placement) = (TenantState::Provisioning, None, None);
        insta::assert_snapshot!("tenant_table", table(Screen::PIPE, &[tenant(), fresh.clone()]));
        insta::assert_snapshot!("tenant_facts", facts(Screen::PIPE, &tenant(), vec![]));
        let admin = insula_api::tenant::AdminLogin {
            email: "admin@globex.localhost".into(),
            password: Some("correct-horse".into()),
            password_withheld: false,
        };
        let operation = "0190f8c0-0000-7000-8000-000000000002".parse().expect("id");
        insta::assert_snapshot!(
            "tenant_created",
            created_facts(Screen::PIPE, &TenantCreated { tenant: fresh, admin, operation })
        );
        insta::assert_snapshot!("tenant_none", table(Screen::PIPE, &[]));
    }
}
