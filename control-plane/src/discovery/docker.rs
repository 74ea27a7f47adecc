//! Finds containers of a Docker Engine, by its events and its list.
//!
//! First the events are listened to, then what runs is listed: what starts in between comes twice and is the
//! same. After a connection is lost, events are asked for since the last one, and everything is listed again;
//! a snapshot then ends what nobody heard the end of. A container that lives for less than a second is known
//! by its `start`: what it is and where it logs is asked for at once, and said before anything else is.

pub mod client;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use self::client::{Client, ContainerEvent, DockerError, Events, Inspected};
use super::wishes::{self, Parser, Rules, Wish};
use super::{Mode, Publisher, Stop, labels};
use crate::metrics::{Activity, Metrics};
use crate::model::{Descriptor, Format, Origin};

/// The driver whose files are read.
const DRIVER: &str = "json-file";
/// The first pause before a lost Engine is tried again; each one is twice as long as the one before.
const PAUSE_MIN: Duration = Duration::from_millis(200);
/// The longest.
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// How often it is looked whether it is time to stop.
const STOP_INTERVAL: Duration = Duration::from_millis(100);

/// Where an Engine is, and what has to be known of it before anything is started.
#[derive(Clone, Debug)]
pub struct Engine {
    /// Below this the logs of containers are.
    pub containers: PathBuf,
}

/// Asks an Engine where its logs are.
///
/// # Errors
/// It is not there, or does not say.
pub fn probe(socket: &Path) -> Result<Engine, DockerError> {
    let asked = async {
        let info = Client::connect(socket).await?.info().await?;
        let containers = Path::new(&info.docker_root_dir).join("containers");
        Ok(Engine { containers })
    };
    runtime(socket)?.block_on(asked)
}

fn runtime(socket: &Path) -> Result<tokio::runtime::Runtime, DockerError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.map_err(|error| DockerError::Connect {
        path: socket.display().to_string(),
        error,
    })
}

/// See the module's documentation.
pub struct Docker {
    socket: PathBuf,
    mode: Mode,
    rules: Rules,
    publisher: Publisher,
    metrics: Metrics,
    /// Of the newest event.
    since_ns: Option<i64>,
}

impl Docker {
    /// For the Engine at this socket, which may come and go.
    pub fn new(
        socket: PathBuf,
        mode: Mode,
        rules: Rules,
        publisher: Publisher,
        metrics: Metrics,
    ) -> Docker {
        // What came and went while nobody listened is asked for, too.
        let since_ns = publisher.newest();
        Docker {
            socket,
            mode,
            rules,
            publisher,
            metrics,
            since_ns,
        }
    }

