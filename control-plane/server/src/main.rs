//! `tailwater-control`: the control plane of a fleet of agents.

mod cli;
mod print;
mod serve;

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use clap::Parser;
use hyper::Method;
use serde_json::Value;
use tailwater_control::access;
use tailwater_control::authority;
use tailwater_control::client::Client;
use tailwater_control::grafana::{Change, Done, Grafana, Wanted};
use tailwater_control::http::Target;
use tailwater_control::sign::SigningKey;

use cli::{CaCommand, CertificateArgs, Cli, Command, GrafanaArgs, SourcesArgs, ToArgs, WishArgs};

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tailwater-control: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    let wish = |args: &WishArgs, name: &str| {
        let path = format!("/api/v1/rollouts/{}/{name}", encoded(&args.group));
        tell(&args.to, &path, None, |_| {
            format!("{name} is submitted to group {}", args.group)
        })
    };
    match command {
        Command::Serve(args) => serve::serve(&args),
        Command::Agents {
            uid: Some(uid), to, ..
        } => show(
            &to,
            &format!("/api/v1/agents/{}", encoded(&uid)),
            print::agent,
        ),
        Command::Agents {
            uid: None,
            group,
            to,
        } => {
            let query = group.map(|g| format!("?group={}", encoded(&g)));
            let path = format!("/api/v1/agents{}", query.unwrap_or_default());
            show(&to, &path, print::agents)
        }
        Command::Sources(args) => sources(&args),
        Command::Rollouts {
            group: Some(group),
            to,
        } => show(
            &to,
            &format!("/api/v1/rollouts/{}?limit=30", encoded(&group)),
            print::rollout,
        ),
        Command::Rollouts { group: None, to } => show(&to, "/api/v1/rollouts", print::rollouts),
        Command::Apply { file, group, to } => {
            let body =
                std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
            let path = format!("/api/v1/rollouts/{}", encoded(&group));
            tell(&to, &path, Some(body), |answer| {
                let digest = answer["digest"].as_str().unwrap_or_default();
                format!("{digest} is rolled out to group {group}")
            })
        }
        Command::Approve(args) => wish(&args, "approve"),
        Command::Deny(args) => wish(&args, "deny"),
        Command::Pause(args) => wish(&args, "pause"),
        Command::Resume(args) => wish(&args, "resume"),
        Command::Rollback(args) => wish(&args, "rollback"),
        Command::Abort(args) => wish(&args, "abort"),
        Command::Unfreeze(args) => wish(&args, "unfreeze"),
        Command::Grafana(args) => grafana(&args),
        Command::Audit { to } => show(&to, "/api/v1/audit", print::audit),
        Command::Ca {
            command: CaCommand::Init { state },
        } => {
            print!("{}", authority::init(&state).map_err(anyhow::Error::msg)?);
            Ok(())
        }
        Command::Ca {
            command:
                CaCommand::Server {
                    state,
                    host,
                    days,
                    cert,
                    key,
                },
        } => authority::issue_server(&state, &host, days, &cert, &key).map_err(anyhow::Error::msg),
        Command::Certificates { to } => show(&to, "/api/v1/certificates", print::certificates),
        Command::Revoke(args) => {
            certificate(&args, "revoke", "its certificates do not count any more")
        }
        Command::Admit(args) => certificate(&args, "admit", "it gets its certificate"),
        Command::Key { file } => {
            let key = match file.exists() {
                true => SigningKey::of_file(&file),
                false => SigningKey::make(&file),
            };
            println!("{}", key.map_err(anyhow::Error::msg)?.public());
            Ok(())
        }
        Command::Version { raise: None, to } => show(&to, "/api/v1/version", |answer| {
            format!("{}\n", answer["version"])
        }),
        Command::Version {
            raise: Some(version),
            to,
        } => tell(
            &to,
            "/api/v1/version",
            Some(version.to_string()),
            |answer| format!("the next offer has a version above {}", answer["version"]),
        ),
        Command::Token { role, name } => {
            let line = format!("{role} {name} {}", access::new_token()?);
            access::Access::check_line(&line).map_err(anyhow::Error::msg)?;
            println!("{line}");
            Ok(())
        }
    }
}

