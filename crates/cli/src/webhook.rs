//! `insula webhook`.

use insula_api::webhook::{CreateWebhook, Webhook, WebhookCreated};
use insula_core::Kind;
use uuid::Uuid;

use crate::error::Error;
use crate::screen::{Screen, Tone, time};
use crate::target::Target;

/// Tell addresses of events, in signed POSTs
#[derive(clap::Args, Debug)]
pub(crate) struct WebhookArgs {
    #[command(flatten)]
    target: Target,
    #[command(subcommand)]
    command: WebhookCommand,
}

#[derive(clap::Subcommand, Debug)]
enum WebhookCommand {
    /// Tell an address of events from now on; the secret that signs them is printed this once
    Create {
        /// https://hooks.example/insula
        address: String,
        /// Of which: tenant.provisioned, tenant.* or * (repeatable)
        #[arg(long = "topic", value_name = "TOPIC", default_value = "*")]
        topics: Vec<String>,
    },
    /// List the addresses that are told
    List,
    /// Tell an address no more
    Remove {
        /// Its id, or its address when only one has it
        webhook: String,
    },
}

pub(crate) async fn run(args: WebhookArgs) -> Result<(), Error> {
    let (client, screen) = (args.target.client()?, Screen::new(args.target.json));
    match args.command {
        WebhookCommand::Create { address, topics } => {
            let created = client.create_webhook(&CreateWebhook { url: address, topics }).await?;
            screen.show(&created, |screen| facts(screen, &created))
        }
        WebhookCommand::List => {
            let found = client.webhooks().await?;
            screen.show(&found, |screen| table(screen, &found.items))
        }
        WebhookCommand::Remove { webhook } => {
            let id = match webhook.parse() {
                Ok(id) => id,
                Err(_) => by_url(&client.webhooks().await?.items, &webhook)?,
            };
            client.delete_webhook(id).await?;
            screen.show(&serde_json::json!({"removed": id}), |_| format!("removed {webhook}"))
        }
    }
}

fn by_url(webhooks: &[Webhook], url: &str) -> Result<Uuid, Error> {
    let mut found = webhooks.iter().filter(|webhook| webhook.url == url);
    let help = "`insula webhook list` has their ids";
    match (found.next(), found.next()) {
        (Some(webhook), None) => Ok(webhook.id),
        (None, _) => Err(Error::new(Kind::NotFound, format!("there is no webhook {url:?}"), help)),
        (Some(_), Some(_)) => Err(Error::new(Kind::Conflict, format!("several webhooks lead to {url:?}"), help)),
    }
}

fn facts(screen: Screen, created: &WebhookCreated) -> String {
    let secret = created.secret.clone().unwrap_or_else(|| "(told once already; it cannot be told again)".to_owned());
    screen.facts(vec![
        ("url", created.webhook.url.clone(), Tone::Plain),
        ("id", created.webhook.id.to_string(), Tone::Plain),
        ("topics", created.webhook.topics.join(" "), Tone::Plain),
        ("secret", secret, Tone::Plain),
    ])
}

fn table(screen: Screen, webhooks: &[Webhook]) -> String {
    let rows = webhooks.iter().map(|webhook| {
        let state = match webhook.disabled_at {
            None => ("told".to_owned(), Tone::Good),
            Some(at) => (format!("off since {}", time(at)), Tone::Bad),
        };
        let Webhook { id, url, topics, .. } = webhook;
        vec![(url.clone(), Tone::Plain), (topics.join(" "), Tone::Plain), state, (id.to_string(), Tone::Plain)]
    });
    screen.table(&["URL", "TOPICS", "STATE", "ID"], rows.collect(), "No webhooks.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn webhooks_are_listed_and_found_by_address() {
        let webhook = |id: u8, url: &str, disabled: Option<&str>| -> Webhook {
            serde_json::from_value(serde_json::json!({
                "id": format!("0190f8c0-0000-7000-8000-00000000000{id}"), "url": url, "topics": ["tenant.*", "cell.ready"],
                "created_at": "2026-01-02T03:04:05Z", "disabled_at": disabled
            }))
            .expect("a webhook")
        };
        let (here, there) = ("https://hooks.example/insula", "https://other.example/");
        let webhooks = [webhook(1, here, None), webhook(2, there, Some("2026-01-03T03:04:05Z")), webhook(3, there, None)];
        insta::assert_snapshot!("webhook_table", table(Screen::PIPE, &webhooks));
        let created = WebhookCreated { webhook: webhooks[0].clone(), secret: Some("5ec4e7".into()), secret_withheld: false };
        insta::assert_snapshot!("webhook_facts", facts(Screen::PIPE, &created));
        assert_eq!(by_url(&webhooks, here).expect("one"), webhooks[0].id);
        assert_eq!(by_url(&webhooks, there).expect_err("two").kind(), Kind::Conflict);
        assert_eq!(by_url(&[], here).expect_err("none").kind(), Kind::NotFound);
    }
}
