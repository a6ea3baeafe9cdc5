//! What is accepted from outside. Always: a refusal names the field and says what would do.

use insula_api::cell::{AppVersion, Replica};
use insula_api::identity::{CreateProvider, CreateTenantKey};
use insula_core::feature::{FeatureValue, Features, Overrides};
use insula_core::{Limits, Tier};

use crate::error::Error;
use crate::model::{Bundle, Cell, CreateTenant, LimitOverrides, PutPlan, RegisterCell, Settings};

/// Text for people: length in characters, no control characters (NUL among them).
pub(crate) fn text(field: &'static str, text: &str, min: usize, max: usize) -> Result<(), Error> {
    let len = text.chars().count();
    if len < min || len > max {
        return Err(Error::invalid(field, format!("{min} to {max} characters, this has {len}")));
    }
    if text.trim() != text {
        return Err(Error::invalid(field, "no space at its ends"));
    }
    // Bidi overrides and invisible separators make one name look like another in a console.
    let hidden = |c: char| matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}');
    match text.chars().find(|c| c.is_control() || hidden(*c)) {
        Some(c) => Err(Error::invalid(field, format!("may not hold the invisible character U+{:04X}", u32::from(c)))),
        None => Ok(()),
    }
}

fn word(field: &'static str, word: &str, max: usize) -> Result<(), Error> {
    text(field, word, 1, max)?;
    if word.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')) {
        return Ok(());
    }
    Err(Error::invalid(field, "letters, digits, - _ . only"))
}

pub(crate) fn version(what: String, expected: Option<i64>, found: i64) -> Result<(), Error> {
    match expected {
        Some(expected) if expected != found => Err(Error::Version { what, expected, found }),
        _ => Ok(()),
    }
}

/// Checks all that needs no catalog, and fills in what was left out.
pub(crate) fn create_tenant(mut create: CreateTenant) -> Result<CreateTenant, Error> {
    let name = create.name.get_or_insert_with(|| create.slug.to_string());
    tenant_fields(name, &create.settings, &create.features)?;
    let email = create.admin_email.get_or_insert_with(|| format!("admin@{}.localhost", create.slug));
    text("admin_email", email, 3, 254)?;
    let well_formed = email.split_once('@').is_some_and(|(who, host)| !who.is_empty() && !host.is_empty() && !host.contains('@'));
    if !well_formed || email.contains(char::is_whitespace) {
        return Err(Error::invalid("admin_email", "an address like ada@example.com"));
    }
    if let Some(hash) = &create.admin_password_hash
        && argon2::password_hash::phc::PasswordHash::new(hash).is_err()
    {
        return Err(Error::invalid("admin_password_hash", "an argon2 hash in PHC form: $argon2id$v=19$…"));
    }
    if let Some(region) = &create.region {
        word("region", region, 60)?;
    }
    if create.labels.len() > 20 {
        return Err(Error::invalid("labels", "at most 20"));
    }
    create.labels.iter().try_for_each(|l| word("labels", l, 60))?;
    Ok(create)
}

pub(crate) fn tenant_fields(name: &str, settings: &Settings, features: &Overrides) -> Result<(), Error> {
    text("name", name, 1, 200)?;
    // Data planes read settings as this: what they cannot read, they would not serve.
    let read: Result<insula_core::TenantSettings, _> = serde_json::from_value(crate::store::plans::to_json(settings)?);
    read.map_err(|e| Error::invalid("settings", e.to_string()))?;
    self::features(features.len(), features.iter().map(|(name, by)| (name, by.value())))
}

fn features<'a>(count: usize, features: impl Iterator<Item = (&'a String, &'a FeatureValue)>) -> Result<(), Error> {
    if count > 200 {
        return Err(Error::invalid("features", "at most 200"));
    }
    for (name, value) in features {
        word("features", name, 60)?;
        if let FeatureValue::Word(value) = value {
            text("features", value, 0, 200)?;
        }
    }
    Ok(())
}

