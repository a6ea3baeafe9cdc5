//! `insula domain`.

use insula_api::domain::{AddDomain, Domain};

use crate::error::Error;
use crate::screen::{Screen, Tone, time};
use crate::target::Target;

/// Give tenants host names of their own, proven by a TXT record
#[derive(clap::Args, Debug)]
pub(crate) struct DomainArgs {
    #[command(flatten)]
    target: Target,
    #[command(subcommand)]
    command: DomainCommand,
}

#[derive(clap::Subcommand, Debug)]
enum DomainCommand {
    /// Claim a host name; prints the record that proves it
    Add {
        /// Slug or id
        tenant: String,
        /// docs.example.com
        host: String,
    },
    /// List a tenant's host names
    List {
        /// Slug or id
        tenant: String,
    },
    /// Look for the record; when it is there, the host name leads to the tenant
    Verify {
        /// Slug or id
        tenant: String,
        /// docs.example.com
        host: String,
    },
    /// Take a host name away
    Remove {
        /// Slug or id
        tenant: String,
        /// docs.example.com
        host: String,
    },
}

pub(crate) async fn run(args: DomainArgs) -> Result<(), Error> {
    let (client, screen) = (args.target.client()?, Screen::new(args.target.json));
    match args.command {
        DomainCommand::Add { tenant, host } => {
            let added = client.add_domain(&tenant, &AddDomain { host }).await?;
            screen.show(&added, |_| claim(&tenant, &added))
        }
        DomainCommand::List { tenant } => {
            let found = client.domains(&tenant).await?;
            screen.show(&found, |screen| table(screen, &found.items))
        }
        DomainCommand::Verify { tenant, host } => {
            let proven = client.verify_domain(&tenant, &host).await?;
            screen.show(&proven, |_| format!("{} is proven, and leads to {tenant}", proven.host))
        }
        DomainCommand::Remove { tenant, host } => {
            client.remove_domain(&tenant, &host).await?;
            screen.show(&serde_json::json!({"removed": host}), |_| format!("took {host} from {tenant}"))
        }
    }
}

fn claim(tenant: &str, domain: &Domain) -> String {
    let Domain { host, proof, .. } = domain;
    format!(
        "{tenant} claims {host}. Publish this record, then run `insula domain verify {tenant} {host}`:\n\n  {}. IN TXT \"{}\"",
        proof.name, proof.value
    )
}

fn table(screen: Screen, domains: &[Domain]) -> String {
    let rows = domains.iter().map(|domain| {
        let (state, tone) = match domain.verified_at {
            Some(at) => (time(at), Tone::Good),
            None => ("not yet".to_owned(), Tone::Wait),
        };
        let proof = format!("{} TXT {}", domain.proof.name, domain.proof.value);
        vec![(domain.host.clone(), Tone::Plain), (state, tone), (proof, Tone::Plain)]
    });
    screen.table(&["HOST", "PROVEN", "RECORD"], rows.collect(), "No host names. `insula domain add TENANT HOST` claims one.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_to_publish_is_told() {
        let domain: Domain = serde_json::from_value(serde_json::json!({
            "host": "docs.acme.example", "verified_at": null, "created_at": "2026-01-02T03:04:05Z",
            "proof": {"name": "_insula-challenge.docs.acme.example", "value": "insula-verification=abc"}
        }))
        .expect("a domain");
        insta::assert_snapshot!("domain_claim", claim("acme", &domain));
        let proven = Domain { verified_at: Some(domain.created_at), ..domain.clone() };
        insta::assert_snapshot!("domain_table", table(Screen::PIPE, &[domain, proven]));
    }
}
