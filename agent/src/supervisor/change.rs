//! From one generation to the next.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tailwater_config::{AdminOptions, Node, redact, to_yaml};
use tailwater_pipeline::Stored;
use tailwater_pipeline::graph::Graph;
use tailwater_pipeline::lanes::Lane;
use tailwater_pipeline::plan::{Change, NodeKey, Plan};
use tailwater_telemetry::settings::PullReader;

use super::kept::GENERATIONS_KEPT;
use super::start::{Sockets, budget_bytes};
use super::{Agent, Generation, LAST_GOOD_ALARM, Service};
use crate::admin;
use crate::admin::files::Reader;
use crate::admin::handlers::Api;
use crate::admin::server::AdminServer;
use crate::admin::shown::{InForce, Record};
use crate::commands::check::{Checked, check_offer, mistakes};
use crate::commands::inspect::secret_paths;
use crate::control::{Answer, Outcome, Request, Turn, Wanted, in_turn};
use crate::offer::{Offer, Reading};
use crate::sandbox::Ring;
use crate::serve::{HttpServer, Page, serve};
use crate::storages::{self, AgentStorages};

/// The file below the state directory with the newest configuration that came into force.
const LAST_GOOD: &str = "last-good.json";

/// Where the newest configuration that came into force is kept.
pub fn last_good() -> Option<PathBuf> {
    Some(state_directory()?.join(LAST_GOOD))
}

/// The state directory.
pub(super) fn state_directory() -> Option<PathBuf> {
    Some(storages::own_directory().ok()?.parent()?.to_owned())
}

/// The whole configuration without its secrets.
pub(super) fn redacted(checked: &Checked) -> Node {
    redact(&checked.loaded.root, &secret_paths())
}

/// The receivers whose positions would stay behind, as their storage has another directory in `wanted`, a line each.
fn moved_positions(running: &Service, wanted: &Service) -> Vec<String> {
    let moved = running.positions.iter().filter(|(key, directory)| {
        let next = wanted.positions.get(*key);
        next.is_some_and(|next| next != *directory)
    });
    let line = |((receiver, storage), directory): (&(String, String), &PathBuf)| {
        format!(
            "receiver {receiver:?}: storage: the directory of {storage:?} cannot change while the agent runs, since \
             the positions in {} would stay behind; restart the agent",
            directory.display()
        )
    };
    moved.map(line).collect()
}

impl Agent {
    /// Keeps what came into force, here and on disk.
    pub(super) fn remember(&mut self, offer: Offer, record: Record, shown: Node) {
        self.keep_last_good(&offer);
        self.generations.push(Generation { offer, record });
        self.keep_newest();
        let old = self.generations.len().saturating_sub(GENERATIONS_KEPT);
        self.generations.drain(..old);
        self.show(shown);
    }

    /// Keeps the newest generation on disk, to go back to it after a restart.
    pub(super) fn keep_newest(&self) {
        let (Some(kept), Some(newest)) = (&self.kept, self.generations.last()) else {
            return;
        };
        if let Err(error) = kept.save(newest) {
            tracing::warn!(
                %error, generation = newest.record.number,
                "a generation could not be kept; it cannot be gone back to after a restart"
            );
        }
    }

    pub(super) fn keep_last_good(&self, offer: &Offer) {
        let saved = last_good().map(|path| (offer.save(&path), path));
        if let Some((Err(error), path)) = saved {
            tracing::warn!(
                %error, path = %path.display(),
                "the configuration in force could not be kept for a start with a bad one"
            );
        }
    }

    /// Shows `config` as what is in force.
    pub(super) fn show(&self, config: Node) {
        self.shown.in_force(InForce {
            generation: self.graph.generation(),
            config,
            graph: self.graph.spec().clone(),
            layer: self.layer.clone(),
            resource: self.service.telemetry.resource.clone(),
            generations: self.generations.iter().map(|g| g.record.clone()).collect(),
            readers: self.readers(),
        });
        self.show_not_started();
    }

    /// Who is asked for the files that are read.
    fn readers(&self) -> Vec<Reader> {
        let lanes = self.graph.files();
        let reader = |(id, lane, files): (&str, &Lane, _)| Reader {
            receiver: id.to_owned(),
            exporter: (!lane.alone).then(|| lane.exporter.to_string()),
            files,
        };
        lanes.map(reader).collect()
    }