/// A feature is of one type wherever it is said: in another, an application would read it as the value that is safe when nobody has said anything.
/// What is known of types is what plans say. To change one, take the feature out of the plans first.
fn feature_types<'a>(known: &Features, features: impl IntoIterator<Item = (&'a String, &'a FeatureValue)>) -> Result<(), Error> {
    for (name, value) in features {
        let allowed = match known.get(name) {
            Some(known) if std::mem::discriminant(known) == std::mem::discriminant(value) => continue,
            None => continue,
            Some(FeatureValue::Switch(_)) => "a switch, true or false",
            Some(FeatureValue::Number(_)) => "a whole number",
            Some(FeatureValue::Word(_)) => "a word",
        };
        return Err(Error::invalid("features", format!("{name}: {allowed}, as in plans")));
    }
    Ok(())
}

/// Features of a plan that were not there `before`.
pub(crate) fn new_features(known: &Features, before: &Features, after: &Features) -> Result<(), Error> {
    feature_types(known, after.iter().filter(|(name, value)| before.get(*name) != Some(value)))
}

/// Overrides of a tenant that were not there `before`: of the type that plans give them, and with their end still to come.
pub(crate) fn new_overrides(known: &Features, before: &Overrides, after: &Overrides) -> Result<(), Error> {
    let new = || after.iter().filter(|(name, by)| before.get(*name) != Some(by));
    feature_types(known, new().map(|(name, by)| (name, by.value())))?;
    let now = chrono::Utc::now();
    match new().find(|(_, by)| by.until().is_some_and(|until| until <= now)) {
        Some((name, _)) => Err(Error::invalid("features", format!("{name}: until: a time in the future"))),
        None => Ok(()),
    }
}

/// Overrides stand on fields that limits have, with values that they take.
pub(crate) fn limit_overrides(limits: &Limits, overrides: &LimitOverrides) -> Result<Limits, Error> {
    let mut merged = crate::store::plans::to_json(limits)?;
    for (field, value) in overrides {
        match merged.get_mut(field) {
            Some(slot) => *slot = (*value).into(),
            None => return Err(Error::invalid("limits", format!("there is no limit {field:?}"))),
        }
    }
    let merged: Limits = serde_json::from_value(merged).map_err(|e| Error::invalid("limits", e.to_string()))?;
    self::limits(&merged)?;
    Ok(merged)
}

fn limits(limits: &Limits) -> Result<(), Error> {
    let all = crate::store::plans::to_json(limits)?;
    let zero = all.as_object().and_then(|all| all.iter().find(|(_, v)| v.as_u64() == Some(0)));
    if let Some((field, _)) = zero {
        return Err(Error::invalid("limits", format!("{field}: at least 1; zero is not \"no limit\"")));
    }
    if limits.route_classes.len() > MOST_CLASSES {
        return Err(Error::invalid("limits", format!("route_classes: {MOST_CLASSES} at most")));
    }
    for (name, class) in &limits.route_classes {
        let values = [class.requests_per_second, class.request_burst, class.max_concurrent_requests, Some(class.cost)];
        if values.contains(&Some(0)) {
            return Err(Error::invalid("limits", format!("route_classes.{name}: at least 1; zero is not \"no limit\"")));
        }
        if class.cost > limits.request_burst {
            return Err(Error::invalid("limits", format!("route_classes.{name}.cost: not more than request_burst")));
        }
    }
    Ok(())
}

/// As many as a process tells apart (`insula_http::admit`).
const MOST_CLASSES: usize = 7;

pub(crate) fn plan(plan: &PutPlan) -> Result<(), Error> {
    let Tier { name, weight, pool_guarantee, pool_cap } = &plan.tier;
    word("tier.name", name, 60)?;
    if *weight == 0 {
        return Err(Error::invalid("tier.weight", "at least 1"));
    }
    if *pool_cap == 0 || *pool_cap > 100 {
        return Err(Error::invalid("tier.pool_cap", "1 to 100 percent"));
    }
    if pool_guarantee > pool_cap {
        return Err(Error::invalid("tier.pool_guarantee", "not more than tier.pool_cap"));
    }
    limits(&plan.limits)?;
    features(plan.features.len(), plan.features.iter())
}

