//! `insula identity`: whose tokens are believed at the edge.

use insula_api::identity::{CreateProvider, Provider, ProviderQuery};
use insula_core::ProviderId;

use crate::error::Error;
use crate::screen::{Screen, Tone, or_hyphen};
use crate::target::Target;

/// Add, list and remove identity providers (OpenID Connect)
#[derive(clap::Args, Debug)]
pub(crate) struct IdentityArgs {
    #[command(flatten)]
    target: Target,
    #[command(subcommand)]
    command: IdentityCommand,
}

#[derive(clap::Subcommand, Debug)]
enum IdentityCommand {
    /// Believe an issuer's tokens: for one tenant, or for those that the tokens name
    Add(AddArgs),
    /// List identity providers
    List {
        /// Of this tenant only: slug or id
        #[arg(long)]
        tenant: Option<String>,
    },
    /// Believe an issuer's tokens no more
    Remove {
        /// Its id
        id: ProviderId,
    },
}

#[derive(clap::Args, Debug)]
struct AddArgs {
    /// `iss` of its tokens, letter by letter: an https URL
    issuer: String,
    /// What `aud` of its tokens must hold
    #[arg(long)]
    audience: String,
    /// The tenant that it speaks for, slug or id; without, its tokens name the tenants (--tenant-claim)
    #[arg(long)]
    tenant: Option<String>,
    /// Where its keys are; without, its discovery document says
    #[arg(long, value_name = "URL")]
    jwks_url: Option<String>,
    /// The claim that names the user [default: sub]
    #[arg(long, value_name = "CLAIM")]
    subject_claim: Option<String>,
    /// The claim that names what the user may do [default: scope]
    #[arg(long, value_name = "CLAIM")]
    scopes_claim: Option<String>,
    /// The claim that must hold --tenant-value; without a tenant, the one that names the tenants
    #[arg(long, value_name = "CLAIM")]
    tenant_claim: Option<String>,
    /// What --tenant-claim must hold
    #[arg(long, value_name = "VALUE")]
    tenant_value: Option<String>,
}

pub(crate) async fn run(args: IdentityArgs) -> Result<(), Error> {
    let (client, screen) = (args.target.client()?, Screen::new(args.target.json));
    match args.command {
        IdentityCommand::Add(add) => {
            let made = client.create_provider(&add.into()).await?;
            screen.show(&made, |screen| facts(screen, &made))
        }
        IdentityCommand::List { tenant } => {
            let query = ProviderQuery { tenant, limit: Some(500), cursor: None };
            let found = client.providers(&query).await?;
            screen.show(&found, |screen| table(screen, &found.items))
        }
        IdentityCommand::Remove { id } => {
            client.delete_provider(id).await?;
            screen.show(&serde_json::json!({"removed": id}), |_| format!("removed {id}"))
        }
    }
}

impl From<AddArgs> for CreateProvider {
    fn from(args: AddArgs) -> Self {
        Self {
            tenant: args.tenant,
            issuer: args.issuer,
            audience: args.audience,
            jwks_url: args.jwks_url,
            subject_claim: args.subject_claim,
            scopes_claim: args.scopes_claim,
            tenant_claim: args.tenant_claim,
            tenant_value: args.tenant_value,
        }
    }
}

fn speaks_for(provider: &Provider) -> String {
    match (&provider.tenant, &provider.tenant_claim, &provider.tenant_value) {
        (Some(tenant), Some(claim), Some(value)) => format!("{tenant} where {claim} is {value}"),
        (Some(tenant), ..) => tenant.to_string(),
        (None, claim, _) => format!("tenants named in {}", or_hyphen(claim.clone())),
    }
}

fn facts(screen: Screen, provider: &Provider) -> String {
    screen.facts(vec![
        ("id", provider.id.to_string(), Tone::Plain),
        ("issuer", provider.issuer.clone(), Tone::Plain),
        ("audience", provider.audience.clone(), Tone::Plain),
        ("speaks for", speaks_for(provider), Tone::Plain),
        ("keys", provider.jwks_url.clone().unwrap_or_else(|| "by discovery".to_owned()), Tone::Plain),
    ])
}

fn table(screen: Screen, providers: &[Provider]) -> String {
    let rows = providers.iter().map(|provider| {
        vec![
            (provider.issuer.clone(), Tone::Plain),
            (provider.audience.clone(), Tone::Plain),
            (speaks_for(provider), Tone::Plain),
            (provider.id.to_string(), Tone::Plain),
        ]
    });
    screen.table(&["ISSUER", "AUDIENCE", "SPEAKS FOR", "ID"], rows.collect(), "No identity providers.")
}
