//! `tailwater-control`: the control plane of a fleet of agents.

mod cli;
mod print;
mod serve;

use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::Parser;
use hyper::Method;
use serde_json::Value;
use tailwater_control::access;
use tailwater_control::authority;
use tailwater_control::client::Client;
use tailwater_control::sign::SigningKey;

use cli::{CaCommand, CertificateArgs, Cli, Command, ToArgs, WishArgs};

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

fn certificate(args: &CertificateArgs, name: &str, said: &str) -> Result<()> {
    let path = format!("/api/v1/certificates/{}/{name}", encoded(&args.uid));
    tell(&args.to, &path, None, |_| format!("{}: {said}", args.uid))
}

/// A part of a path.
fn encoded(text: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

fn client(to: &ToArgs) -> Result<Client> {
    let token = match &to.token_file {
        Some(path) => {
            let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
            Some(text.trim().to_owned())
        }
        None => std::env::var("TAILWATER_CONTROL_TOKEN").ok(),
    };
    Ok(Client {
        server: to.server.clone(),
        token,
        ca: to.ca_file.clone(),
    })
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
