//! `insula plan`.

use insula_api::Client;
use insula_api::page::PageQuery;
use insula_api::plan::{CreatePlan, FeatureChange, Plan, UpdatePlan};
use insula_core::{ClassLimits, FeatureValue, Isolation, Kind, Limits, PlanName, RouteClass, Tier};
use serde_json::Value;

use crate::error::Error;
use crate::screen::{Screen, Tone, time};
use crate::target::Target;
use crate::value::{feature, isolation, limit, word};

/// Look at and change what tenants can buy
#[derive(clap::Args, Debug)]
pub(crate) struct PlanArgs {
    #[command(flatten)]
    target: Target,
    #[command(subcommand)]
    command: PlanCommand,
}

#[derive(clap::Subcommand, Debug)]
enum PlanCommand {
    /// List plans
    List,
    /// Show one plan
    Show {
        /// Its name
        plan: PlanName,
    },
    /// Make a plan
    Create {
        /// Its name
        plan: PlanName,
        /// Begin with what this plan has
        #[arg(long, value_name = "PLAN")]
        like: Option<PlanName>,
        #[command(flatten)]
        values: Values,
    },
    /// Change a plan; its tenants feel it at once, and nobody moves
    Update {
        /// Its name
        plan: PlanName,
        #[command(flatten)]
        values: Values,
        /// Take a feature away (repeatable)
        #[arg(long = "reset-feature", value_name = "NAME")]
        reset_features: Vec<String>,
    },
}

#[derive(clap::Args, Debug, Default, PartialEq)]
struct Values {
    /// Where its new tenants live
    #[arg(long, value_parser = isolation())]
    isolation: Option<Isolation>,
    /// Name of its scheduling class
    #[arg(long)]
    tier: Option<String>,
    /// Weight of the class wherever classes compete
    #[arg(long)]
    weight: Option<u32>,
    /// Percent of a database pool that is always there for the class
    #[arg(long, value_name = "PERCENT")]
    pool_guarantee: Option<u8>,
    /// Percent of a database pool that the class may hold at most
    #[arg(long, value_name = "PERCENT")]
    pool_cap: Option<u8>,
    /// A limit (repeatable); `insula plan show` lists their names
    #[arg(long = "limit", value_name = "NAME=NUMBER", value_parser = limit)]
    limits: Vec<(String, u64)>,
    /// Limits of a class of routes, any of rate, burst, concurrent and cost, or `none` (repeatable)
    #[arg(long = "class", value_name = "NAME=rate:5,burst:10,concurrent:2,cost:4", value_parser = class)]
    classes: Vec<(RouteClass, Option<ClassLimits>)>,
    /// A feature: true, false, a number or a word (repeatable)
    #[arg(long = "feature", value_name = "NAME=VALUE", value_parser = feature)]
    features: Vec<(String, FeatureValue)>,
}

impl Values {
    fn tier(&self, mut tier: Tier) -> Tier {
        if let Some(name) = &self.tier {
            tier.name.clone_from(name);
        }
        tier.weight = self.weight.unwrap_or(tier.weight);
        tier.pool_guarantee = self.pool_guarantee.unwrap_or(tier.pool_guarantee);
        tier.pool_cap = self.pool_cap.unwrap_or(tier.pool_cap);
        tier
    }

    fn limits(&self, limits: &Limits) -> Result<Limits, Error> {
        let mut fields = limit_fields(limits);
        for (name, number) in &self.limits {
            fields.insert(name.clone(), (*number).into());
        }
        // The type refuses what is no limit, and says which there are.
        let limits: Result<Limits, _> = serde_json::from_value(Value::Object(fields));
        let mut limits = limits.map_err(|e| Error::new(Kind::Invalid, e.to_string(), ""))?;
        for (name, class) in &self.classes {
            match class {
                Some(class) => drop(limits.route_classes.insert(name.clone(), *class)),
                None => drop(limits.route_classes.remove(name)),
            }
        }
        Ok(limits)
    }
}

