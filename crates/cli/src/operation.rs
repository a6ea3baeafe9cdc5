//! `insula operation`.

use insula_api::operation::{EventQuery, Operation, OperationEvent, OperationQuery, OperationState};
use insula_core::OperationId;

use crate::error::Error;
use crate::follow::follow_events;
use crate::screen::{Screen, Tone, or_hyphen, time};
use crate::target::Target;

/// Look at and follow lifecycle work
#[derive(clap::Args, Debug)]
pub(crate) struct OperationArgs {
    #[command(flatten)]
    target: Target,
    #[command(subcommand)]
    command: OperationCommand,
}

#[derive(clap::Subcommand, Debug)]
enum OperationCommand {
    /// List operations, newest first
    List {
        /// About this tenant (slug or id)
        #[arg(long)]
        tenant: Option<String>,
        /// In this state
        #[arg(long, value_parser = ["pending", "running", "undoing", "done", "failed"])]
        state: Option<String>,
        /// At most so many
        #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=500))]
        limit: u32,
    },
    /// Show one operation and what happened in it
    Show {
        /// Its id
        operation: OperationId,
    },
    /// Follow an operation to its end; fails when it does
    Watch {
        /// Its id
        operation: OperationId,
    },
}

pub(crate) async fn run(args: OperationArgs) -> Result<(), Error> {
    let (client, screen) = (args.target.client()?, Screen::new(args.target.json));
    match args.command {
        OperationCommand::List { tenant, state, limit } => {
            let state = state.and_then(|name| serde_json::from_value(name.into()).ok());
            let query = OperationQuery { state, tenant, limit: Some(limit), ..OperationQuery::default() };
            let page = client.operations(&query).await?;
            screen.show(&page, |screen| table(screen, &page.items))
        }
        OperationCommand::Show { operation } => {
            let news = client.operation_events(operation, &EventQuery::default()).await?;
            screen.show(&news, |screen| {
                let lines = news.events.iter().map(event).collect::<Vec<_>>().join("\n");
                format!("{}\n\n{lines}", facts(screen, &news.operation)).trim_end().to_owned()
            })
        }
        OperationCommand::Watch { operation } => {
            let say = |e: &OperationEvent| if screen.json() { screen.line(e) } else { screen.text(&event(e)) };
            follow_events(&client, screen, operation, say).await.map(drop)
        }
    }
}

fn tone(state: OperationState) -> Tone {
    match state {
        OperationState::Done => Tone::Good,
        OperationState::Failed | OperationState::Undoing => Tone::Bad,
        OperationState::Pending | OperationState::Running => Tone::Wait,
    }
}

fn table(screen: Screen, operations: &[Operation]) -> String {
    let rows = operations.iter().map(|o| {
        vec![
            (o.id.to_string(), Tone::Plain),
            (o.kind.clone(), Tone::Plain),
            (o.state.as_str().to_owned(), tone(o.state)),
            (format!("{}/{}", o.steps_done, o.steps_total), Tone::Plain),
            (or_hyphen(Some(o.step.clone())), Tone::Plain),
            (o.created_by.clone(), Tone::Plain),
            (time(o.created_at), Tone::Plain),
        ]
    });
    screen.table(&["OPERATION", "KIND", "STATE", "STEPS", "STEP", "BY", "CREATED"], rows.collect(), "No operations.")
}

fn facts(screen: Screen, o: &Operation) -> String {
    let plain = |name, value| (name, value, Tone::Plain);
    screen.facts(vec![
        plain("operation", o.id.to_string()),
        plain("kind", o.kind.clone()),
        plain("tenant", o.tenant.map(|t| t.to_string()).unwrap_or_default()),
        ("state", o.state.as_str().to_owned(), tone(o.state)),
        plain("steps", format!("{} of {}", o.steps_done, o.steps_total)),
        plain("step", o.step.clone()),
        ("error", o.error.as_ref().map(|e| e.detail.clone()).unwrap_or_default(), Tone::Bad),
        plain("by", o.created_by.clone()),
        plain("created", time(o.created_at)),
        plain("finished", o.finished_at.map(time).unwrap_or_default()),
    ])
}

fn event(event: &OperationEvent) -> String {
    let OperationEvent { at, step, what, detail, .. } = event;
    format!("{} {what:<8} {step} {detail}", at.format("%H:%M:%S%.3f")).trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_for_people() {
        let operation: Operation = serde_json::from_value(serde_json::json!({
            "id": "0190f8c0-0000-7000-8000-000000000002", "kind": "tenant.provision",
            "tenant": "0190f8c0-0000-7000-8000-000000000001", "state": "running", "step": "migrate", "steps_done": 3,
            "steps_total": 8, "attempts": 1, "output": null, "error": {"kind": "unavailable", "detail": "the server is away"},
            "created_by": "ops", "created_at": "2026-01-02T03:04:05Z", "updated_at": "2026-01-02T03:04:06Z", "finished_at": null
        }))
        .expect("an operation");
        insta::assert_snapshot!("operation_table", table(Screen::PIPE, std::slice::from_ref(&operation)));
        insta::assert_snapshot!("operation_facts", facts(Screen::PIPE, &operation));
    }
}