    /// What there is to say of the generation in force.
    pub(super) fn record(&self, by: &'static str, changes: Vec<String>, shown: &Node) -> Record {
        Record {
            number: self.graph.generation(),
            unix_ns: self.clock.wall_ns(),
            by: by.into(),
            changes,
            config: to_yaml(shown).into(),
        }
    }

    /// Takes what was asked for.
    pub fn take_requests(&mut self, inbox: &Receiver<Request>, offered: &Offer) {
        let requests = inbox.try_iter().collect();
        let mut begin = Instant::now();
        in_turn(requests, |request, turn| {
            let outcome = match turn {
                Turn::Comes => self.answer(request, offered),
                Turn::IsOver => Outcome::Superseded,
            };
            self.log_outcome(request, &outcome, begin.elapsed());
            begin = Instant::now();
            Answer {
                generation: self.graph.generation(),
                outcome,
            }
        });
    }

    fn log_outcome(&self, request: &Request, outcome: &Outcome, took: Duration) {
        let (by, generation) = (request.by, self.graph.generation());
        match outcome {
            Outcome::Applied(changes) => tracing::info!(
                by,
                generation,
                took_ms = took.as_secs_f64() * 1e3,
                pause_ms = self.graph.pause().as_secs_f64() * 1e3,
                ?changes,
                "configuration changed"
            ),
            Outcome::Refused(reasons) if !request.dry_run => {
                for reason in reasons {
                    tracing::error!(by, "configuration refused: {reason}");
                }
                let mistakes = reasons.len();
                tracing::error!(by, generation, mistakes, "what runs goes on as it was");
            }
            Outcome::NotKept(text) => tracing::warn!(by, "{text}"),
            Outcome::Unchanged if !request.dry_run => {
                tracing::info!(by, "configuration unchanged");
            }
            Outcome::Superseded => {
                tracing::info!(
                    by,
                    generation,
                    "a newer request was done in place of this one"
                );
            }
            Outcome::Conflict if !request.dry_run => {
                tracing::info!(by, generation, "not the generation that was asked for");
            }
            _ => {}
        }
    }

    fn answer(&mut self, request: &Request, offered: &Offer) -> Outcome {
        let running = self.graph.generation();
        if request
            .if_generation
            .is_some_and(|wanted| wanted != running)
        {
            return Outcome::Conflict;
        }
        let offer = match &request.wanted {
            Wanted::Reread => offered.with_layer(self.layer.clone()),
            Wanted::Layer(layer) => offered.with_layer(layer.clone()),
            Wanted::Text(yaml) => offered.text(yaml),
            Wanted::Sources(sources) => offered.of(sources.clone()),
            Wanted::Generation(number) => {
                let mut known = self.generations.iter();
                match known.find(|g| g.record.number == *number) {
                    Some(generation) => generation.offer.clone(),
                    None => {
                        let known = self.generations.iter().map(|g| g.record.number.to_string());
                        let known = known.collect::<Vec<_>>().join(", ");
                        let text = format!("generation {number} is not kept; there is: {known}");
                        return Outcome::NotKept(text);
                    }
                }
            }
        };
        let reading = Reading::of(&offer);
        let checked = check_offer(&offer, &reading);
        if request.wanted == Wanted::Reread {
            *self.watched.lock().unwrap_or_else(|e| e.into_inner()) = reading.seen();
        }
        let checked = match checked {
            Ok(checked) => checked,
            Err(errors) => return Outcome::Refused(mistakes(&errors)),
        };
        match self.plan(&checked) {
            Err(reasons) => Outcome::Refused(reasons),
            Ok(changes) if changes.is_empty() => {
                if !request.dry_run {
                    self.settle_layer(&checked);
                }
                Outcome::Unchanged
            }
            Ok(changes) if request.dry_run => Outcome::Planned(changes),
            Ok(changes) => match self.change(checked, request.by, &changes) {
                Ok(()) => Outcome::Applied(changes),
                Err(reason) => Outcome::Refused(vec![format!("{reason:#}")]),
            },
        }
    }