pub(crate) fn cell(cell: &RegisterCell) -> Result<(), Error> {
    word("region", &cell.region, 60)?;
    cell.labels.iter().try_for_each(|l| word("labels", l, 60))?;
    text("host", &cell.host, 1, 253)?;
    if !["disable", "prefer", "require", "verify-full"].contains(&cell.tls.as_str()) {
        return Err(Error::invalid("tls", "disable, prefer, require or verify-full"));
    }
    if cell.capacity < 1 {
        return Err(Error::invalid("capacity", "at least 1"));
    }
    match &cell.app_url {
        Some(url) => http_url("app_url", url),
        None => Ok(()),
    }
}

/// The application stacks of a cell.
pub(crate) fn apps(apps: &[AppVersion]) -> Result<(), Error> {
    if apps.len() > 16 {
        return Err(Error::invalid("apps", "at most 16"));
    }
    for app in apps {
        http_url("apps", &app.url)?;
        if app.min_schema < 0 || app.max_schema.is_some_and(|max| max < app.min_schema) {
            return Err(Error::invalid("apps", "schema versions from 0, and max_schema not below min_schema"));
        }
        if app.weight > 1000 {
            return Err(Error::invalid("apps", "a weight of at most 1000"));
        }
    }
    let mut urls: Vec<_> = apps.iter().map(|app| &app.url).collect();
    urls.sort();
    if urls.windows(2).any(|pair| pair.first() == pair.last()) {
        return Err(Error::invalid("apps", "each URL once"));
    }
    Ok(())
}

/// The standbys of a cell's server. The server itself is not one of them: reading there would be called what it is not.
pub(crate) fn replicas(cell: &Cell, replicas: &[Replica]) -> Result<(), Error> {
    if replicas.len() > 8 {
        return Err(Error::invalid("replicas", "at most 8"));
    }
    for replica in replicas {
        let host = replica.host.as_str();
        text("replicas", host, 1, 253)?;
        if !host.bytes().all(|b| b.is_ascii_alphanumeric() || b".:_-".contains(&b)) || replica.port == 0 {
            return Err(Error::invalid("replicas", "a host and a port"));
        }
        if cell.host.as_deref() == Some(host) && cell.port == Some(replica.port) {
            return Err(Error::invalid("replicas", "not the cell's own server"));
        }
    }
    Ok(())
}

/// The name of a configuration document.
pub(crate) fn document_name(name: &str) -> Result<(), Error> {
    let first = name.bytes().next().is_some_and(|b| b.is_ascii_lowercase());
    let rest = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if first && rest && name.len() <= 63 {
        return Ok(());
    }
    Err(Error::invalid("document", "a name of a-z, 0-9 and hyphens that begins with a letter, at most 63 characters"))
}

fn http_url(field: &'static str, text: &str) -> Result<(), Error> {
    let plain = url::Url::parse(text).is_ok_and(|u| matches!(u.scheme(), "http" | "https") && u.has_host());
    if plain && text.len() <= 2000 { Ok(()) } else { Err(Error::invalid(field, "a URL that begins with http:// or https://")) }
}

pub(crate) fn topics(topics: &[String]) -> Result<(), Error> {
    if topics.is_empty() || topics.len() > 50 {
        return Err(Error::invalid("topics", "1 to 50; `*` for all"));
    }
    topics.iter().try_for_each(|t| if t == "*" { Ok(()) } else { word("topics", t.strip_suffix(".*").unwrap_or(t), 100) })
}

/// A host name as requests carry it: lower case, an international one as punycode (UTS 46, as browsers do).
pub(crate) fn host(host: &str) -> Result<String, Error> {
    let wrong = || Error::invalid("host", "a host name like docs.example.com, without scheme or port");
    let text = host.trim_end_matches('.');
    let ascii = idna::domain_to_ascii_strict(text).map_err(|_| wrong())?;
    // What could be read as an IPv4 address somewhere ends in digits (WHATWG URL, "ends in a number").
    let last_is_number = ascii.rsplit('.').next().is_none_or(|label| label.bytes().all(|b| b.is_ascii_digit()));
    if ascii.len() > 253 || !ascii.contains('.') || last_is_number || insula_catalog::host::parse(&ascii).is_err() {
        return Err(wrong());
    }
    Ok(ascii)
}

