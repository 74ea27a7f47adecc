//! Which pipeline and which receiver are tried.

use anyhow::{Result, bail};
use tailwater_config::{ComponentKind as Kind, ConfigFile, Pipeline, Signal, nearest};

use crate::cli::TryArgs;

/// What is tried.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Choice {
    /// The pipeline.
    pub pipeline: String,
    /// Its receiver; `None` if it begins with connectors.
    pub receiver: Option<String>,
}

impl Choice {
    /// Why lines cannot be tried.
    pub fn no_lines(&self) -> String {
        let begin = match &self.receiver {
            Some(id) => format!("receiver {id:?} takes in records and no lines"),
            None => "it begins with a connector and takes in no lines".to_owned(),
        };
        format!(
            "pipeline {:?}: {begin}; give --entries FILE with records as JSON",
            self.pipeline
        )
    }
}

/// Finds what the command line means. `has_lines` says of a receiver whether it takes in lines.
///
/// # Errors
/// There is no such thing, or it has to be said which of several is meant.
pub fn choose(
    file: &ConfigFile,
    args: &TryArgs,
    has_lines: &dyn Fn(&str) -> bool,
) -> Result<Choice> {
    let pipeline = pipeline(file, args.pipeline.as_deref())?;
    let id = pipeline.id.to_string();
    if pipeline.id.signal != Signal::Logs {
        bail!(
            "pipeline {id:?} carries {}; log records are what can be tried",
            pipeline.id.signal.as_str()
        );
    }
    let mut receivers = Vec::new();
    for receiver in &pipeline.receivers {
        if file.component(Kind::Receiver, &receiver.id).is_some() {
            receivers.push(receiver.id.to_string());
        }
    }
    let choice = Choice {
        receiver: receiver(&id, &receivers, args, has_lines)?,
        pipeline: id,
    };
    let has_lines = choice.receiver.as_deref().is_some_and(has_lines);
    if args.entries.is_none() && !has_lines {
        bail!("{}", choice.no_lines());
    }
    Ok(choice)
}

/// The receiver of a pipeline: the one that is wanted, or the only one that takes in lines, or if none
/// does the first one, with which nothing is done to records.
fn receiver(
    pipeline: &str,
    all: &[String],
    args: &TryArgs,
    has_lines: &dyn Fn(&str) -> bool,
) -> Result<Option<String>> {
    if let Some(wanted) = &args.receiver {
        if !all.contains(wanted) {
            bail!(
                "pipeline {pipeline:?} has no receiver {wanted:?}{}{}",
                meant(wanted, all),
                list("it has", all)
            );
        }
        return Ok(Some(wanted.clone()));
    }
    let of_lines: Vec<String> = all.iter().filter(|id| has_lines(id)).cloned().collect();
    match &of_lines[..] {
        [] => Ok(all.first().cloned()),
        [one] => Ok(Some(one.clone())),
        several => bail!(
            "pipeline {pipeline:?} has several receivers of lines; say which with --receiver{}",
            list("they are", several)
        ),
    }
}

fn pipeline<'f>(file: &'f ConfigFile, wanted: Option<&str>) -> Result<&'f Pipeline> {
    let all = &file.service.pipelines;
    if let Some(wanted) = wanted {
        if let Some(found) = all.iter().find(|p| p.id.to_string() == wanted) {
            return Ok(found);
        }
        let ids: Vec<String> = all.iter().map(|p| p.id.to_string()).collect();
        bail!(
            "no pipeline {wanted:?}{}{}",
            meant(wanted, &ids),
            list("there are", &ids)
        );
    }
    let logs: Vec<&Pipeline> = all.iter().filter(|p| p.id.signal == Signal::Logs).collect();
    match logs[..] {
        [one] => Ok(one),
        [] => bail!("no pipeline carries logs, which is what can be tried"),
        _ => {
            let lists = logs.iter().map(|p| {
                let from: Vec<String> = p.receivers.iter().map(|r| r.id.to_string()).collect();
                format!("{} (from {})", p.id, from.join(", "))
            });
            let lists: Vec<String> = lists.collect();
            bail!(
                "several pipelines carry logs; say which with --pipeline{}",
                list("there are", &lists)
            )
        }
    }
}

fn meant(wanted: &str, of: &[String]) -> String {
    let found = nearest(wanted, of.iter().map(String::as_str));
    found.map_or_else(String::new, |m| format!(", did you mean {m:?}?"))
}

fn list(head: &str, ids: &[String]) -> String {
    let lines: String = ids.iter().map(|id| format!("\n  {id}")).collect();
    format!("; {head}{lines}")
}