    /// What is laid over the local configuration is another one, though nothing changes by it.
    fn settle_layer(&mut self, checked: &Checked) {
        if self.layer == checked.offer.layer {
            return;
        }
        self.layer = checked.offer.layer.clone();
        self.keep_last_good(&checked.offer);
        if let Some(newest) = self.generations.last_mut() {
            newest.offer = checked.offer.clone();
        }
        self.keep_newest();
        self.show(redacted(checked));
    }

    /// What would change, a line each; or everything that cannot while the agent runs.
    fn plan(&self, checked: &Checked) -> Result<Vec<String>, Vec<String>> {
        let (running, wanted) = (&self.service, Service::of(checked));
        let mut refused = Vec::new();
        let mut restart = |differs: bool, what: &str| {
            if differs {
                refused.push(format!(
                    "service::{what} cannot change while the agent runs; restart it to apply it"
                ));
            }
        };
        restart(running.workers != wanted.workers, "workers");
        restart(running.sandboxed != wanted.sandboxed, "sandbox::enabled");
        let plan = self.graph.plan(&checked.resolved);
        let plan = plan.unwrap_or_else(|errors| {
            refused.extend(errors.iter().map(ToString::to_string));
            Default::default()
        });
        refused.extend(moved_positions(running, &wanted));
        if !refused.is_empty() {
            return Err(refused);
        }
        let changed = plan.steps.iter().filter(|(_, c)| *c != Change::Keep);
        let mut changes: Vec<String> = changed.map(|(key, c)| format!("{c} {key}")).collect();
        changes.extend(self.left_behind(&plan, &wanted));
        let mut update = |differs: bool, what: &str| {
            if differs {
                changes.push(format!("update service::{what}"));
            }
        };
        update(
            running.telemetry.logs != wanted.telemetry.logs,
            "telemetry::logs",
        );
        let readers = (&running.telemetry.readers, &wanted.telemetry.readers);
        update(readers.0 != readers.1, "telemetry::metrics");
        update(running.admin != wanted.admin, "admin");
        let resources = (&running.telemetry.resource, &wanted.telemetry.resource);
        update(resources.0 != resources.1, "telemetry::resource");
        update(
            running.shutdown_timeout != wanted.shutdown_timeout,
            "shutdown_timeout",
        );
        update(
            running.memory_limit_mib != wanted.memory_limit_mib,
            "memory_limit_mib",
        );
        Ok(changes)
    }

    /// What stays on disk of exporters that `plan` removes, or that have another storage or none in
    /// `wanted`, a line each.
    fn left_behind(&self, plan: &Plan, wanted: &Service) -> Vec<String> {
        let line = |(key, change): &(NodeKey, Change)| {
            let NodeKey::Exporter { id, signal } = key else {
                return None;
            };
            let remedy = match change {
                Change::Remove => "configure it again under this id and with this storage",
                _ if self.service.queues.get(id) != wanted.queues.get(id) => {
                    "it goes on without them; configure it with this storage again"
                }
                _ => return None,
            };
            let Stored { requests, bytes } = self.graph.stored(id, signal);
            (requests > 0).then(|| {
                format!(
                    "keep {requests} requests ({bytes} bytes) in the queue on disk of {key}; {remedy} to \
                     have them delivered"
                )
            })
        };
        plan.steps.iter().filter_map(line).collect()
    }

    /// Puts a configuration into force.
    ///
    /// # Errors
    /// What kept it from that; what runs goes on as it was.
    fn change(&mut self, checked: Checked, by: &'static str, changes: &[String]) -> Result<()> {
        let wanted = Service::of(&checked);
        let readers = &wanted.telemetry.readers;
        let servers = match *readers == self.service.telemetry.readers {
            true => None,
            false => Some(self.serve_metrics(readers)?),
        };
        let admin = match wanted.admin == self.service.admin {
            true => None,
            false => Some(self.serve_admin(wanted.admin.as_ref())?),
        };
        let shown = redacted(&checked);
        let named = AgentStorages::named(&checked.loaded.file);
        let storages_before = self.storages.set(named);
        let result = self.change_graph(checked);
        let offer = match result {
            Ok(offer) => offer,
            Err(e) => {
                self.storages.set(storages_before);
                return Err(e);
            }
        };
        if wanted.telemetry.logs != self.service.telemetry.logs {
            let logs = wanted.telemetry.logs.clone();
            if let Err(error) = self.log.reconfigure(logs) {
                tracing::error!(%error, "the log goes on as it was");
            }
        }
        if let Some(servers) = servers {
            self.servers = servers;
        }
        if let Some(admin) = admin {
            self.admin = admin;
        }
        self.service = wanted;
        self.layer = offer.layer.clone();
        self.configuration.clear(LAST_GOOD_ALARM);
        self.watch_components();
        self.keep_queues();
        let record = self.record(by, changes.to_vec(), &shown);
        self.remember(offer, record, shown);
        Ok(())
    }