/// `NAME=rate:5,burst:10,concurrent:2,cost:4` or `NAME=none`.
fn class(text: &str) -> Result<(RouteClass, Option<ClassLimits>), String> {
    let (name, values) = text.split_once('=').ok_or("NAME=rate:5,burst:10,concurrent:2,cost:4, or NAME=none")?;
    let name = name.parse().map_err(|error: insula_core::slug::NameError| error.to_string())?;
    if values == "none" {
        return Ok((name, None));
    }
    let mut class = ClassLimits::default();
    for part in values.split(',') {
        let (key, number) = part.split_once(':').ok_or_else(|| format!("{part:?} is not like rate:5"))?;
        let number = number.parse().map_err(|_| format!("{number:?} is not a number"))?;
        match key {
            "rate" => class.requests_per_second = Some(number),
            "burst" => class.request_burst = Some(number),
            "concurrent" => class.max_concurrent_requests = Some(number),
            "cost" => class.cost = number,
            _ => return Err(format!("{key:?} is none of rate, burst, concurrent, cost")),
        }
    }
    Ok((name, Some(class)))
}

fn limit_fields(limits: &Limits) -> serde_json::Map<String, Value> {
    match serde_json::to_value(limits) {
        Ok(Value::Object(fields)) => fields,
        _ => serde_json::Map::new(),
    }
}

pub(crate) async fn run(args: PlanArgs) -> Result<(), Error> {
    let (client, screen) = (args.target.client()?, Screen::new(args.target.json));
    match args.command {
        PlanCommand::List => {
            let plans = client.plans(&PageQuery { limit: Some(500), cursor: None }).await?;
            screen.show(&plans, |screen| table(screen, &plans.items))
        }
        PlanCommand::Show { plan } => show(screen, &client.plan(&plan).await?.value),
        PlanCommand::Create { plan, like, values } => {
            let plan = client.create_plan(&new_plan(&client, plan, like, values).await?).await?;
            show(screen, &plan)
        }
        PlanCommand::Update { plan, values, reset_features } => {
            let now = client.plan(&plan).await?;
            match change(values, reset_features, &now.value)? {
                Some(change) => show(screen, &client.update_plan(&plan, &now.etag, &change).await?.value),
                // Said once more, as scripts do.
                None => show(screen, &now.value),
            }
        }
    }
}

/// What is to change; `None` when the plan says so already.
fn change(values: Values, reset_features: Vec<String>, now: &Plan) -> Result<Option<UpdatePlan>, Error> {
    if values == Values::default() && reset_features.is_empty() {
        return Err(Error::new(Kind::Invalid, "nothing to change", "`insula plan update --help` lists what can be"));
    }
    let (tier, limits) = (values.tier(now.tier.clone()), values.limits(&now.limits)?);
    let mut change = UpdatePlan {
        tier: Some(tier).filter(|tier| *tier != now.tier),
        isolation: values.isolation.filter(|isolation| *isolation != now.isolation),
        limits: Some(limits).filter(|limits| *limits != now.limits),
        ..UpdatePlan::default()
    };
    change.features.extend(values.features.into_iter().map(|(name, value)| (name, FeatureChange::Set(value))));
    change.features.extend(reset_features.into_iter().map(|name| (name, FeatureChange::Reset)));
    Ok(Some(change).filter(|change| *change != UpdatePlan::default()))
}

async fn new_plan(client: &Client, name: PlanName, like: Option<PlanName>, values: Values) -> Result<CreatePlan, Error> {
    let base = match like {
        Some(like) => {
            let like = client.plan(&like).await?.value;
            CreatePlan { name, tier: like.tier, isolation: like.isolation, limits: like.limits, features: like.features }
        }
        None => {
            let tier = Tier { name: name.to_string(), weight: 1, pool_guarantee: 10, pool_cap: 60 };
            CreatePlan { name, tier, isolation: Isolation::Row, limits: Limits::default(), features: Default::default() }
        }
    };
    let mut plan = CreatePlan {
        tier: values.tier(base.tier),
        limits: values.limits(&base.limits)?,
        isolation: values.isolation.unwrap_or(base.isolation),
        ..base
    };
    plan.features.extend(values.features);
    Ok(plan)
}