    /// Watches until it is told to stop.
    pub fn run(mut self, stop: &Stop) {
        let runtime = match runtime(&self.socket) {
            Ok(runtime) => runtime,
            Err(error) => {
                tracing::error!(%error, activity = Activity::DockerWatch.name(), "it cannot begin");
                return;
            }
        };
        let mut pause = PAUSE_MIN;
        let mut is_lost = false;
        while !stop.is_set() {
            let stopped = async {
                while !stop.is_set() {
                    tokio::time::sleep(STOP_INTERVAL).await;
                }
            };
            let mut listed = false;
            let watched = runtime.block_on(async {
                tokio::select! {
                    ended = self.watch(&mut listed) => Some(ended),
                    () = stopped => None,
                }
            });
            let Some(ended) = watched else { return };
            if listed {
                (pause, is_lost) = (PAUSE_MIN, false);
            }
            let reason = match ended {
                Ok(()) => "the Docker Engine ended the stream of events".to_owned(),
                Err(error) => error.to_string(),
            };
            if !is_lost {
                is_lost = true;
                self.metrics.failed(Activity::DockerWatch);
                tracing::warn!(
                    activity = Activity::DockerWatch.name(),
                    "{reason}; it is tried again until it is there"
                );
            }
            stop.wait(pause);
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// One connection: until it ends, or something goes wrong.
    async fn watch(&mut self, listed: &mut bool) -> Result<(), DockerError> {
        let client = Client::connect(&self.socket).await?;
        let begin = self.publisher.generation();
        let mut events = match self.mode.listens() {
            true => Some(client.events(self.since_ns).await?),
            false => None,
        };
        // If this connection breaks before there was an event, the next one goes on here.
        self.since_ns.get_or_insert(begin);
        self.list(&client).await?;
        *listed = true;
        self.metrics.did(Activity::DockerWatch);
        tracing::info!(
            activity = Activity::DockerWatch.name(),
            "the Docker Engine is watched"
        );
        let mut next_list = self.mode.poll_interval().map(|i| Instant::now() + i);
        loop {
            tokio::select! {
                event = next(&mut events) => match event? {
                    Some(event) => self.event(&client, event).await?,
                    None => return Ok(()),
                },
                () = until(next_list) => {
                    self.list(&client).await?;
                    next_list = self.mode.poll_interval().map(|i| Instant::now() + i);
                }
            }
        }
    }

    /// All that runs, each as it is found, and then that these are all.
    async fn list(&mut self, client: &Client) -> Result<(), DockerError> {
        // Before it is asked: what ends meanwhile is newer.
        let generation = self.publisher.generation();
        let mut ids = Vec::new();
        for container in client.list().await? {
            if let Some(found) = client.inspect(&container.id).await? {
                let key = format!("docker/{}/{generation}/listed", container.id);
                if self.present(&key, generation, &found) {
                    ids.push(id(&container.id));
                }
            }
        }
        self.publisher.snapshot(generation, ids);
        Ok(())
    }

    async fn event(&mut self, client: &Client, event: ContainerEvent) -> Result<(), DockerError> {
        let ContainerEvent {
            action,
            actor,
            time_ns,
        } = event;
        let key = format!("docker/{}/{time_ns}/{action}", actor.id);
        match &*action {
            "start" => match client.inspect(&actor.id).await? {
                Some(found) => {
                    self.present(&key, time_ns, &found);
                }
                // It is not known what it was.
                None => {
                    let reason = "it was gone before it could be asked for".to_owned();
                    self.publisher.unreadable(id(&actor.id), reason);
                }
            },
            "die" | "destroy" => self.publisher.absent(&key, time_ns, id(&actor.id)),
            _ => {}
        }
        // Not sooner: what was not said is heard again.
        self.since_ns = Some(time_ns);
        Ok(())
    }

    /// Says what there is to say of it; false if it is left alone.
    fn present(&mut self, key: &str, generation: i64, found: &Inspected) -> bool {
        let none = BTreeMap::new();
        let own = found.config.labels.as_ref().unwrap_or(&none);
        let described = match wishes::read(own, None, &self.rules) {
            Ok(None) => return false,
            Ok(Some(wish)) => descriptor(found, own, wish),
            Err(reason) => Err(reason),
        };
        match described {
            Ok((source, unheeded)) => {
                if let Some(reason) = unheeded {
                    self.publisher.unheeded(source.id.clone(), reason);
                }
                self.publisher.present(key, generation, source);
            }
            Err(reason) => self.publisher.unreadable(id(&found.id), reason),
        }
        true
    }
}

/// What is tailed of a container, and what it asked for in vain; or why nothing is.
fn descriptor(
    found: &Inspected,
    own: &BTreeMap<String, String>,
    wish: Wish,
) -> Result<(Descriptor, Option<String>), String> {
    let driver = &found.host_config.log_config.driver;
    if driver != DRIVER {
        return Err(format!(
            "its logging driver is {driver:?}, which has no file that can be read; {DRIVER:?} has"
        ));
    }
    if found.log_path.is_empty() {
        return Err("the Docker Engine does not say where its log is".to_owned());
    }
    let mut labels = labels::of_container(&found.name, &found.config.image, own);
    labels.extend(wish.tenant.map(|t| (labels::TENANT.to_owned(), t)));
    let source = Descriptor {
        id: id(&found.id),
        origin: Origin::Docker,
        paths: vec![found.log_path.clone()],
        format: match wish.parser {
            Parser::None => Format::Docker,
            Parser::Json => Format::ContainerJson,
            Parser::Logfmt => Format::ContainerLogfmt,
        },
        labels,
    };
    Ok((source, wish.unheeded))
}

fn id(container: &str) -> String {
    format!("docker:{container}")
}

/// The next event; never without a stream.
async fn next(events: &mut Option<Events>) -> Result<Option<ContainerEvent>, DockerError> {
    match events {
        Some(events) => events.next().await,
        None => std::future::pending().await,
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