    fn change_graph(&mut self, checked: Checked) -> Result<Offer> {
        let memory = checked.loaded.file.service.memory_limit_mib;
        let wider = self.sandbox.widen(&checked);
        if wider {
            let sockets = self.sandbox.within(Ring::Outer, Sockets::start)??;
            self.graph.set_runtime(sockets.handle.clone());
            self.sockets.push(sockets);
        }
        let (resolved, budget) = (checked.resolved, self.budget.clone());
        let change = move |graph: &mut Graph, moved: &mut bool| {
            let prepared = graph.prepare(resolved)?;
            if wider {
                graph
                    .move_shards()
                    .context("cannot start the shards again")?;
                *moved = true;
            }
            let before = budget.limit_bytes();
            budget.set_limit(budget_bytes(memory));
            graph
                .commit(prepared)
                .inspect_err(|_| budget.set_limit(before))?;
            anyhow::Ok(())
        };
        let (result, moved) = self.within(move |graph| {
            let mut moved = false;
            (change(graph, &mut moved), moved)
        })?;
        if moved {
            self.sandbox.moved();
        }
        result.map(|()| checked.offer)
    }

    /// Goes on with what a change has left to do. True while there is something.
    pub fn tick(&mut self) -> bool {
        if self.graph.has_due()
            && let Err(error) = self.within(|graph| graph.tick())
        {
            tracing::warn!(%error, "what a change has left to do is done later");
        }
        self.graph.is_changing()
    }

    /// Serves metrics at the addresses of `readers`.
    ///
    /// # Errors
    /// An address is not to be had.
    pub(super) fn serve_metrics(&self, readers: &[PullReader]) -> Result<Vec<HttpServer>> {
        readers.iter().map(|r| self.metrics_server(r)).collect()
    }

    /// Serves the admin API where `options` says.
    ///
    /// # Errors
    /// A socket, an address or the token is not to be had.
    pub(super) fn serve_admin(&self, options: Option<&AdminOptions>) -> Result<Vec<AdminServer>> {
        let Some(options) = options else {
            return Ok(Vec::new());
        };
        let api = Arc::new(Api {
            control: self.control.clone(),
            shown: self.shown.clone(),
            health: self.health.clone(),
            metrics: self.metrics.clone(),
            observe: self.observe.clone(),
            clock: self.clock.clone(),
            bodies: Default::default(),
            log: self.log.clone(),
            archives: Default::default(),
            taps: self.graph.taps().clone(),
            streams: self.streams.clone(),
        });
        let newest = &self.sockets[self.sockets.len() - 1].handle;
        admin::server::serve(options, &api, &self.listeners, newest)
    }

    fn metrics_server(&self, reader: &PullReader) -> Result<HttpServer> {
        let endpoint = format!("{}:{}", reader.host, reader.port);
        let (metrics, observe) = (self.metrics.clone(), self.observe.clone());
        let exposition = reader.exposition.clone();
        let pages = Arc::new(move |path: &str| {
            (path == "/metrics").then(|| {
                observe();
                Page {
                    status: hyper::StatusCode::OK,
                    content_type: tailwater_telemetry::metrics::CONTENT_TYPE,
                    body: metrics.render_with(&exposition),
                }
            })
        });
        let newest = &self.sockets[self.sockets.len() - 1].handle;
        serve(&endpoint, pages, &self.listeners, newest).with_context(|| {
            format!(
                "cannot listen on {endpoint} for metrics; set service::telemetry::metrics to \
                 another address, or its level to none"
            )
        })
    }
}