fn show(screen: Screen, plan: &Plan) -> Result<(), Error> {
    screen.show(plan, |screen| facts(screen, plan))
}

fn table(screen: Screen, plans: &[Plan]) -> String {
    let rows = plans.iter().map(|p| {
        let features = p.features.iter().map(|(name, value)| format!("{name}={}", word(value)));
        [
            p.name.to_string(),
            p.isolation.to_string(),
            p.tier.name.clone(),
            p.tier.weight.to_string(),
            format!("{}-{}%", p.tier.pool_guarantee, p.tier.pool_cap),
            p.limits.requests_per_second.to_string(),
            features.collect::<Vec<_>>().join(", "),
        ]
        .map(|text| (text, Tone::Plain))
        .to_vec()
    });
    let heads = ["PLAN", "ISOLATION", "TIER", "WEIGHT", "POOL", "REQ/S", "FEATURES"];
    screen.table(&heads, rows.collect(), "No plans. `insula plan create NAME` makes one.")
}

fn facts(screen: Screen, plan: &Plan) -> String {
    let tier = &plan.tier;
    let mut facts = vec![
        ("plan", plan.name.to_string()),
        ("isolation", plan.isolation.to_string()),
        ("tier", format!("{} (weight {}, pool {}-{}%)", tier.name, tier.weight, tier.pool_guarantee, tier.pool_cap)),
    ];
    let limits = limit_fields(&plan.limits).into_iter().map(|(name, value)| format!("{name}={value}"));
    facts.push(("limits", limits.collect::<Vec<_>>().join("\n")));
    let features = plan.features.iter().map(|(name, value)| format!("{name}={}", word(value)));
    facts.push(("features", features.collect::<Vec<_>>().join("\n")));
    facts.push(("changed", time(plan.updated_at)));
    screen.facts(facts.into_iter().map(|(name, value)| (name, value, Tone::Plain)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_is_read_and_refused_in_words() {
        let (name, limits) = class("export=rate:5,cost:4").expect("a class");
        assert_eq!(name.as_str(), "export");
        assert_eq!(limits, Some(ClassLimits { requests_per_second: Some(5), cost: 4, ..ClassLimits::default() }));
        assert_eq!(class("export=none").expect("a class").1, None);
        for bad in ["export", "Export=none", "default=none", "export=speed:5", "export=rate:x", "export=rate"] {
            assert!(class(bad).is_err(), "{bad}");
        }
    }

    fn gold() -> Plan {
        serde_json::from_value(serde_json::json!({
            "name": "gold", "isolation": "database", "version": 1,
            "tier": {"name": "gold", "weight": 4, "pool_guarantee": 30, "pool_cap": 90},
            "limits": Limits::default(), "features": {"search": true, "max_concurrent_exports": 4},
            "created_at": "2026-01-02T03:04:05Z", "updated_at": "2026-01-02T03:04:05Z"
        }))
        .expect("a plan")
    }

    #[test]
    fn what_is_so_already_is_no_fault() {
        let mut plan = gold();
        let export = || ("export".parse::<RouteClass>().expect("a class"), Some(ClassLimits::default()));
        plan.limits.route_classes.insert(export().0, ClassLimits::default());
        let asked = |classes: Vec<_>, weight| change(Values { classes, weight, ..Values::default() }, Vec::new(), &plan);
        assert_eq!(asked(vec![export()], Some(4)).expect("fine"), None);
        assert!(asked(vec![export()], Some(5)).expect("fine").is_some());
        assert_eq!(asked(Vec::new(), None).expect_err("nothing").kind(), Kind::Invalid);
    }

    #[test]
    fn tables_for_people() {
        let plan = gold();
        insta::assert_snapshot!("plan_table", table(Screen::PIPE, std::slice::from_ref(&plan)));
        insta::assert_snapshot!("plan_facts", facts(Screen::PIPE, &plan));
    }
}