/// A host name that can be a tenant's own.
pub(crate) fn domain(host: &str, base: &str) -> Result<String, Error> {
    let host = self::host(host)?;
    if host == base || host.strip_suffix(base).is_some_and(|rest| rest.ends_with('.')) {
        let detail = format!("{host} is under {base}, where tenants have their names by their slugs: it cannot be one's own");
        return Err(Error::invalid("host", detail));
    }
    Ok(host)
}

pub(crate) fn bundle(bundle: &Bundle) -> Result<(), Error> {
    let mut last = 0;
    for migration in &bundle.migrations {
        if migration.version <= last {
            return Err(Error::invalid("migrations", format!("version {} does not follow {last}", migration.version)));
        }
        last = migration.version;
        text("migrations.name", &migration.name, 1, 200)?;
        if migration.sql.trim().is_empty() || migration.sql.contains('\0') {
            return Err(Error::invalid("migrations.sql", format!("migration {last} has no SQL that can be run")));
        }
    }
    if bundle.seed.contains('\0') {
        return Err(Error::invalid("seed", "may not hold NUL"));
    }
    Ok(())
}

/// An address that gateways fetch keys from: HTTPS, or HTTP on this machine. They follow no redirects.
fn key_address(field: &'static str, address: &str) -> Result<(), Error> {
    text(field, address, 1, 500)?;
    let fault = || Error::invalid(field, "an https:// URL without user and fragment (or http:// on this machine)");
    let url = url::Url::parse(address).map_err(|_| fault())?;
    let here = match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
        Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
        None => return Err(fault()),
    };
    let plain = url.username().is_empty() && url.password().is_none() && url.fragment().is_none();
    if plain && (url.scheme() == "https" || url.scheme() == "http" && here) { Ok(()) } else { Err(fault()) }
}

pub(crate) fn provider(new: &CreateProvider) -> Result<(), Error> {
    key_address("issuer", &new.issuer)?;
    text("audience", &new.audience, 1, 500)?;
    new.jwks_url.as_deref().map_or(Ok(()), |url| key_address("jwks_url", url))?;
    let claims =
        [("subject_claim", &new.subject_claim), ("scopes_claim", &new.scopes_claim), ("tenant_claim", &new.tenant_claim)];
    for (field, claim) in claims {
        claim.as_deref().map_or(Ok(()), |claim| text(field, claim, 1, 200))?;
    }
    new.tenant_value.as_deref().map_or(Ok(()), |value| text("tenant_value", value, 1, 200))?;
    match (&new.tenant, &new.tenant_claim, &new.tenant_value) {
        (None, None, _) => Err(Error::invalid("tenant_claim", "needed without a tenant: the claim that names the tenants")),
        (None, _, Some(_)) => Err(Error::invalid("tenant_value", "only with a tenant")),
        (Some(_), Some(_), None) => Err(Error::invalid("tenant_value", "needed with tenant_claim: what the claim must hold")),
        (Some(_), None, Some(_)) => Err(Error::invalid("tenant_claim", "needed with tenant_value: the claim that must hold it")),
        _ => Ok(()),
    }
}

pub(crate) fn tenant_key(new: &CreateTenantKey) -> Result<(), Error> {
    text("name", &new.name, 1, 100)?;
    if new.scopes.len() > 64 {
        return Err(Error::invalid("scopes", "at most 64"));
    }
    for scope in &new.scopes {
        // RFC 6749, section 3.3.
        let legal = |b: u8| matches!(b, 0x21 | 0x23..=0x5b | 0x5d..=0x7e);
        if !(1..=100).contains(&scope.len()) || !scope.bytes().all(legal) {
            return Err(Error::invalid("scopes", "words of 1 to 100 visible ASCII characters, without quotes and backslashes"));
        }
    }
    match new.expires_at {
        Some(at) if at <= chrono::Utc::now() => Err(Error::invalid("expires_at", "a time in the future")),
        _ => Ok(()),
    }
}