fn sources(args: &SourcesArgs) -> Result<()> {
    let limit = args.limit.to_string();
    let asked = [
        ("agent", &args.agent),
        ("kind", &args.kind),
        ("state", &args.state),
        ("contains", &args.contains),
        ("id", &args.history),
        ("limit", &Some(limit)),
    ];
    let mut query = form_urlencoded::Serializer::new(String::new());
    for (key, value) in asked {
        if let Some(value) = value {
            query.append_pair(key, value);
        }
    }
    let query = query.finish();
    match args.history {
        Some(_) => show(
            &args.to,
            &format!("/api/v1/sources/history?{query}"),
            print::history,
        ),
        None => show(
            &args.to,
            &format!("/api/v1/sources?{query}"),
            print::sources,
        ),
    }
}

fn certificate(args: &CertificateArgs, name: &str, said: &str) -> Result<()> {
    let path = format!("/api/v1/certificates/{}/{name}", encoded(&args.uid));
    tell(&args.to, &path, None, |_| format!("{}: {said}", args.uid))
}

/// A part of a path.
fn encoded(text: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

/// The token in a file, or in a variable.
fn token(file: Option<&Path>, variable: &str) -> Result<Option<String>> {
    match file {
        Some(path) => {
            let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
            Ok(Some(text.trim().to_owned()))
        }
        None => Ok(std::env::var(variable).ok()),
    }
}

/// Brings a Grafana in line, and says what was done, a line each.
fn grafana(args: &GrafanaArgs) -> Result<()> {
    let token = token(args.token_file.as_deref(), "TAILWATER_GRAFANA_TOKEN")?;
    let server = Target::of_api(&args.url, token.as_deref()).map_err(|e| anyhow!("--url: {e}"))?;
    let server = server
        .trusting(args.ca_file.clone())
        .within(Duration::from_millis(args.timeout));
    let wanted = Wanted {
        folder: args.folder.clone(),
        loki: args.loki.clone(),
        prometheus: args.prometheus.clone(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let all = runtime.block_on(Grafana::new(server, args.dry_run).apply(&wanted));
    let mut failed = 0;
    for Done {
        kind,
        uid,
        name,
        outcome,
    } in &all
    {
        let said = match (outcome, args.dry_run) {
            (Ok(Change::Unchanged), _) => "is as it should be".to_owned(),
            (Ok(Change::Create), true) => "would be created".to_owned(),
            (Ok(Change::Create), false) => "is created".to_owned(),
            (Ok(Change::Update(what)), true) => format!("would be updated: {}", what.join(", ")),
            (Ok(Change::Update(what)), false) => format!("is updated: {}", what.join(", ")),
            (Err(text), _) => {
                failed += 1;
                eprintln!("tailwater-control: {kind} {uid} ({name}): {text}");
                continue;
            }
        };
        println!("{kind} {uid} ({name}) {said}");
    }
    match failed {
        0 => Ok(()),
        1 => bail!("one of these is not as it should be"),
        n => bail!("{n} of these are not as they should be"),
    }
}

fn client(to: &ToArgs) -> Result<Client> {
    let token = token(to.token_file.as_deref(), "TAILWATER_CONTROL_TOKEN")?;
    let target = Target::of_api(&to.server, token.as_deref());
    let target = target.map_err(|e| anyhow!("--server: {e}"))?;
    Ok(Client::new(target.trusting(to.ca_file.clone())))
}

fn ask(to: &ToArgs, method: Method, path: &str, body: Option<String>) -> Result<Value> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let answer = runtime.block_on(client(to)?.ask(method, path, body))?;
    match answer.is_object() {
        true => Ok(answer),
        false => bail!(
            "{} gave an answer that is none of a control plane",
            to.server
        ),
    }
}

fn show(to: &ToArgs, path: &str, print: impl Fn(&Value) -> String) -> Result<()> {
    let answer = ask(to, Method::GET, path, None)?;
    match to.json {
        true => println!("{answer:#}"),
        false => print!("{}", print(&answer)),
    }
    Ok(())
}

fn tell(
    to: &ToArgs,
    path: &str,
    body: Option<String>,
    said: impl Fn(&Value) -> String,
) -> Result<()> {
    let answer = ask(to, Method::POST, path, body)?;
    match to.json {
        true => println!("{answer:#}"),
        false => println!("{}", said(&answer)),
    }
    Ok(())
}
